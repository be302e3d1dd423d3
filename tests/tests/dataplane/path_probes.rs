//! `ping` and `tracepath` find the largest packet of a way: to a Vip, to what is behind one, and past
//! the Vips to a host behind the gateway.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::family::Family;
use sluice_tests::manifests::{Endpoint, Port, Service};
use sluice_tests::netns::Netns;
use sluice_tests::process::Finished;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Host, Topology};
use sluice_tests::{clock, nginx, traffic};

const LIMIT: Duration = Duration::from_secs(60);
const WIDE: u16 = 1500;
const NARROW: u16 = 1280;
/// Nobody listens here, at any backend.
const CLOSED: u16 = 9000;
/// A Vip's first port with backends; `tracepath` sends every probe to the next one.
const SERVED: u16 = 10_000;
const PROBES: u16 = 32;
/// A Vip's first port without backends.
const UNDEFINED: u16 = 20_000;
/// Networks of what is behind the client and behind a backend.
const BEYOND_CLIENT: u8 = 20;
const BEYOND_BACKEND: u8 = 30;

/// A Service that a host refuses, not the gateway: its error has to be translated.
fn service(mode: &'static str, hosts: &[Host]) -> Service {
    let mut service = Service::dual("closed", CLOSED, hosts).source_nat(mode);
    let names = (0..PROBES).map(|number| &*format!("p{number}").leak());
    let ports = (SERVED..).zip(names).map(|(port, name)| Port {
        name,
        port,
        backend_port: CLOSED,
        node_port: None,
        protocol: Protocol::Udp,
    });
    service.ports = ports.collect();
    service
}

/// One ping in a packet of `len` bytes that nobody may cut up.
fn ping(from: &Netns, to: IpAddr, len: u16) -> Result<Finished> {
    // An ICMP header has 8 bytes, an IP header without options 20 or 40.
    let headers = match Family::of(to) {
        Family::V4 => 28,
        Family::V6 => 48,
    };
    let (size, to) = ((len - headers).to_string(), to.to_string());
    let words = ["ping", "-n", "-c", "1", "-W", "10", "-M", "do", "-s", &size];
    from.try_run(&[&words[..], &[&to]].concat(), LIMIT)
}

fn ensure_answered(from: &Netns, to: IpAddr, len: u16) -> Result<()> {
    let ended = ping(from, to, len)?;
    ensure!(ended.status.success(), "{len} bytes to {to}: {ended:?}");
    Ok(())
}

/// A packet of `len` bytes is refused by the sender's own kernel, which knows that `mtu` would fit.
fn ensure_too_long(from: &Netns, to: IpAddr, len: u16, mtu: u16) -> Result<()> {
    let ended = ping(from, to, len)?;
    ensure!(!ended.status.success(), "{len} bytes to {to}: {ended:?}");
    let told = match Family::of(to) {
        Family::V4 => format!("message too long, mtu={mtu}"),
        Family::V6 => format!("message too long, mtu: {mtu}"),
    };
    ensure!(
        told_anywhere(&ended, &told),
        "{len} bytes to {to}: {ended:?}"
    );
    Ok(())
}

/// A packet larger than `mtu` is refused on its way, by `router`, and from then on by the sender.
fn ensure_learns(from: &Netns, to: IpAddr, router: IpAddr, mtu: u16) -> Result<()> {
    let ended = ping(from, to, mtu + 1)?;
    ensure!(!ended.status.success(), "to {to}: {ended:?}");
    let told = match Family::of(to) {
        Family::V4 => format!("Frag needed and DF set (mtu = {mtu})"),
        Family::V6 => format!("Packet too big: mtu={mtu}"),
    };
    ensure!(told_anywhere(&ended, &told), "to {to}: {ended:?}");
    let by = format!("From {router} ");
    ensure!(told_anywhere(&ended, &by), "to {to}: {ended:?}");
    ensure_too_long(from, to, mtu + 1, mtu)
}

fn told_anywhere(ended: &Finished, text: &str) -> bool {
    ended.stdout.contains(text) || ended.stderr.contains(text)
}

/// What `tracepath` says of a way: the size it ended with, and who answered at each hop.
#[derive(Debug, PartialEq, Eq)]
struct Traced {
    mtu: u16,
    hops: Vec<IpAddr>,
}

fn tracepath(from: &Netns, to: IpAddr, port: u16) -> Result<Traced> {
    let (flag, first) = (Family::of(to).flag(), port.to_string());
    let words = ["tracepath", flag, "-n", "-m", "8", "-p", &first];
    let printed = from.run(&[&words[..], &[&to.to_string()]].concat(), LIMIT)?;
    ensure!(printed.contains("reached"), "{printed}");
    ensure!(!printed.contains("no reply"), "{printed}");
    read(&printed)
}

/// Lines are ` 1:  10.0.1.1  0.2ms pmtu 1280`; a hop may have several.
fn read(printed: &str) -> Result<Traced> {
    let mut traced = Traced {
        mtu: 0,
        hops: Vec::new(),
    };
    for line in printed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "pmtu") {
            traced.mtu = words[at + 1].parse()?;
        }
        if let Some(Ok(address)) = words.get(1).map(|word| word.parse())
            && traced.hops.last() != Some(&address)
        {
            traced.hops.push(address);
        }
    }
    Ok(traced)
}

fn ensure_traced(from: &Netns, to: (IpAddr, u16), mtu: u16, hops: &[IpAddr]) -> Result<()> {
    let traced = tracepath(from, to.0, to.1)?;
    let hops = hops.to_vec();
    let expected = Traced { mtu, hops };
    ensure!(traced == expected, "{traced:?}, not {expected:?}");
    Ok(())
}

