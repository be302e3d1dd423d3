//! Load by real sockets, for peers that end connections themselves as for those that do not:
//! connections a second, each one opened, asked, answered and closed, and bytes a second.
//!
//! ```text
//!   client, a thread on CPU 0 --- peer, CPU 1 --- server, another thread on CPU 0
//! ```
//!
//! Both ends, their NAPI included, are on the generator's CPU, and what the gateway's interfaces are
//! sent is received on the peer's CPU: for proxies and what is called threaded by steering (RPS). For
//! Sluice, and the kernel otherwise, it is received on the generator's CPU. So what a peer can do
//! shows while the generator's CPU has time left; a peer that leaves it none can do more than is told.

mod client;
mod report;
mod server;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use sluice_tests::clock;
use sluice_tests::netns::{CONFIGURE, Netns};

use super::part::Part;
use super::peer::{Origin, Peer};
use super::readings::Readings;
use super::rig::{GENERATOR_CPU, Rig};
use crate::cpu::{self, Counters, Work};
use crate::generator::plan::Protocol;
use crate::namespace::Namespace;

pub use client::{Load, Tally};

/// Bytes of a request: how many bytes it asks for, then nothing.
const REQUEST: usize = 64;
/// Bytes of the answer on a short connection.
const ANSWER: u64 = 64;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// How it is measured.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Arguments {
    /// Rounds of connections by real sockets; 0: none.
    #[arg(long, default_value_t = 2)]
    pub socket_rounds: u32,
    /// Milliseconds of each of their trials.
    #[arg(long, default_value_t = 1500)]
    pub socket_trial: u64,
    /// Short connections that are open at a time.
    #[arg(long, default_value_t = 128)]
    pub socket_connections: usize,
    /// Connections that carry bytes all the time.
    #[arg(long, default_value_t = 8)]
    pub socket_streams: usize,
}

/// What a trial came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// What the client counted.
    pub tally: Tally,
    /// What each CPU did meanwhile.
    pub cpus: Vec<Work>,
}

/// A peer's round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The peer.
    pub peer: String,
    /// Short connections.
    pub short: Trial,
    /// Streams of bytes.
    pub bulk: Trial,
}

/// Measures all of `peers` that lead to backends, in turns; none when there is nothing to measure. A
/// round that fails is told at once and counted.
pub fn measure(
    rig: &mut Rig,
    peers: &[Peer],
    arguments: &Arguments,
    readings: &mut Readings,
) -> Option<Part> {
    let able: Vec<Peer> = peers
        .iter()
        .copied()
        .filter(|peer| peer.translates())
        .collect();
    let (mut rounds, mut failed) = (Vec::new(), 0);
    for number in 0..arguments.socket_rounds {
        for peer in &able {
            if clock::stopped() {
                break;
            }
            match round(rig, *peer, arguments) {
                Ok(round) => {
                    println!("sockets, round {number}  {}", report::line(&round));
                    rounds.push(round);
                }
                Err(error) => {
                    eprintln!("sockets, round {number}: {}: {error:#}", peer.name());
                    failed += 1;
                }
            }
        }
    }
    if rounds.is_empty() && failed == 0 {
        return None;
    }
    report::add(&rounds, readings);
    Some(report::part(&rounds, failed))
}

/// Measures one peer once.
///
/// # Errors
/// It cannot be started, or the client's thread fails.
pub fn round(rig: &mut Rig, peer: Peer, arguments: &Arguments) -> Result<Round> {
    rig.plan.protocol = Protocol::Tcp;
    rig.aim(1);
    let running = peer
        .start_for(rig, 1, Origin::Sockets)
        .with_context(|| peer.name())?;
    let measured = both(rig, arguments);
    peer.stop(rig, running)?;
    let (short, bulk) = measured.with_context(|| peer.name())?;
    ensure!(short.tally.done > 0, "no connection came through");
    Ok(Round {
        peer: peer.name().to_owned(),
        short,
        bulk,
    })
}

fn both(rig: &Rig, arguments: &Arguments) -> Result<(Trial, Trial)> {
    let ends = Ends::prepare(rig)?;
    let load = |connections, bytes, time| Load {
        connections,
        bytes,
        time,
    };
    let time = Duration::from_millis(arguments.socket_trial);
    let (some, streams) = (arguments.socket_connections, arguments.socket_streams);
    ends.trial(load(some, ANSWER, WARM_UP))?;
    let short = ends.trial(load(some, ANSWER, time))?;
    let bulk = ends.trial(load(streams, u64::MAX, time))?;
    Ok((short, bulk))
}

/// Both ends of a rig, ready for sockets.
pub struct Ends<'a> {
    rig: &'a Rig,
    _server: server::Server,
}

impl<'a> Ends<'a> {
    /// Makes all clients' addresses the near namespace's own and starts the server.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn prepare(rig: &'a Rig) -> Result<Self> {
        let (network, prefix) = (rig.plan.clients.first(), 32 - rig.plan.clients.bits());
        rig.near.ip_batch(&format!(
            "route replace local {network}/{prefix} dev lo\nroute replace default via 10.1.0.1\n"
        ))?;
        own_napi(&rig.near, "g0")?;
        own_napi(&rig.far, "s0")?;
        let server = server::Server::start(&Namespace::named(rig.far.name()), GENERATOR_CPU)?;
        Ok(Self {
            rig,
            _server: server,
        })
    }

    /// Lets clients load the peer.
    ///
    /// # Errors
    /// The client's thread fails.
    pub fn trial(&self, load: Load) -> Result<Trial> {
        let near = Namespace::named(self.rig.near.name());
        let before = Counters::read()?;
        let tally = near.within(|| client::run(&self.rig.plan, load, GENERATOR_CPU))?;
        let cpus = Counters::read()?.since(&before);
        Ok(Trial { tally, cpus })
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        for (namespace, interface) in [(&self.rig.near, "g0"), (&self.rig.far, "s0")] {
            // A namespace that is going takes the setting with it.
            let _ = threaded(namespace, interface, false);
        }
    }
}

/// Runs NAPI of an end in a thread on the generator's CPU: whoever sends to it does not do its work.
fn own_napi(namespace: &Netns, interface: &str) -> Result<()> {
    threaded(namespace, interface, true)?;
    cpu::claim_for(&[format!("napi/{interface}-")], GENERATOR_CPU)
}

fn threaded(namespace: &Netns, interface: &str, on: bool) -> Result<()> {
    let value = u32::from(on);
    let script = format!("echo {value} > /sys/class/net/{interface}/threaded");
    namespace.run(&["sh", "-c", &script], CONFIGURE).map(drop)
}
