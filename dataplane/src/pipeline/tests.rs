//! The packet path, frame by frame: what goes in, what must come out, what must be counted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sluice_conf::message::dataplane::ConnectionFilter;

use crate::listing::Query;
use crate::neighbour::MacAddress;
use crate::testutil::rig::{
    BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Rig, RigSettings, Sent, backend_mac, network,
};
use crate::testutil::{Build, CLIENT_MAC, GATEWAY_MAC, arp_request, corrupt, echo_request};
use crate::verdict::DropReason;
use crate::wire::parse::{Packet, Parsed, TcpFlags, parse};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;

const WEB: &str = "web tcp 203.0.113.10:80 node:10.0.1.1:30080 -> 10.0.2.11:8080";
const WEB3: &str = "web tcp 203.0.113.10:80 -> 10.0.2.11:8080 10.0.2.12:8080 10.0.2.13:8080";
const DNS: &str = "dns udp 203.0.113.10:53 -> 10.0.2.11:53 10.0.2.12:53";
const VIP: &str = "203.0.113.10:80";
const CLIENT: &str = "10.0.1.10:40000";

fn packet(frame: &[u8]) -> Packet {
    match parse(frame) {
        Ok(Parsed::Packet(packet)) => packet,
        other => panic!("not a packet: {other:?}"),
    }
}

/// Source and destination of a frame, as text.
fn ends(frame: &[u8]) -> (String, String) {
    let tuple = packet(frame).tuple;
    (tuple.source.to_string(), tuple.destination.to_string())
}

/// The answer of the backend that got `sent`.
fn answer(sent: &Sent, flags: u8) -> Vec<u8> {
    let (source, destination) = ends(&sent.1);
    let last = packet(&sent.1).tuple.destination.address.octets()[3];
    let build = match packet(&sent.1).tuple.protocol {
        sluice_conf::Protocol::Tcp => Build::tcp(&destination, &source).flags(flags),
        sluice_conf::Protocol::Udp => Build::udp(&destination, &source).payload(b"answer"),
    };
    build.macs(backend_mac(last), GATEWAY_BACKEND_MAC).frame()
}

fn establish(rig: &mut Rig, client: &str) -> Sent {
    let syn = rig.exchange(CLIENTS, &Build::tcp(client, VIP).flags(SYN).frame());
    rig.exchange(BACKENDS, &answer(&syn, SYN | ACK));
    rig.exchange(CLIENTS, &Build::tcp(client, VIP).flags(ACK).frame())
}

fn backend_of(sent: &Sent) -> String {
    ends(&sent.1).1
}

#[test]
fn a_connection_is_masqueraded_to_the_backend_and_back() {
    let mut rig = Rig::new(&[WEB]);
    let syn = Build::tcp(CLIENT, VIP).flags(SYN).payload(b"").frame();
    let sent = rig.exchange(CLIENTS, &syn);
    let (source, destination) = ends(&sent.1);
    assert_eq!(sent.0, BACKENDS);
    assert_eq!(destination, "10.0.2.11:8080");
    let port: u16 = source.strip_prefix("10.0.2.1:").unwrap().parse().unwrap();
    assert!((16_384..=29_999).contains(&port));
    let expected = Build::tcp(&source, &destination)
        .flags(SYN)
        .ttl(63)
        .macs(GATEWAY_BACKEND_MAC, backend_mac(11))
        .frame();
    assert_eq!(sent.1, expected);

    let back = rig.exchange(BACKENDS, &answer(&sent, SYN | ACK));
    let expected = Build::tcp(VIP, CLIENT)
        .flags(SYN | ACK)
        .ttl(63)
        .macs(GATEWAY_MAC, CLIENT_MAC)
        .frame();
    assert_eq!(back, (CLIENTS, expected));

    let counters = rig.counters(0);
    assert_eq!(counters.received.get().frames, 2);
    assert_eq!(counters.transmitted.get().frames, 2);
    assert_eq!(counters.connections_opened.get(), 1);
    assert_eq!(
        (rig.drops(), rig.outstanding(), rig.connections()),
        (vec![], 0, 1)
    );
}

