//! What the gateway answers itself: refusals, pings and ARP for Vips.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::capture::{Capture, Seen};
use sluice_tests::manifests::Service;
use sluice_tests::scene;
use sluice_tests::topology::{Arms, Builder, Topology, VIP};
use sluice_tests::{nginx, traffic};

const LIMIT: Duration = Duration::from_secs(30);
/// Type and code of "destination unreachable, port unreachable" (RFC 792).
const PORT_UNREACHABLE: (u8, u8) = (3, 3);
/// curl's exit code for a connection that could not be made.
const CURL_CANNOT_CONNECT: i32 = 7;

fn ensure_port_unreachable_from_vip(seen: &Seen) -> Result<()> {
    ensure!(seen.bad.is_empty(), "wrong packets: {:?}", seen.bad);
    let found = seen
        .packets
        .iter()
        .any(|packet| packet.source == VIP && packet.icmp == Some(PORT_UNREACHABLE));
    ensure!(
        found,
        "no port unreachable from {VIP} in {:?}",
        seen.packets
    );
    Ok(())
}

/// Expects TCP to `port` of the Vip to be refused at once, by an ICMP error of the Vip.
fn tcp_is_refused(services: impl FnOnce(&Topology) -> Vec<Service>, port: u16) -> Result<()> {
    scene::with(Topology::builder(), services, |scene| {
        let client = &scene.topology.client;
        let capture = Capture::start(client, "eth0", "icmp", scene.dir())?;
        let url = format!("http://{VIP}:{port}/");
        let words = ["curl", "--silent", "--show-error", "--max-time", "5", &url];
        let ended = client.try_run(&words, LIMIT)?;
        ensure!(
            ended.status.code() == Some(CURL_CANNOT_CONNECT),
            "{ended:?}"
        );
        ensure!(
            ended.stderr.contains("onnection refused") || ended.stderr.contains("Couldn't connect"),
            "{ended:?}"
        );
        let report = traffic::http(client, &url, 1, 1)?;
        let refused = report
            .errors
            .keys()
            .any(|error| error.contains("ECONNREFUSED"));
        ensure!(refused, "{report:?}");
        ensure_port_unreachable_from_vip(&capture.finish()?)
    })
}

#[test]
fn a_vip_port_without_a_backend_refuses_at_once() -> Result<()> {
    tcp_is_refused(|_| vec![Service::on("web", VIP, nginx::PORT, &[])], 80)
}

#[test]
fn a_port_that_a_vip_does_not_define_refuses_at_once() -> Result<()> {
    let web = |topology: &Topology| vec![Service::on("web", VIP, nginx::PORT, &topology.backends)];
    tcp_is_refused(web, 81)
}

#[test]
fn a_udp_port_that_a_vip_does_not_define_is_unreachable() -> Result<()> {
    let services = |topology: &Topology| {
        vec![Service::on("dns", VIP, 5353, &topology.backends).port(53, Protocol::Udp)]
    };
    scene::with(Topology::builder(), services, |scene| {
        let client = &scene.topology.client;
        let capture = Capture::start(client, "eth0", "icmp", scene.dir())?;
        let at = format!("@{VIP}");
        let words = [
            "dig",
            &at,
            "-p",
            "54",
            "+tries=1",
            "+time=2",
            "example.test",
        ];
        let ended = client.try_run(&words, LIMIT)?;
        ensure!(!ended.status.success(), "{ended:?}");
        ensure_port_unreachable_from_vip(&capture.finish()?)
    })
}

#[test]
fn a_vip_answers_ping_while_a_backend_is_ready() -> Result<()> {
    let web = |topology: &Topology| vec![Service::on("web", VIP, nginx::PORT, &topology.backends)];
    scene::with(Topology::builder(), web, |scene| {
        let vip = VIP.to_string();
        let ping = ["ping", "-c", "3", "-i", "0.1", "-W", "1", &vip];
        scene.topology.client.run(&ping, LIMIT)?;
        scene.apply(&Service::on("web", VIP, nginx::PORT, &[]))?;
        let ended = scene.topology.client.try_run(&ping, LIMIT)?;
        ensure!(
            !ended.status.success(),
            "a Vip without a backend answered: {ended:?}"
        );
        Ok(())
    })
}

/// The client finds a Vip of its own link by ARP, at the gateway's interface `interface`.
fn on_link(topology: Builder, interface: &str) -> Result<()> {
    let services = |topology: &Topology| {
        vec![Service::on(
            "web",
            topology.on_link_vip(),
            nginx::PORT,
            &topology.backends,
        )]
    };
    scene::with(topology, services, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let vip = scene.topology.on_link_vip();
        let body = scene.answering(SocketAddrV4::new(vip, 80))?;
        ensure!(body.starts_with("backend-"), "{body}");
        let client = &scene.topology.client;
        let neighbour = client.run(&["ip", "neigh", "show", &vip.to_string()], LIMIT)?;
        let path = format!("/sys/class/net/{interface}/address");
        let link = scene.topology.gateway.run(&["cat", &path], LIMIT)?;
        ensure!(
            neighbour.contains(link.trim()),
            "{neighbour} is not at {link}"
        );
        let report = traffic::http(client, &format!("http://{vip}/"), 300, 4)?;
        ensure!(report.failed == 0, "{report:?}");
        Ok(())
    })
}

#[test]
fn a_client_finds_a_vip_of_its_own_link_by_arp() -> Result<()> {
    on_link(Topology::builder(), "c0")
}

#[test]
fn a_client_finds_a_vip_of_its_own_link_by_arp_with_one_arm_and_two_queues() -> Result<()> {
    on_link(Topology::builder().arms(Arms::One).queues(2), "g0")
}
