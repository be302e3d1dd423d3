//! What came of all rounds and scenarios: figures, goals; as JSON, as a table, as charts.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use super::figures;
use super::measure::{Case, LOADS, Round};
use super::part::Part;
use super::peer::Peer;
use super::readings::Readings;
use crate::calibration;
use crate::cpu::Work;
use crate::harness::Stopwatch;
use crate::plot;
use crate::report::goals::WIRE;
use crate::report::{Machine, Report};
use crate::sink::Histogram;
use crate::statistics::Summary;
use crate::trial::{Latency, Outcome};

/// A peer's figures over all rounds of a case.
#[derive(Debug, Serialize)]
struct Row {
    case: Case,
    peer: &'static str,
    /// Packets a second with hardly any loss.
    throughput: Option<Summary>,
    /// Medians at [`LOADS`], ns.
    latency: Vec<Latency>,
    /// What each CPU did at the highest of [`LOADS`] in the last round.
    cpus: Vec<Work>,
}

/// What the whole run was.
pub struct Run<'a> {
    /// Rounds of throughput.
    pub rounds: &'a [Round],
    /// Their cases.
    pub cases: &'a [Case],
    /// Their peers.
    pub peers: &'a [Peer],
    /// What else was measured, with tables of its own.
    pub parts: &'a [Part],
    /// What all but the rounds read.
    pub readings: Readings,
    /// Frames and flows.
    pub traffic: String,
}

const PLACEMENT: &str = "generator and the gateway's receiving NAPI on CPU 0 (threaded: \
    receiving NAPI on CPU 1; busy polling: all NAPI on CPU 1), peer and the sink's NAPI on CPU 1; \
    soft interrupts of every trial stand in `cpus`";

/// Readings of each figure of the calibration.
const CALIBRATIONS: usize = 7;