#[test]
fn preserve_keeps_the_client_and_finds_the_way_back() {
    let mut rig = Rig::new(&[&format!("{WEB};preserve")]);
    let sent = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(SYN).frame());
    assert_eq!(ends(&sent.1), (CLIENT.into(), "10.0.2.11:8080".into()));
    let back = rig.exchange(BACKENDS, &answer(&sent, SYN | ACK));
    assert_eq!(ends(&back.1), (VIP.into(), CLIENT.into()));
}

#[test]
fn one_client_port_towards_two_frontends_of_one_backend_stays_two_connections() {
    let mut rig = Rig::new(&[
        "a tcp 203.0.113.10:80 -> 10.0.2.11:8080;preserve",
        "b tcp 203.0.113.11:80 -> 10.0.2.11:8080;preserve",
    ]);
    let first = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(SYN).frame());
    let second = rig.exchange(
        CLIENTS,
        &Build::tcp(CLIENT, "203.0.113.11:80").flags(SYN).frame(),
    );
    assert_eq!(ends(&first.1).0, CLIENT);
    assert!(ends(&second.1).0.starts_with("10.0.2.1:"));
    let back = rig.exchange(BACKENDS, &answer(&second, SYN | ACK));
    assert_eq!(ends(&back.1), ("203.0.113.11:80".into(), CLIENT.into()));
}

#[test]
fn a_backend_that_asks_its_own_vip_is_masqueraded_even_with_preserve() {
    let mut rig = Rig::new(&[&format!("{WEB};preserve")]);
    let syn = Build::tcp("10.0.2.11:40000", VIP)
        .flags(SYN)
        .macs(backend_mac(11), GATEWAY_BACKEND_MAC);
    let sent = rig.exchange(BACKENDS, &syn.frame());
    assert!(ends(&sent.1).0.starts_with("10.0.2.1:"));
    assert_eq!(ends(&sent.1).1, "10.0.2.11:8080");
}

#[test]
fn a_node_port_leads_to_the_same_backends() {
    let mut rig = Rig::new(&[WEB]);
    let sent = rig.exchange(
        CLIENTS,
        &Build::tcp(CLIENT, "10.0.1.1:30080").flags(SYN).frame(),
    );
    assert_eq!(ends(&sent.1).1, "10.0.2.11:8080");
    let back = rig.exchange(BACKENDS, &answer(&sent, SYN | ACK));
    assert_eq!(ends(&back.1).0, "10.0.1.1:30080");
}

#[test]
fn connections_spread_over_backends_and_stay_where_they_are() {
    let mut rig = Rig::new(&[WEB3]);
    let mut counts: HashMap<String, u32> = HashMap::new();
    for port in 10_000..13_000 {
        let client = format!("10.0.1.10:{port}");
        let sent = rig.exchange(CLIENTS, &Build::tcp(&client, VIP).flags(SYN).frame());
        let again = rig.exchange(CLIENTS, &Build::tcp(&client, VIP).flags(SYN).frame());
        assert_eq!(ends(&sent.1), ends(&again.1));
        *counts.entry(backend_of(&sent)).or_default() += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(
        counts.values().all(|n| (900..1100).contains(n)),
        "{counts:?}"
    );
}

#[test]
fn two_gateways_choose_the_same_backend_for_every_flow() {
    let other = RigSettings {
        workers: 2,
        ..RigSettings::default()
    };
    let (mut a, mut b) = (Rig::new(&[WEB3]), Rig::with(&other, &[WEB3]));
    for port in 10_000..12_000 {
        let syn = Build::tcp(&format!("10.0.1.10:{port}"), VIP)
            .flags(SYN)
            .frame();
        assert_eq!(
            backend_of(&a.exchange(CLIENTS, &syn)),
            backend_of(&b.exchange(CLIENTS, &syn))
        );
    }
}

#[test]
fn a_live_connection_survives_every_change_but_that_of_its_backend() {
    let mut rig = Rig::new(&[WEB3]);
    let mut homes = Vec::new();
    for port in 20_000..20_050 {
        let client = format!("10.0.1.10:{port}");
        homes.push((backend_of(&establish(&mut rig, &client)), client));
    }
    for change in [
        "web tcp 203.0.113.10:80 -> 10.0.2.11:8080 10.0.2.12:8080 10.0.2.13:8080 10.0.2.14:8080",
        "web tcp 203.0.113.10:80 -> 10.0.2.11:8080*9 10.0.2.12:8080*2 10.0.2.13:8080 10.0.2.15:8080",
        "web tcp 203.0.113.10:80 -> 10.0.2.11:8080/draining 10.0.2.12:8080/draining 10.0.2.13:8080",
    ] {
        rig.push(&[change, "other tcp 203.0.113.77:80 -> 10.0.2.19:80"]);
        for (home, client) in &homes {
            let sent = rig.exchange(CLIENTS, &Build::tcp(client, VIP).flags(ACK).frame());
            assert_eq!(&backend_of(&sent), home);
        }
    }
    assert_eq!(rig.drops(), vec![]);
}

#[test]
fn a_connection_whose_backend_is_gone_is_reset_at_its_next_packet() {
    let mut rig = Rig::new(&[WEB]);
    establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.12:8080"]);
    let segment = Build::tcp(CLIENT, VIP)
        .numbers(5000, 7000)
        .payload(b"more")
        .frame();
    let (interface, reset) = rig.exchange(CLIENTS, &segment);
    assert_eq!(interface, CLIENTS);
    assert_eq!(ends(&reset), (VIP.into(), CLIENT.into()));
    assert_eq!(packet(&reset).flags, TcpFlags(RST));
    assert_eq!(reset[38..42], 7000u32.to_be_bytes());
    assert!(packet(&reset).has_right_checksum(&reset));
    assert_eq!((rig.connections(), rig.counters(0).resets.get()), (0, 1));
    // The next connection goes to the backend that is there.
    let sent = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(SYN).frame());
    assert_eq!(backend_of(&sent), "10.0.2.12:8080");
}

