//! What a change of the Services costs: Maglev tables, and a table of 10,000 Services.
//!
//! Maglev is held against the paper's algorithm: rows of a backend, and collateral, the share of
//! all rows that move from one live backend to another one when others leave.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use sluice_benches::harness::in_turns;
use sluice_benches::report::Report;
use sluice_benches::statistics::{quantile, sorted};
use sluice_benches::topology::{services, terms};
use sluice_benches::traffic::shuffle;
use sluice_conf::codec::CodecError;
use sluice_conf::{Backend, ServiceTable, SourceNat, TableChange, codec};
use sluice_dataplane::maglev::{Candidate, Maglev};
use sluice_dataplane::service::{Draft, ServiceMap};

use crate::{Measure, push};

/// Services of the table, of 10 backends each.
const SERVICES: u16 = 10_000;

/// Changes of one endpoint that are timed.
pub const CHANGES: usize = 100;

/// Sets of backends whose tables make one figure of collateral: one table alone may be a quarter off.
const SETS: u8 = 20;

/// Backends, rows, backends that leave, and the collateral of the paper's algorithm in percent of
/// all rows: means of 40 simulated tables with random offsets and skips.
const REFERENCES: [(u16, usize, u16, f64); 9] = [
    (10, 65_537, 1, 0.225),
    (100, 65_537, 1, 0.568),
    (100, 65_537, 5, 0.888),
    (1000, 65_537, 1, 0.577),
    (1000, 65_537, 10, 2.328),
    (1000, 65_537, 50, 3.243),
    (1000, 655_373, 10, 0.575),
    (100, 16_381, 1, 1.311),
    (10, 1021, 1, 2.424),
];

/// Measures Maglev and the table.
///
/// # Errors
/// When a table is refused.
pub fn run(measure: Measure, report: &mut Report) -> anyhow::Result<()> {
    report.section("Maglev");
    builds(measure, report);
    rows(report)?;
    report.section("A table of 10,000 Services with 100,000 endpoints");
    table(measure, report)
}

/// One of the sets of so many backends.
fn candidates(count: u16, set: u8) -> Vec<Candidate> {
    let candidate = |index: u16| Candidate {
        index,
        address: [10, set, index.to_be_bytes()[0], index.to_be_bytes()[1]].into(),
        port: 8080,
        weight: 1,
    };
    (0..count).map(candidate).collect()
}

fn builds(measure: Measure, report: &mut Report) {
    let mut cases: Vec<_> = [(10, 1021), (100, 10_007), (1000, 65_537), (1000, 655_373)]
        .map(|(count, rows)| (candidates(count, 0), rows))
        .into();
    let readings = in_turns(measure.rounds, &mut cases, |(candidates, rows)| {
        let build = || Maglev::with_rows(black_box(candidates), *rows);
        let (passed, table) = measure.watch.time(build);
        black_box(table);
        passed / 1e6
    });
    for ((candidates, rows), readings) in cases.iter().zip(&readings) {
        let name = format!("Maglev build, {} backends, {rows} rows", candidates.len());
        report.add(name, "ms", readings);
    }
}

fn rows(report: &mut Report) -> anyhow::Result<()> {
    let (mut uneven, mut worst) = (0.0f64, 0.0f64);
    for (count, rows, leaving, reference) in REFERENCES {
        // Backends leave from all over the order in which they take turns.
        let mut order: Vec<u16> = (0..count).collect();
        shuffle(&mut order);
        let gone = &order[..usize::from(leaving)];
        let mut moved = Vec::new();
        for set in 0..SETS {
            let all = candidates(count, set);
            let before = Maglev::with_rows(&all, rows).context("no Maglev table")?;
            uneven = uneven.max(unevenness(before.rows(), count));
            moved.extend(collateral(&all, &before, gone));
        }
        let mean = moved.iter().sum::<f64>() / moved.len() as f64;
        worst = worst.max(mean / reference);
        let name = format!("Maglev collateral, {leaving} of {count} backends leave, {rows} rows");
        report.add(name, "% of rows", &moved);
    }
    report.add(
        "Maglev rows of a backend, most less fewest",
        "rows",
        &[uneven],
    );
    report.add("Maglev collateral over reference, worst", "ratio", &[worst]);
    Ok(())
}

