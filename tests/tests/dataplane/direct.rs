//! Who does not use a Service is not disturbed by one: direct clients of backends that see client
//! addresses, and the host's own connections from ports that masquerading uses.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::family::Family;
use sluice_tests::manifests::{Port, Service};
use sluice_tests::netns::Netns;
use sluice_tests::nginx;
use sluice_tests::scene;
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::traffic::{self, Held, Report, Step};

const LIMIT: Duration = Duration::from_secs(60);
const ECHO: u16 = 7000;
/// A port within `source_nat.ports`.
const WITHIN: u16 = 20_000;

fn services(topology: &Topology, mode: &'static str) -> Vec<Service> {
    let mut echo = Service::dual("echo", ECHO, &topology.backends).source_nat(mode);
    let port = |name, port, backend_port, protocol| Port {
        name,
        port,
        backend_port,
        node_port: None,
        protocol,
    };
    echo.ports = vec![
        port("web", 80, nginx::PORT, Protocol::Tcp),
        port("tcp", 7, ECHO, Protocol::Tcp),
        port("udp", 7, ECHO, Protocol::Udp),
    ];
    vec![echo]
}

/// Requests from source ports `first` and up, each on a connection of its own.
fn http_from(namespace: &Netns, to: SocketAddr, first: u16, count: u16) -> Result<Report> {
    let (url, first, count) = (
        format!("http://{to}/"),
        first.to_string(),
        count.to_string(),
    );
    let words = [
        "http",
        "--url",
        &url,
        "--first-port",
        &first,
        "--count",
        &count,
    ];
    Ok(serde_json::from_str(&traffic::run(
        namespace, &words, LIMIT,
    )?)?)
}

/// TCP and UDP to every backend itself from `from`, then through the Vip, with equal source ports.
fn reaches_all(topology: &Topology, from: &Netns, family: Family, first: u16) -> Result<()> {
    for host in &topology.backends {
        let to = SocketAddr::new(host.at(family), nginx::PORT);
        let report = http_from(from, to, first, 40)?;
        ensure!(
            report.by_body.get(&host.name) == Some(&40),
            "{to}: {report:?}"
        );
        let to = SocketAddr::new(host.at(family), ECHO);
        let picks = traffic::udp(from, to, first, 40)?;
        let right = picks.values().filter(|name| **name == host.name).count();
        ensure!(right == 40, "{to} from {}: {picks:?}", from.name());
    }
    Ok(())
}

fn direct_clients_are_served(topology: Builder, mode: &'static str) -> Result<()> {
    scene::with(
        topology,
        |topology| services(topology, mode),
        |scene| {
            let topology = &scene.topology;
            let hosts = &topology.backends;
            let _nginx = nginx::start_all(hosts, scene.dir(), scene.dir())?;
            let _echo: Vec<_> = hosts
                .iter()
                .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
                .collect::<Result<_>>()?;
            for family in Family::BOTH {
                let client = &topology.client;
                // From ports that masqueraded connections have, as long as there are none.
                reaches_all(topology, &topology.gateway, family, WITHIN)?;
                let direct = SocketAddr::new(hosts[0].at(family), ECHO);
                let mut held = [
                    Held::connect(client, direct)?,
                    Held::connect(client, family.frontend(7))?,
                    Held::connect(&topology.gateway, direct)?,
                ];
                reaches_all(topology, client, family, WITHIN)?;
                let report = http_from(client, family.frontend(80), WITHIN, 100)?;
                ensure!(
                    report.failed == 0 && report.by_body.len() == 3,
                    "{report:?}"
                );
                let picks = traffic::udp(client, family.frontend(7), WITHIN, 40)?;
                ensure!(picks.len() == 40, "{family}: {picks:?}");
                for each in &mut held {
                    ensure!(each.step()? == Step::Echoed, "{family}: a connection broke");
                }
            }
            Ok(())
        },
    )
}

#[test]
fn direct_clients_and_the_host_are_served_beside_kept_client_addresses() -> Result<()> {
    direct_clients_are_served(Topology::builder(), "preserve")
}

#[test]
fn direct_clients_and_the_host_are_served_over_two_queues() -> Result<()> {
    direct_clients_are_served(Topology::builder().queues(2), "preserve")
}

#[test]
fn direct_clients_and_the_host_are_served_over_four_queues_with_masquerade() -> Result<()> {
    direct_clients_are_served(Topology::builder().queues(4), "masquerade")
}
