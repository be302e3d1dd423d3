//! The highest rate of a peer that has many live connections.

use std::fs;

use anyhow::{Context, Result};

use super::change::Changer;
use super::measure::{Case, Options, highest};
use super::peer::{Peer, Running};
use super::readings::Readings;
use super::rig::{Rig, SPARES};
use crate::generator::plan::Script;

const SECTION: &str = "Live connections";
/// How many.
pub const CONNECTIONS: [u32; 3] = [10_000, 100_000, 1_000_000];

/// Measures one peer once with each number of `connections`.
///
/// # Errors
/// The peer cannot be started, or changes frames as it should not.
pub fn round(
    rig: &mut Rig,
    peer: Peer,
    connections: &[u32],
    options: &Options,
    readings: &mut Readings,
) -> Result<()> {
    for count in connections {
        let name = format!("{count} live connections: {}", peer.name());
        let case = Case {
            script: Script::Data,
            services: 1,
        };
        rig.plan.sizes.fill(options.size);
        case.prepare(rig, u64::from(*count));
        let running = peer.start(rig, 1).with_context(|| peer.name())?;
        let room = room(&running);
        let found = if room < u64::from(*count) {
            let why = format!("the kernel has room for {room} (net.netfilter.nf_conntrack_max)");
            readings.leave_out(name.clone(), why);
            Ok(None)
        } else {
            measure(rig, peer, &running, options)
        };
        peer.stop(rig, running)?;
        if let Some(rate) = found.with_context(|| name.clone())? {
            readings.add(SECTION, name, "Mpps", rate / 1e6);
        }
    }
    Ok(())
}

fn measure(rig: &mut Rig, peer: Peer, running: &Running, options: &Options) -> Result<Option<f64>> {
    if let Some(changer) = Changer::of(peer, running, rig) {
        // Four endpoints are not enough: a connection needs a source port of its own at its endpoint.
        changer.settle(SPARES, 1)?;
    }
    let (found, _) = highest(rig, peer, None, options)?;
    Ok(found.map(|rate| rate.0))
}

/// Most connections of a peer.
fn room(running: &Running) -> u64 {
    if !matches!(running, Running::Kernel(_)) {
        return u64::MAX;
    }
    let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    let number = text.ok().and_then(|text| text.trim().parse().ok());
    number.unwrap_or(u64::MAX)
}
