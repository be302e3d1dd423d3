//! Long transfers in both modes of source NAT: nothing is lost, nothing is changed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::manifests::Service;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology, VIP};
use sluice_tests::{clock, nginx};

/// How long iperf3 sends.
const SECONDS: u64 = 10;
/// Size of the file, in bytes.
const FILE: u64 = 100 << 20;
const IPERF_PORT: u16 = 5201;
const LIMIT: Duration = Duration::from_secs(120);

fn services(topology: &Topology, mode: &'static str) -> Vec<Service> {
    // One backend: control and data connection of iperf3 must meet the same server.
    let one = &topology.backends[..1];
    let iperf = Service::on("iperf", VIP, IPERF_PORT, one).port(IPERF_PORT, Protocol::Tcp);
    let web = Service::on("web", VIP, nginx::PORT, &topology.backends);
    vec![iperf.source_nat(mode), web.source_nat(mode)]
}

fn iperf(scene: &Scene, reverse: bool) -> Result<()> {
    let host = &scene.topology.backends[0].namespace;
    let log = scene.dir().join("iperf3.log");
    let mut server = host.start(
        "iperf3",
        &["iperf3", "-s", "--one-off", "--forceflush"],
        &log,
    )?;
    clock::wait_for("iperf3 listening", LIMIT, || {
        server.still_running()?;
        Ok(host
            .run(&["ss", "-Hltn"], LIMIT)?
            .contains(":5201")
            .then_some(()))
    })?;
    let (seconds, vip) = (SECONDS.to_string(), VIP.to_string());
    let mut words = vec![
        "iperf3",
        "-c",
        &vip,
        "-t",
        &seconds,
        "-J",
        "--connect-timeout",
        "5000",
    ];
    if reverse {
        words.push("-R");
    }
    let printed = scene.topology.client.run(&words, LIMIT)?;
    let result: serde_json::Value = serde_json::from_str(&printed)?;
    let received = &result["end"]["sum_received"];
    let bits = received["bits_per_second"]
        .as_f64()
        .context("iperf3's rate")?;
    let took = received["seconds"].as_f64().context("iperf3's duration")?;
    eprintln!(
        "iperf3, reverse {reverse}: {:.2} Gbit/s over {took:.1} s",
        bits / 1e9
    );
    ensure!(
        took >= SECONDS as f64 * 0.9,
        "iperf3 stopped after {took} s"
    );
    // Far below what any machine does, far above a connection that only survives by retransmission.
    ensure!(bits > 10e6, "{bits} bit/s");
    fs::remove_file(log)?;
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let path = path.to_string_lossy();
    let mut command = std::process::Command::new("sha256sum");
    let printed = sluice_tests::process::run(command.arg(&*path), "", LIMIT)?
        .success()?
        .stdout;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

fn random_file(path: &Path) -> Result<()> {
    let script = format!("head -c {FILE} /dev/urandom > {}", path.display());
    let mut command = std::process::Command::new("sh");
    sluice_tests::process::run(command.args(["-c", &script]), "", LIMIT)?.success()?;
    Ok(())
}

fn transfer(topology: Builder, mode: &'static str) -> Result<()> {
    scene::with(
        topology,
        |topology| services(topology, mode),
        |scene| {
            let (big, copy) = (scene.dir().join("big"), scene.dir().join("copy"));
            random_file(&big)?;
            let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), &big)?;
            let expected_client = match mode {
                "preserve" => scene.topology.client_address(),
                _ => scene.topology.gateway_towards_backends(),
            };
            let client = scene.curl(&[&format!("http://{VIP}/client")], LIMIT)?;
            ensure!(
                client.trim() == expected_client.to_string(),
                "the backend saw {client}"
            );

            let output = copy.to_string_lossy();
            let start = clock::now();
            scene.curl(&["--output", &output, &format!("http://{VIP}/big")], LIMIT)?;
            eprintln!(
                "{} MiB in {:.2} s",
                FILE >> 20,
                start.elapsed().as_secs_f64()
            );
            ensure!(
                fs::metadata(&copy)?.len() == FILE,
                "the copy has another size"
            );
            ensure!(sha256(&copy)? == sha256(&big)?, "the copy differs");

            iperf(scene, false)?;
            iperf(scene, true)
        },
    )
}

#[test]
fn iperf_and_a_large_file_pass_with_masquerade() -> Result<()> {
    transfer(Topology::builder(), "masquerade")
}

#[test]
fn iperf_and_a_large_file_pass_with_client_addresses_kept() -> Result<()> {
    transfer(Topology::builder(), "preserve")
}

#[test]
fn iperf_and_a_large_file_pass_over_two_queues_with_masquerade() -> Result<()> {
    transfer(Topology::builder().queues(2), "masquerade")
}

#[test]
fn iperf_and_a_large_file_pass_over_two_queues_with_client_addresses_kept() -> Result<()> {
    transfer(Topology::builder().queues(2), "preserve")
}
