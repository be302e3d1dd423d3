//! What came of the rounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::super::part::{Part, distinct};
use super::super::report::Spread;
use super::{Round, Trial};
use crate::cpu::Work;

/// A peer's figures over all rounds.
#[derive(Debug, Serialize)]
struct Summary {
    peer: String,
    /// Short connections a second.
    connections: Option<Spread>,
    /// Short connections that failed, of all rounds.
    failed: u64,
    /// Bits of answers a second.
    bits: Option<Spread>,
    /// What each CPU did with short connections in the last round.
    short: Vec<Work>,
    /// What each CPU did with streams in the last round.
    bulk: Vec<Work>,
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
///
/// # Errors
/// They cannot be written as JSON.
pub(super) fn part(rounds: &[Round], failed: u32) -> Result<Part> {
    let peers = distinct(rounds, |round| round.peer.clone());
    let summaries: Vec<Summary> = peers
        .into_iter()
        .map(|peer| summary(rounds, peer))
        .collect();
    Ok(Part {
        name: "sockets",
        table: table(&summaries),
        goals: BTreeMap::new(),
        data: json!({ "summaries": summaries, "rounds": rounds }),
        failed,
    })
}

fn summary(rounds: &[Round], peer: String) -> Summary {
    let own: Vec<&Round> = rounds.iter().filter(|round| round.peer == peer).collect();
    let spread =
        |pick: &dyn Fn(&Round) -> f64| Spread::of(own.iter().map(|round| pick(round)).collect());
    let last = |pick: &dyn Fn(&Round) -> &Trial| own.last().map(|round| pick(round).cpus.clone());
    Summary {
        connections: spread(&|round| round.short.tally.rate()),
        failed: own.iter().map(|round| round.short.tally.failed).sum(),
        bits: spread(&|round| round.bulk.tally.bits()),
        short: last(&|round| &round.short).unwrap_or_default(),
        bulk: last(&|round| &round.bulk).unwrap_or_default(),
        peer,
    }
}

fn table(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "Real sockets through one Service: short connections (opened, asked for 64 bytes, answered, \
         closed by both sides) and streams. Client, server and their NAPI on CPU 0; the peer on CPU 1. \
         The gateway receives on CPU 1 for proxies and what is called threaded (by RPS), on CPU 0 for \
         the others. Where CPU 0 is busy, the ends are the limit. Segmentation and checksum offloads \
         are off everywhere.\n\n\
         | peer | connections a second (quartiles) | failed | Gbit/s (quartiles) | busy, CPU by CPU: connections | streams |\n\
         |---|---|---|---|---|---|\n",
    );
    for summary in summaries {
        let written = |spread: Option<Spread>, unit: f64, digits: usize| {
            spread.map_or("none".to_owned(), |spread| {
                let [low, median, high] =
                    [spread.low, spread.median, spread.high].map(|value| value / unit);
                format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
            })
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            summary.peer,
            written(summary.connections, 1.0, 0),
            summary.failed,
            written(summary.bits, 1e9, 3),
            busy(&summary.short),
            busy(&summary.bulk)
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
        let part = part(&rounds, 2).unwrap();
        assert_eq!(part.failed, 2);
        let first = &part.data["summaries"][0];
        assert_eq!(first["connections"]["median"], 100.0);
        assert_eq!(first["failed"], 3);
        assert!(
            part.table.contains("| a | 100 (100 to 150) | 3 | 4.295 ("),
            "{}",
            part.table
        );
        assert!(part.table.contains("| b | 5 (5 to 5) | 1 |"));
    }
}
