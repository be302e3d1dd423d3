//! A SYN flood at several times what a peer can serve, with established connections beside it: what
//! those lose. The flood comes from all clients and ports at once, to the Vip of the connections;
//! nobody answers it.

use anyhow::Result;

use super::change::Changer;
use super::established::{self, Load};
use super::known::Known;
use super::measure::Options;
use super::peer::Peer;
use super::readings::Readings;
use super::rig::{Rig, SPARES};
use crate::generator::plan::{CONNECTION_STEPS, Script};
use crate::rate::Rate;

const SECTION: &str = "SYN flood beside established connections";
/// SYNs for every connection that the peer can serve.
const TIMES: f64 = 5.0;
/// Share of the peer's highest rate that the established connections have.
const DATA: f64 = 0.3;
/// Trials that it lasts as long as.
const TRIALS: u32 = 3;

/// Measures one peer once, after the same without a flood.
///
/// # Errors
/// The peer cannot be started, or changes frames as it should not.
pub fn round(
    rig: &mut Rig,
    peer: Peer,
    known: &mut Known,
    options: &Options,
    readings: &mut Readings,
) -> Result<()> {
    established::with_peer(rig, peer, 1, options, |rig, running| {
        let changer = Changer::of(peer, running, rig);
        measure(rig, peer, changer, known, options, readings)
    })
}

fn measure(
    rig: &mut Rig,
    peer: Peer,
    changer: Option<Changer<'_>>,
    known: &mut Known,
    options: &Options,
    readings: &mut Readings,
) -> Result<()> {
    if let Some(changer) = changer {
        // So many source ports that they are not what the flood uses up first.
        changer.settle(SPARES, 1)?;
    }
    let most = known.rate(rig, peer, Script::Data, options)?;
    let packets = known.rate(rig, peer, Script::Connection, options)?;
    let flood = packets.times(TIMES / CONNECTION_STEPS as f64);
    established::prepare(rig, options.flows, options.size);
    let name = peer.name();
    let mut add = |what: &str, unit, value| {
        readings.add(SECTION, format!("{what}: {name}"), unit, value);
    };
    for (what, new) in [
        ("loss without a flood", Rate(0.0)),
        ("loss beside the flood", flood),
    ] {
        let load = Load {
            data: most.times(DATA),
            new,
            time: options.trial * TRIALS,
        };
        let outcome = established::run(rig, peer, load, options.kind, || {})?;
        add(what, "%", outcome.loss * 100.0);
        if new.0 > 0.0 {
            let seconds = outcome.seconds.max(1e-9);
            let arrived = outcome.tallies.first().map_or(0, |tally| tally.flood);
            add(
                "SYNs sent",
                "million/s",
                outcome.sent.flooded as f64 / seconds / 1e6,
            );
            add(
                "SYNs that got through",
                "million/s",
                arrived as f64 / seconds / 1e6,
            );
            add("left out by the generator", "%", outcome.left_out * 100.0);
        }
    }
    Ok(())
}
