//! Hostile traffic: what it claims is not believed, it is dropped for the right reason, and whoever
//! uses the gateway beside it goes on.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sluice_conf::Protocol;
use sluice_conf::message::dataplane::Stats;
use sluice_tests::clock;
use sluice_tests::craft::{self, ACK, Maker, Random, SYN, SYN_ACK, TCP, UDP, ip_packet};
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::scene::{self, More, Scene};
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::traffic::{self, Held, Ongoing, Step};

const LIMIT: Duration = Duration::from_secs(60);
const ECHO: u16 = 7000;
const WEB: u16 = 8080;
/// Frames of an attack that are different, and how often they are sent.
const FRAMES: u16 = 1000;
const ROUNDS: u32 = 10;
/// Small tables, so that an attack fills them.
const SETTINGS: &str =
    "[connections]\ncapacity = 4096\n[fragments]\npackets = 64\ntimeout = 1\nwaiting = 32\n";
/// What the daemon may grow by under attack, in KiB: its tables, touched for the first time.
const GROWTH: u64 = 32 << 10;

/// Frames, and the reasons that some of them at least must be dropped for.
struct Attack {
    name: &'static str,
    frames: Vec<Vec<u8>>,
    reasons: Vec<&'static str>,
}

/// Who attacks whom: the client's link, from an address that nobody has, towards the Vip.
fn maker(scene: &Scene, family: Family) -> Result<Maker> {
    let topology = &scene.topology;
    Ok(Maker {
        to: craft::link_address(&topology.gateway, "c0")?,
        from: craft::link_address(&topology.client, "eth0")?,
        source: SocketAddr::new(family.address(1, 66), 1024),
        destination: family.frontend(80),
    })
}

/// One frame for each of many source ports.
fn each_port(maker: Maker, frame: impl Fn(Maker, u16) -> Vec<u8>) -> Vec<Vec<u8>> {
    let ports = (0..FRAMES).map(|number| {
        let source = SocketAddr::new(maker.source.ip(), 1024 + number);
        frame(maker.by(source), number)
    });
    ports.collect()
}

fn connections(maker: Maker, mode: &str) -> Vec<Attack> {
    // With client addresses kept they are taken for connections that were lost here.
    let lost: &[&'static str] = match mode {
        "preserve" => &[],
        _ => &["answer_limit"],
    };
    let random_port = |maker: Maker, number: u16| maker.port(number.wrapping_mul(7919)).udp(b"x");
    vec![
        Attack {
            name: "SYN flood",
            frames: each_port(maker, |maker, number| maker.tcp(SYN, number.into())),
            reasons: vec![],
        },
        Attack {
            name: "segments of no connection",
            frames: each_port(maker, |maker, number| {
                maker.port(82).tcp(ACK, number.into())
            }),
            reasons: lost.to_vec(),
        },
        Attack {
            name: "datagrams to random ports",
            frames: each_port(maker, random_port),
            reasons: vec!["answer_limit"],
        },
    ]
}

fn fragments(maker: Maker) -> Vec<Attack> {
    let datagram = maker.port(7).datagram(&[b'f'; 64]);
    let piece = |number, offset, more, bytes: &[u8]| {
        maker.port(7).fragment(UDP, number, offset, more, bytes)
    };
    let overlapping = |number: u16| {
        let head = piece(number, 0, true, &datagram[..32]);
        let (over, rest) = (
            piece(number, 2, true, &[0; 32]),
            piece(number, 6, false, &[0; 8]),
        );
        [head, over, rest]
    };
    vec![
        Attack {
            name: "fragments without a first one",
            frames: (0..FRAMES)
                .map(|number| piece(number, 9, true, &[0; 64]))
                .collect(),
            reasons: vec!["fragment_limit"],
        },
        Attack {
            name: "first fragments without others",
            frames: (0..FRAMES)
                .map(|number| piece(number, 0, true, &datagram[..40]))
                .collect(),
            reasons: vec![],
        },
        Attack {
            name: "overlapping fragments",
            frames: (0..FRAMES).flat_map(overlapping).collect(),
            reasons: vec!["fragment_overlap"],
        },
        Attack {
            name: "tiny fragments",
            frames: (0..FRAMES)
                .map(|number| maker.fragment(TCP, number, 0, true, &[0; 8]))
                .collect(),
            reasons: vec!["fragment_tiny"],
        },
    ]
}

