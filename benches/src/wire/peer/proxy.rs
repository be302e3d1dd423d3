//! What both proxies share: they end the clients' connections at the Vips and make others to the
//! backends. The Vips are addresses of the gateway meanwhile.

use std::time::Duration;

use anyhow::Result;
use sluice_tests::clock;
use sluice_tests::netns::{CONFIGURE, Netns};
use sluice_tests::process::Process;

use super::super::rig::{PORT, Rig, vip};
use super::kernel::steer;

const LIMIT: Duration = Duration::from_secs(20);
/// Connections that may wait to be accepted.
pub(super) const BACKLOG: u32 = 4096;

/// Makes the Vips the gateway's own and gives it the ports that operators give a proxy.
pub(super) fn prepare(rig: &Rig, services: u32) -> Result<()> {
    let gateway = &rig.gateway;
    let routes = (0..services).map(|service| format!("route add local {} dev lo\n", vip(service)));
    gateway.ip_batch(&routes.collect::<String>())?;
    for (setting, value) in [
        ("ipv4/ip_local_port_range", "'1024 65535'"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("core/somaxconn", &BACKLOG.to_string()),
    ] {
        gateway.write_sysctl(&format!("net/{setting}"), value)?;
    }
    steer(gateway, true)
}

/// Waits until somebody listens at a Vip.
pub(super) fn listening(rig: &Rig, process: &mut Process) -> Result<()> {
    let address = format!("{}:{PORT}", vip(0));
    clock::wait_for("the proxy listening", LIMIT, || {
        process.still_running()?;
        let all = rig.gateway.run(&["ss", "-Hltn"], CONFIGURE)?;
        Ok(all.contains(&address).then_some(()))
    })
}

/// Takes back what [`prepare`] did, but for the settings, which nobody else uses.
pub(super) fn stop(gateway: &Netns) -> Result<()> {
    steer(gateway, false)?;
    gateway.ip_batch("route flush table local scope host type local root 203.0.0.0/8\n")
}
