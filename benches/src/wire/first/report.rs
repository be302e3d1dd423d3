//! What came of the rounds: figures and a table.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::super::part::{Part, distinct};
use super::super::peer::Peer;
use super::super::readings::Readings;
use super::{Aim, Round};
use crate::rate::Rate;
use crate::statistics::Summary;

const SECTION: &str = "First packets of connections";

/// Peers that Sluice is compared with, and their names in figures.
const OTHERS: [(Peer, &str); 2] = [
    (Peer::IptablesThreaded, "iptables"),
    (Peer::NftablesThreaded, "nftables"),
];

/// Adds the figures of all rounds. Only rounds of one number are compared.
pub(super) fn add(rounds: &[Round], readings: &mut Readings) {
    for round in rounds {
        let name = format!("{}: {}", title(round), round.peer);
        readings.add(SECTION, name.as_str(), "million/s", round.rate.0 / 1e6);
        let alone = round.calm.p50 as f64 / 1e3;
        readings.add(SECTION, format!("{name}, alone, p50"), "µs", alone);
    }
    let own = rounds.iter();
    for own in own.filter(|round| round.peer == Peer::Sluice.name()) {
        for (peer, family) in OTHERS {
            let other = rounds.iter().find(|round| {
                round.peer == peer.name()
                    && (round.number, round.services, round.aim)
                        == (own.number, own.services, own.aim)
            });
            if let Some(other) = other {
                let name = format!("{}: {} over {family}", title(own), own.peer);
                readings.add(SECTION, name, "times", other.cost() / own.cost());
            }
        }
    }
}

/// What a round's figures begin with.
fn title(round: &Round) -> String {
    let services = round.services;
    match round.aim {
        Aim::All => format!("first packets, {services} Services"),
        Aim::Last => format!("first packets, last of {services} Services"),
    }
}

/// Sums rounds up.
pub(super) fn part(rounds: &[Round], failed: u32) -> Part {
    let cases = distinct(rounds, |round| {
        (round.services, round.aim, round.peer.clone())
    });
    let rows: Vec<_> = cases.iter().map(|case| row(rounds, case)).collect();
    Part {
        name: "First packets",
        table: table(&rows),
        data: json!({ "summaries": rows, "rounds": rounds }),
        failed,
    }
}

/// A peer's figures over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    peer: String,
    services: u32,
    aim: Aim,
    /// First packets a second.
    rate: Option<Summary>,
    /// Microseconds of one.
    cost: Option<Summary>,
    /// Median latency of a first packet that finds the peer without work, ns.
    calm: Option<Summary>,
}

fn row(rounds: &[Round], (services, aim, peer): &(u32, Aim, String)) -> Row {
    let same = |round: &&Round| (round.services, round.aim, &round.peer) == (*services, *aim, peer);
    let own: Vec<&Round> = rounds.iter().filter(same).collect();
    let summary = |pick: &dyn Fn(&Round) -> f64| {
        let values: Vec<f64> = own.iter().map(|round| pick(round)).collect();
        Summary::of(&values)
    };
    Row {
        peer: peer.clone(),
        services: *services,
        aim: *aim,
        rate: summary(&|round| round.rate.0),
        cost: summary(&Round::cost),
        calm: summary(&|round| round.calm.p50 as f64),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "SYN of connections that nobody knows, more than a peer can take. Cost is 1 / what it sends \
         on.\n\n\
         | Services | first packets go to | peer | a second (quartiles) | cost, µs | alone, p50 µs |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let aim = match row.aim {
            Aim::All => "all of them",
            Aim::Last => "the last one",
        };
        let rate = row.rate.map_or("none".to_owned(), |rate| {
            let [q1, median, q3] = [rate.q1, rate.median, rate.q3].map(Rate);
            format!("{median} ({q1} to {q3})")
        });
        let micros = |summary: Option<Summary>, unit: f64| {
            summary.map_or(String::new(), |summary| {
                format!("{:.2}", summary.median / unit)
            })
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {aim} | {} | {rate} | {} | {} |",
            row.services,
            row.peer,
            micros(row.cost, 1.0),
            micros(row.calm, 1e3)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::goals::WIRE;
    use crate::trial::Latency;

    fn round(peer: Peer, number: u32, services: u32, rate: f64) -> Round {
        Round {
            peer: peer.name().to_owned(),
            number,
            services,
            aim: Aim::All,
            rate: Rate(rate),
            calm: Latency::default(),
            trials: Vec::new(),
        }
    }

    fn goal<'r>(readings: &'r Readings, number: &str) -> &'r [f64] {
        let goal = WIRE.iter().find(|goal| goal.number == number).unwrap();
        readings.of(goal.figure)
    }

    #[test]
    fn costs_are_compared_round_by_round_with_as_many_services() {
        let mut last = round(Peer::IptablesThreaded, 0, 10_000, 5e3);
        last.aim = Aim::Last;
        let mut own = round(Peer::Sluice, 0, 10_000, 400e3);
        own.aim = Aim::Last;
        let rounds = [
            round(Peer::Sluice, 0, 10_000, 500e3),
            round(Peer::Sluice, 0, 1, 600e3),
            round(Peer::IptablesThreaded, 0, 10_000, 10e3),
            round(Peer::IptablesThreaded, 0, 1, 300e3),
            round(Peer::NftablesThreaded, 0, 10_000, 250e3),
            round(Peer::Sluice, 1, 10_000, 600e3),
            round(Peer::IptablesThreaded, 1, 10_000, 10e3),
            last,
            own,
        ];
        let mut readings = Readings::default();
        add(&rounds, &mut readings);
        assert_eq!(goal(&readings, "G8"), [50.0, 60.0]);
        assert_eq!(goal(&readings, "G8 nftables"), [2.0]);
        for (name, expected) in [
            ("first packets, 1 Services: Sluice over iptables", 2.0),
            (
                "first packets, last of 10000 Services: Sluice over iptables",
                80.0,
            ),
            ("first packets, 1 Services: Sluice", 0.6),
        ] {
            assert_eq!(readings.of(name), [expected], "{name}");
        }
        let part = part(&rounds, 0);
        let row =
            "| 10000 | all of them | iptables (legacy), as kube-proxy, threaded NAPI | 10.0k (";
        assert!(part.table.contains(row), "{}", part.table);
        assert!(part.table.contains("| 100.00 |"), "{}", part.table);
    }

    #[test]
    fn without_sluice_there_is_nothing_to_compare_with() {
        let rounds = [round(Peer::NftablesThreaded, 0, 10_000, 1e6)];
        let mut readings = Readings::default();
        add(&rounds, &mut readings);
        assert!(goal(&readings, "G8 nftables").is_empty());
        let part = part(&rounds, 1);
        assert_eq!(part.failed, 1);
        assert!(part.table.contains("| 1.00 |"), "{}", part.table);
    }
}