fn errors_and_replies(maker: Maker, scene: &Scene, family: Family) -> Vec<Attack> {
    let (kind, code) = match family {
        Family::V4 => (3, 3),
        Family::V6 => (1, 4),
    };
    let vip = maker.destination.ip();
    let client = scene.topology.client_at(family);
    let forged = |maker: Maker, number: u16| {
        let ports = [80, number].map(u16::to_be_bytes).concat();
        let quoted = ip_packet(vip, client, TCP, [0; 4], &[&ports, &[0; 16][..]].concat());
        maker.icmp(kind, code, &[&[0; 4], &quoted[..]].concat())
    };
    let backend = SocketAddr::new(scene.topology.backends[0].at(family), WEB);
    let mut to_client = maker;
    to_client.destination = SocketAddr::new(client, 0);
    let reply = |_, number: u16| to_client.by(backend).port(30_000 + number).tcp(SYN_ACK, 1);
    let by_vip = |port| maker.by(SocketAddr::new(vip, port));
    vec![
        Attack {
            name: "ICMP errors with forged quotes",
            frames: each_port(maker, forged),
            reasons: vec!["quote_unknown"],
        },
        Attack {
            name: "ICMP errors that quote nothing",
            frames: vec![maker.icmp(kind, code, &[0; 12]); FRAMES.into()],
            reasons: vec!["bad_quote"],
        },
        Attack {
            name: "replies that nobody asked for",
            frames: each_port(maker, reply),
            // Passed to the kernel with masquerade: backends are nothing to Sluice then.
            reasons: vec![],
        },
        Attack {
            name: "land",
            frames: vec![by_vip(80).tcp(SYN, 1), by_vip(7).port(7).udp(b"x")],
            reasons: vec!["martian"],
        },
    ]
}

/// Pings in the name of a group and of all (smurf), chains of IPv6 extension headers, and noise.
fn oddities(maker: Maker, family: Family) -> Vec<Attack> {
    let mut random = Random::default();
    let all = match family {
        Family::V4 => [255, 255, 255, 255].into(),
        Family::V6 => std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    };
    let request = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    let smurf = maker.by(SocketAddr::new(all, 0)).icmp(request, 0, &[0; 36]);
    let mut chains = Vec::new();
    for _ in 0..FRAMES {
        let kinds = [0, 43, 44, 50, 51, 59, 60, 135, TCP, UDP];
        let mut payload = Vec::new();
        for _ in 0..random.below(12) {
            payload.push(kinds[random.below(10) as usize]);
            payload.push(random.below(3) as u8);
            payload.extend(random.bytes(6));
        }
        let first = kinds[random.below(10) as usize];
        chains.push(maker.packet(first, &payload));
    }
    let mut noise = |_| {
        let mut frame = maker.udp(b"");
        let length = random.below(1400);
        match random.below(3) {
            0 => frame.truncate(14),
            1 => frame.truncate(14 + 4),
            _ => frame.truncate(frame.len() - 8),
        }
        frame.extend(random.bytes(length));
        frame
    };
    vec![
        Attack {
            name: "smurf",
            frames: vec![smurf; FRAMES.into()],
            reasons: vec!["no_answer"],
        },
        Attack {
            name: "random chains of headers",
            frames: chains,
            reasons: vec!["protocol"],
        },
        Attack {
            name: "noise",
            frames: (0..FRAMES).map(&mut noise).collect(),
            reasons: vec![],
        },
    ]
}

fn attacks(scene: &Scene, family: Family, mode: &str) -> Result<Vec<Attack>> {
    let maker = maker(scene, family)?;
    let mut all = connections(maker, mode);
    all.extend(fragments(maker));
    all.extend(errors_and_replies(maker, scene, family));
    all.extend(oddities(maker, family));
    Ok(all)
}

