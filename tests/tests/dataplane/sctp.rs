//! SCTP associations through the gateway. Kernels without SCTP can carry it all the same, so the
//! packets are made by hand at both ends and judged where they arrive, CRC32c included.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::capture::Capture;
use sluice_tests::craft::{self, Maker};
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::netns::Netns;
use sluice_tests::packets::Packet;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::traffic;

const PORT: u16 = 36_412;
const BACKEND_PORT: u16 = 9899;
const CLIENT_PORT: u16 = 40_123;
/// Verification tags that the two ends choose.
const CLIENT_TAG: u32 = 0x1111_1111;
const BACKEND_TAG: u32 = 0x2222_2222;
/// Chunk types (RFC 9260, section 3.2).
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// Initiate tag, window, streams out and in, first transmission number (section 3.3.2).
fn init(tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    value
}

/// Sends one frame and returns what arrives of it at the other end.
fn carried(
    scene: &Scene,
    (from, to): (&Netns, &Netns),
    frame: Vec<u8>,
    chunk: u8,
) -> Result<Packet> {
    let capture = Capture::start(to, "eth0", "sctp", scene.dir())?;
    traffic::frames(from, "eth0", &[frame], 1, scene.dir())?;
    capture
        .wait()
        .with_context(|| format!("chunk {chunk} to {}", to.name()))?;
    let seen = capture.finish()?;
    ensure!(seen.bad.is_empty(), "wrong packets: {:?}", seen.bad);
    let mut found = seen.packets.into_iter();
    let packet = found.find(|packet| packet.sctp.is_some_and(|(_, kind)| kind == chunk));
    packet.with_context(|| format!("chunk {chunk} did not come to {}", to.name()))
}

/// Both ends of one association.
struct Ends<'a> {
    scene: &'a Scene,
    client: Maker,
    backend: Maker,
}

impl<'a> Ends<'a> {
    fn new(scene: &'a Scene, family: Family) -> Result<Self> {
        let topology = &scene.topology;
        let host = &topology.backends[0];
        let client = Maker {
            to: craft::link_address(&topology.gateway, "c0")?,
            from: craft::link_address(&topology.client, "eth0")?,
            source: SocketAddr::new(topology.client_at(family), CLIENT_PORT),
            destination: family.frontend(PORT),
        };
        let backend = Maker {
            to: craft::link_address(&topology.gateway, "b0")?,
            from: craft::link_address(&host.namespace, "eth0")?,
            source: SocketAddr::new(host.at(family), BACKEND_PORT),
            // Known when the first packet has come.
            destination: client.source,
        };
        Ok(Self {
            scene,
            client,
            backend,
        })
    }

    fn to_backend(&self, tag: u32, chunk: u8, value: &[u8]) -> Result<Packet> {
        let topology = &self.scene.topology;
        let way = (&topology.client, &topology.backends[0].namespace);
        let packet = carried(self.scene, way, self.client.sctp(tag, chunk, value), chunk)?;
        ensure!(packet.destination == self.backend.source.ip(), "{packet:?}");
        ensure!(
            packet.ports.map(|ports| ports.1) == Some(BACKEND_PORT),
            "{packet:?}"
        );
        ensure!(packet.sctp == Some((tag, chunk)), "{packet:?}");
        Ok(packet)
    }

    fn to_client(&self, tag: u32, chunk: u8, value: &[u8]) -> Result<()> {
        let topology = &self.scene.topology;
        let way = (&topology.backends[0].namespace, &topology.client);
        let packet = carried(self.scene, way, self.backend.sctp(tag, chunk, value), chunk)?;
        let expected = (self.client.destination.ip(), self.client.source.ip());
        ensure!(
            (packet.source, packet.destination) == expected,
            "{packet:?}"
        );
        ensure!(packet.ports == Some((PORT, CLIENT_PORT)), "{packet:?}");
        ensure!(packet.sctp == Some((tag, chunk)), "{packet:?}");
        Ok(())
    }
}

fn association(scene: &Scene, family: Family, mode: &str) -> Result<()> {
    let mut ends = Ends::new(scene, family)?;
    let first = ends.to_backend(0, INIT, &init(CLIENT_TAG))?;
    let (port, _) = first.ports.context("ports")?;
    ends.backend.destination = SocketAddr::new(first.source, port);
    if mode == "preserve" {
        ensure!(ends.backend.destination == ends.client.source, "{first:?}");
    } else {
        ensure!(
            first.source == scene.topology.masquerade_at(family),
            "{first:?}"
        );
    }
    let mut answer = init(BACKEND_TAG);
    // A state cookie (section 3.3.3.1).
    answer.extend([0, 7, 0, 8, 1, 2, 3, 4]);
    ends.to_client(CLIENT_TAG, INIT_ACK, &answer)?;
    let again = ends.to_backend(BACKEND_TAG, COOKIE_ECHO, &[1, 2, 3, 4])?;
    ensure!(again.ports == first.ports, "another port: {again:?}");
    ends.to_client(CLIENT_TAG, COOKIE_ACK, &[])?;
    let data = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], &b"hello"[..]].concat();
    ends.to_backend(BACKEND_TAG, DATA, &data)?;
    ends.to_client(CLIENT_TAG, DATA, &data)?;
    ends.to_backend(BACKEND_TAG, ABORT, &[]).map(drop)
}

fn associations_pass(topology: Builder, mode: &'static str) -> Result<()> {
    let services = |topology: &Topology| {
        let s1 = Service::dual("s1", BACKEND_PORT, &topology.backends);
        vec![s1.port(PORT, Protocol::Sctp).source_nat(mode)]
    };
    scene::with(topology.backends(1), services, |scene| {
        let mut each = Family::BOTH.into_iter();
        each.try_for_each(|family| {
            association(scene, family, mode).with_context(|| format!("{family}, {mode}"))
        })
    })
}

#[test]
fn associations_pass_with_masquerade() -> Result<()> {
    associations_pass(Topology::builder(), "masquerade")
}

#[test]
fn associations_pass_with_client_addresses_kept() -> Result<()> {
    associations_pass(Topology::builder(), "preserve")
}

#[test]
fn associations_pass_over_two_queues_with_masquerade() -> Result<()> {
    associations_pass(Topology::builder().queues(2), "masquerade")
}

#[test]
fn associations_pass_over_four_queues_with_client_addresses_kept() -> Result<()> {
    associations_pass(Topology::builder().queues(4), "preserve")
}
