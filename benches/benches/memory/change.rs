//! What a change of the Services costs: Maglev tables, and a table of 10,000 Services.
//!
//! Maglev is held against the paper's algorithm: rows of a backend, and collateral, the share of
//! all rows that move from one live backend to another one when others leave.

use std::hint::black_box;
use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use sluice_benches::harness::in_turns;
use sluice_benches::report::Report;
use sluice_benches::statistics::{quantile, sorted};
use sluice_benches::topology::{compiled, services};
use sluice_benches::traffic::shuffle;
use sluice_conf::{ServiceTable, SourceNat, codec};
use sluice_dataplane::maglev::{Candidate, Maglev};
use sluice_dataplane::service::ServiceMap;

use crate::Measure;

/// Services of the table, of 10 backends each.
const SERVICES: u16 = 10_000;

/// Changes of one endpoint that are timed.
const CHANGES: usize = 100;

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
    let name = |what: &str| format!("table of 10k Services: {what}");
    let table = services::<Ipv4Addr>(SERVICES, SourceNat::Masquerade);
    let bytes = codec::encode(&table)?;
    report.add(name("message"), "MB", &[bytes.len() as f64 / 1e6]);
    let body = &bytes[codec::HEADER_LEN..];
    let nothing = ServiceMap::default();
    let (mut decoding, mut compiling) = (Vec::new(), Vec::new());
    for _ in 0..measure.rounds {
        let (passed, decoded) = measure.watch.time(|| codec::decode::<ServiceTable>(body));
        let decoded = decoded?;
        decoding.push(passed / 1e6);
        let (passed, map) = measure.watch.time(|| compiled(decoded, &nothing, 1));
        map?;
        compiling.push(passed / 1e6);
    }
    let both = decoding
        .iter()
        .zip(&compiling)
        .map(|(decode, compile)| decode + compile);
    report.add(name("decode"), "ms", &decoding);
    report.add(name("compile from nothing"), "ms", &compiling);
    report.add(
        name("decode and compile from nothing"),
        "ms",
        &both.collect::<Vec<_>>(),
    );
    let changes = sorted(&changes(measure, table)?);
    for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
        let reading: Vec<f64> = quantile(&changes, share).into_iter().collect();
        report.add(
            name(&format!("compile one endpoint's change, {label}")),
            "ms",
            &reading,
        );
    }
    Ok(())
}

/// Milliseconds of compiling a table in which one endpoint has left or come back, each beside the
/// map before. Not timed: copying the table, and freeing the map before.
fn changes(measure: Measure, mut table: ServiceTable) -> anyhow::Result<Vec<f64>> {
    let mut map = compiled(table.clone(), &ServiceMap::default(), 1)?;
    let mut away = None;
    let mut readings = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        let place = change / 2 * 97 % usize::from(SERVICES);
        let backends = &mut table.services[place].backends;
        match away.take() {
            Some(backend) => backends.push(backend),
            None => away = backends.pop(),
        }
        let next = table.clone();
        let (passed, compiled) = measure.watch.time(|| compiled(next, &map, 1));
        map = compiled?;
        readings.push(passed / 1e6);
    }
    ensure!(away.is_none(), "an endpoint is missing");
    Ok(readings)
}
