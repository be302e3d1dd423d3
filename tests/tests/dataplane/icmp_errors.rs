//! ICMP errors cross the gateway under the names that the client knows, and the gateway shows itself.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::capture::Capture;
use sluice_tests::family::Family;
use sluice_tests::manifests::{Endpoint, Port, Service};
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::{clock, nginx, traffic};

const LIMIT: Duration = Duration::from_secs(60);
const ECHO: u16 = 7000;
const BEYOND: u8 = 30;

/// A Service for TCP and UDP on port 80.
fn service(mode: &'static str) -> Service {
    let mut service = Service::dual("both", ECHO, &[]).source_nat(mode);
    let port = |name, protocol| Port {
        name,
        port: 80,
        backend_port: ECHO,
        node_port: None,
        protocol,
    };
    service.ports = vec![port("tcp", Protocol::Tcp), port("udp", Protocol::Udp)];
    service
}

/// The addresses that `traceroute` shows, in order.
fn hops(scene: &Scene, family: Family, method: &str) -> Result<Vec<IpAddr>> {
    let vip = family.vip().to_string();
    let words = [
        "traceroute",
        family.flag(),
        "-n",
        "-q",
        "1",
        "-w",
        "3",
        "-m",
        "8",
        method,
        "-p",
        "80",
        &vip,
    ];
    let printed = scene.topology.client.run(&words, LIMIT)?;
    let lines = printed.lines().skip(1);
    Ok(lines
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect())
}

fn traceroute_shows_the_way(topology: Builder, mode: &'static str) -> Result<()> {
    scene::with(
        topology,
        |_| vec![service(mode)],
        |scene| {
            let topology = &scene.topology;
            let first = &topology.backends[0];
            let beyond = topology.behind(first.into(), BEYOND, 1500)?;
            let host = &beyond.host;
            let _echo = traffic::echo(&host.namespace, &host.name, ECHO, scene.dir())?;
            let mut both = service(mode);
            for family in Family::BOTH {
                both.endpoints.push(Endpoint::ready(host.at(family)));
            }
            scene.apply(&both)?;
            for family in Family::BOTH {
                // The gateway may learn of the new routes a little later than of the table.
                clock::wait_until_ok("an answer from beyond", LIMIT, || {
                    let told = traffic::udp_error(&scene.topology.client, family.frontend(80))?;
                    ensure!(told == "answered", "{family}: {told}");
                    Ok(())
                })?;
                let expected = [
                    scene.topology.node_at(family),
                    scene.topology.backends[0].at(family),
                    family.address(BEYOND, 2),
                    family.vip(),
                ];
                for method in ["-U", "-T"] {
                    let seen = hops(scene, family, method)?;
                    ensure!(
                        seen == expected,
                        "traceroute {method} of {family}: {seen:?}"
                    );
                }
            }
            Ok(())
        },
    )
}

#[test]
fn traceroute_shows_gateway_routers_and_vip_with_masquerade() -> Result<()> {
    traceroute_shows_the_way(Topology::builder().backends(1), "masquerade")
}

#[test]
fn traceroute_shows_gateway_routers_and_vip_with_client_addresses_kept() -> Result<()> {
    traceroute_shows_the_way(Topology::builder().backends(1), "preserve")
}

#[test]
fn traceroute_shows_gateway_routers_and_vip_over_four_queues() -> Result<()> {
    traceroute_shows_the_way(Topology::builder().backends(1).queues(4), "masquerade")
}

/// Nobody listens at the backend: its error comes from the Vip and ends the client's wait.
fn port_unreachable_is_translated(topology: Builder, mode: &'static str) -> Result<()> {
    let silent = |topology: &Topology| {
        let udp = Service::dual("silent", nginx::PORT, &topology.backends);
        vec![udp.port(9, Protocol::Udp).source_nat(mode)]
    };
    scene::with(topology, silent, |scene| {
        let client = &scene.topology.client;
        let capture = Capture::start(client, "eth0", "icmp or icmp6", scene.dir())?;
        for family in Family::BOTH {
            let told = traffic::udp_error(client, family.frontend(9))?;
            ensure!(told == "ConnectionRefused", "{family}: {told}");
        }
        let seen = capture.finish()?;
        ensure!(seen.bad.is_empty(), "wrong packets: {:?}", seen.bad);
        for (family, error) in [(Family::V4, (3, 3)), (Family::V6, (1, 4))] {
            let mut errors = seen
                .packets
                .iter()
                .filter(|packet| packet.icmp == Some(error));
            ensure!(
                errors.any(|packet| packet.source == family.vip()),
                "no port unreachable from {} in {:?}",
                family.vip(),
                seen.packets
            );
        }
        Ok(())
    })
}

#[test]
fn a_backends_port_unreachable_comes_from_the_vip_with_masquerade() -> Result<()> {
    port_unreachable_is_translated(Topology::builder().queues(2), "masquerade")
}

#[test]
fn a_backends_port_unreachable_comes_from_the_vip_with_client_addresses_kept() -> Result<()> {
    port_unreachable_is_translated(Topology::builder().queues(4), "preserve")
}
