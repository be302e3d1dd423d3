//! How a figure is taken: cost of one item, from batches of which only one part is timed.
//!
//! A batch is prepared with the clock off and worked on with the clock on. Two readings of the
//! clock cost about 50 ns, which [`BATCH`] items share; Criterion does the reading and the
//! statistics.

use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{Bencher, Criterion, Throughput};
use sluice_dataplane::pipeline::MAX_BURST;

/// Items between two readings of the clock: four full bursts.
pub const BATCH: usize = 4 * MAX_BURST;

/// Criterion as all benchmarks here use it: some two seconds for each figure, text only.
///
/// A run is compared with another one only when asked to: after `-- --save-baseline before` all
/// later runs say what has changed since. Two runs of a shared machine differ by tens of percent
/// for no reason of ours.
pub fn criterion() -> Criterion {
    let criterion = Criterion::default()
        .without_plots()
        .sample_size(30)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        // Less than this is not told apart from the noise of a shared machine.
        .noise_threshold(0.05)
        .configure_from_args();
    // Criterion's own default compares every run with the last one.
    if std::env::args().any(|argument| argument.contains("baseline")) {
        return criterion;
    }
    criterion.retain_baseline("before".into(), false)
}

/// Says what the figures that follow are of. Silent when the benchmarks are only listed or tried.
pub fn title(text: &str) {
    if std::env::args().any(|argument| argument == "--bench") {
        println!("{text}\n");
    }
}

/// Measures the cost of one item: `timed` works on [`BATCH`] items, `prepare` makes them ready
/// with the clock off.
pub fn items<S>(
    bencher: &mut Bencher<'_>,
    state: &mut S,
    mut prepare: impl FnMut(&mut S),
    mut timed: impl FnMut(&mut S),
) {
    bencher.iter_custom(|wanted| {
        let batches = wanted.div_ceil(BATCH as u64);
        let mut total = Duration::ZERO;
        for _ in 0..batches {
            prepare(state);
            let start = WallTime.start();
            timed(state);
            total += WallTime.end(start);
        }
        total.mul_f64(wanted as f64 / (batches * BATCH as u64) as f64)
    });
}

/// One item an iteration: Criterion then prints items a second beside the time of one.
pub const ONE: Throughput = Throughput::Elements(1);
