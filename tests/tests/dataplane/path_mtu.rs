//! Narrow links before and behind the gateway: whoever sends too large a packet is told, and the
//! transfer goes on.

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sluice_tests::family::Family;
use sluice_tests::manifests::{Endpoint, Service};
use sluice_tests::netns::Netns;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Host, Topology};
use sluice_tests::{clock, nginx, process};

/// No transfer takes a tenth of this on an idle machine; its end means that one hangs.
const LIMIT: Duration = Duration::from_secs(240);
const NARROW: u32 = 1280;
/// Bytes; fifty times what a sender has under way.
const FILE: u64 = 20 << 20;
/// Bytes; what is promised to arrive whole.
const LARGE_FILE: u64 = 200 << 20;
/// Bytes of both files that are compared at a time.
const CHUNK: u64 = 1 << 20;
const SINK: u16 = 9000;
/// Networks of what is behind the client and behind a backend.
const BEYOND_CLIENT: u8 = 20;
const BEYOND_BACKEND: u8 = 30;

fn random_file(path: &Path, size: u64) -> Result<()> {
    let script = format!("head -c {size} /dev/urandom > {}", path.display());
    let mut command = std::process::Command::new("sh");
    process::run(command.args(["-c", &script]), "", LIMIT)?.success()?;
    Ok(())
}

fn ensure_same(copy: &Path, original: &Path) -> Result<()> {
    let [mut copy, mut original] = [File::open(copy)?, File::open(original)?];
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let mut offset = 0;
    loop {
        read_chunk(&mut copy, &mut one)?;
        read_chunk(&mut original, &mut other)?;
        ensure!(one == other, "the copy differs after byte {offset}");
        if one.is_empty() {
            return Ok(());
        }
        offset += one.len();
    }
}

/// Replaces `chunk` by what comes next; empty at the end.
fn read_chunk(file: &mut File, chunk: &mut Vec<u8>) -> Result<()> {
    chunk.clear();
    file.take(CHUNK).read_to_end(chunk)?;
    Ok(())
}

/// What the kernel of `namespace` has learnt about the way to `to`.
fn ensure_learnt(namespace: &Netns, to: IpAddr) -> Result<()> {
    let route = namespace.run(&["ip", "route", "get", &to.to_string()], LIMIT)?;
    ensure!(
        route.contains(&format!("mtu {NARROW}")),
        "the way to {to}: {route}"
    );
    Ok(())
}

/// A client behind a narrow link downloads: the backends have to learn.
fn download(mode: &'static str, queues: u32, families: &[Family], size: u64) -> Result<()> {
    let web = |topology: &Topology| {
        let one = &topology.backends[..1];
        vec![Service::dual("web", nginx::PORT, one).source_nat(mode)]
    };
    scene::with(
        Topology::builder().backends(1).queues(queues),
        web,
        |scene| {
            let topology = &scene.topology;
            let beyond = topology.behind(topology.client_as_router(), BEYOND_CLIENT, NARROW)?;
            let (big, copy) = (scene.dir().join("big"), scene.dir().join("copy"));
            random_file(&big, size)?;
            let _nginx = nginx::start_all(&topology.backends, scene.dir(), &big)?;
            for &family in families {
                let url = format!("http://{}/big", family.frontend(80));
                let output = copy.to_string_lossy();
                let words = ["curl", "-sSf", "--max-time", "230", "-o", &output, &url];
                let host = &beyond.host;
                host.namespace
                    .run(&words, LIMIT)
                    .with_context(|| format!("{family}"))?;
                ensure_same(&copy, &big).with_context(|| format!("{family}"))?;
                let peer = match mode {
                    "preserve" => host.at(family),
                    _ => topology.masquerade_at(family),
                };
                ensure_learnt(&topology.backends[0].namespace, peer)?;
            }
            Ok(())
        },
    )
}

#[test]
fn a_backend_learns_of_a_narrow_link_before_an_ipv4_client_with_masquerade() -> Result<()> {
    download("masquerade", 1, &[Family::V4], LARGE_FILE)
}

#[test]
fn a_backend_learns_of_a_narrow_link_before_an_ipv6_client_with_masquerade() -> Result<()> {
    download("masquerade", 1, &[Family::V6], LARGE_FILE)
}

#[test]
fn a_backend_learns_of_a_narrow_link_before_a_client_that_keeps_its_address() -> Result<()> {
    download("preserve", 2, &Family::BOTH, FILE)
}

