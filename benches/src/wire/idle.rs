//! What a peer costs when there is little to do, and how late the first packet is after a pause.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::measure::{Options, try_rate};
use super::peer::{Peer, Running};
use super::readings::Readings;
use super::rig::Rig;
use super::wake;
use crate::cpu;
use crate::generator::plan::{Protocol, Script};
use crate::rate::Rate;
use crate::statistics::{quantile, sorted};
use crate::trial::Latency;

const SECTION: &str = "Little traffic";
/// Packets a second at which the CPU is watched.
const RATES: [f64; 4] = [0.0, 1e3, 10e3, 100e3];
/// Single packets: a pause of 8 ms, which no worker spins through, that no tick of 4 ms divides.
const SINGLE: Rate = Rate(123.0);
const FLOWS: u64 = 64;
/// The CPU is watched at each rate as long as so many trials last.
const WATCHED: u32 = 3;
/// Between starting the traffic and watching the CPU.
const START: Duration = Duration::from_millis(200);
/// How often a thread is woken, to know what that alone costs.
const WAKES: usize = 300;
/// Single packets are sent as long as so many trials last.
const SINGLES: u32 = 10;

/// Measures what a wake-up costs without packets, the bare forwarder, which always spins, and Sluice.
///
/// # Errors
/// A peer cannot be started, or changes frames as it should not.
pub fn round(rig: &mut Rig, options: &Options, readings: &mut Readings) -> Result<()> {
    let delays = sorted(&wake::delays(WAKES)?);
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some(delay) = quantile(&delays, share) {
            let name = format!("waking a thread on the other CPU, {name}");
            readings.add(SECTION, name, "µs", delay / 1e3);
        }
    }
    let bare = one(rig, Peer::Bare, options, readings).context("the bare forwarder")?;
    let own = one(rig, Peer::Sluice, options, readings).context("Sluice")?;
    let (sluice, forwarder) = (Peer::Sluice.name(), Peer::Bare.name());
    for (quantile, own, bare) in [("p50", own.p50, bare.p50), ("p99", own.p99, bare.p99)] {
        let name = format!("single packets: {sluice} less {forwarder}, {quantile}");
        readings.add(SECTION, name, "µs", (own as f64 - bare as f64) / 1e3);
    }
    Ok(())
}

/// Measures one peer; returns the latency of single packets.
///
/// # Errors
/// The peer cannot be started, or changes frames as it should not.
pub fn one(
    rig: &mut Rig,
    peer: Peer,
    options: &Options,
    readings: &mut Readings,
) -> Result<Latency> {
    rig.aim(1);
    rig.plan.script = Script::Data;
    (rig.plan.protocol, rig.plan.flows, rig.plan.flood) = (Protocol::Udp, FLOWS, 0);
    rig.plan.sizes.fill(options.size);
    rig.plan.fit();
    let running = peer.start(rig, 1)?;
    let measured = watched(rig, peer, &running, options, readings);
    peer.stop(rig, running)?;
    let latency = measured?;
    for (quantile, nanos) in [("p50", latency.p50), ("p99", latency.p99)] {
        let name = format!("single packets: {}, {quantile}", peer.name());
        readings.add(SECTION, name, "µs", nanos as f64 / 1e3);
    }
    Ok(latency)
}

fn watched(
    rig: &mut Rig,
    peer: Peer,
    running: &Running,
    options: &Options,
    readings: &mut Readings,
) -> Result<Latency> {
    let watched = options.trial * WATCHED;
    // Every flow is known before anything is measured.
    try_rate(rig, peer, Rate(1e3), START, options.kind)?;
    for rate in RATES {
        let Some(pid) = running.process() else { break };
        let share = thread::scope(|scope| -> Result<f64> {
            let watch = scope.spawn(move || {
                thread::sleep(START);
                cpu::share_of_process(pid, watched)
            });
            if rate > 0.0 {
                try_rate(rig, peer, Rate(rate), watched + START * 2, options.kind)?;
            }
            watch.join().map_err(|_| anyhow!("a thread died"))?
        })?;
        let name = format!("CPU at {rate:.0} packets a second: {}", peer.name());
        readings.add(SECTION, name, "%", share * 100.0);
    }
    Ok(try_rate(rig, peer, SINGLE, options.trial * SINGLES, options.kind)?.latency)
}
