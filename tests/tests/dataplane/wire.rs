//! Every packet that leaves the gateway is right, and garbage that enters it harms nothing.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_conf::Protocol;
use sluice_conf::message::dataplane::Stats;
use sluice_tests::capture::{Capture, Seen};
use sluice_tests::manifests::Service;
use sluice_tests::scene::{self, More, Scene};
use sluice_tests::topology::{Builder, Topology, VIP};
use sluice_tests::{clock, daemon, nginx, traffic};

const LIMIT: Duration = Duration::from_secs(60);
const ECHO: u16 = 7000;
const FLOOD: u32 = 1_000_000;
const GARBAGE_PER_CENT: u32 = 10;

fn services(topology: &Topology, mode: &'static str) -> Vec<Service> {
    let web = Service::on("web", VIP, nginx::PORT, &topology.backends);
    let echo = Service::on("echo", VIP, ECHO, &topology.backends).port(7, Protocol::Udp);
    let empty = Service::on("empty", VIP, ECHO, &[]).port(81, Protocol::Tcp);
    vec![web.source_nat(mode), echo.source_nat(mode), empty]
}

/// TCP short and long, UDP, ping, refused TCP and refused UDP.
fn mixed_traffic(scene: &Scene) -> Result<()> {
    let client = &scene.topology.client;
    let report = traffic::http(client, &format!("http://{VIP}/"), 200, 8)?;
    ensure!(report.failed == 0, "{report:?}");
    let big = scene.curl(&[&format!("http://{VIP}/big")], LIMIT)?;
    ensure!(big.len() == 4 << 20, "{} bytes", big.len());
    let picks = traffic::udp(client, SocketAddrV4::new(VIP, 7), 30_000, 200)?;
    ensure!(picks.len() == 200, "{} answers", picks.len());
    client.run(
        &["ping", "-c", "5", "-i", "0.05", "-W", "2", &VIP.to_string()],
        LIMIT,
    )?;
    for port in [81, 82] {
        let refused = traffic::http(client, &format!("http://{VIP}:{port}/"), 2, 1)?;
        ensure!(refused.ok == 0, "{refused:?}");
    }
    let at = format!("@{VIP}");
    client.try_run(&["dig", &at, "+tries=1", "+time=1", "example.test"], LIMIT)?;
    Ok(())
}

fn ensure_right(place: &str, seen: &Seen, protocols: &[u8]) -> Result<()> {
    ensure!(
        seen.bad.is_empty(),
        "{place}: {} wrong packets: {:?}",
        seen.bad.len(),
        seen.bad
    );
    for protocol in protocols {
        let count = seen
            .packets
            .iter()
            .filter(|packet| packet.protocol == *protocol)
            .count();
        ensure!(
            count > 0,
            "{place}: no packet of protocol {protocol} was seen"
        );
    }
    eprintln!("{place}: {} packets are right", seen.packets.len());
    Ok(())
}

fn everything_is_right(topology: Builder, mode: &'static str) -> Result<()> {
    scene::with(
        topology,
        |topology| services(topology, mode),
        |scene| {
            let big = scene.dir().join("big");
            std::fs::write(&big, vec![b'x'; 4 << 20])?;
            let hosts = &scene.topology.backends;
            let _nginx = nginx::start_all(hosts, scene.dir(), &big)?;
            let _servers: Vec<_> = hosts
                .iter()
                .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
                .collect::<Result<_>>()?;
            let client = Capture::start(&scene.topology.client, "eth0", "", scene.dir())?;
            let backends: Vec<_> = hosts
                .iter()
                .map(|host| Capture::start(&host.namespace, "eth0", "", scene.dir()))
                .collect::<Result<_>>()?;
            mixed_traffic(scene)?;
            ensure_right("client", &client.finish()?, &[1, 6, 17])?;
            for (capture, host) in backends.into_iter().zip(hosts) {
                ensure_right(&host.name, &capture.finish()?, &[6, 17])?;
            }
            Ok(())
        },
    )
}

#[test]
fn every_checksum_on_every_link_is_right_with_masquerade() -> Result<()> {
    everything_is_right(Topology::builder(), "masquerade")
}

#[test]
fn every_checksum_on_every_link_is_right_with_client_addresses_kept() -> Result<()> {
    everything_is_right(Topology::builder(), "preserve")
}

#[test]
fn every_checksum_on_every_link_is_right_over_two_queues() -> Result<()> {
    everything_is_right(Topology::builder().queues(2), "masquerade")
}

