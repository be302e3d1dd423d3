//! New connections are spread over the backends, and answers come from the Vip alone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::capture::Capture;
use sluice_tests::manifests::Service;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Arms, Builder, Topology, VIP};
use sluice_tests::{nginx, traffic};

const REQUESTS: u16 = 1000;

fn web(topology: &Topology) -> Vec<Service> {
    vec![Service::on("web", VIP, nginx::PORT, &topology.backends)]
}

/// Each of three backends has answered a third of the requests, give or take 15 %.
fn ensure_even(by_body: &BTreeMap<String, u64>) -> Result<()> {
    ensure!(
        by_body.len() == 3,
        "three backends, but {by_body:?} answered"
    );
    for (name, count) in by_body {
        let share = *count as f64 / (f64::from(REQUESTS) / 3.0);
        ensure!(
            (0.85..=1.15).contains(&share),
            "{name} answered {count}: {by_body:?}"
        );
    }
    eprintln!("{by_body:?}");
    Ok(())
}

/// Runs `requests` while the client's link is watched.
fn spread(
    topology: Builder,
    requests: impl FnOnce(&Scene) -> Result<BTreeMap<String, u64>>,
) -> Result<()> {
    scene::with(topology, web, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let client = &scene.topology.client;
        let capture = Capture::start(client, "eth0", "tcp", scene.dir())?;
        let by_body = requests(scene)?;
        let seen = capture.finish()?;
        ensure_even(&by_body)?;
        ensure!(seen.bad.is_empty(), "wrong packets: {:?}", seen.bad);
        let own = scene.topology.client_address();
        let answers: Vec<_> = seen
            .packets
            .iter()
            .filter(|packet| packet.source != own)
            .collect();
        // SYN-ACK, data and FIN at least.
        ensure!(
            answers.len() >= 3 * usize::from(REQUESTS),
            "only {} answers",
            answers.len()
        );
        let stranger = answers.iter().find(|packet| !packet.is_tcp_from(VIP, 80));
        ensure!(
            stranger.is_none(),
            "an answer that is not the Vip's: {stranger:?}"
        );
        Ok(())
    })
}

fn with_many_clients(scene: &Scene) -> Result<BTreeMap<String, u64>> {
    let report = traffic::http(
        &scene.topology.client,
        &format!("http://{VIP}/"),
        REQUESTS,
        8,
    )?;
    ensure!(
        report.failed == 0 && report.ok == u64::from(REQUESTS),
        "{report:?}"
    );
    Ok(report.by_body)
}

fn with_curl(scene: &Scene) -> Result<BTreeMap<String, u64>> {
    // A fixed source port for each: the same five-tuples, and so the same spread, every time.
    let script = format!(
        "seq 20000 {} | xargs -P 8 -I PORT curl --silent --show-error --fail --max-time 10 \
         --local-port PORT http://{VIP}/",
        20_000 + REQUESTS - 1
    );
    let printed = scene
        .topology
        .client
        .run(&["sh", "-c", &script], Duration::from_secs(240))?;
    let mut by_body = BTreeMap::new();
    for line in printed.lines() {
        *by_body.entry(line.to_owned()).or_default() += 1;
    }
    let total: u64 = by_body.values().sum();
    ensure!(total == u64::from(REQUESTS), "{total} answers: {by_body:?}");
    Ok(by_body)
}

#[test]
fn a_thousand_curls_are_all_answered_by_the_vip_and_spread_evenly() -> Result<()> {
    spread(Topology::builder(), with_curl)
}

#[test]
fn a_thousand_curls_are_spread_evenly_over_two_queues() -> Result<()> {
    spread(Topology::builder().queues(2), with_curl)
}

#[test]
fn a_thousand_requests_at_once_are_spread_evenly() -> Result<()> {
    spread(Topology::builder(), with_many_clients)
}

#[test]
fn a_thousand_requests_at_once_are_spread_evenly_over_two_queues() -> Result<()> {
    spread(Topology::builder().queues(2), with_many_clients)
}

#[test]
fn a_one_armed_gateway_spreads_a_thousand_requests() -> Result<()> {
    spread(Topology::builder().arms(Arms::One), with_many_clients)
}

#[test]
fn a_one_armed_gateway_with_two_queues_spreads_a_thousand_requests() -> Result<()> {
    spread(
        Topology::builder().arms(Arms::One).queues(2),
        with_many_clients,
    )
}

#[test]
fn a_backend_of_weight_three_gets_three_times_the_connections() -> Result<()> {
    let weighted = |topology: &Topology| {
        let heavy = topology.backends[0].address;
        vec![Service::on("web", VIP, nginx::PORT, &topology.backends[..2]).weight(heavy, 3)]
    };
    scene::with(Topology::builder().backends(2), weighted, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let by_body = with_many_clients(scene)?;
        let heavy = by_body.get("backend-1").copied().unwrap_or_default();
        ensure!((675..=825).contains(&heavy), "{by_body:?}");
        Ok(())
    })
}
