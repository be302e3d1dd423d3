//! Many workers of one gateway: what they share is only read.
//!
//! Each worker has a thread, pinned to a core in turn, and packets of 1,000 connections of its own,
//! so that its memory stays in its own caches. If packets made workers write to a common cache
//! line, a packet would cost more with a worker on the other core than alone. Two things besides
//! make it cost more, so both are measured in the same turns: two workers of two gateways, which
//! share no memory, and an arithmetic loop that uses none at all. With more
//! workers than cores threads take turns; a reading is the median of batches, which are far shorter
//! than a thread's turn.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Barrier;

use anyhow::ensure;
use sluice_benches::gateway::{Gateway, Plan};
use sluice_benches::harness::{BATCH, Stopwatch, in_turns};
use sluice_benches::lane::Lane;
use sluice_benches::order::Walk;
use sluice_benches::report::Report;
use sluice_benches::sharing::shared;
use sluice_conf::SourceNat;
use sluice_dataplane::stats::{BackendCounters, PerWorker, WorkerCounters};
use sluice_dataplane::wire::parse::TcpFlags;

use crate::Measure;

/// Workers of the gateway; with any number but one a packet's owner is computed.
const WORKERS: u16 = 16;

/// Connections of a worker.
const CONNECTIONS: u32 = 1000;

/// Rounds of the arithmetic loop for each item of a batch.
const LOOP: u64 = 64;

/// What a thread does for one reading: nanoseconds of a packet, or of a loop; `None` when the packets
/// were not forwarded.
type Work = Box<dyn FnMut(Stopwatch) -> Option<f64> + Send>;

/// One figure: these threads at the same time.
struct Case {
    name: &'static str,
    threads: Vec<Work>,
}

impl Case {
    /// The mean over all threads; no number when one of them has none.
    fn read(&mut self, watch: Stopwatch) -> f64 {
        let (count, cores) = (self.threads.len(), core_affinity::get_core_ids());
        let (barrier, cores) = (&Barrier::new(count), &cores.unwrap_or_default());
        let readings: Vec<f64> = std::thread::scope(|scope| {
            let run = |(place, work): (usize, &'_ mut Work)| {
                if let Some(core) = cores.get(place % cores.len().max(1)) {
                    core_affinity::set_for_current(*core);
                }
                barrier.wait();
                work(watch)
            };
            let threads = self.threads.iter_mut().enumerate();
            let threads: Vec<_> = threads
                .map(|thread| scope.spawn(move || run(thread)))
                .collect();
            let readings = threads
                .into_iter()
                .map(|thread| thread.join().ok().flatten());
            readings
                .map(|reading| reading.unwrap_or(f64::NAN))
                .collect()
        });
        readings.iter().sum::<f64>() / count as f64
    }
}

/// Measures all numbers of workers in turns, and how far apart their counters lie.
///
/// # Errors
/// When connections are not established or packets not forwarded.
pub fn run(measure: Measure, report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "Workers of one gateway at the same time, IPv4 masquerade, 1,000 connections each",
    );
    let mut cases = [
        alone("the only worker")?,
        together("1 worker of 16", 1)?,
        together("2 workers of 16", 2)?,
        together("4 workers of 16", 4)?,
        together("8 workers of 16", 8)?,
        together("16 workers of 16", 16)?,
        apart("2 workers that share nothing", 2)?,
        arithmetic("1 arithmetic loop", 1),
        arithmetic("2 arithmetic loops", 2),
    ];
    let readings = in_turns(measure.rounds, &mut cases, |case| case.read(measure.watch));
    for (case, readings) in cases.iter().zip(&readings) {
        let forwarded = readings.iter().all(|reading| reading.is_finite());
        ensure!(forwarded, "{}: packets were not forwarded", case.name);
        report.add(case.name, "ns", readings);
    }
    for (name, over, under) in [
        ("2 workers over 1", "2 workers of 16", "1 worker of 16"),
        (
            "2 workers over 2 that share nothing",
            "2 workers of 16",
            "2 workers that share nothing",
        ),
        (
            "2 arithmetic loops over 1",
            "2 arithmetic loops",
            "1 arithmetic loop",
        ),
        (
            "finding the owner: 1 worker of 16 over the only one",
            "1 worker of 16",
            "the only worker",
        ),
    ] {
        let values = report.value(over).zip(report.value(under));
        let ratio: Vec<f64> = values
            .map(|(over, under)| over / under)
            .into_iter()
            .collect();
        report.add(name, "ratio", &ratio);
    }
    let workers = shared(&PerWorker::<WorkerCounters>::new(WORKERS)) as f64;
    let backends = shared(&PerWorker::<BackendCounters>::new(WORKERS)) as f64;
    report.add(
        "neighbours whose counters share cache lines",
        "workers",
        &[workers],
    );
    report.add(
        "neighbours whose counters of a backend do",
        "workers",
        &[backends],
    );
    Ok(())
}

/// The worker of a gateway that has no other: nobody else can own a packet.
fn alone(name: &'static str) -> anyhow::Result<Case> {
    let threads = vec![packets(Lane::new(plan(1))?)?];
    Ok(Case { name, threads })
}

/// The first workers of one gateway; all the others have nothing to do.
fn together(name: &'static str, workers: u16) -> anyhow::Result<Case> {
    let gateway = Gateway::new(plan(WORKERS))?;
    let threads = (0..workers).map(|worker| packets(gateway.lane(worker)));
    Ok(Case {
        name,
        threads: threads.collect::<anyhow::Result<_>>()?,
    })
}

/// The same workers, each of a gateway of its own.
fn apart(name: &'static str, workers: u16) -> anyhow::Result<Case> {
    let threads = (0..workers).map(|worker| packets(Gateway::new(plan(WORKERS))?.lane(worker)));
    Ok(Case {
        name,
        threads: threads.collect::<anyhow::Result<_>>()?,
    })
}

fn arithmetic(name: &'static str, threads: usize) -> Case {
    let loops = (0..threads).map(|_| -> Work { Box::new(calculate) });
    Case {
        name,
        threads: loops.collect(),
    }
}

fn plan(workers: u16) -> Plan {
    let mut plan = Plan::new(SourceNat::Masquerade);
    plan.workers = workers;
    plan.connections.capacity = 4 * CONNECTIONS;
    plan
}

/// Packets of a worker's own connections.
fn packets(mut lane: Lane) -> anyhow::Result<Work> {
    let mut walk = Walk::evenly(lane.establish::<Ipv4Addr>(CONNECTIONS)?);
    Ok(Box::new(move |watch| {
        let fill = |lane: &mut Lane| lane.fill(walk.step(), TcpFlags::ACK);
        let reading = watch.items(&mut lane, fill, Lane::process);
        lane.check().ok().map(|()| reading)
    }))
}

/// A loop that uses the processor and no memory.
fn calculate(watch: Stopwatch) -> Option<f64> {
    let rounds = |_: &mut ()| {
        let calculate = |sum: u64, n: u64| black_box(sum.rotate_left(5) ^ n);
        black_box((0..BATCH as u64 * LOOP).fold(0, calculate));
    };
    Some(watch.items(&mut (), |()| {}, rounds) / LOOP as f64)
}