fn dropped(stats: &Stats) -> u64 {
    // What the kernel dropped was never received.
    let ours = stats
        .drops
        .iter()
        .filter(|drop| !drop.reason.starts_with("kernel_"));
    ours.map(|drop| drop.frames).sum()
}

/// Waits until two looks at the counters agree and every frame has gone somewhere.
fn accounted(scene: &Scene) -> Result<Stats> {
    let mut link = scene.ask_dataplane()?;
    let mut last = link.stats()?;
    let waited = clock::wait_for("every frame accounted for", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = link.stats()?;
        let quiet = now.received == last.received;
        let went = now.transmitted.frames + dropped(&now) + now.to_kernel;
        let balanced = now.received.frames + now.own == went;
        last = now;
        Ok((quiet && balanced).then(|| last.clone()))
    });
    waited.with_context(|| {
        let (received, sent) = (last.received.frames, last.transmitted.frames);
        format!(
            "received {received}, transmitted {sent}, dropped {}",
            dropped(&last)
        )
    })
}

fn metrics(scene: &Scene) -> Result<String> {
    let url = format!("http://{}/metrics", daemon::DATAPLANE_METRICS);
    let words = ["curl", "--silent", "--fail", &url];
    scene.topology.gateway.run(&words, LIMIT)
}

/// The sum of all samples of a metric in Prometheus text.
fn sum_of(metrics: &str, name: &str) -> u64 {
    let samples = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    samples
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Waits until the places of the slots add up to all slots that there are.
fn every_slot_is_somewhere(scene: &Scene) -> Result<()> {
    let mut last = (0, 0);
    clock::wait_for("every slot accounted for", Duration::from_secs(20), || {
        let text = metrics(scene)?;
        let placed = sum_of(&text, "sluice_slots") + sum_of(&text, "sluice_slots_spare");
        last = (placed, sum_of(&text, "sluice_slots_total"));
        Ok((placed == last.1 && placed > 0).then_some(()))
    })
    .with_context(|| format!("{} of {} slots are somewhere", last.0, last.1))?;
    eprintln!("all {} slots are accounted for", last.1);
    Ok(())
}

fn flood_with_garbage(queues: u32) -> Result<()> {
    let services = |topology: &Topology| services(topology, "preserve");
    let more = More {
        // What waits for a first fragment is accounted for when it is given up.
        dataplane: "[fragments]\ntimeout = 1\n",
        ..More::default()
    };
    let topology = Topology::builder().queues(queues);
    scene::with_settings(topology, more, services, |scene| {
        let hosts = &scene.topology.backends;
        let _nginx = nginx::start_all(hosts, scene.dir(), scene.dir())?;
        let _servers: Vec<_> = hosts
            .iter()
            .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
            .collect::<Result<_>>()?;
        let (gateway, client) = (&scene.topology.gateway, &scene.topology.client);
        let link = gateway.run(&["cat", "/sys/class/net/c0/address"], LIMIT)?;
        let before = accounted(scene)?;
        let (own, to) = (scene.topology.client_address(), SocketAddrV4::new(VIP, 7));
        traffic::flood(client, link.trim(), own, to, FLOOD, GARBAGE_PER_CENT)?;
        let after = accounted(scene)?;
        let received = after.received.frames - before.received.frames;
        eprintln!(
            "received {received}, transmitted {}, dropped {:?}",
            after.transmitted.frames - before.transmitted.frames,
            after
                .drops
                .iter()
                .filter(|drop| drop.frames > 0)
                .collect::<Vec<_>>(),
        );
        // Some garbage is not for a Vip any more and passes to the kernel.
        let least = u64::from(FLOOD) * 8 / 10;
        ensure!(
            received >= least,
            "only {received} frames of {FLOOD} reached the dataplane"
        );
        let report = traffic::http(client, &format!("http://{VIP}/"), 1000, 8)?;
        ensure!(report.failed == 0, "after the flood: {report:?}");
        accounted(scene)?;
        every_slot_is_somewhere(scene)
    })
}

#[test]
fn every_frame_of_a_flood_with_garbage_is_accounted_for_and_traffic_still_flows() -> Result<()> {
    flood_with_garbage(1)
}

#[test]
fn every_frame_of_a_flood_with_garbage_is_accounted_for_over_two_queues() -> Result<()> {
    flood_with_garbage(2)
}