#[test]
fn a_backend_that_is_gone_and_still_sends_is_reset_too() {
    let mut rig = Rig::new(&[WEB]);
    let sent = establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.12:8080"]);
    let (interface, reset) = rig.exchange(BACKENDS, &answer(&sent, ACK));
    assert_eq!(interface, BACKENDS);
    assert_eq!(packet(&reset).flags, TcpFlags(RST));
    assert_eq!(ends(&reset).1, "10.0.2.11:8080");
}

#[test]
fn with_keep_a_connection_outlives_its_backends_entry() {
    let mut rig = Rig::new(&[&format!("{WEB};keep")]);
    let sent = establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.12:8080;keep"]);
    let again = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(ACK).frame());
    assert_eq!(ends(&again.1), ends(&sent.1));
    let back = rig.exchange(BACKENDS, &answer(&again, ACK));
    assert_eq!(ends(&back.1), (VIP.into(), CLIENT.into()));
    assert_eq!(rig.drops(), vec![]);
}

#[test]
fn udp_of_a_backend_that_is_gone_moves_on_with_its_next_packet() {
    let mut rig = Rig::new(&[DNS]);
    let query = Build::udp(CLIENT, "203.0.113.10:53")
        .payload(b"query")
        .frame();
    let first = backend_of(&rig.exchange(CLIENTS, &query));
    let left = if first == "10.0.2.11:53" {
        "10.0.2.12:53"
    } else {
        "10.0.2.11:53"
    };
    rig.push(&[&format!("dns udp 203.0.113.10:53 -> {left};keep")]);
    assert_eq!(backend_of(&rig.exchange(CLIENTS, &query)), left);
    assert_eq!(rig.connections(), 1);
}

#[test]
fn a_port_without_backend_and_a_port_that_is_not_defined_are_unreachable() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 ->"]);
    for frontend in [VIP, "203.0.113.10:81"] {
        let syn = Build::tcp(CLIENT, frontend).flags(SYN).frame();
        let (interface, error) = rig.exchange(CLIENTS, &syn);
        assert_eq!(interface, CLIENTS);
        assert_eq!(error[34..36], [3, 3]);
        assert_eq!(error[26..34], [203, 0, 113, 10, 10, 0, 1, 10]);
        assert_eq!(error[42..], syn[14..]);
    }
    assert_eq!(
        (rig.counters(0).unreachables.get(), rig.connections()),
        (2, 0)
    );
}

