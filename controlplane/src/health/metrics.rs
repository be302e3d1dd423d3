//! Metrics of probing.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::failure::{Failure, Outcome};

const PROBES: &str = "sluice_controlplane_probes_total";
const IN_FLIGHT: &str = "sluice_controlplane_probes_in_flight";
const LATE: &str = "sluice_controlplane_probes_late_total";
/// Name of the histogram of probe durations.
pub const PROBE_SECONDS: &str = "sluice_controlplane_probe_duration_seconds";

/// Bounds of the probe duration, in seconds; a probe may take a second unless it says otherwise.
pub const PROBE_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_counter!(
        PROBES,
        "Health probes that ended, by kind and result; unsent ones say nothing about a backend"
    );
    describe_gauge!(IN_FLIGHT, "Health probes in flight");
    describe_counter!(
        LATE,
        "Health probes that started late because too many others were in flight"
    );
    describe_histogram!(PROBE_SECONDS, "Seconds that health probes took, by kind");
    counter!(LATE).absolute(0);
    gauge!(IN_FLIGHT).set(0.0);
}

pub(super) fn ended(kind: &'static str, outcome: &Outcome, took: Duration) {
    let result = match outcome {
        Ok(()) => "passed",
        Err(Failure::Ours(_)) => "unsent",
        Err(_) => "failed",
    };
    counter!(PROBES, "kind" => kind, "result" => result).increment(1);
    histogram!(PROBE_SECONDS, "kind" => kind).record(took.as_secs_f64());
}

pub(super) fn late() {
    counter!(LATE).increment(1);
}

pub(super) fn in_flight(count: usize) {
    gauge!(IN_FLIGHT).set(count as f64);
}
