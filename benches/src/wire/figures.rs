//! Figures of the rounds of throughput: what each peer did, and what one did over another. Only
//! neighbours in time are compared: rounds of one number.

use super::measure::{Case, LOADS, Round};
use super::peer::Peer;
use super::readings::Readings;
use crate::generator::plan::Script;
use crate::trial::Latency;

/// What rounds were, by case, peer and number.
#[derive(Clone, Copy)]
struct Rounds<'r>(&'r [Round]);

impl<'r> Rounds<'r> {
    fn find(self, case: Case, peer: &str, number: u32) -> Option<&'r Round> {
        let mut all = self.0.iter();
        all.find(|round| round.peer == peer && round.case == case && round.round == number)
    }

    fn rate(self, case: Case, peer: &str, number: u32) -> Option<f64> {
        Some(self.find(case, peer, number)?.throughput?.0)
    }

    fn latency(self, case: Case, peer: Peer, number: u32, place: usize) -> Option<&'r Latency> {
        let trial = self.find(case, peer.name(), number)?.latency.get(place)?;
        Some(&trial.latency)
    }

    /// The highest rate of the peers whose names begin with `family`: a peer may stand at several
    /// places, and is as good as at its best.
    fn best(self, case: Case, family: &str, number: u32) -> Option<f64> {
        let own = self.0.iter().filter(|round| {
            round.case == case && round.round == number && round.peer.starts_with(family)
        });
        let rates = own.filter_map(|round| round.throughput);
        rates.map(|rate| rate.0).reduce(f64::max)
    }
}

/// Peers that Sluice is compared with by the better one of their places.
const FAMILIES: [&str; 2] = ["nftables", "iptables"];

/// Adds the figures of all rounds.
pub fn add(rounds: &[Round], cases: &[Case], readings: &mut Readings) {
    for round in rounds {
        own(round, readings);
    }
    let numbers = rounds
        .iter()
        .map(|round| round.round + 1)
        .max()
        .unwrap_or(0);
    let rounds = Rounds(rounds);
    for number in 0..numbers {
        for case in cases {
            ratios(rounds, *case, number, readings);
            if case.script == Script::Data {
                latencies(rounds, *case, number, readings);
                connections(rounds, *case, number, readings);
            }
        }
    }
}

fn own(round: &Round, readings: &mut Readings) {
    let what = format!("{}: {}", round.case.name(), round.peer);
    if let Some(rate) = round.throughput {
        readings.add("Throughput", what.as_str(), "Mpps", rate.0 / 1e6);
    }
    for (trial, load) in round.latency.iter().zip(LOADS) {
        for (quantile, nanos) in quantiles(&trial.latency) {
            let name = format!("{what}, {quantile} at {}", percent(load));
            readings.add("Latency", name, "µs", nanos / 1e3);
        }
    }
}

fn ratios(rounds: Rounds<'_>, case: Case, number: u32, readings: &mut Readings) {
    let sluice = Peer::Sluice.name();
    let Some(rate) = rounds.rate(case, sluice, number) else {
        return;
    };
    let mut add = |other: &str, found: Option<f64>| {
        if let Some(found) = found.filter(|found| *found > 0.0) {
            let name = format!("{}: {sluice} over {other}", case.name());
            readings.add("Sluice over its peers", name, "times", rate / found);
        }
    };
    let bare = Peer::Bare.name();
    add(bare, rounds.rate(case, bare, number));
    for family in FAMILIES {
        add(family, rounds.best(case, family, number));
    }
}

