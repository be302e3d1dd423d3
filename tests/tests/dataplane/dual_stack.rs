//! Both families alike: new connections are spread, node ports and pings are answered, Vips on the
//! clients' own link are found.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::family::{CLUSTER_IP6, Family};
use sluice_tests::manifests::Service;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Arms, Builder, CLUSTER_IP, Topology};
use sluice_tests::{nginx, traffic};

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 200;
const NODE_PORT: u16 = 30080;

/// Two hundred connections of one curl, one after the other; how often each backend answered.
fn curls(scene: &Scene, to: SocketAddr) -> Result<BTreeMap<String, u64>> {
    let url = format!("http://{to}/?[1-{REQUESTS}]");
    let printed = scene.curl(
        &["--header", "Connection: close", "--max-time", "10", &url],
        LIMIT,
    )?;
    let mut by_body = BTreeMap::new();
    for line in printed.lines().filter(|line| line.starts_with("backend-")) {
        *by_body.entry(line.to_owned()).or_default() += 1;
    }
    Ok(by_body)
}

fn family_is_served(scene: &Scene, family: Family, mode: &str) -> Result<()> {
    let topology = &scene.topology;
    // First: a port that a connection to another address of the Service has is masqueraded.
    let seen = scene.curl(&[&format!("http://{}/client", family.frontend(80))], LIMIT)?;
    let expected = match mode {
        "preserve" => topology.client_at(family),
        _ => topology.masquerade_at(family),
    };
    ensure!(
        seen.trim() == expected.to_string(),
        "{family}: the backend saw {seen}"
    );
    let by_body = curls(scene, family.frontend(80))?;
    let total: u64 = by_body.values().sum();
    ensure!(total == REQUESTS, "{family}: {total} answers: {by_body:?}");
    ensure!(
        by_body.len() == 3,
        "{family}: not all backends: {by_body:?}"
    );
    let others = [
        SocketAddr::new(family.cluster_ip(), 80),
        SocketAddr::new(topology.node_at(family), NODE_PORT),
    ];
    for to in others {
        let report = traffic::http(&topology.client, &format!("http://{to}/"), 60, 4)?;
        ensure!(
            report.failed == 0 && report.by_body.len() == 3,
            "{to}: {report:?}"
        );
    }
    let vip = family.vip().to_string();
    let ping = ["ping", "-c", "3", "-i", "0.1", "-W", "2", &vip];
    topology.client.run(&ping, LIMIT)?;
    Ok(())
}

fn both_families_are_served(topology: Builder, mode: &'static str) -> Result<()> {
    let web = |topology: &Topology| {
        let web = Service::dual("web", nginx::PORT, &topology.backends);
        let web = web.cluster_ip(CLUSTER_IP).cluster_ip(CLUSTER_IP6);
        vec![web.node_port(NODE_PORT).source_nat(mode)]
    };
    scene::with(topology, web, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        Family::BOTH
            .into_iter()
            .try_for_each(|family| family_is_served(scene, family, mode))
    })
}

#[test]
fn both_families_are_spread_with_masquerade() -> Result<()> {
    both_families_are_served(Topology::builder(), "masquerade")
}

#[test]
fn both_families_are_spread_with_client_addresses_kept() -> Result<()> {
    both_families_are_served(Topology::builder(), "preserve")
}

#[test]
fn both_families_are_spread_over_two_queues_with_masquerade() -> Result<()> {
    both_families_are_served(Topology::builder().queues(2), "masquerade")
}

#[test]
fn both_families_are_spread_over_two_queues_with_client_addresses_kept() -> Result<()> {
    both_families_are_served(Topology::builder().queues(2), "preserve")
}

#[test]
fn both_families_are_spread_over_four_queues_with_masquerade() -> Result<()> {
    both_families_are_served(Topology::builder().queues(4), "masquerade")
}

#[test]
fn both_families_are_spread_over_four_queues_with_client_addresses_kept() -> Result<()> {
    both_families_are_served(Topology::builder().queues(4), "preserve")
}

#[test]
fn a_one_armed_gateway_serves_both_families_over_two_queues() -> Result<()> {
    both_families_are_served(Topology::builder().arms(Arms::One).queues(2), "masquerade")
}

/// The client finds Vips of its own link at the gateway's interface `interface`.
fn on_link(topology: Builder, interface: &str) -> Result<()> {
    let services = |topology: &Topology| {
        let at = |name, family| {
            let vip = topology.on_link_vip_at(family);
            Service::on(name, vip, nginx::PORT, &topology.backends)
        };
        vec![at("four", Family::V4), at("six", Family::V6)]
    };
    scene::with(topology, services, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let client = &scene.topology.client;
        let path = format!("/sys/class/net/{interface}/address");
        let link = scene.topology.gateway.run(&["cat", &path], LIMIT)?;
        for family in Family::BOTH {
            let vip = scene.topology.on_link_vip_at(family);
            let url = format!("http://{}/", SocketAddr::new(vip, 80));
            let report = traffic::http(client, &url, 100, 4)?;
            ensure!(report.failed == 0, "{family}: {report:?}");
            let known = client.run(&["ip", "neigh", "show", &vip.to_string()], LIMIT)?;
            ensure!(known.contains(link.trim()), "{known} is not at {link}");
        }
        Ok(())
    })
}

#[test]
fn a_client_finds_vips_of_its_own_link_in_both_families() -> Result<()> {
    on_link(Topology::builder(), "c0")
}

#[test]
fn a_client_finds_vips_of_its_own_link_with_one_arm_and_four_queues() -> Result<()> {
    on_link(Topology::builder().arms(Arms::One).queues(4), "g0")
}
