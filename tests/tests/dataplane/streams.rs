//! iperf3 over TCP and UDP, in both families and both directions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::clock;
use sluice_tests::family::Family;
use sluice_tests::manifests::{Port, Service};
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology};

const IPERF_PORT: u16 = 5201;
const LIMIT: Duration = Duration::from_secs(60);
const SECONDS: &str = "3";
/// Bytes that must arrive; a small part of what is sent.
const ENOUGH: u64 = 1 << 18;
/// Of UDP; far below what any machine carries.
const RATE: &str = "20M";

fn services(topology: &Topology, mode: &'static str) -> Vec<Service> {
    let mut iperf = Service::dual("iperf", IPERF_PORT, &topology.backends);
    let port = |name, protocol| Port {
        name,
        port: IPERF_PORT,
        backend_port: IPERF_PORT,
        node_port: None,
        protocol,
    };
    iperf.ports = vec![port("tcp", Protocol::Tcp), port("udp", Protocol::Udp)];
    vec![iperf.source_nat(mode)]
}

fn stream(scene: &Scene, family: Family, more: &[&str]) -> Result<()> {
    let vip = family.vip().to_string();
    let mut words = vec![
        "iperf3",
        "-c",
        &vip,
        "-t",
        SECONDS,
        "-J",
        "--connect-timeout",
        "5000",
    ];
    words.extend(more);
    let printed = scene.topology.client.run(&words, LIMIT)?;
    let result: serde_json::Value = serde_json::from_str(&printed)?;
    let end = &result["end"];
    let sums = if end["sum_received"].is_null() {
        &end["sum"]
    } else {
        &end["sum_received"]
    };
    let bytes = sums["bytes"].as_u64().context("iperf3's bytes")?;
    ensure!(bytes > ENOUGH, "{family} {more:?}: {bytes} bytes");
    // Reported, not judged: on a busy machine the receiver's socket overflows.
    eprintln!(
        "{family} {more:?}: {} MiB, {:?}",
        bytes >> 20,
        sums["lost_percent"].as_f64()
    );
    Ok(())
}

fn streams_pass(topology: Builder, mode: &'static str) -> Result<()> {
    scene::with(
        topology.backends(1),
        |topology| services(topology, mode),
        |scene| {
            let host = &scene.topology.backends[0].namespace;
            let log = scene.dir().join("iperf3.log");
            let mut server = host.start("iperf3", &["iperf3", "-s", "--forceflush"], &log)?;
            clock::wait_for("iperf3 listening", LIMIT, || {
                server.still_running()?;
                let listening = host.run(&["ss", "-Hltn"], LIMIT)?;
                Ok(listening.contains(":5201").then_some(()))
            })?;
            for family in Family::BOTH {
                let ways: [&[&str]; 4] =
                    [&[], &["-R"], &["-u", "-b", RATE], &["-u", "-b", RATE, "-R"]];
                ways.into_iter()
                    .try_for_each(|more| stream(scene, family, more))?;
            }
            Ok(())
        },
    )
}

#[test]
fn streams_pass_with_masquerade() -> Result<()> {
    streams_pass(Topology::builder(), "masquerade")
}

#[test]
fn streams_pass_over_two_queues_with_client_addresses_kept() -> Result<()> {
    streams_pass(Topology::builder().queues(2), "preserve")
}
