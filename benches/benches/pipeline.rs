//! The whole path: what one packet costs the engine, bursts of 64 frames of 60 bytes.
//!
//! Timed: `Engine::process`. Not timed: writing the frames, because no engine does that; they are
//! written anew before each batch of 256. `loop alone` is what the timed part costs without an
//! engine: it looks at each frame and pushes a verdict.

use std::hint::black_box;

use sluice_benches::harness::{BATCH, ONE, criterion, items, title};
use sluice_benches::lane::{Lane, Walk};
use sluice_benches::topology::BACKEND_SIDE;
use sluice_benches::traffic::connection;
use sluice_conf::SourceNat;
use sluice_dataplane::io::PacketIo;
use sluice_dataplane::verdict::Verdict;
use sluice_dataplane::wire::parse::TcpFlags;

use criterion::Criterion;

/// Connections that are opened before the table is cleared.
const OPENED: usize = 16_384;

const POLICIES: [(SourceNat, &str); 2] = [
    (SourceNat::Masquerade, "masquerade"),
    (SourceNat::Preserve, "preserve"),
];

fn main() -> anyhow::Result<()> {
    title("The whole path: time and throughput of one packet on one core, without any I/O.");
    let mut criterion = criterion();
    established(&mut criterion)?;
    new_connections(&mut criterion)?;
    loop_alone(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Packets of both directions of established TCP connections, each as often as any other, in an
/// order without pattern.
fn established(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("established");
    group.throughput(ONE);
    for (source_nat, policy) in POLICIES {
        for (count, connections) in [(1_000, "1k"), (10_000, "10k"), (100_000, "100k")] {
            let mut lane = Lane::new(source_nat)?;
            let mut walk = Walk::new(lane.establish(count)?);
            group.bench_function(format!("{policy}, {connections} connections"), |bencher| {
                let fill = |lane: &mut Lane| lane.fill(walk.step(), TcpFlags::ACK);
                items(bencher, &mut lane, fill, Lane::process);
            });
            lane.check()?;
        }
    }
    group.finish();
    Ok(())
}

/// SYNs of connections that are not in the table; throughput is connections a second.
fn new_connections(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("new connection");
    group.throughput(ONE);
    for (source_nat, policy) in POLICIES {
        let mut lane = Lane::new(source_nat)?;
        let mut numbers = 0u32..;
        let mut fill = |lane: &mut Lane| {
            if lane.engine().connections() >= OPENED {
                lane.forget_opened();
            }
            let tuples: Vec<_> = numbers.by_ref().take(BATCH).map(connection).collect();
            lane.fill(&tuples, TcpFlags::SYN);
        };
        group.bench_function(policy, |bencher| {
            items(bencher, &mut lane, &mut fill, Lane::process);
        });
        lane.check()?;
    }
    group.finish();
    Ok(())
}

fn loop_alone(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut lane = Lane::new(SourceNat::Masquerade)?;
    let tuples: Vec<_> = (0..BATCH as u32).map(connection).collect();
    let fill = |lane: &mut Lane| lane.fill(&tuples, TcpFlags::ACK);
    criterion.bench_function("loop alone", |bencher| {
        items(bencher, &mut lane, fill, |lane| {
            for place in 0..BATCH {
                let (io, frames) = lane.frames();
                black_box(io.bytes(&frames[place])[0]);
                lane.verdicts().push(Verdict::Forward(BACKEND_SIDE));
            }
        });
    });
    Ok(())
}
