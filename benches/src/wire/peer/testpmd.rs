//! DPDK's testpmd with the AF_XDP driver: a second opinion on what an AF_XDP forwarder can.
//!
//! It forwards as the bare forwarder does: frames unread, no huge pages (this is copy mode anyway),
//! receiving NAPI where the frames come from.

use std::time::Duration;

use anyhow::{Context, Result};
use sluice_tests::clock;
use sluice_tests::netns::{CONFIGURE, Netns};

use super::super::rig::{GENERATOR_CPU, INTERFACES, PEER_CPU, Rig};
use super::Program;
use crate::cpu;

const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn start(rig: &Rig) -> Result<Program> {
    let dir = tempfile::tempdir().context("a folder for testpmd")?;
    let cores = format!("{GENERATOR_CPU},{PEER_CPU}");
    // The driver polls NAPI itself unless its budget is 0.
    let [first, second] = [0, 1].map(|port: usize| {
        let interface = INTERFACES[port];
        format!("net_af_xdp{port},iface={interface},busy_budget=0,force_copy=1")
    });
    let main = GENERATOR_CPU.to_string();
    // Without a period of statistics it would end at the end of its input.
    let words = [
        "dpdk-testpmd",
        "--no-huge",
        "--no-shconf",
        "--no-pci",
        "--no-telemetry",
        "-m",
        "512",
        "-l",
        &cores,
        "--main-lcore",
        &main,
        "--vdev",
        &first,
        "--vdev",
        &second,
        "--",
        "--forward-mode=io",
        "--auto-start",
        "--nb-cores=1",
        "--total-num-mbufs=16384",
        "--burst=64",
        "--stats-period",
        "3600",
    ];
    let mut process = rig
        .gateway
        .start("testpmd", &words, &dir.path().join("log"))?;
    clock::wait_for("testpmd forwarding", LIMIT, || {
        process.still_running()?;
        Ok(process
            .log()
            .contains("nb forwarding cores=1")
            .then_some(()))
    })?;
    cpu::prefer_process(process.pid())?;
    Ok(Program { process, _dir: dir })
}

/// It leaves its XDP programs behind when it is killed.
pub(super) fn detach(gateway: &Netns) -> Result<()> {
    for interface in INTERFACES {
        gateway.run(
            &["ip", "link", "set", interface, "xdpdrv", "off"],
            CONFIGURE,
        )?;
    }
    Ok(())
}