/// From a client on the gateway's own link, and from one behind a narrow link.
fn a_vip_is_probed(queues: u32) -> Result<()> {
    let topology = Topology::builder().backends(1).queues(queues);
    let web = |topology: &Topology| vec![Service::dual("web", nginx::PORT, &topology.backends)];
    scene::with(topology, web, |scene| {
        let topology = &scene.topology;
        let near = &topology.client;
        let beyond = topology.behind(topology.client_as_router(), BEYOND_CLIENT, NARROW.into())?;
        let far = &beyond.host.namespace;
        for family in Family::BOTH {
            let (vip, gateway) = (family.vip(), topology.node_at(family));
            for len in [100, WIDE - 1, WIDE] {
                ensure_answered(near, vip, len)?;
            }
            ensure_too_long(near, vip, WIDE + 1, WIDE)?;
            ensure_traced(near, (vip, UNDEFINED), WIDE, &[gateway, vip])?;

            ensure_answered(far, vip, NARROW)?;
            let routers = [
                family.address(BEYOND_CLIENT + 1, 1),
                family.address(BEYOND_CLIENT, 1),
            ];
            ensure_learns(far, vip, routers[0], NARROW)?;
            ensure_answered(far, vip, NARROW)?;
            let hops = [&routers[..], &[gateway, vip]].concat();
            ensure_traced(far, (vip, UNDEFINED), NARROW, &hops)?;
        }
        Ok(())
    })
}

#[test]
fn a_user_finds_the_largest_packet_to_a_vip() -> Result<()> {
    a_vip_is_probed(1)
}

#[test]
fn a_user_finds_the_largest_packet_to_a_vip_over_two_queues() -> Result<()> {
    a_vip_is_probed(2)
}

/// The gateway's own link to the backends is narrow: what ends at the Vip may be larger.
fn a_narrow_gateway_is_probed(mode: &'static str, queues: u32) -> Result<()> {
    let topology = Topology::builder()
        .backends(1)
        .queues(queues)
        .backend_mtu(NARROW.into());
    let closed = |topology: &Topology| vec![service(mode, &topology.backends)];
    scene::with(topology, closed, |scene| {
        let (client, backend) = (&scene.topology.client, &scene.topology.backends[0]);
        for family in Family::BOTH {
            let (vip, gateway) = (family.vip(), scene.topology.node_at(family));
            ensure_answered(client, vip, WIDE)?;
            ensure_traced(client, (vip, SERVED), NARROW, &[gateway, vip])?;
            let host = backend.at(family);
            ensure_answered(client, host, NARROW)?;
            ensure_learns(client, host, gateway, NARROW)?;
            ensure_answered(client, host, NARROW)?;
            ensure_traced(client, (host, CLOSED), NARROW, &[gateway, host])?;
        }
        Ok(())
    })
}

#[test]
fn a_user_finds_the_gateways_narrow_link_with_masquerade() -> Result<()> {
    a_narrow_gateway_is_probed("masquerade", 2)
}

#[test]
fn a_user_finds_the_gateways_narrow_link_with_client_addresses_kept() -> Result<()> {
    a_narrow_gateway_is_probed("preserve", 1)
}

/// A backend is behind two routers with a narrow link between them.
fn a_narrow_link_behind_is_probed(mode: &'static str, queues: u32) -> Result<()> {
    let topology = Topology::builder().backends(1).queues(queues);
    scene::with(
        topology,
        |_| vec![service(mode, &[])],
        |scene| {
            let topology = &scene.topology;
            let first = &topology.backends[0];
            let beyond = topology.behind(first.into(), BEYOND_BACKEND, NARROW.into())?;
            let mut closed = service(mode, &[]);
            let endpoints = Family::BOTH.map(|family| Endpoint::ready(beyond.host.at(family)));
            closed.endpoints.extend(endpoints);
            scene.apply(&closed)?;
            Family::BOTH
                .into_iter()
                .try_for_each(|family| probe_behind(scene, &beyond.host, family))
        },
    )
}

fn probe_behind(scene: &Scene, beyond: &Host, family: Family) -> Result<()> {
    let (vip, host) = (family.vip(), beyond.at(family));
    let client = &scene.topology.client;
    // The gateway may learn of the new routes a little later than of the table.
    clock::wait_until_ok("the way to the host beyond", LIMIT, || {
        let told = traffic::udp_error(client, family.frontend(SERVED))?;
        ensure!(told == "ConnectionRefused", "{family}: {told}");
        Ok(())
    })?;
    let first = scene.topology.backends[0].at(family);
    let second = family.address(BEYOND_BACKEND, 2);
    let routers = [scene.topology.node_at(family), first, second];
    let to_vip = [&routers[..], &[vip]].concat();
    ensure_traced(client, (vip, SERVED), NARROW, &to_vip)?;
    ensure_answered(client, host, NARROW)?;
    ensure_learns(client, host, first, NARROW)?;
    ensure_answered(client, host, NARROW)?;
    let to_host = [&routers[..], &[host]].concat();
    ensure_traced(client, (host, CLOSED), NARROW, &to_host)
}

#[test]
fn a_user_finds_a_narrow_link_behind_the_gateway_with_masquerade() -> Result<()> {
    a_narrow_link_behind_is_probed("masquerade", 1)
}

#[test]
fn a_user_finds_a_narrow_link_behind_the_gateway_with_client_addresses_kept() -> Result<()> {
    a_narrow_link_behind_is_probed("preserve", 2)
}
