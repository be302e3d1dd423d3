//! What came of all rounds: medians, ratios, goals; as JSON, as a table, as charts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::measure::{Case, LOADS, Round};
use super::part::Part;
use super::peer::Peer;
use crate::cpu::Work;
use crate::generator::plan::Script;
use crate::plot;
use crate::sink::Histogram;
use crate::trial::{Latency, Outcome};

/// Median and quartiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// A quarter is below.
    pub low: f64,
    /// Half is below.
    pub median: f64,
    /// Three quarters are below.
    pub high: f64,
}

impl Spread {
    /// Of values; None without any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| values[(last as f64 * share).round() as usize];
        Some(Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        })
    }
}

/// A peer's figures over all rounds.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// What was measured.
    pub case: Case,
    /// The peer.
    pub peer: String,
    /// Packets a second with hardly any loss.
    pub throughput: Option<Spread>,
    /// Its throughput over the bare forwarder's of the same round.
    pub over_bare: Option<Spread>,
    /// Medians of its latency at [`LOADS`], ns.
    pub latency: Vec<Latency>,
    /// Share of a CPU that it uses without traffic.
    pub idle: Option<Spread>,
    /// What each CPU did at the highest of [`LOADS`] in the last round.
    pub cpus: Vec<Work>,
}

/// A goal of the project and whether it was reached.
#[derive(Debug, Serialize)]
pub struct Goal {
    /// Measured.
    pub value: f64,
    /// Of `value`, `floor` and `goal`.
    pub unit: &'static str,
    /// Less is a defect.
    pub floor: f64,
    /// What is wanted.
    pub goal: f64,
    /// Whether `value` is as good as `goal`.
    pub reached: bool,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Kernel and processor.
    pub machine: String,
    /// Who runs NAPI.
    pub placement: &'static str,
    /// Frames and flows.
    pub traffic: String,
    /// By number.
    pub goals: BTreeMap<&'static str, Goal>,
    /// One for each case and peer.
    pub summaries: Vec<Summary>,
    /// Everything.
    pub rounds: &'a [Round],
    /// What was measured otherwise.
    pub parts: Vec<Part>,
}

const PLACEMENT: &str = "generator and the gateway's receiving NAPI on CPU 0 (threaded: \
    receiving NAPI on CPU 1; busy polling: all NAPI on CPU 1), peer and the sink's NAPI on CPU 1; \
    soft interrupts of every trial stand in `cpus`";

impl<'a> Report<'a> {
    /// Sums rounds up.
    pub fn new(rounds: &'a [Round], cases: &[Case], peers: &[Peer], traffic: String) -> Self {
        let pairs = cases
            .iter()
            .flat_map(|case| peers.iter().map(|peer| (*case, *peer)));
        let summaries: Vec<Summary> = pairs
            .map(|(case, peer)| summary(rounds, case, peer))
            .collect();
        Self {
            machine: machine(),
            placement: PLACEMENT,
            traffic,
            goals: goals(rounds, cases, &summaries),
            summaries,
            rounds,
            parts: Vec::new(),
        }
    }

    /// Takes in what was measured otherwise.
    pub fn add(&mut self, mut part: Part) {
        self.goals.append(&mut part.goals);
        self.parts.push(part);
    }

