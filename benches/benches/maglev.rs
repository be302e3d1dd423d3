//! What a change of the Services costs: Maglev tables, and the map of 1,000 Services.
//!
//! Timed: `Maglev::build`, `Maglev::pick` and `ServiceMap::build`. Not timed: copying the table that
//! a map is built from, and freeing the map.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use sluice_benches::harness::{BATCH, ONE, criterion, items, title};
use sluice_benches::topology::{compiled, services};
use sluice_benches::traffic::connection;
use sluice_conf::SourceNat;
use sluice_dataplane::maglev::{Candidate, Maglev, rows_for};
use sluice_dataplane::service::ServiceMap;

/// Services of the map, of 10 backends each.
const SERVICES: u16 = 1000;

fn main() -> anyhow::Result<()> {
    let mut criterion = criterion();
    title("Change of the Services: time of one Maglev table, one choice of a backend, one map.");
    build(&mut criterion);
    pick(&mut criterion);
    service_map(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn candidates(count: u16) -> Vec<Candidate> {
    let candidate = |index: u16| Candidate {
        index,
        address: [10, 1, index.to_be_bytes()[0], index.to_be_bytes()[1]].into(),
        port: 8080,
        weight: 1,
    };
    (0..count).map(candidate).collect()
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev build");
    for count in [10, 100, 1000] {
        let (candidates, rows) = (candidates(count), rows_for(usize::from(count)));
        group.bench_function(format!("{count} backends, {rows} rows"), |bencher| {
            bencher.iter(|| Maglev::build(black_box(&candidates)));
        });
    }
    group.finish();
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev pick");
    group.throughput(ONE);
    for count in [10, 1000] {
        let Some(table) = Maglev::build(&candidates(count)) else {
            continue;
        };
        let mut numbers = 0u32..;
        let mut hashes = Vec::with_capacity(BATCH);
        let mut fill = |hashes: &mut Vec<u64>| {
            hashes.clear();
            hashes.extend(numbers.by_ref().take(BATCH).map(|n| connection(n).hash(0)));
        };
        group.bench_function(format!("of {count} backends"), |bencher| {
            items(bencher, &mut hashes, &mut fill, |hashes| {
                for hash in hashes {
                    black_box(table.pick(*hash));
                }
            });
        });
    }
    group.finish();
}

fn service_map(criterion: &mut Criterion) -> anyhow::Result<()> {
    let before = services(SERVICES, SourceNat::Masquerade);
    let mut after = before.clone();
    if let Some(service) = after.services.get_mut(usize::from(SERVICES) / 2) {
        service.backends.pop();
    }
    let nothing = ServiceMap::default();
    let map = compiled(before.clone(), &nothing)?;
    let mut group = criterion.benchmark_group("map of 1000 services");
    for (name, table, previous) in [
        ("from nothing", before, &nothing),
        ("one endpoint left", after, &map),
    ] {
        group.bench_function(name, |bencher| {
            let copy = || table.clone();
            bencher.iter_batched(
                copy,
                |table| compiled(table, previous),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    Ok(())
}