fn latencies(rounds: Rounds<'_>, case: Case, number: u32, readings: &mut Readings) {
    let (sluice, bare) = (Peer::Sluice, Peer::Bare);
    for (place, load) in LOADS.into_iter().enumerate() {
        let latency = |peer| rounds.latency(case, peer, number, place);
        let (Some(own), Some(other)) = (latency(sluice), latency(bare)) else {
            continue;
        };
        for ((quantile, own), (_, other)) in quantiles(own).into_iter().zip(quantiles(other)) {
            let mut add = |word, unit, value| {
                let (one, two, load) = (sluice.name(), bare.name(), percent(load));
                let name = format!("{}: {one} {word} {two}, {quantile} at {load}", case.name());
                readings.add(
                    "Sluice's latency against the bare forwarder's",
                    name,
                    unit,
                    value,
                );
            };
            add("less", "µs", (own - other) / 1e3);
            add("over", "times", own / other.max(1.0));
        }
    }
}

/// Connections a second over a sixth of the datagrams: a connection has six packets, of which four
/// are the client's and counted.
fn connections(rounds: Rounds<'_>, data: Case, number: u32, readings: &mut Readings) {
    let script = Script::Connection;
    let case = Case { script, ..data };
    let sluice = Peer::Sluice.name();
    let rate = |case| rounds.rate(case, sluice, number);
    if let (Some(four), Some(all)) = (rate(case), rate(data)) {
        let name = format!("{}: {sluice} over a sixth of datagrams", case.name());
        readings.add(
            "Sluice over its peers",
            name,
            "times",
            (four / 4.0) / (all / 6.0),
        );
    }
}

fn quantiles(latency: &Latency) -> [(&'static str, f64); 3] {
    let Latency { p50, p99, p999, .. } = *latency;
    [
        ("p50", p50 as f64),
        ("p99", p99 as f64),
        ("p99.9", p999 as f64),
    ]
}

fn percent(load: f64) -> String {
    format!("{:.0} %", load * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;
    use crate::report::goals::WIRE;

    const DATA: Case = Case {
        script: Script::Data,
        services: 1,
    };
    const CONNECTION: Case = Case {
        script: Script::Connection,
        services: 1,
    };

    fn round(peer: Peer, case: Case, round: u32, rate: f64) -> Round {
        Round {
            peer: peer.name().to_owned(),
            round,
            case,
            throughput: Some(Rate(rate)),
            search: Vec::new(),
            latency: Vec::new(),
        }
    }

    fn goal(number: &str) -> &'static str {
        WIRE.iter()
            .find(|goal| goal.number == number)
            .unwrap()
            .figure
    }

    #[test]
    fn ratios_are_of_rounds_that_followed_one_another() {
        let rounds = [
            round(Peer::Bare, DATA, 0, 1e6),
            round(Peer::Sluice, DATA, 0, 0.9e6),
            round(Peer::Bare, DATA, 1, 2e6),
            round(Peer::Sluice, DATA, 1, 1.8e6),
            round(Peer::Sluice, CONNECTION, 1, 0.9e6),
            round(Peer::Bare, DATA, 2, 4e6),
            round(Peer::Nftables, DATA, 0, 0.3e6),
            round(Peer::NftablesThreaded, DATA, 0, 0.45e6),
        ];
        let mut readings = Readings::default();
        add(&rounds, &[DATA, CONNECTION], &mut readings);
        let near = |name, expected: &[f64]| {
            let found: &[f64] = readings.of(goal(name));
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{name}: {found}");
            }
        };
        near("G6", &[0.9, 0.9]);
        near("G7", &[2.0]);
        near("G10", &[0.75]);
        near("G8", &[]);
        let bare = readings.of("datagrams, 1 Services: bare AF_XDP forwarder");
        assert_eq!(bare, [1.0, 2.0, 4.0]);
    }

    #[test]
    fn what_is_lost_at_every_rate_is_no_ratio() {
        let mut nothing = round(Peer::Sluice, DATA, 0, 1e6);
        nothing.throughput = None;
        let rounds = [round(Peer::Bare, DATA, 0, 1e6), nothing];
        let mut readings = Readings::default();
        add(&rounds, &[DATA], &mut readings);
        assert!(readings.of(goal("G6")).is_empty());
    }
}