    /// Writes `report-wire.json`, `report-wire.md` and two charts.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write(
            "report-wire.json",
            &(serde_json::to_string_pretty(self)? + "\n"),
        )?;
        write("report-wire.md", &self.table())?;
        if self.rounds.is_empty() {
            return Ok(());
        }
        let of = |peer: &str| {
            self.rounds
                .iter()
                .filter(|round| round.peer == peer)
                .collect()
        };
        let peers: Vec<(String, Vec<&Round>)> = self
            .summaries
            .iter()
            .map(|summary| (summary.peer.clone(), of(&summary.peer)))
            .collect();
        let losses: Vec<(String, Vec<&Outcome>)> = peers
            .iter()
            .map(|(name, rounds)| {
                let trials = rounds.iter().flat_map(|round| &round.search);
                (name.clone(), trials.collect())
            })
            .collect();
        write(
            "wire-loss.svg",
            &plot::loss("Loss against offered rate", &losses)?,
        )?;
        let half: Vec<(String, &Histogram)> = peers
            .iter()
            .filter_map(|(name, rounds)| {
                let trial = rounds.last()?.latency.get(1)?;
                Some((name.clone(), &trial.tallies.first()?.latency))
            })
            .collect();
        if half.is_empty() {
            return Ok(());
        }
        write(
            "wire-latency.svg",
            &plot::latency("Latency at half load", &half)?,
        )
    }

    /// The table for people, in Markdown.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}  \n{}  \nNAPI: {}\n\n",
            self.machine, self.traffic, self.placement
        );
        text += "| case | peer | Mpps at the loss allowed (quartiles) | of bare AF_XDP |";
        for load in LOADS {
            let _ = write!(text, " p50 / p99 / p99.9 µs at {:.0} % |", load * 100.0);
        }
        text += " idle CPU | busy, soft interrupts, CPU by CPU |\n|---|---|---|---|---|---|---|---|---|\n";
        for summary in &self.summaries {
            let throughput = summary.throughput.map_or("none".into(), |spread| {
                let [low, median, high] =
                    [spread.low, spread.median, spread.high].map(|rate| rate / 1e6);
                format!("{median:.3} ({low:.3} to {high:.3})")
            });
            let over = summary
                .over_bare
                .map_or("".into(), |spread| format!("{:.2}", spread.median));
            let (case, peer) = (summary.case.name(), &summary.peer);
            let _ = write!(text, "| {case} | {peer} | {throughput} | {over} |");
            for place in 0..LOADS.len() {
                let latency = summary.latency.get(place).copied().unwrap_or_default();
                let [p50, p99, p999] =
                    [latency.p50, latency.p99, latency.p999].map(|nanos| nanos as f64 / 1e3);
                let _ = write!(text, " {p50:.0} / {p99:.0} / {p999:.0} |");
            }
            let idle = summary.idle.map_or(String::new(), |idle| {
                format!("{:.0} %", idle.median * 100.0)
            });
            let _ = write!(text, " {idle} |");
            let work = |work: &Work| {
                format!(
                    "{:.0} % busy, {:.0} % soft, {} NET_RX",
                    work.busy * 100.0,
                    work.softirq * 100.0,
                    work.receives
                )
            };
            let cpus: Vec<String> = summary.cpus.iter().map(work).collect();
            let _ = writeln!(text, " {} |", cpus.join("; "));
        }
        for part in &self.parts {
            let _ = write!(text, "\n{}", part.table);
        }
        text += "\n| goal | value | floor | goal | reached |\n|---|---|---|---|---|\n";
        for (name, goal) in &self.goals {
            let reached = if goal.reached { "yes" } else { "no" };
            let _ = writeln!(
                text,
                "| {name} | {:.3} {} | {} | {} | {reached} |",
                goal.value, goal.unit, goal.floor, goal.goal
            );
        }
        text
    }
}

/// The rounds of one case and peer.
fn rounds_of<'r>(rounds: &'r [Round], case: Case, peer: &str) -> Vec<&'r Round> {
    rounds
        .iter()
        .filter(|round| round.peer == peer && round.case == case)
        .collect()
}

fn summary(rounds: &[Round], case: Case, peer: Peer) -> Summary {
    let own = rounds_of(rounds, case, peer.name());
    let median = |place: usize, pick: &dyn Fn(&Latency) -> u64| {
        let values = own.iter().filter_map(|round| round.latency.get(place));
        let values = values.map(|trial| pick(&trial.latency) as f64).collect();
        Spread::of(values).map_or(0, |spread| spread.median as u64)
    };
    let latency = (0..LOADS.len()).map(|place| Latency {
        average: median(place, &|latency| latency.average),
        p50: median(place, &|latency| latency.p50),
        p90: median(place, &|latency| latency.p90),
        p99: median(place, &|latency| latency.p99),
        p999: median(place, &|latency| latency.p999),
        max: median(place, &|latency| latency.max),
    });
    let rates = own.iter().filter_map(|round| round.throughput);
    let last = own.last().and_then(|round| round.latency.last());
    Summary {
        case,
        idle: Spread::of(own.iter().filter_map(|round| round.idle).collect()),
        peer: peer.name().to_owned(),
        throughput: Spread::of(rates.map(|rate| rate.0).collect()),
        over_bare: ratios(rounds, case, peer, Peer::Bare),
        latency: latency.collect(),
        cpus: last.map(|trial| trial.cpus.clone()).unwrap_or_default(),
    }
}

/// Throughput of one peer over another's, round by round: only neighbours in time are compared.
fn ratios(rounds: &[Round], case: Case, one: Peer, other: Peer) -> Option<Spread> {
    let rate = |peer: Peer, number: u32| {
        let own = rounds_of(rounds, case, peer.name());
        let found = own.into_iter().find(|round| round.round == number)?;
        found.throughput.map(|rate| rate.0)
    };
    let last = rounds.iter().map(|round| round.round).max()?;
    let pairs = (0..=last).filter_map(|number| Some(rate(one, number)? / rate(other, number)?));
    Spread::of(pairs.collect())
}

