//! The bare AF_XDP forwarder, a thread of this process.

use anyhow::Result;
use sluice_tests::netns::Netns;

use super::super::forwarder::{Forwarder, Settings};
use super::super::rig::{INTERFACES, PEER_CPU, Rig};
use super::write_of_interfaces;

pub(super) fn start(rig: &Rig, busy_poll: Option<u32>) -> Result<Forwarder> {
    Forwarder::start(Settings {
        namespace: rig.inside(),
        interfaces: INTERFACES.map(str::to_owned),
        cpu: PEER_CPU,
        busy_poll,
    })
}

/// Leaves NAPI to who polls busily (Documentation/networking/napi.rst).
pub(super) fn defer_interrupts(gateway: &Netns, on: bool) -> Result<()> {
    let (interrupts, timeout) = if on { (2, 200_000) } else { (0, 0) };
    write_of_interfaces(gateway, "napi_defer_hard_irqs", interrupts)?;
    write_of_interfaces(gateway, "gro_flush_timeout", timeout)
}
