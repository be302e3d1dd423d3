//! Counts of requests and of who answered them.

use std::collections::BTreeMap;
use std::fmt;

use sluice_tests::traffic::Report;

/// All requests of the demo.
#[derive(Debug, Default)]
pub struct Tally {
    requests: u64,
    failed: u64,
    by_backend: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds what became of some requests.
    pub fn add(&mut self, report: &Report) {
        self.requests += report.ok + report.failed;
        self.failed += report.failed;
        for (backend, count) in &report.by_body {
            *self.by_backend.entry(backend.clone()).or_default() += count;
        }
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, failed) = (self.requests, self.failed);
        let backends = self.by_backend.len();
        write!(
            f,
            "demo: {requests} requests, {backends} backends, {failed} failed"
        )
    }
}

/// The heading of a table with a column for each backend.
pub fn heading(backends: &[&str]) -> String {
    let columns: String = backends.iter().map(|name| format!("{name:>12}")).collect();
    format!("   {:<20}{columns}{:>12}", "through", "failed")
}

/// A row of that table.
pub fn row(through: &str, backends: &[&str], report: &Report) -> String {
    let count = |name: &&str| report.by_body.get(*name).copied().unwrap_or_default();
    let columns: String = backends
        .iter()
        .map(|name| format!("{:>12}", count(name)))
        .collect();
    format!("   {through:<20}{columns}{:>12}", report.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_heading_and_add_up_to_the_last_line() {
        let report = Report {
            ok: 5,
            failed: 1,
            by_body: BTreeMap::from([("backend-1".to_owned(), 3), ("backend-2".to_owned(), 2)]),
            ..Report::default()
        };
        let backends = ["backend-1", "backend-2", "backend-3"];
        assert_eq!(
            heading(&backends),
            "   through                backend-1   backend-2   backend-3      failed"
        );
        assert_eq!(
            row("203.0.113.10:80", &backends, &report),
            "   203.0.113.10:80                3           2           0           1"
        );
        let mut tally = Tally::default();
        tally.add(&report);
        tally.add(&report);
        assert_eq!(tally.to_string(), "demo: 12 requests, 2 backends, 2 failed");
    }
}