fn dropped(stats: &Stats, reason: &str) -> u64 {
    let found = stats.drops.iter().find(|drop| drop.reason == reason);
    found.map_or(0, |drop| drop.frames)
}

/// Memory of the dataplane in use, in KiB.
fn resident(scene: &Scene) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", scene.dataplane.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

fn run(scene: &mut Scene, family: Family, attack: &Attack) -> Result<()> {
    let client = &scene.topology.client;
    let before = scene.ask_dataplane()?.stats()?;
    let url = format!("http://{}/", family.frontend(80));
    let beside = Ongoing::start(client, &url, 1)?;
    traffic::frames(client, "eth0", &attack.frames, ROUNDS, scene.dir())?;
    for reason in &attack.reasons {
        clock::wait_for(reason, LIMIT, || {
            let now = scene.ask_dataplane()?.stats()?;
            Ok((dropped(&now, reason) > dropped(&before, reason)).then_some(()))
        })?;
    }
    let report = beside.finish()?;
    ensure!(
        report.failed == 0 && report.ok > 0,
        "clients beside it: {report:?}"
    );
    scene.dataplane.still_running()?;
    let after = scene.ask_dataplane()?.stats()?;
    let rose = after.drops.iter().filter_map(|drop| {
        let more = drop.frames - dropped(&before, &drop.reason);
        (more > 0).then(|| format!("{}={more}", drop.reason))
    });
    let rose: Vec<_> = rose.collect();
    eprintln!(
        "{family}, {}: {} requests, {}",
        attack.name,
        report.ok,
        rose.join(" ")
    );
    Ok(())
}

fn attacks_harm_nobody(topology: Builder, mode: &'static str) -> Result<()> {
    let services = |topology: &Topology| {
        let web = Service::dual("web", WEB, &topology.backends);
        let udp = Service::dual("udp", ECHO, &topology.backends).port(7, Protocol::Udp);
        let tcp = Service::dual("tcp", ECHO, &topology.backends).port(82, Protocol::Tcp);
        [web, udp, tcp]
            .map(|service| service.source_nat(mode))
            .to_vec()
    };
    let more = More {
        dataplane: SETTINGS,
        ..More::default()
    };
    scene::with_settings(topology.backends(2), more, services, |scene| {
        let hosts = &scene.topology.backends;
        let _nginx = sluice_tests::nginx::start_all(hosts, scene.dir(), scene.dir())?;
        let _echo: Vec<_> = hosts
            .iter()
            .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
            .collect::<Result<_>>()?;
        let mut held = Vec::new();
        for family in Family::BOTH {
            held.push(Held::connect(&scene.topology.client, family.frontend(82))?);
        }
        let before = resident(scene)?;
        for family in Family::BOTH {
            for attack in attacks(scene, family, mode)? {
                run(scene, family, &attack)
                    .with_context(|| format!("{family}: {}", attack.name))?;
                for each in &mut held {
                    let step = each.step()?;
                    ensure!(
                        step == Step::Echoed,
                        "{family}: after {}: {step}",
                        attack.name
                    );
                }
            }
        }
        let after = resident(scene)?;
        eprintln!("resident: {before} KiB before, {after} KiB after");
        ensure!(
            after <= before + GROWTH,
            "grew from {before} to {after} KiB"
        );
        let status = scene.dataplane.end(Signal::SIGTERM, LIMIT)?;
        ensure!(status.success(), "the dataplane ended with {status}");
        ensure!(
            !scene.dataplane.log().contains("panicked"),
            "{}",
            scene.dataplane.tail()
        );
        Ok(())
    })
}

#[test]
fn attacks_harm_nobody_with_masquerade() -> Result<()> {
    attacks_harm_nobody(Topology::builder(), "masquerade")
}

#[test]
fn attacks_harm_nobody_over_two_queues_with_client_addresses_kept() -> Result<()> {
    attacks_harm_nobody(Topology::builder().queues(2), "preserve")
}
