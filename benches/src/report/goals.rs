//! What Sluice is meant to reach: the one table of goals.

use serde_json::{Value, json};

/// Which way a figure gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// A goal. Less than the floor is a defect.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Its number; parts of one goal have a word behind it.
    pub number: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// The figure whose median is its value.
    pub figure: &'static str,
    /// Unit of all three.
    pub unit: &'static str,
    /// What must be reached.
    pub floor: f64,
    /// What should be reached.
    pub goal: f64,
    /// Which way is up.
    pub better: Better,
}

impl Goal {
    /// Whether `value` is as good as `bar` or better.
    fn passes(&self, value: f64, bar: f64) -> bool {
        match self.better {
            Better::Lower => value <= bar,
            Better::Higher => value >= bar,
        }
    }

    /// How far `value` gets: "yes", only the "floor", or "no".
    pub fn verdict(&self, value: Option<f64>) -> &'static str {
        match value {
            Some(value) if self.passes(value, self.goal) => "yes",
            Some(value) if self.passes(value, self.floor) => "floor",
            _ => "no",
        }
    }

    /// The goal beside its value.
    pub fn judged(&self, value: Option<f64>) -> Value {
        json!({
            "what": self.what,
            "figure": self.figure,
            "value": value,
            "unit": self.unit,
            "floor": self.floor,
            "goal": self.goal,
            "reached": self.verdict(value) == "yes",
            "above_floor": self.verdict(value) != "no",
        })
    }
}

