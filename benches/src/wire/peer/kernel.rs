//! What all peers inside the kernel share: forwarding, and who runs NAPI.

use anyhow::Result;
use sluice_tests::netns::{CONFIGURE, Netns};

use super::super::forwarder::{Pass, pass};
use super::super::rig::{INTERFACES, PEER_CPU, Rig};
use super::{Origin, STATES, write_of_interfaces};
use crate::cpu;

/// Forwards between the interfaces; ends with the guards.
pub(super) fn forward(rig: &Rig, threads: bool, origin: Origin) -> Result<Vec<Pass>> {
    let gateway = &rig.gateway;
    gateway.write_sysctl("net/ipv4/ip_forward", "1")?;
    for (name, state) in STATES {
        let path = format!("net/netfilter/nf_conntrack_tcp_timeout_{name}");
        gateway.write_sysctl(&path, &origin.seconds(rig, state).to_string())?;
    }
    let inside = rig.inside();
    let mut guards = Vec::new();
    if origin == Origin::Generator {
        for interface in INTERFACES {
            guards.push(pass(&inside, interface)?);
        }
    }
    match origin {
        _ if !threads => {}
        Origin::Generator => threaded(gateway, true)?,
        Origin::Sockets => steer(gateway, true)?,
    }
    Ok(guards)
}

/// Takes back what [`forward`] did.
pub(super) fn stop(gateway: &Netns) -> Result<()> {
    threaded(gateway, false)?;
    steer(gateway, false)?;
    gateway.write_sysctl("net/ipv4/ip_forward", "0")
}

/// Whether the peer's CPU receives what the interfaces are sent: without an XDP program they have no
/// NAPI that could run in a thread (Documentation/networking/scaling.rst, "RPS").
pub(super) fn steer(gateway: &Netns, on: bool) -> Result<()> {
    let cpus = if on { 1 << PEER_CPU } else { 0 };
    write_of_interfaces(gateway, "queues/rx-0/rps_cpus", cpus)
}

/// Whether NAPI of the gateway's interfaces runs in kernel threads, which are then on the peer's CPU.
fn threaded(gateway: &Netns, on: bool) -> Result<()> {
    write_of_interfaces(gateway, "threaded", u32::from(on))?;
    if !on {
        return Ok(());
    }
    let names = INTERFACES.map(|interface| format!("napi/{interface}-"));
    cpu::claim_for(&names, PEER_CPU)
}

/// Feeds `input` to a program that loads rules.
pub(super) fn load(gateway: &Netns, words: &[&str], input: &str) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        return Ok(());
    };
    let mut command = gateway.command(program);
    let done = sluice_tests::process::run(command.args(arguments), input, CONFIGURE * 6)?;
    done.success().map(drop)
}
