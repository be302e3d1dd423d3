//! What came of the rounds.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::super::part::{Part, distinct};
use super::super::readings::Readings;
use super::{Round, Trial};
use crate::cpu::Work;
use crate::statistics::Summary;

const SECTION: &str = "Real sockets";

/// A peer's figures over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    peer: String,
    /// Short connections a second.
    connections: Option<Summary>,
    /// Short connections that failed, of all rounds.
    failed: u64,
    /// Bits of answers a second.
    bits: Option<Summary>,
    /// What each CPU did with short connections in the last round.
    short: Vec<Work>,
    /// What each CPU did with streams in the last round.
    bulk: Vec<Work>,
}

/// Adds the figures of all rounds.
pub(super) fn add(rounds: &[Round], readings: &mut Readings) {
    for Round { peer, short, bulk } in rounds {
        let (rate, bits) = (short.tally.rate(), bulk.tally.bits());
        let name = |what: &str| format!("{what} of sockets: {peer}");
        readings.add(SECTION, name("short connections"), "a second", rate);
        readings.add(SECTION, name("streams"), "Gbit/s", bits / 1e9);
    }
}

/// One line for people.
pub(super) fn line(round: &Round) -> String {
    let (short, bulk) = (&round.short, &round.bulk);
    format!(
        "{:<42} {:>8.0} connections a second, {} failed; {:.3} Gbit/s; busy {} / {}",
        round.peer,
        short.tally.rate(),
        short.tally.failed,
        bulk.tally.bits() / 1e9,
        busy(&short.cpus),
        busy(&bulk.cpus)
    )
}

/// How busy each CPU was.
fn busy(cpus: &[Work]) -> String {
    let each: Vec<String> = cpus
        .iter()
        .map(|work| format!("{:.0} %", work.busy * 100.0))
        .collect();
    each.join(", ")
}

/// Sums rounds up.
pub(super) fn part(rounds: &[Round], failed: u32) -> Part {
    let peers = distinct(rounds, |round| round.peer.clone());
    let rows: Vec<Row> = peers.into_iter().map(|peer| row(rounds, peer)).collect();
    Part {
        name: "Real sockets",
        table: table(&rows),
        data: json!({ "summaries": rows, "rounds": rounds }),
        failed,
    }
}

fn row(rounds: &[Round], peer: String) -> Row {
    let own: Vec<&Round> = rounds.iter().filter(|round| round.peer == peer).collect();
    let summary = |pick: &dyn Fn(&Round) -> f64| {
        let values: Vec<f64> = own.iter().map(|round| pick(round)).collect();
        Summary::of(&values)
    };
    let last = |pick: &dyn Fn(&Round) -> &Trial| own.last().map(|round| pick(round).cpus.clone());
    Row {
        connections: summary(&|round| round.short.tally.rate()),
        failed: own.iter().map(|round| round.short.tally.failed).sum(),
        bits: summary(&|round| round.bulk.tally.bits()),
        short: last(&|round| &round.short).unwrap_or_default(),
        bulk: last(&|round| &round.bulk).unwrap_or_default(),
        peer,
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "Through one Service: short connections (opened, asked for 64 bytes, answered, \
         closed by both sides) and streams. Client, server and their NAPI on CPU 0; the peer on CPU 1. \
         The gateway receives on CPU 1 for proxies and what is called threaded (by RPS), on CPU 0 for \
         the others. Where CPU 0 is busy, the ends are the limit. Segmentation and checksum offloads \
         are off everywhere.\n\n\
         | peer | connections a second (quartiles) | failed | Gbit/s (quartiles) | busy, CPU by CPU: connections | streams |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let written = |summary: Option<Summary>, unit: f64, digits: usize| {
            summary.map_or("none".to_owned(), |summary| {
                let Summary { q1, median, q3, .. } = summary.map(|value| value / unit);
                format!("{median:.digits$} ({q1:.digits$} to {q3:.digits$})")
            })
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.peer,
            written(row.connections, 1.0, 0),
            row.failed,
            written(row.bits, 1e9, 3),
            busy(&row.short),
            busy(&row.bulk)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Tally;
    use super::*;

    fn round(peer: &str, done: u64, bytes: u64) -> Round {
        let trial = |done, bytes| Trial {
            tally: Tally {
                done,
                failed: 1,
                bytes,
                seconds: 2.0,
            },
            cpus: Vec::new(),
        };
        Round {
            peer: peer.to_owned(),
            short: trial(done, 0),
            bulk: trial(0, bytes),
        }
    }

    #[test]
    fn medians_stand_beside_what_failed_in_all_rounds() {
        let rounds = [
            round("a", 100, 1 << 30),
            round("b", 10, 0),
            round("a", 300, 1 << 30),
            round("a", 200, 1 << 30),
        ];
        let mut readings = Readings::default();
        add(&rounds, &mut readings);
        let short = readings.of("short connections of sockets: a");
        assert_eq!(short, [50.0, 150.0, 100.0]);
        let part = part(&rounds, 2);
        assert_eq!(part.failed, 2);
        let first = &part.data["summaries"][0];
        assert_eq!(first["connections"]["median"], 100.0);
        assert_eq!(first["failed"], 3);
        assert!(
            part.table.contains("| a | 100 (75 to 125) | 3 | 4.295 ("),
            "{}",
            part.table
        );
        assert!(part.table.contains("| b | 5 (5 to 5) | 1 |"));
    }
}
