//! Established TCP connections under load, alone or beside new ones: set up by SYNs that the sink
//! answers, then data, all in the way of the peer that runs.

use std::time::Duration;

use anyhow::{Context, Result};

use super::measure::{Options, send};
use super::peer::{Peer, Running};
use super::rig::Rig;
use crate::generator::plan::{Protocol, Script};
use crate::rate::Rate;
use crate::sink::Action;
use crate::trial::{Kind, Outcome};

/// SYNs a second that set connections up, and how often each comes: some are lost.
const SET_UP: Rate = Rate(50e3);
const SYNS: f64 = 2.5;
/// Seconds that connections outlive a pause between two trials on a busy machine.
const KEPT: u32 = 30;

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Data of connections, packets a second.
    pub data: Rate,
    /// SYNs of ever new connections beside it; 0 is none. Nobody answers them.
    pub new: Rate,
    /// For how long.
    pub time: Duration,
}

/// Makes the rig's plan one of so many connections, in frames of at least `size` bytes; to be called
/// before the peer is started, so that it keeps them.
pub fn prepare(rig: &mut Rig, connections: u32, size: u16) {
    rig.aim(1);
    rig.kept = KEPT;
    rig.plan.sizes.fill(size);
    rig.plan.protocol = Protocol::Tcp;
    rig.plan.flows = u64::from(connections);
    rig.plan.script = Script::Data;
    rig.plan.flood = 0;
    rig.plan.fit();
}

/// Prepares for established connections, starts a peer with so many Services, measures it and stops
/// it.
///
/// # Errors
/// The peer cannot be started, or `measure`'s own.
pub fn with_peer(
    rig: &mut Rig,
    peer: Peer,
    services: u32,
    options: &Options,
    measure: impl FnOnce(&mut Rig, &Running) -> Result<()>,
) -> Result<()> {
    prepare(rig, options.flows, options.size);
    let running = peer.start(rig, services).with_context(|| peer.name())?;
    let measured = measure(rig, &running);
    peer.stop(rig, running)?;
    measured.with_context(|| peer.name())
}

/// Sets all connections up, calls `begin` and sends `load`. What comes of it is told of the data alone; of the new
/// connections the sink only counts those that arrive.
///
/// # Errors
/// As [`super::measure::try_rate`].
pub fn run(
    rig: &mut Rig,
    peer: Peer,
    load: Load,
    kind: Kind,
    begin: impl FnOnce(),
) -> Result<Outcome> {
    rig.plan.script = Script::Syn;
    rig.plan.send_beside(SET_UP, Rate(0.0));
    rig.plan.duration = Duration::from_secs_f64(SYNS * rig.plan.flows as f64 / SET_UP.0);
    send(rig, peer, Action::Reply, kind)?;
    rig.plan.script = Script::Data;
    rig.plan.send_beside(load.data, load.new);
    rig.plan.duration = load.time;
    begin();
    send(rig, peer, Action::Drop, kind)
}

/// Connections that arrived elsewhere than at first, or no longer, of those that `before` saw.
pub fn broken(before: &Outcome, after: &Outcome) -> u64 {
    match (before.tallies.first(), after.tallies.first()) {
        (Some(before), Some(after)) => after.moved + before.flows.saturating_sub(after.flows),
        _ => 0,
    }
}
