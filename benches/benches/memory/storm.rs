//! An expiry storm: every connection of both families is due in one second.
//!
//! Timed: each call of `Engine::tidy`, as a worker makes one between two bursts; no packets come
//! meanwhile. The longest call is what a packet may have to wait for, and what a shared machine
//! disturbs most: an interrupt or another process falls into some call.

use sluice_benches::report::Report;
use sluice_benches::statistics::{quantile, sorted};

use crate::stock::{Stock, policy};
use crate::{Measure, short};

/// Parts of all calls that are faster than the figure.
const QUANTILES: [(&str, f64); 4] = [
    ("p50", 0.5),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("longest", 1.0),
];

/// Has the gateways with many connections forget them; they are empty afterwards.
///
/// # Errors
/// When connections do not expire.
pub fn run(measure: Measure, stocks: &mut [Stock], report: &mut Report) -> anyhow::Result<()> {
    report.section("Expiry storm: all connections time out at once");
    for stock in stocks.iter_mut().filter(|stock| stock.count >= 100_000) {
        let connections = stock.lane.engine().connections() as f64;
        let calls = stock.lane.forget_all(measure.watch)?;
        let all: f64 = calls.iter().sum();
        let name = format!("2 x {} {}", short(stock.count), policy(stock.source_nat));
        report.add(format!("{name}: all"), "ms", &[all / 1e6]);
        report.add(format!("{name}: a connection"), "ns", &[all / connections]);
        let calls = sorted(&calls);
        for (label, share) in QUANTILES {
            let readings: Vec<f64> = quantile(&calls, share)
                .into_iter()
                .map(|ns| ns / 1e3)
                .collect();
            report.add(format!("{name}: call of tidy, {label}"), "us", &readings);
        }
    }
    Ok(())
}