/// Percent of all rows that belong to another backend when `gone` have left, without need.
fn collateral(all: &[Candidate], before: &Maglev, gone: &[u16]) -> Option<f64> {
    let stays = |candidate: &&Candidate| !gone.contains(&candidate.index);
    let left: Vec<Candidate> = all.iter().filter(stays).copied().collect();
    let after = Maglev::with_rows(&left, before.rows().len())?;
    let pairs = before.rows().iter().zip(after.rows());
    let moved = pairs.filter(|(old, new)| old != new && !gone.contains(old));
    Some(100.0 * moved.count() as f64 / before.rows().len() as f64)
}

fn unevenness(rows: &[u16], backends: u16) -> f64 {
    let mut counts = vec![0u32; usize::from(backends)];
    for row in rows {
        counts[usize::from(*row)] += 1;
    }
    let (most, fewest) = (counts.iter().max(), counts.iter().min());
    f64::from(most.zip(fewest).map_or(0, |(most, fewest)| most - fewest))
}

fn table(measure: Measure, report: &mut Report) -> anyhow::Result<()> {
    let table = services::<Ipv4Addr>(SERVICES, SourceNat::Masquerade);
    whole(measure, &table, report)?;
    let changes = sorted(&changes(measure, table.clone())?);
    for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
        let reading: Vec<f64> = quantile(&changes, share).into_iter().collect();
        let name = format!("one endpoint's change: decode and compile, {label}");
        report.add(name, "ms", &reading);
    }
    push::run(measure, table, report)
}

/// A table that comes to a dataplane without one.
fn whole(measure: Measure, table: &ServiceTable, report: &mut Report) -> anyhow::Result<()> {
    let name = |what: &str| format!("table of 10k Services: {what}");
    let bytes = codec::encode(table)?;
    report.add(name("message"), "MB", &[bytes.len() as f64 / 1e6]);
    let (mut decoding, mut compiling) = (Vec::new(), Vec::new());
    for _ in 0..measure.rounds {
        let nothing = ServiceMap::default();
        let (passed, draft) = measure.watch.time(|| {
            let table = codec::decode(&bytes[codec::HEADER_LEN..])?;
            Ok::<_, CodecError>(Draft::of(table, &nothing))
        });
        let draft = draft?;
        decoding.push(passed / 1e6);
        let (passed, map) = measure
            .watch
            .time(|| ServiceMap::compile(draft, &nothing, &terms(1)));
        map?;
        compiling.push(passed / 1e6);
    }
    let both = decoding.iter().zip(&compiling);
    let both: Vec<f64> = both.map(|(decode, compile)| decode + compile).collect();
    report.add(name("decode"), "ms", &decoding);
    report.add(name("compile from nothing"), "ms", &compiling);
    report.add(name("decode and compile from nothing"), "ms", &both);
    Ok(())
}

/// A table of which one endpoint leaves or comes back, each time of another Service.
pub struct Flapping {
    table: ServiceTable,
    away: Option<Backend>,
    change: usize,
}

impl Flapping {
    /// Begins with this table, whole.
    pub fn new(table: ServiceTable) -> Self {
        Self {
            table,
            away: None,
            change: 0,
        }
    }

    /// The next table.
    pub fn advance(&mut self) -> ServiceTable {
        let place = self.change / 2 * 97 % self.table.services.len();
        let backends = &mut Arc::make_mut(&mut self.table.services[place]).backends;
        match self.away.take() {
            Some(backend) => backends.push(backend),
            None => self.away = backends.pop(),
        }
        self.change += 1;
        self.table.clone()
    }
}

/// Milliseconds of decoding and compiling a table in which one endpoint has left or come back, each
/// beside the map before. Not timed: encoding the change, and freeing the map before.
fn changes(measure: Measure, table: ServiceTable) -> anyhow::Result<Vec<f64>> {
    let mut map = ServiceMap::build(table.clone(), &ServiceMap::default(), &terms(1))?;
    let (mut flapping, mut base) = (Flapping::new(table.clone()), table);
    let mut readings = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        let next = flapping.advance();
        let bytes = codec::encode(&next.since(&base))?;
        let (passed, compiled) = measure.watch.time(|| {
            let change = codec::decode::<TableChange>(&bytes[codec::HEADER_LEN..])?;
            let draft = Draft::by(change, &map)?;
            anyhow::Ok(ServiceMap::compile(draft, &map, &terms(1))?)
        });
        map = compiled?;
        base = next;
        readings.push(passed / 1e6);
    }
    Ok(readings)
}
