//! Names of the metrics and the endpoint that serves them.

use std::net::SocketAddr;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use sluice_conf::Generation;

use crate::compile::WithoutLocal;
use crate::dns::metrics as naming;
use crate::health::metrics as probing;
use crate::object::Kind;
use crate::words;

const GENERATION: &str = "sluice_controlplane_generation";
const PINNED: &str = "sluice_controlplane_pinned";
const SERVICES: &str = "sluice_controlplane_services";
const SLICES: &str = "sluice_controlplane_endpoint_slices";
const PROBLEMS: &str = "sluice_controlplane_problems";
const WITHOUT_LOCAL: &str = "sluice_controlplane_service_ports_without_local_endpoints";
const RELOADS: &str = "sluice_controlplane_manifest_reloads_total";
const PUSHES: &str = "sluice_controlplane_pushes_total";
const PUSH_SECONDS: &str = "sluice_controlplane_push_duration_seconds";
const CONNECTED: &str = "sluice_controlplane_dataplane_connected";
const KUBERNETES_CONNECTED: &str = "sluice_controlplane_kubernetes_connected";
const KUBERNETES_LEADS: &str = "sluice_controlplane_kubernetes_leads";
const KUBERNETES_OBJECTS: &str = "sluice_controlplane_kubernetes_objects";
const KUBERNETES_LISTS: &str = "sluice_controlplane_kubernetes_lists_total";
const KUBERNETES_EVENTS: &str = "sluice_controlplane_kubernetes_events_total";
const KUBERNETES_WRITES: &str = "sluice_controlplane_kubernetes_writes_total";

/// Bounds of the push duration, in seconds; a change should be through in 0.1.
const PUSH_BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics.listen {listen}: {reason}")]
pub struct MetricsError {
    listen: SocketAddr,
    reason: String,
}

/// Serves Prometheus text at `listen`; needs a tokio runtime.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(listen: SocketAddr) -> Result<(), MetricsError> {
    let cannot = |reason: String| MetricsError { listen, reason };
    let probes = Matcher::Full(probing::PROBE_SECONDS.to_owned());
    let names = Matcher::Full(naming::SECONDS.to_owned());
    PrometheusBuilder::new()
        .with_http_listener(listen)
        .set_buckets_for_metric(Matcher::Full(PUSH_SECONDS.to_owned()), &PUSH_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(probes, &probing::PROBE_BUCKETS))
        .and_then(|builder| builder.set_buckets_for_metric(names, &naming::BUCKETS))
        .and_then(PrometheusBuilder::install)
        .map_err(|error| cannot(words::plain(&error)))?;
    describe();
    probing::describe();
    naming::describe();
    Ok(())
}

fn describe() {
    describe_gauge!(GENERATION, "Generation of the newest service table");
    describe_gauge!(
        PINNED,
        "1 while a past table is in force and follows no change, else 0"
    );
    describe_gauge!(SERVICES, "Services in use");
    describe_gauge!(SLICES, "EndpointSlices in use");
    describe_gauge!(
        PROBLEMS,
        "Problems with manifests, as sluicectl status lists them"
    );
    describe_gauge!(
        WITHOUT_LOCAL,
        "Service ports whose traffic policy is Local and whose endpoints are all elsewhere"
    );
    describe_counter!(
        RELOADS,
        "Times that changed manifests were read and compiled"
    );
    describe_counter!(PUSHES, "Tables sent to the dataplane, by result");
    describe_histogram!(
        PUSH_SECONDS,
        "Seconds from sending a table to the dataplane's answer"
    );
    describe_gauge!(CONNECTED, "1 while the dataplane is connected, else 0");
    describe_gauge!(
        KUBERNETES_CONNECTED,
        "1 while every kind of the Kubernetes API is being watched, else 0"
    );
    describe_gauge!(
        KUBERNETES_LEADS,
        "1 while this gateway gives addresses and writes status, else 0"
    );
    describe_gauge!(
        KUBERNETES_OBJECTS,
        "Objects read from the Kubernetes API, by kind"
    );
    describe_counter!(
        KUBERNETES_LISTS,
        "Complete lists of the Kubernetes API, by kind; the first one included"
    );
    describe_counter!(
        KUBERNETES_EVENTS,
        "Changes that the Kubernetes API told, by kind"
    );
    describe_counter!(
        KUBERNETES_WRITES,
        "Writes to the Kubernetes API: status, event, or failed"
    );
    for result in ["applied", "rejected", "failed"] {
        counter!(PUSHES, "result" => result).absolute(0);
    }
    gauge!(CONNECTED).set(0.0);
}

pub(crate) fn generation(generation: Generation) {
    gauge!(GENERATION).set(generation.0 as f64);
}

pub(crate) fn pinned(pinned: bool) {
    gauge!(PINNED).set(f64::from(u8::from(pinned)));
}

pub(crate) fn objects(services: usize, slices: usize, problems: usize) {
    gauge!(SERVICES).set(services as f64);
    gauge!(SLICES).set(slices as f64);
    gauge!(PROBLEMS).set(problems as f64);
}

pub(crate) fn without_local(count: WithoutLocal) {
    for (policy, count) in [("internal", count.internal), ("external", count.external)] {
        gauge!(WITHOUT_LOCAL, "policy" => policy).set(count as f64);
    }
}

pub(crate) fn reloaded() {
    counter!(RELOADS).increment(1);
}

pub(crate) fn pushed(result: &'static str, duration: Duration) {
    counter!(PUSHES, "result" => result).increment(1);
    histogram!(PUSH_SECONDS).record(duration.as_secs_f64());
}

pub(crate) fn connected(connected: bool) {
    gauge!(CONNECTED).set(if connected { 1.0 } else { 0.0 });
}

pub(crate) fn kubernetes(connected: bool, leads: bool) {
    gauge!(KUBERNETES_CONNECTED).set(f64::from(u8::from(connected)));
    gauge!(KUBERNETES_LEADS).set(f64::from(u8::from(leads)));
}

/// Objects of a kind are more, or fewer.
pub(crate) fn kubernetes_objects(kind: Kind, more: f64) {
    gauge!(KUBERNETES_OBJECTS, "kind" => kind.as_str()).increment(more);
}

pub(crate) fn kubernetes_listed(kind: Kind) {
    counter!(KUBERNETES_LISTS, "kind" => kind.as_str()).increment(1);
}

pub(crate) fn kubernetes_event(kind: Kind) {
    counter!(KUBERNETES_EVENTS, "kind" => kind.as_str()).increment(1);
}

/// What was written: `status`, `event`, or nothing because it `failed`.
pub(crate) fn wrote(what: &'static str) {
    counter!(KUBERNETES_WRITES, "what" => what).increment(1);
}
