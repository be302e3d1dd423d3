//! Links whose frames carry VLAN tags: each interface has its own, and packets get those of the
//! interface that they leave by.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::capture::{Capture, Seen};
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::netns::Netns;
use sluice_tests::scene;
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::{nginx, traffic};

const LIMIT: Duration = Duration::from_secs(60);
const ECHO: u16 = 7000;

fn ensure_tagged(place: &Netns, seen: &Seen, tags: &[u16]) -> Result<()> {
    ensure!(seen.bad.is_empty(), "wrong packets: {:?}", seen.bad);
    // A kernel says by MLD on the bare link, too, which groups it listens to.
    let relevant = |address: std::net::IpAddr| !address.is_multicast();
    for family in Family::BOTH {
        let of_family = seen
            .packets
            .iter()
            .filter(|packet| Family::of(packet.source) == family && relevant(packet.destination));
        let mut count = 0;
        for packet in of_family {
            ensure!(packet.tags == tags, "{}: {packet:?}", place.name());
            count += 1;
        }
        ensure!(count > 100, "{}, {family}: {count} packets", place.name());
    }
    Ok(())
}

fn tagged_links_carry(
    topology: Builder,
    mode: &'static str,
    (client_tags, backend_tags): (&'static [u16], &'static [u16]),
) -> Result<()> {
    let services = |topology: &Topology| {
        let web = Service::dual("web", nginx::PORT, &topology.backends);
        let echo = Service::dual("echo", ECHO, &topology.backends).port(7, Protocol::Udp);
        vec![web.source_nat(mode), echo.source_nat(mode)]
    };
    let topology = topology
        .backends(1)
        .client_tags(client_tags)
        .backend_tags(backend_tags);
    scene::with(topology, services, |scene| {
        let (client, host) = (&scene.topology.client, &scene.topology.backends[0]);
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let _echo = traffic::echo(&host.namespace, &host.name, ECHO, scene.dir())?;
        let captures = [
            (
                client,
                client_tags,
                Capture::start(client, "eth0", "", scene.dir())?,
            ),
            (
                &host.namespace,
                backend_tags,
                Capture::start(&host.namespace, "eth0", "", scene.dir())?,
            ),
        ];
        for family in Family::BOTH {
            let url = format!("http://{}/", family.frontend(80));
            let report = traffic::http(client, &url, 50, 4)?;
            ensure!(report.failed == 0, "{family}: {report:?}");
            let picks = traffic::large_udp(client, family.frontend(7), 30_000, 20, 3000)?;
            ensure!(picks.len() == 20, "{family}: {picks:?}");
            let refused = traffic::udp_error(client, family.frontend(8))?;
            ensure!(refused == "ConnectionRefused", "{family}: {refused}");
            let vip = family.vip().to_string();
            client.run(&["ping", "-c", "2", "-i", "0.1", "-W", "2", &vip], LIMIT)?;
            // The kernel's own way, beside Sluice's.
            let direct = host.at(family).to_string();
            client.run(&["ping", "-c", "2", "-i", "0.1", "-W", "2", &direct], LIMIT)?;
        }
        for (place, tags, capture) in captures {
            ensure_tagged(place, &capture.finish()?, tags)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs a kernel with CONFIG_VLAN_8021Q"]
fn a_tagged_link_to_clients_and_an_untagged_one_to_backends() -> Result<()> {
    tagged_links_carry(Topology::builder(), "masquerade", (&[100], &[]))
}

#[test]
#[ignore = "needs a kernel with CONFIG_VLAN_8021Q"]
fn tags_change_between_two_links_over_two_queues() -> Result<()> {
    tagged_links_carry(Topology::builder().queues(2), "preserve", (&[100], &[200]))
}

#[test]
#[ignore = "needs a kernel with CONFIG_VLAN_8021Q"]
fn two_tags_towards_clients_and_one_towards_backends() -> Result<()> {
    tagged_links_carry(Topology::builder(), "masquerade", (&[300, 100], &[200]))
}