#[test]
fn answers_are_limited_and_never_given_to_resets_or_to_nobody() {
    let settings = RigSettings {
        answers: 3,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &["web tcp 203.0.113.10:80 ->"]);
    let syn = Build::tcp(CLIENT, VIP).flags(SYN).frame();
    assert_eq!(
        (0..10)
            .map(|_| rig.send(CLIENTS, &syn).len())
            .sum::<usize>(),
        3
    );
    assert_eq!(
        rig.send(CLIENTS, &Build::tcp(CLIENT, VIP).flags(RST).frame()),
        []
    );
    assert_eq!(
        rig.send(
            CLIENTS,
            &Build::tcp("255.255.255.255:9", VIP).flags(SYN).frame()
        ),
        []
    );
    assert_eq!(
        rig.drops(),
        [(DropReason::AnswerLimit, 7), (DropReason::NoAnswer, 2)]
    );
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.send(CLIENTS, &syn).len(), 1);
}

#[test]
fn a_ping_is_answered_while_a_backend_is_ready() {
    let mut rig = Rig::new(&[WEB]);
    let ping = echo_request("10.0.1.10", "203.0.113.10", b"0123456789");
    let (interface, reply) = rig.exchange(CLIENTS, &ping);
    assert_eq!((interface, reply[34]), (CLIENTS, 0));
    rig.push(&["web tcp 203.0.113.10:80 ->"]);
    assert_eq!(rig.send(CLIENTS, &ping), []);
    assert_eq!(rig.drops(), [(DropReason::EchoRefused, 1)]);
}

#[test]
fn arp_is_answered_for_vips_only() {
    let mut rig = Rig::new(&["web tcp 10.0.1.100:80 -> 10.0.2.11:8080"]);
    let (_, reply) = rig.exchange(CLIENTS, &arp_request("10.0.1.10", "10.0.1.100"));
    assert_eq!(reply[22..28], GATEWAY_MAC.0);
    assert_eq!(rig.send(CLIENTS, &arp_request("10.0.1.10", "10.0.1.1")), []);
    assert_eq!(
        rig.send(CLIENTS, &arp_request("10.0.1.100", "10.0.1.100")),
        []
    );
    assert_eq!(rig.drops(), [(DropReason::ArpNotOurs, 2)]);
}

#[test]
fn a_frame_waits_for_its_next_hop_and_then_goes_on() {
    let mut rig = Rig::new(&[WEB]);
    rig.set_network(network([]));
    let syn = Build::tcp(CLIENT, VIP).flags(SYN).frame();
    assert_eq!(rig.send(CLIENTS, &syn), []);
    assert_eq!(rig.wanted(), [(BACKENDS, "10.0.2.11".parse().unwrap())]);
    assert_eq!((rig.connections(), rig.outstanding()), (0, 1));
    rig.set_network(network([11]));
    let sent = rig.run();
    assert_eq!(backend_of(&sent[0]), "10.0.2.11:8080");
    assert_eq!(
        (rig.drops(), rig.outstanding(), rig.connections()),
        (vec![], 0, 1)
    );
}

