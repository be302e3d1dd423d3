//! Datagrams that do not fit a frame: their fragments follow the first one, both ways.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::capture::{Capture, Seen};
use sluice_tests::dns;
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::netns::Netns;
use sluice_tests::process::Process;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::traffic;

const LIMIT: Duration = Duration::from_secs(60);
const ECHO: u16 = 7000;
/// Bytes: three fragments with IPv4, more behind narrower links.
const LARGE: u16 = 4000;
/// Bytes: whole at both ends, but too large for the link between client and gateway.
const MIDDLE: u16 = 1400;
const NARROW: u32 = 1280;
/// Network of what is behind the client.
const BEYOND: u8 = 20;
/// Source ports, enough for every worker.
const PORTS: u16 = 40;

fn services(topology: &Topology, mode: &'static str) -> Vec<Service> {
    let dns = Service::dual("dns", dns::PORT, &topology.backends).port(53, Protocol::Udp);
    let echo = Service::dual("echo", ECHO, &topology.backends).port(7, Protocol::Udp);
    vec![dns.source_nat(mode), echo.source_nat(mode)]
}

fn dig(scene: &Scene, family: Family, port: u16, words: &[&str]) -> Result<String> {
    let (at, own) = (
        format!("@{}", family.vip()),
        scene.topology.client_at(family),
    );
    let from = format!("{own}#{port}");
    let mut line = vec![
        "dig", &at, "-b", &from, "+short", "+tries=2", "+time=3", "+notcp", "+ignore",
    ];
    line.extend(words);
    scene.topology.client.run(&line, LIMIT)
}

/// Short answers, and one of many strings that needs several fragments.
fn real_answers(scene: &Scene, family: Family) -> Result<()> {
    for port in 40_000..40_008 {
        let answer = dig(scene, family, port, &["www.example.test", "A"])?;
        ensure!(answer.trim() == dns::ANSWER, "{family}: {answer}");
        let words = ["+bufsize=4096", "big.example.test", "TXT"];
        let answer = dig(scene, family, port, &words)?;
        let strings = answer.split_whitespace();
        let whole = strings
            .filter(|each| each.len() == dns::BIG_STRING + 2)
            .count();
        ensure!(whole == dns::BIG_STRINGS, "{family}, port {port}: {answer}");
    }
    Ok(())
}

fn ensure_fragments(place: &str, seen: &Seen, family: Family) -> Result<()> {
    ensure!(
        seen.bad.is_empty(),
        "{place}: wrong packets: {:?}",
        seen.bad
    );
    let of_family = seen
        .packets
        .iter()
        .filter(|packet| Family::of(packet.source) == family);
    let fragments = of_family.filter(|packet| packet.fragment).count();
    ensure!(
        fragments >= usize::from(PORTS) * 4,
        "{place}, {family}: {fragments} fragments"
    );
    Ok(())
}

fn echo_at_all(scene: &Scene) -> Result<Vec<Process>> {
    let hosts = scene.topology.backends.iter();
    hosts
        .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
        .collect()
}

/// Sends `size` bytes from every port; each must be answered, and every backend must be among those
/// that answer.
fn every_backend_echoes(client: &Netns, family: Family, size: u16) -> Result<()> {
    let picks = traffic::large_udp(client, family.frontend(7), 41_000, PORTS, size)?;
    ensure!(picks.len() == usize::from(PORTS), "{family}: {picks:?}");
    let mut names: Vec<_> = picks.values().collect();
    names.sort();
    names.dedup();
    ensure!(names.len() == 3, "{family}: only {names:?} answered");
    Ok(())
}

fn large_datagrams_pass(topology: Builder, mode: &'static str) -> Result<()> {
    scene::with(
        topology,
        |topology| services(topology, mode),
        |scene| {
            let hosts = &scene.topology.backends;
            let _echo = echo_at_all(scene)?;
            let mut servers = Vec::new();
            for host in hosts {
                servers.push(dns::start(host, scene.dir())?);
            }
            let client = &scene.topology.client;
            let capture = Capture::start(client, "eth0", "", scene.dir())?;
            for family in Family::BOTH {
                real_answers(scene, family)?;
                every_backend_echoes(client, family, LARGE)?;
            }
            let seen = capture.finish()?;
            Family::BOTH
                .into_iter()
                .try_for_each(|family| ensure_fragments("client", &seen, family))
        },
    )
}

#[test]
fn large_datagrams_pass_with_masquerade() -> Result<()> {
    large_datagrams_pass(Topology::builder(), "masquerade")
}

#[test]
fn large_datagrams_pass_with_client_addresses_kept() -> Result<()> {
    large_datagrams_pass(Topology::builder(), "preserve")
}

#[test]
fn large_datagrams_pass_two_queues_with_masquerade() -> Result<()> {
    large_datagrams_pass(Topology::builder().queues(2), "masquerade")
}

#[test]
fn large_datagrams_pass_four_queues_with_client_addresses_kept() -> Result<()> {
    large_datagrams_pass(Topology::builder().queues(4), "preserve")
}

/// First a question is too large for the narrow link, then its answer: the client is told by a
/// router before the gateway, the backend by one that only knows the Vip. Asking again helps.
fn both_ends_learn_to_fragment(mode: &'static str, queues: u32) -> Result<()> {
    let echo = |topology: &Topology| services(topology, mode);
    scene::with(Topology::builder().queues(queues), echo, |scene| {
        let topology = &scene.topology;
        let beyond = topology.behind(topology.client_as_router(), BEYOND, NARROW)?;
        let _echo = echo_at_all(scene)?;
        for family in Family::BOTH {
            let client = &beyond.host.namespace;
            // What is lost while both ends learn is not counted.
            traffic::large_udp(client, family.frontend(7), 41_000, PORTS, MIDDLE)?;
            every_backend_echoes(client, family, MIDDLE)?;
            let peer = match mode {
                "preserve" => beyond.host.at(family),
                _ => topology.masquerade_at(family),
            };
            for host in &topology.backends {
                let words = ["ip", "route", "get", &peer.to_string()];
                let route = host.namespace.run(&words, LIMIT)?;
                ensure!(route.contains(&format!("mtu {NARROW}")), "{route}");
            }
        }
        Ok(())
    })
}

#[test]
fn both_ends_learn_to_fragment_for_a_narrow_link_with_masquerade() -> Result<()> {
    both_ends_learn_to_fragment("masquerade", 2)
}

#[test]
fn both_ends_learn_to_fragment_for_a_narrow_link_with_client_addresses_kept() -> Result<()> {
    both_ends_learn_to_fragment("preserve", 1)
}