impl Run<'_> {
    /// Writes `report-wire.json`, `report-wire.md`, the report of all parts, and two charts for each
    /// case.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(mut self, folder: &Path) -> Result<()> {
        figures::add(self.rounds, self.cases, &mut self.readings);
        let mut report = Report::new(Machine::here(), WIRE);
        calibration::run(Stopwatch::default(), CALIBRATIONS, &mut report);
        self.readings.tell(&mut report);
        let rows = self.rows();
        let more = [
            ("placement", json!(PLACEMENT)),
            ("traffic", json!(self.traffic)),
            ("summaries", json!(rows)),
            ("rounds", json!(self.rounds)),
            ("parts", json!(self.parts)),
        ];
        let more = more.into_iter().map(|(key, value)| (key.to_owned(), value));
        let mut text = format!(
            "\n## Peers\n\nTraffic: {}  \nNAPI: {PLACEMENT}\n\n{}",
            self.traffic,
            table(&rows)
        );
        for Part { name, table, .. } in self.parts {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n## {name}\n\n{table}");
        }
        report.write(folder, "wire", more.collect(), &text)?;
        self.charts(folder)
    }

    fn rows(&self) -> Vec<Row> {
        let peers = |case| self.peers.iter().map(move |peer| (case, *peer));
        let pairs = self.cases.iter().flat_map(|case| peers(*case));
        let rows = pairs.map(|(case, peer)| row(&rounds_of(self.rounds, case, peer), case, peer));
        rows.collect()
    }

    fn charts(&self, folder: &Path) -> Result<()> {
        for case in self.cases {
            let of = |peer: &Peer| (peer.name().to_owned(), rounds_of(self.rounds, *case, *peer));
            let peers: Vec<(String, Vec<&Round>)> = self.peers.iter().map(of).collect();
            let losses: Vec<(String, Vec<&Outcome>)> = peers
                .iter()
                .map(|(name, rounds)| {
                    let trials = rounds.iter().flat_map(|round| &round.search);
                    (name.clone(), trials.collect())
                })
                .collect();
            let half: Vec<(String, &Histogram)> = peers
                .iter()
                .filter_map(|(name, rounds)| {
                    let trial = rounds.last()?.latency.get(1)?;
                    Some((name.clone(), &trial.tallies.first()?.latency))
                })
                .collect();
            let (name, file) = (
                case.name(),
                case.name().replace(", ", "-").replace(' ', "-"),
            );
            if losses.iter().any(|(_, trials)| !trials.is_empty()) {
                let chart = plot::loss(&format!("Loss against offered rate: {name}"), &losses)?;
                write(folder, &format!("wire-loss-{file}.svg"), &chart)?;
            }
            if !half.is_empty() {
                let chart = plot::latency(&format!("Latency at half load: {name}"), &half)?;
                write(folder, &format!("wire-latency-{file}.svg"), &chart)?;
            }
        }
        Ok(())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// The table for people, in Markdown.
fn table(rows: &[Row]) -> String {
    let mut text = "| case | peer | Mpps at the loss allowed (quartiles) |".to_owned();
    for load in LOADS {
        let _ = write!(text, " p50 / p99 / p99.9 µs at {:.0} % |", load * 100.0);
    }
    text += " busy, soft interrupts, CPU by CPU |\n|---|---|---|---|---|---|---|\n";
    for row in rows {
        let throughput = row.throughput.map_or("none".into(), |spread| {
            let [q1, median, q3] = [spread.q1, spread.median, spread.q3].map(|rate| rate / 1e6);
            format!("{median:.3} ({q1:.3} to {q3:.3})")
        });
        let _ = write!(
            text,
            "| {} | {} | {throughput} |",
            row.case.name(),
            row.peer
        );
        for place in 0..LOADS.len() {
            let latency = row.latency.get(place).copied().unwrap_or_default();
            let [p50, p99, p999] =
                [latency.p50, latency.p99, latency.p999].map(|nanos| nanos as f64 / 1e3);
            let _ = write!(text, " {p50:.0} / {p99:.0} / {p999:.0} |");
        }
        let work = |work: &Work| {
            format!(
                "{:.0} % busy, {:.0} % soft, {} NET_RX",
                work.busy * 100.0,
                work.softirq * 100.0,
                work.receives
            )
        };
        let cpus: Vec<String> = row.cpus.iter().map(work).collect();
        let _ = writeln!(text, " {} |", cpus.join("; "));
    }
    text
}

fn rounds_of(rounds: &[Round], case: Case, peer: Peer) -> Vec<&Round> {
    let all = rounds.iter();
    all.filter(|round| round.peer == peer.name() && round.case == case)
        .collect()
}

fn row(rounds: &[&Round], case: Case, peer: Peer) -> Row {
    let median = |place: usize, pick: &dyn Fn(&Latency) -> u64| {
        let values = rounds.iter().filter_map(|round| round.latency.get(place));
        let values: Vec<f64> = values.map(|trial| pick(&trial.latency) as f64).collect();
        Summary::of(&values).map_or(0, |spread| spread.median as u64)
    };
    let latency = (0..LOADS.len()).map(|place| Latency {
        average: median(place, &|latency| latency.average),
        p50: median(place, &|latency| latency.p50),
        p90: median(place, &|latency| latency.p90),
        p99: median(place, &|latency| latency.p99),
        p999: median(place, &|latency| latency.p999),
        max: median(place, &|latency| latency.max),
    });
    let rates = rounds.iter().filter_map(|round| round.throughput);
    let rates: Vec<f64> = rates.map(|rate| rate.0).collect();
    let last = rounds.last().and_then(|round| round.latency.last());
    Row {
        case,
        peer: peer.name(),
        throughput: Summary::of(&rates),
        latency: latency.collect(),
        cpus: last.map(|trial| trial.cpus.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::plan::Script;
    use crate::rate::Rate;

    #[test]
    fn a_run_writes_its_own_report_the_report_of_all_parts_and_nothing_of_what_it_has_not() {
        let case = Case {
            script: Script::Data,
            services: 1,
        };
        let round = |peer: Peer, rate| Round {
            peer: peer.name().to_owned(),
            round: 0,
            case,
            throughput: Some(Rate(rate)),
            search: Vec::new(),
            latency: Vec::new(),
        };
        let rounds = [round(Peer::Bare, 2e6), round(Peer::Sluice, 1.8e6)];
        let folder = tempfile::tempdir().unwrap();
        let run = Run {
            rounds: &rounds,
            cases: &[case],
            peers: &[Peer::Bare, Peer::Sluice, Peer::Nftables],
            parts: &[Part {
                name: "Others",
                table: "| of their own |\n".into(),
                data: json!([7]),
                failed: 0,
            }],
            readings: Readings::default(),
            traffic: "small frames".into(),
        };
        run.write(folder.path()).unwrap();
        let text = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        let own: serde_json::Value = serde_json::from_str(&text("report-wire.json")).unwrap();
        assert_eq!(own["G6"]["value"], 0.9);
        assert_eq!(own["summaries"].as_array().unwrap().len(), 3);
        assert_eq!(own["traffic"], "small frames");
        assert_eq!(own["parts"][0]["data"][0], 7);
        let circles = own["figures"].as_object().unwrap().keys();
        assert_eq!(
            circles
                .filter(|name| name.starts_with("pointer chase"))
                .count(),
            3
        );
        let all: serde_json::Value = serde_json::from_str(&text("report.json")).unwrap();
        assert_eq!(
            (&all["G6"]["value"], &all["G7"]["value"]),
            (&json!(0.9), &json!(null))
        );
        let table = text("report-wire.md");
        assert!(
            table.contains("| datagrams, 1 Services | Sluice | 1.800 (1.800 to 1.800) |"),
            "{table}"
        );
        assert!(table.contains("## Others\n\n| of their own |"), "{table}");
        assert!(
            table.contains("nftables, as kube-proxy | none |"),
            "{table}"
        );
        assert!(
            !folder
                .path()
                .join("wire-loss-datagrams-1-Services.svg")
                .exists()
        );
    }
}