/// Sends a file from the client through a Vip to a sink at `host`, and expects it to be whole.
fn upload(scene: &Scene, host: &Host, family: Family) -> Result<()> {
    let (big, copy) = (
        scene.dir().join("big"),
        scene.dir().join(format!("copy-{family}")),
    );
    random_file(&big, FILE)?;
    let listen = match family {
        Family::V4 => format!("TCP4-LISTEN:{SINK},reuseaddr"),
        Family::V6 => format!("TCP6-LISTEN:{SINK},reuseaddr"),
    };
    let write = format!("CREATE:{}", copy.display());
    let log = scene.dir().join(format!("sink-{family}.log"));
    let mut sink = host
        .namespace
        .start("socat", &["socat", "-u", &listen, &write], &log)?;
    let port = format!(":{SINK}");
    clock::wait_for("socat listening", LIMIT, || {
        sink.still_running()?;
        let listening = host.namespace.run(&["ss", "-Hltn"], LIMIT)?;
        Ok(listening.contains(&port).then_some(()))
    })?;
    let read = format!("OPEN:{}", big.display());
    let to = match family {
        Family::V4 => format!("TCP4:{}", family.frontend(80)),
        Family::V6 => format!("TCP6:{}", family.frontend(80)),
    };
    scene
        .topology
        .client
        .run(&["socat", "-u", &read, &to], LIMIT)?;
    clock::wait_for("the whole file", LIMIT, || {
        Ok((fs::metadata(&copy)?.len() == FILE).then_some(()))
    })?;
    sink.end(Signal::SIGTERM, LIMIT)?;
    ensure_same(&copy, &big).with_context(|| format!("{family}"))?;
    ensure_learnt(&scene.topology.client, family.vip())
}

/// The gateway's own link to the backends is narrow: the gateway tells the client itself.
fn narrow_gateway(mode: &'static str) -> Result<()> {
    let sink = |topology: &Topology| {
        vec![Service::dual("sink", SINK, &topology.backends).source_nat(mode)]
    };
    let topology = Topology::builder().backends(1).backend_mtu(NARROW);
    scene::with(topology, sink, |scene| {
        let hosts = &scene.topology.backends;
        let mut each = Family::BOTH.into_iter();
        each.try_for_each(|family| upload(scene, &hosts[0], family))
    })
}

#[test]
fn the_gateway_tells_a_client_of_its_own_narrow_link_with_masquerade() -> Result<()> {
    narrow_gateway("masquerade")
}

#[test]
fn the_gateway_tells_a_client_of_its_own_narrow_link_with_client_addresses_kept() -> Result<()> {
    narrow_gateway("preserve")
}

/// A backend behind a narrow link: the error of a router behind the gateway is translated. Its TCP
/// announces segments for 1,500 bytes, so the client has to learn.
fn narrow_behind_backend(mode: &'static str, queues: u32) -> Result<()> {
    let nobody = |_: &Topology| vec![Service::dual("sink", SINK, &[]).source_nat(mode)];
    scene::with(
        Topology::builder().backends(1).queues(queues),
        nobody,
        |scene| {
            let topology = &scene.topology;
            let router = (&topology.backends[0]).into();
            let beyond = topology.behind(router, BEYOND_BACKEND, NARROW)?;
            let mut sink = Service::dual("sink", SINK, &[]).source_nat(mode);
            for family in Family::BOTH {
                sink.endpoints.push(Endpoint::ready(beyond.host.at(family)));
            }
            scene.apply(&sink)?;
            let mut each = Family::BOTH.into_iter();
            each.try_for_each(|family| upload(scene, &beyond.host, family))?;
            tracepath(scene, &beyond.host)
        },
    )
}

/// Past the Vips, straight to the host: what only crosses the gateway learns too.
fn tracepath(scene: &Scene, host: &Host) -> Result<()> {
    for family in Family::BOTH {
        let to = SocketAddr::new(host.at(family), SINK);
        let words = [
            "tracepath",
            family.flag(),
            "-n",
            "-p",
            &SINK.to_string(),
            &to.ip().to_string(),
        ];
        let printed = scene.topology.client.run(&words, LIMIT)?;
        ensure!(printed.contains(&format!("pmtu {NARROW}")), "{printed}");
        ensure!(printed.contains("reached"), "{printed}");
    }
    Ok(())
}

#[test]
fn a_routers_error_behind_the_gateway_reaches_the_client_with_masquerade() -> Result<()> {
    narrow_behind_backend("masquerade", 2)
}

#[test]
fn a_routers_error_behind_the_gateway_reaches_the_client_with_client_addresses_kept() -> Result<()>
{
    narrow_behind_backend("preserve", 1)
}