/// The goals that the first case of datagrams and the first case of connections tell.
fn goals(rounds: &[Round], cases: &[Case], summaries: &[Summary]) -> BTreeMap<&'static str, Goal> {
    let first = |script| cases.iter().copied().find(|case| case.script == script);
    let find = |case: Option<Case>, peer: Peer| {
        let found = |summary: &&Summary| Some(summary.case) == case && summary.peer == peer.name();
        summaries.iter().find(found)
    };
    let (data, connection) = (first(Script::Data), first(Script::Connection));
    let median = |ratio: Option<Spread>| ratio.map(|spread| spread.median);
    let over = |other| median(ratios(rounds, data?, Peer::Sluice, other));
    let kernels = [over(Peer::Nftables), over(Peer::NftablesThreaded)];
    let own = |case| median(find(case, Peer::Sluice)?.throughput);
    let latency = |peer: Peer, place: usize| {
        let latency = find(data, peer)?.latency.get(place);
        latency.filter(|latency| latency.p50 > 0).copied()
    };
    let both = |place| Some((latency(Peer::Sluice, place)?, latency(Peer::Bare, place)?));
    let idle = find(data, Peer::Sluice).and_then(|summary| median(summary.idle));
    let least = [
        ("G6", over(Peer::Bare), "of the bare forwarder", 0.90, 0.95),
        // The better one of the kernel's placements is the peer.
        (
            "G7",
            kernels.into_iter().flatten().reduce(f64::min),
            "times nftables",
            1.3,
            2.0,
        ),
        (
            "G10",
            // Four of six packets are the client's.
            own(connection)
                .zip(own(data))
                .map(|(four, all)| (four / 4.0) / (all / 6.0)),
            "of datagrams a second / 6",
            0.75,
            0.9,
        ),
    ];
    let most = [
        (
            "G15 p50",
            both(1).map(|(own, bare)| (own.p50 as f64 - bare.p50 as f64) / 1e3),
            "µs more than the bare forwarder at half load",
            1.0,
            0.2,
        ),
        (
            "G15 p99",
            both(1).map(|(own, bare)| own.p99 as f64 / bare.p99.max(1) as f64),
            "times the bare forwarder's at half load",
            1.3,
            1.1,
        ),
        (
            "G16",
            both(2).map(|(own, bare)| own.p999 as f64 / bare.p999.max(1) as f64),
            "times the bare forwarder's p99.9 at 90 % load",
            1.5,
            1.2,
        ),
        (
            "G17 idle",
            idle.map(|share| share * 100.0),
            "% of a CPU",
            10.0,
            2.0,
        ),
    ];
    let least = least.into_iter().map(|goal| (goal, true));
    let all = least.chain(most.into_iter().map(|goal| (goal, false)));
    let mut goals = BTreeMap::new();
    for ((name, value, unit, floor, goal), more_is_better) in all {
        if let Some(value) = value {
            let reached = if more_is_better {
                value >= goal
            } else {
                value <= goal
            };
            goals.insert(
                name,
                Goal {
                    value,
                    unit,
                    floor,
                    goal,
                    reached,
                },
            );
        }
    }
    goals
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("", |(_, name)| name);
    let cpus = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cpus} x {model}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;

    const DATA: Case = Case {
        script: Script::Data,
        services: 1,
    };
    const CONNECTION: Case = Case {
        script: Script::Connection,
        services: 1,
    };

    fn round(peer: Peer, round: u32, rate: f64) -> Round {
        Round {
            peer: peer.name().to_owned(),
            round,
            case: DATA,
            idle: None,
            throughput: Some(Rate(rate)),
            search: Vec::new(),
            latency: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_of_rounds_that_followed_one_another() {
        let rounds = [
            round(Peer::Bare, 0, 1e6),
            round(Peer::Sluice, 0, 0.9e6),
            round(Peer::Bare, 1, 2e6),
            round(Peer::Sluice, 1, 1.8e6),
            Round {
                case: CONNECTION,
                ..round(Peer::Sluice, 1, 0.9e6)
            },
            round(Peer::Bare, 2, 4e6),
            round(Peer::Nftables, 0, 0.3e6),
            round(Peer::NftablesThreaded, 0, 0.45e6),
        ];
        let peers = [
            Peer::Bare,
            Peer::Sluice,
            Peer::Nftables,
            Peer::NftablesThreaded,
        ];
        let report = Report::new(&rounds, &[DATA, CONNECTION], &peers, "traffic".into());
        let ratio = report.summaries[1].over_bare.unwrap();
        assert!((ratio.low - 0.9).abs() < 1e-9 && (ratio.high - 0.9).abs() < 1e-9);
        assert_eq!(report.summaries[0].throughput.unwrap().median, 2e6);
        let (g6, g7) = (&report.goals["G6"], &report.goals["G7"]);
        assert!((g6.value - 0.9).abs() < 1e-9 && !g6.reached);
        assert!(
            (g7.value - 2.0).abs() < 1e-9,
            "over the better of two placements"
        );
        let g10 = &report.goals["G10"];
        assert!(
            (g10.value - 0.75).abs() < 1e-9 && !g10.reached,
            "{}",
            g10.value
        );
        let table = report.table();
        assert!(
            table.contains("| datagrams, 1 Services | Sluice | 1.800 (0.900 to 1.800) | 0.90 |"),
            "{table}"
        );
    }

    #[test]
    fn quartiles_of_nothing_are_nothing() {
        assert_eq!(Spread::of(Vec::new()), None);
        let spread = Spread::of(vec![5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (2.0, 3.0, 4.0));
    }
}
