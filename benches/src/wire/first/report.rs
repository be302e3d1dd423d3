//! What came of the readings: goal G8 and a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::super::part::{Part, distinct};
use super::super::peer::Peer;
use super::super::report::{Goal, Spread};
use super::{Aim, Reading};
use crate::rate::Rate;

/// The rule of goal G8: how many times as much a peer's first packet costs as Sluice's, round by
/// round, where there are most Services.
fn ratio(readings: &[Reading], peer: Peer, aim: Aim) -> Option<f64> {
    let services = readings.iter().map(|reading| reading.services).max()?;
    let cost = |peer: Peer, round: u32| {
        let same = |reading: &&Reading| {
            reading.peer == peer.name()
                && (reading.round, reading.services, reading.aim) == (round, services, aim)
        };
        readings.iter().find(same).map(Reading::cost)
    };
    let last = readings.iter().map(|reading| reading.round).max()?;
    let pairs =
        (0..=last).filter_map(|round| Some(cost(peer, round)? / cost(Peer::Sluice, round)?));
    Spread::of(pairs.collect()).map(|spread| spread.median)
}

/// Sums readings up.
///
/// # Errors
/// They cannot be written as JSON.
pub(super) fn part(readings: &[Reading], failed: u32) -> Result<Part> {
    let (iptables, nftables) = (Peer::IptablesThreaded, Peer::NftablesThreaded);
    let figures = [
        (
            "G8 iptables",
            ratio(readings, iptables, Aim::All),
            20.0,
            100.0,
        ),
        (
            "G8 iptables, last Service",
            ratio(readings, iptables, Aim::Last),
            20.0,
            100.0,
        ),
        ("G8 nftables", ratio(readings, nftables, Aim::All), 1.5, 3.0),
    ];
    let goals = figures
        .into_iter()
        .filter_map(|(name, value, floor, goal)| {
            let value = value?;
            let goal = Goal {
                value,
                unit: "times the cost of Sluice's first packet, at most Services",
                floor,
                goal,
                reached: value >= goal,
            };
            Some((name, goal))
        });
    let cases = distinct(readings, |reading| {
        (reading.services, reading.aim, reading.peer.clone())
    });
    let summaries: Vec<_> = cases.iter().map(|case| summary(readings, case)).collect();
    Ok(Part {
        name: "first packets",
        table: table(&summaries),
        goals: goals.collect::<BTreeMap<_, _>>(),
        data: json!({ "summaries": summaries, "readings": readings }),
        failed,
    })
}

/// A peer's figures over all rounds.
#[derive(Debug, Serialize)]
struct Summary {
    peer: String,
    services: u32,
    aim: Aim,
    /// First packets a second.
    rate: Option<Spread>,
    /// Microseconds of one.
    cost: Option<Spread>,
    /// Median latency of a first packet that finds the peer without work, ns.
    calm: Option<Spread>,
}

fn summary(readings: &[Reading], (services, aim, peer): &(u32, Aim, String)) -> Summary {
    let same = |reading: &&Reading| {
        (reading.services, reading.aim, &reading.peer) == (*services, *aim, peer)
    };
    let own: Vec<&Reading> = readings.iter().filter(same).collect();
    Summary {
        peer: peer.clone(),
        services: *services,
        aim: *aim,
        rate: Spread::of(own.iter().map(|reading| reading.rate.0).collect()),
        cost: Spread::of(own.iter().map(|reading| reading.cost()).collect()),
        calm: Spread::of(own.iter().map(|reading| reading.calm.p50 as f64).collect()),
    }
}

fn table(summaries: &[Summary]) -> String {
    let mut text = String::from(
        "First packets: SYN of connections that nobody knows, more than a peer can take. Cost is 1 / \
         what it sends on.\n\n\
         | Services | first packets go to | peer | a second (quartiles) | cost, µs | alone, p50 µs |\n\
         |---|---|---|---|---|---|\n",
    );
    for summary in summaries {
        let aim = match summary.aim {
            Aim::All => "all of them",
            Aim::Last => "the last one",
        };
        let rate = summary.rate.map_or("none".to_owned(), |spread| {
            format!(
                "{} ({} to {})",
                Rate(spread.median),
                Rate(spread.low),
                Rate(spread.high)
            )
        });
        let micros = |spread: Option<Spread>, unit: f64| {
            spread.map_or(String::new(), |spread| {
                format!("{:.2}", spread.median / unit)
            })
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {aim} | {} | {rate} | {} | {} |",
            summary.services,
            summary.peer,
            micros(summary.cost, 1.0),
            micros(summary.calm, 1e3)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Latency;

    fn reading(peer: Peer, round: u32, services: u32, rate: f64) -> Reading {
        Reading {
            peer: peer.name().to_owned(),
            round,
            services,
            aim: Aim::All,
            rate: Rate(rate),
            calm: Latency::default(),
            trials: Vec::new(),
        }
    }

    #[test]
    fn costs_are_compared_round_by_round_where_there_are_most_services() {
        let readings = [
            reading(Peer::Sluice, 0, 10_000, 500e3),
            reading(Peer::Sluice, 0, 1, 600e3),
            reading(Peer::IptablesThreaded, 0, 10_000, 10e3),
            reading(Peer::IptablesThreaded, 0, 1, 300e3),
            reading(Peer::NftablesThreaded, 0, 10_000, 250e3),
        ];
        let part = part(&readings, 0).unwrap();
        let goal = |name: &str| (part.goals[name].value, part.goals[name].reached);
        assert_eq!(goal("G8 iptables"), (50.0, false));
        assert_eq!(goal("G8 nftables"), (2.0, false));
        assert!(!part.goals.contains_key("G8 iptables, last Service"));
        let row =
            "| 10000 | all of them | iptables (legacy), as kube-proxy, threaded NAPI | 10.0k (";
        assert!(part.table.contains(row), "{}", part.table);
        assert!(part.table.contains("| 100.00 |"), "{}", part.table);
    }

    #[test]
    fn without_sluice_there_is_nothing_to_compare_with() {
        let part = part(&[reading(Peer::Nftables, 0, 1, 1e6)], 1).unwrap();
        assert!(part.goals.is_empty() && part.failed == 1);
        assert!(part.table.contains("| 1.00 |"), "{}", part.table);
    }
}
