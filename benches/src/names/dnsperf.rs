//! One run of dnsperf, and what it tells.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::netns::Netns;
use sluice_tests::process;

/// Beside the time of the run.
const PATIENCE: Duration = Duration::from_secs(20);

/// Questions to a server.
pub struct Load<'a> {
    /// The server.
    pub to: SocketAddr,
    /// File with one question a line.
    pub questions: &'a Path,
    /// How long.
    pub length: Duration,
    /// So many a second; without, as many as are answered.
    pub rate: Option<u32>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Answers a second.
    pub rate: f64,
    /// Mean time to an answer, in microseconds.
    pub latency_us: f64,
    /// Questions without an answer, of a hundred.
    pub lost_percent: f64,
}

impl Load<'_> {
    /// Asks from a namespace, on CPU 1.
    ///
    /// # Errors
    /// dnsperf is missing, or fails.
    pub fn run(&self, namespace: &Netns) -> Result<Outcome> {
        let mut command = namespace.command("taskset");
        command.args(["-c", "1", "dnsperf", "-T", "1", "-c", "4", "-q", "200"]);
        command.args([
            "-s",
            &self.to.ip().to_string(),
            "-p",
            &self.to.port().to_string(),
        ]);
        command.arg("-d").arg(self.questions);
        command.args(["-l", &self.length.as_secs().max(1).to_string()]);
        if let Some(rate) = self.rate {
            command.args(["-Q", &rate.to_string()]);
        }
        let told = process::run(&mut command, "", self.length + PATIENCE)?.success()?;
        let outcome = read(&told.stdout).with_context(|| told.stdout.clone())?;
        ensure!(outcome.lost_percent < 50.0, "{}: {}", self.to, told.stdout);
        Ok(outcome)
    }
}

fn read(text: &str) -> Option<Outcome> {
    let behind = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim)
    };
    let number = |words: &str| words.split_whitespace().next()?.parse::<f64>().ok();
    let lost = behind("Queries lost:")?.split_once('(')?.1;
    Some(Outcome {
        rate: number(behind("Queries per second:")?)?,
        latency_us: 1e6 * number(behind("Average Latency (s):")?)?,
        lost_percent: lost.split_once('%')?.0.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dnsperf_tells_is_read() {
        let text = "Statistics:\n\n  Queries sent:         50000\n  Queries completed:    49999 (100.00%)\n  \
                    Queries lost:         1 (0.25%)\n\n  Response codes:       NOERROR 49999 (100.00%)\n  \
                    Queries per second:   98765.500000\n\n  \
                    Average Latency (s):  0.001500 (min 0.000010, max 0.020000)\n";
        let outcome = read(text).unwrap();
        assert_eq!(outcome.rate, 98_765.5);
        assert!((outcome.latency_us - 1500.0).abs() < 1e-6);
        assert_eq!(outcome.lost_percent, 0.25);
        assert_eq!(read("nothing"), None);
    }
}