#[test]
fn a_next_hop_that_stays_silent_costs_its_frames_only() {
    let mut rig = Rig::new(&[WEB]);
    rig.set_network(network([]));
    for port in 0..100 {
        rig.arrive(
            0,
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 1000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    assert_eq!(rig.run(), []);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.run(), []);
    assert_eq!(rig.drops(), [(DropReason::NeighbourUnresolved, 100)]);
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn a_lost_connection_is_reset_with_masquerade_and_picked_up_with_preserve() {
    let segment = Build::tcp(CLIENT, VIP).flags(ACK).payload(b"data").frame();
    let mut rig = Rig::new(&[WEB]);
    let (interface, reset) = rig.exchange(CLIENTS, &segment);
    assert_eq!((interface, packet(&reset).flags), (CLIENTS, TcpFlags(RST)));

    let preserve = format!("{WEB3};preserve");
    let mut before = Rig::new(&[&preserve]);
    let home = backend_of(&establish(&mut before, CLIENT));
    let mut after = Rig::new(&[&preserve]);
    assert_eq!(backend_of(&after.exchange(CLIENTS, &segment)), home);
}

#[test]
fn what_belongs_to_no_connection_never_leaves_with_a_backends_address() {
    let mut rig = Rig::new(&[&format!("{WEB};preserve")]);
    let stray = Build::tcp("10.0.2.11:8080", CLIENT)
        .flags(ACK)
        .macs(backend_mac(11), GATEWAY_BACKEND_MAC);
    assert_eq!(rig.send(BACKENDS, &stray.frame()), []);
    let stray = Build::tcp("10.0.2.11:8080", "10.0.2.1:20000").flags(ACK);
    assert_eq!(rig.send(BACKENDS, &stray.frame()), []);
    assert_eq!(rig.drops(), [(DropReason::NoConnection, 2)]);
}

#[test]
fn a_syn_on_a_closed_connection_starts_anew() {
    let mut rig = Rig::new(&[WEB]);
    let sent = establish(&mut rig, CLIENT);
    rig.exchange(BACKENDS, &answer(&sent, RST));
    let again = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(SYN).frame());
    assert_ne!(ends(&again.1).0, ends(&sent.1).0);
    assert_eq!(rig.connections(), 1);
}

#[test]
fn connections_end_by_the_timeouts_of_their_state() {
    let mut rig = Rig::new(&[WEB, DNS]);
    establish(&mut rig, CLIENT);
    let query = Build::udp(CLIENT, "203.0.113.10:53").payload(b"q").frame();
    rig.exchange(CLIENTS, &query);
    rig.pass(Duration::from_secs(29));
    rig.run();
    assert_eq!(rig.connections(), 2);
    rig.pass(Duration::from_secs(1));
    rig.run();
    assert_eq!(rig.connections(), 1);
    let close = Build::tcp(CLIENT, VIP).flags(RST | ACK).frame();
    rig.exchange(CLIENTS, &close);
    rig.pass(Duration::from_secs(10));
    rig.run();
    assert_eq!(
        (rig.connections(), rig.counters(0).connections_expired.get()),
        (0, 2)
    );
}

#[test]
fn a_full_table_and_exhausted_ports_have_their_own_reasons() {
    let settings = RigSettings {
        capacity: 1024,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB3]);
    for port in 0..1100u16 {
        rig.send(
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 20_000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    assert_eq!(rig.drops(), [(DropReason::ConnectionTableFull, 76)]);

    let mut settings = RigSettings::default();
    settings.source_nat.ports = "20000-20009".parse().unwrap();
    let mut rig = Rig::with(&settings, &[WEB]);
    for port in 0..15u16 {
        rig.send(
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 20_000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    assert_eq!(rig.drops(), [(DropReason::SourcePortsExhausted, 5)]);
}

#[test]
fn a_connection_that_has_ended_gives_up_its_source_port() {
    let mut settings = RigSettings::default();
    settings.source_nat.ports = "20000-20000".parse().unwrap();
    let mut rig = Rig::with(&settings, &[WEB]);
    let sent = establish(&mut rig, CLIENT);
    let other = Build::tcp("10.0.1.10:40001", VIP).flags(SYN).frame();
    assert_eq!(rig.send(CLIENTS, &other), []);
    rig.exchange(BACKENDS, &answer(&sent, RST));
    assert_eq!(ends(&rig.exchange(CLIENTS, &other).1).0, "10.0.2.1:20000");
    assert_eq!(rig.connections(), 1);
}

#[test]
fn damaged_frames_are_told_apart_and_change_nothing() {
    let mut rig = Rig::new(&[WEB]);
    establish(&mut rig, CLIENT);
    let reset = Build::tcp(CLIENT, VIP).flags(RST).frame();
    let edited = |edit: fn(&mut Vec<u8>)| {
        let mut frame = reset.clone();
        edit(&mut frame);
        frame
    };
    let frames = [
        edited(|f| f.truncate(20)),
        edited(|f| f[24] ^= 0xff),
        edited(|f| f[50] ^= 0xff),
        edited(|f| corrupt::fragment(f, 0x2000)),
        edited(|f| corrupt::protocol(f, 132)),
        edited(|f| f[12] = 0x86),
        Build::tcp(CLIENT, VIP).ttl(1).frame(),
        Build::tcp("10.0.1.99:1", "198.51.100.1:1").frame(),
    ];
    for frame in &frames {
        assert_eq!(rig.send(CLIENTS, frame), []);
    }
    let expected = [
        DropReason::Truncated,
        DropReason::NotIpv4,
        DropReason::BadIpChecksum,
        DropReason::BadTransportChecksum,
        DropReason::Fragment,
        DropReason::Protocol,
        DropReason::Ttl,
        DropReason::NoConnection,
    ];
    assert_eq!(rig.drops(), expected.map(|reason| (reason, 1)));
    // The connection is still established: its next segment goes through.
    rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(ACK).frame());
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn a_client_without_a_way_back_and_a_frame_too_long_have_their_reasons() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 192.0.2.1:80", DNS]);
    assert_eq!(
        rig.send(CLIENTS, &Build::tcp(CLIENT, VIP).flags(SYN).frame()),
        []
    );
    let long = Build::udp(CLIENT, "203.0.113.10:53")
        .payload(&[0; 1473])
        .frame();
    assert_eq!(rig.send(CLIENTS, &long), []);
    assert_eq!(
        rig.drops(),
        [(DropReason::NoRoute, 1), (DropReason::FrameTooLong, 1)]
    );
}

/// Every flow of these clients through `workers` workers, every frame at the wrong one too.
fn through_workers(workers: u16, policy: &str) {
    let settings = RigSettings {
        workers,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[&format!("{WEB3};{policy}")]);
    for port in 30_000..30_200u16 {
        let client = format!("10.0.1.10:{port}");
        let at = |n: u16| usize::from(port.wrapping_add(n) % workers);
        rig.arrive(at(0), CLIENTS, &Build::tcp(&client, VIP).flags(SYN).frame());
        let sent = rig.run();
        assert_eq!(sent.len(), 1, "{:?}", rig.drops());
        rig.arrive(at(1), BACKENDS, &answer(&sent[0], SYN | ACK));
        let back = rig.run();
        assert_eq!(ends(&back[0].1), (VIP.into(), client.clone()));
        rig.arrive(
            at(2),
            CLIENTS,
            &Build::tcp(&client, VIP).flags(ACK | FIN).frame(),
        );
        assert_eq!(ends(&rig.run()[0].1), ends(&sent[0].1));
    }
    assert_eq!(
        (rig.drops(), rig.outstanding(), rig.connections()),
        (vec![], 0, 200)
    );
    let sum = |f: fn(&crate::stats::WorkerCounters) -> u64| {
        (0..workers).map(|w| f(rig.counters(w))).sum::<u64>()
    };
    assert_eq!(sum(|c| c.handed_over.get()), sum(|c| c.taken_over.get()));
    assert_eq!(workers > 1, sum(|c| c.handed_over.get()) > 0);
}

#[test]
fn frames_at_the_wrong_worker_reach_the_owner_in_both_modes() {
    for workers in [1, 2, 3, 4] {
        through_workers(workers, "");
        through_workers(workers, "preserve");
    }
}

#[test]
fn node_ports_and_masquerade_ports_of_one_address_find_their_owners() {
    let settings = RigSettings {
        workers: 4,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(
        &settings,
        &["web tcp node:10.0.2.1:30080 -> 10.0.2.11:8080"],
    );
    for port in 30_000..30_100u16 {
        let client = format!("10.0.1.10:{port}");
        rig.arrive(
            usize::from(port % 4),
            CLIENTS,
            &Build::tcp(&client, "10.0.2.1:30080").flags(SYN).frame(),
        );
        let sent = rig.run();
        rig.arrive(
            usize::from(port % 3),
            BACKENDS,
            &answer(&sent[0], SYN | ACK),
        );
        assert_eq!(ends(&rig.run()[0].1), ("10.0.2.1:30080".into(), client));
    }
}

#[test]
fn a_full_hand_over_ring_is_a_counted_drop() {
    let settings = RigSettings {
        workers: 2,
        handover: 4,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB]);
    for port in 0..64u16 {
        rig.arrive(
            0,
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 1000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    let sent = rig.run().len() as u64;
    let drops = rig.drops();
    assert_eq!(drops, [(DropReason::HandoverFull, 64 - sent)]);
    assert!(sent > 4 && sent < 64);
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn connections_are_listed_by_service_and_client() {
    let mut rig = Rig::new(&[WEB, DNS]);
    establish(&mut rig, CLIENT);
    rig.exchange(
        CLIENTS,
        &Build::udp("10.0.1.10:5353", "203.0.113.10:53")
            .payload(b"q")
            .frame(),
    );
    rig.pass(Duration::from_secs(3));
    let mut list = |filter: ConnectionFilter| {
        let (answer, answered) = crossbeam::channel::bounded(1);
        rig.ask(0, Query { filter, answer });
        for _ in 0..64 {
            rig.run();
        }
        answered.try_recv().unwrap()
    };
    let all = list(ConnectionFilter {
        limit: 10,
        ..ConnectionFilter::default()
    });
    assert_eq!(all.len(), 2);
    let web = ConnectionFilter {
        service: Some("web".into()),
        limit: 10,
        ..ConnectionFilter::default()
    };
    let web = list(web);
    assert_eq!(web.len(), 1);
    assert_eq!(web[0].client.to_string(), CLIENT);
    assert_eq!(web[0].frontend.to_string(), VIP);
    assert_eq!(web[0].backend.to_string(), "10.0.2.11:8080");
    assert_eq!(
        (web[0].state.as_str(), web[0].idle_seconds),
        ("ESTABLISHED", 3)
    );
    let nobody = Some("10.9.9.9".parse().unwrap());
    assert_eq!(
        list(ConnectionFilter {
            client: nobody,
            limit: 10,
            ..ConnectionFilter::default()
        }),
        []
    );
}

#[test]
fn traffic_is_counted_for_its_backend_over_a_change_of_the_table() {
    let mut rig = Rig::new(&[WEB]);
    establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.11:8080 10.0.2.12:8080"]);
    rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame());
    let snapshot = rig.snapshot();
    let counters = snapshot.services.service(0).unwrap().backends[0]
        .counters
        .of(0)
        .unwrap();
    assert_eq!(counters.connections.get(), 1);
    assert_eq!(counters.original.get().frames, 3);
    assert_eq!(counters.reply.get().frames, 1);
}

#[test]
fn a_million_frames_with_a_tenth_of_garbage_leave_every_slot_accounted_for() {
    let settings = RigSettings {
        workers: 2,
        slots: 1024,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB3, DNS]);
    let good: Vec<Vec<u8>> = (0..500u16)
        .flat_map(|n| {
            let client = format!("10.0.1.10:{}", 10_000 + n);
            let tcp = |flags| {
                Build::tcp(&client, VIP)
                    .flags(flags)
                    .payload(b"abc")
                    .frame()
            };
            [
                tcp(SYN),
                tcp(ACK),
                tcp(ACK | FIN),
                Build::udp(&client, "203.0.113.10:53").payload(b"q").frame(),
            ]
        })
        .collect();
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut received, mut sent) = (0, 0);
    while received < 1_000_000u64 {
        for _ in 0..128 {
            let mut frame = good[next() as usize % good.len()].clone();
            if next() % 10 == 0 {
                for _ in 0..1 + next() % 8 {
                    let at = next() as usize % frame.len();
                    frame[at] = next() as u8;
                }
                frame.truncate(1 + next() as usize % frame.len());
            }
            rig.arrive(
                next() as usize % 2,
                if next() % 2 == 0 { CLIENTS } else { BACKENDS },
                &frame,
            );
            received += 1;
        }
        sent += rig.run().len() as u64;
        assert_eq!(
            rig.outstanding() as u64,
            rig.counters(0).waiting.get() + rig.counters(1).waiting.get()
        );
    }
    rig.pass(Duration::from_secs(10));
    rig.run();
    let dropped: u64 = rig.drops().iter().map(|(_, frames)| frames).sum();
    assert_eq!(received, sent + dropped);
    assert_eq!(rig.outstanding(), 0);
    let reasons: HashSet<_> = rig.drops().iter().map(|(reason, _)| *reason).collect();
    assert!(reasons.contains(&DropReason::Truncated), "{reasons:?}");
}

#[test]
fn a_next_hop_that_changes_its_ethernet_address_is_followed() {
    let mut rig = Rig::new(&[WEB]);
    establish(&mut rig, CLIENT);
    let mut moved = HashMap::from([((CLIENTS, "10.0.1.10".parse().unwrap()), CLIENT_MAC)]);
    moved.insert((BACKENDS, "10.0.2.11".parse().unwrap()), MacAddress([6; 6]));
    let old = network([11]);
    let links = old.links().map(|(_, link)| link.clone()).collect();
    let route = |destination: &str, interface| crate::neighbour::Route {
        destination: destination.parse().unwrap(),
        prefix_len: 24,
        interface,
        gateway: None,
        source: None,
        metric: 0,
    };
    let routes = [route("10.0.1.0", CLIENTS), route("10.0.2.0", BACKENDS)];
    rig.set_network(crate::neighbour::Network::new(links, routes, moved));
    let sent = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame());
    assert_eq!(sent.1[..6], [6; 6]);
}