const fn goal(
    number: &'static str,
    what: &'static str,
    figure: &'static str,
    (unit, better): (&'static str, Better),
    (floor, goal): (f64, f64),
) -> Goal {
    Goal {
        number,
        what,
        figure,
        unit,
        floor,
        goal,
        better,
    }
}

const NS: (&str, Better) = ("ns", Better::Lower);
const US: (&str, Better) = ("us", Better::Lower);
const MS: (&str, Better) = ("ms", Better::Lower);
const RATE: (&str, Better) = ("million/s", Better::Higher);
const BYTES: (&str, Better) = ("bytes", Better::Lower);
const RATIO: (&str, Better) = ("ratio", Better::Lower);
const ROWS: (&str, Better) = ("rows", Better::Lower);

const TIMES: (&str, Better) = ("times", Better::Higher);
const AS_MUCH: (&str, Better) = ("times", Better::Lower);
const PERCENT: (&str, Better) = ("%", Better::Lower);
const MICROS: (&str, Better) = ("µs", Better::Lower);
const FLOWS: (&str, Better) = ("flows", Better::Lower);

const MEGABYTES: (&str, Better) = ("MB", Better::Lower);

const PER_SECOND: (&str, Better) = ("1/s", Better::Higher);
const ANSWERS: (&str, Better) = ("answers", Better::Lower);

/// What `bench-control` measures.
pub const CONTROL: &[Goal] = &[
    goal(
        "C1",
        "10,000 Services with 100,000 endpoints: cold start to table applied",
        "cold start to table applied",
        MS,
        (2000.0, 2000.0),
    ),
    goal(
        "C2",
        "change of one endpoint among 100,000 to every worker, p99",
        "change of one endpoint to every worker, p99",
        MS,
        (30.0, 10.0),
    ),
    goal(
        "C3",
        "memory of the control plane with 10,000 Services and 100,000 endpoints",
        "resident memory",
        MEGABYTES,
        (500.0, 500.0),
    ),
    goal(
        "C4",
        "10,000 endpoints probed by TCP every 5 s, of one core",
        "CPU time of probes by TCP",
        PERCENT,
        (20.0, 20.0),
    ),
    goal(
        "C4 http",
        "the same by HTTP",
        "CPU time of probes by HTTP",
        PERCENT,
        (20.0, 20.0),
    ),
];

/// What `bench-dns` measures.
pub const DNS: &[Goal] = &[
    goal(
        "N1",
        "DNS answers a second over the fastest of nsd, Knot and BIND, one core each",
        "Sluice over the fastest other server",
        TIMES,
        (0.8, 1.0),
    ),
    goal(
        "N2",
        "DNS answers a second on one core",
        "Sluice: questions a second",
        PER_SECOND,
        (50_000.0, 50_000.0),
    ),
    goal(
        "N3",
        "mean latency at 10,000 questions a second over the quickest of nsd, Knot and BIND",
        "latency over the quickest other server's",
        AS_MUCH,
        (1.5, 1.0),
    ),
    goal(
        "N4",
        "10,000 questions a second beside 1,000 endpoint changes a second, p99",
        "latency beside the changes, p99",
        MS,
        (2.0, 2.0),
    ),
    goal(
        "N5",
        "wrong answers beside the changes",
        "wrong answers",
        ANSWERS,
        (0.0, 0.0),
    ),
    goal(
        "N5 lost",
        "questions without an answer beside the changes",
        "questions without an answer",
        ANSWERS,
        (0.0, 0.0),
    ),
    goal(
        "N6",
        "a change of endpoints until it is answered, from before its file is written, p99",
        "change until it is answered, p99",
        MS,
        (50.0, 50.0),
    ),
];

/// What `cargo bench --bench memory` measures.
pub const MEMORY: &[Goal] = &[
    goal(
        "G1",
        "packet of an established IPv4 connection, 1k connections",
        "established IPv4 masquerade 1k evenly",
        NS,
        (45.0, 25.0),
    ),
    goal(
        "G2",
        "the same, 100k connections",
        "established IPv4 masquerade 100k evenly",
        NS,
        (60.0, 32.0),
    ),
    goal(
        "G3",
        "the same, 1M connections",
        "established IPv4 masquerade 1M evenly",
        NS,
        (80.0, 40.0),
    ),
    goal(
        "G4",
        "the same, 10M connections",
        "established IPv4 masquerade 10M evenly",
        NS,
        (130.0, 60.0),
    ),
    goal(
        "G4 ratio",
        "G4 over G1",
        "established IPv4 masquerade 10M over 1k",
        RATIO,
        (2.9, 2.5),
    ),
    goal(
        "G9",
        "new connections a second beside 1M live ones",
        "new connections IPv4 masquerade, 1M live",
        RATE,
        (2.0, 5.0),
    ),
    goal(
        "G9 10M",
        "the same beside 10M live ones",
        "new connections IPv4 masquerade, 10M live",
        RATE,
        (2.0, 4.0),
    ),
    goal(
        "G11",
        "memory of an IPv4 connection, both directions, all-in",
        "memory of an IPv4 connection",
        BYTES,
        (128.0, 80.0),
    ),
    goal(
        "G11 IPv6",
        "memory of an IPv6 connection",
        "memory of an IPv6 connection",
        BYTES,
        (150.0, 150.0),
    ),
    goal(
        "G12",
        "push of 10k Services, 100k endpoints, until a worker uses it",
        "push of 10k Services, seen by a worker",
        MS,
        (300.0, 50.0),
    ),
    goal(
        "G13",
        "change of one endpoint of them, median, until a worker uses it",
        "push of one endpoint's change, seen by a worker, p50",
        MS,
        (2.0, 0.2),
    ),
    goal(
        "G13 p99",
        "the same, one in a hundred",
        "push of one endpoint's change, seen by a worker, p99",
        MS,
        (10.0, 1.0),
    ),
    goal(
        "G14 stall",
        "how long a push holds up a worker, one in a hundred",
        "worker's stall at a push of 10k Services, p99",
        US,
        (50.0, 5.0),
    ),
    goal(
        "G18",
        "Maglev table of 65,537 rows for 1,000 backends",
        "Maglev build, 1000 backends, 65537 rows",
        MS,
        (1.8, 0.8),
    ),
    goal(
        "G18 evenness",
        "most rows of a backend less fewest, worst of all tables",
        "Maglev rows of a backend, most less fewest",
        ROWS,
        (1.0, 1.0),
    ),
    goal(
        "G18 collateral",
        "rows that move without need over the reference, worst of all tables",
        "Maglev collateral over reference, worst",
        RATIO,
        (1.1, 1.1),
    ),
];

/// What `bench-wire` measures.
pub const WIRE: &[Goal] = &[
    goal(
        "G6",
        "packets a second over the bare AF_XDP forwarder's",
        "datagrams, 1 Services: Sluice over bare AF_XDP forwarder",
        TIMES,
        (0.9, 0.95),
    ),
    goal(
        "G7",
        "packets a second over kernel nftables' in its better placement",
        "datagrams, 1 Services: Sluice over nftables",
        TIMES,
        (1.3, 2.0),
    ),
    goal(
        "G8",
        "first packets a second at 10,000 Services over kernel iptables'",
        "first packets, 10000 Services: Sluice over iptables",
        TIMES,
        (20.0, 100.0),
    ),
    goal(
        "G8 nftables",
        "the same over kernel nftables'",
        "first packets, 10000 Services: Sluice over nftables",
        TIMES,
        (1.5, 3.0),
    ),
    goal(
        "G10",
        "short TCP connections a second over a sixth of the packets a second",
        "connections, 1 Services: Sluice over a sixth of datagrams",
        TIMES,
        (0.75, 0.9),
    ),
    goal(
        "G13 wire",
        "change of an endpoint's file to the first packet that shows it, median, at half load",
        "change to first packet: Sluice",
        MS,
        (2.0, 0.2),
    ),
    goal(
        "G13 wire p99",
        "the same, one in a hundred",
        "change to first packet: Sluice, p99",
        MS,
        (10.0, 1.0),
    ),
    goal(
        "G13 push",
        "change of an endpoint pushed to the dataplane, to the first packet that shows it, median",
        "push to first packet: Sluice",
        MS,
        (2.0, 0.2),
    ),
    goal(
        "G13 push p99",
        "the same, one in a hundred",
        "push to first packet: Sluice, p99",
        MS,
        (10.0, 1.0),
    ),
    goal(
        "G14 dip",
        "packets lost at half load because of 10 endpoint changes a second",
        "dip at 10 changes a second: Sluice",
        PERCENT,
        (3.0, 1.0),
    ),
    goal(
        "G15",
        "latency added to the bare forwarder's at half load, median",
        "datagrams, 1 Services: Sluice less bare AF_XDP forwarder, p50 at 50 %",
        MICROS,
        (1.0, 0.2),
    ),
    goal(
        "G15 p99",
        "latency over the bare forwarder's at half load, one in a hundred",
        "datagrams, 1 Services: Sluice over bare AF_XDP forwarder, p99 at 50 %",
        AS_MUCH,
        (1.3, 1.1),
    ),
    goal(
        "G16",
        "latency over the bare forwarder's at 90 % load, one in a thousand",
        "datagrams, 1 Services: Sluice over bare AF_XDP forwarder, p99.9 at 90 %",
        AS_MUCH,
        (1.5, 1.2),
    ),
    goal(
        "G17",
        "share of a CPU without traffic",
        "CPU at 0 packets a second: Sluice",
        PERCENT,
        (10.0, 2.0),
    ),
    goal(
        "G17 wake",
        "latency of single packets over the spinning bare forwarder's, one in a hundred",
        "single packets: Sluice less bare AF_XDP forwarder, p99",
        MICROS,
        (100.0, 30.0),
    ),
    goal(
        "G19",
        "flows of staying endpoints that another endpoint's changes broke",
        "flows broken by changes: Sluice",
        FLOWS,
        (0.0, 0.0),
    ),
    goal(
        "G21",
        "loss on established connections beside 5 times the SYNs that can be served",
        "loss beside the flood: Sluice",
        PERCENT,
        (5.0, 0.5),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_value_at_the_bar_passes_it() {
        let lower = goal("", "", "", NS, (45.0, 25.0));
        let verdicts = [24.0, 25.0, 26.0, 45.0, 46.0].map(|value| lower.verdict(Some(value)));
        assert_eq!(verdicts, ["yes", "yes", "floor", "floor", "no"]);
        let higher = goal("", "", "", RATE, (2.0, 5.0));
        let verdicts = [6.0, 5.0, 4.0, 2.0, 1.0].map(|value| higher.verdict(Some(value)));
        assert_eq!(verdicts, ["yes", "yes", "floor", "floor", "no"]);
        assert_eq!(lower.verdict(None), "no");
        assert_eq!(lower.verdict(Some(f64::NAN)), "no");
    }

    #[test]
    fn every_number_is_there_once_and_no_goal_is_below_its_floor() {
        let all = || MEMORY.iter().chain(WIRE).chain(CONTROL).chain(DNS);
        let numbers: HashSet<_> = all().map(|goal| goal.number).collect();
        assert_eq!(numbers.len(), all().count());
        for goal in all() {
            assert!(goal.passes(goal.goal, goal.floor), "{}", goal.number);
        }
    }
}
