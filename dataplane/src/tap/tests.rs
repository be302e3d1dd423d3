use super::*;
use crate::clock::Clock;
use crate::testutil::rig::{BACKENDS, CLIENTS, Rig, RigSettings};
use crate::testutil::{Build, arp_request, echo_request};
use crate::verdict::DropReason;
use crate::wire::parse::TcpFlags;
use proptest::prelude::*;
use sluice_conf::Protocol;
use sluice_conf::message::dataplane::tap::{Fate, Headers, TapBatch, TappedPacket};

const CLIENT: &str = "10.0.1.10:40000";
const VIP: &str = "203.0.113.10:80";
const WEB: &str = "web tcp 203.0.113.10:80 -> 10.0.2.11:8080";

fn settings(filter: TapFilter) -> TapSettings {
    TapSettings {
        filter,
        sample: 1,
        snap_len: 64,
    }
}

fn syn() -> Vec<u8> {
    Build::tcp(CLIENT, VIP).flags(TcpFlags::SYN).frame()
}

fn batch(session: &Session, rig: &Rig) -> TapBatch {
    session.batch(&Around {
        services: &rig.snapshot().services,
        clock: &Clock::start(),
        interface_name: &|id| id.0.to_string(),
    })
}

fn packets(session: &Session, rig: &Rig) -> Vec<TappedPacket> {
    batch(session, rig).packets
}

fn filter(client: &str) -> TapFilter {
    TapFilter {
        client: Some(client.parse().unwrap()),
        ..TapFilter::default()
    }
}

#[test]
fn a_forwarded_packet_is_told_on_both_sides() {
    let mut rig = Rig::new(&[WEB]);
    let session = rig.tap().start(&settings(filter("10.0.1.10"))).unwrap();
    let (interface, sent) = rig.exchange(CLIENTS, &syn());
    assert_eq!(interface, BACKENDS);
    let [packet] = &packets(&session, &rig)[..] else {
        panic!("one packet")
    };
    assert_eq!(packet.fate, Fate::Forward);
    let (before, after) = (
        packet.before.as_ref().unwrap(),
        packet.after.as_ref().unwrap(),
    );
    assert_eq!(
        (before.interface.as_str(), after.interface.as_str()),
        ("0", "1")
    );
    assert_eq!(before.bytes, syn()[..before.bytes.len()]);
    assert_eq!(after.bytes, sent[..after.bytes.len()]);
    assert_eq!(before.headers.unwrap().flags, Some(TcpFlags::SYN));
    assert_eq!(packet.service.as_ref().unwrap().name, "web");
    assert_eq!(packet.backend, Some("10.0.2.11:8080".parse().unwrap()));
    assert!(packets(&session, &rig).is_empty());
}

#[test]
fn a_reply_matches_by_what_it_becomes() {
    let mut rig = Rig::new(&[WEB]);
    let (_, sent) = rig.exchange(CLIENTS, &syn());
    let source = headers::read(&sent).unwrap();
    let source = format!("{}:{}", source.source, source.ports.unwrap().0);
    let session = rig.tap().start(&settings(filter("10.0.1.10"))).unwrap();
    let answer = Build::tcp("10.0.2.11:8080", &source)
        .flags(TcpFlags::SYN | TcpFlags::ACK)
        .macs(
            crate::testutil::rig::backend_mac(11),
            crate::testutil::rig::GATEWAY_BACKEND_MAC,
        );
    rig.exchange(BACKENDS, &answer.frame());
    let [packet] = &packets(&session, &rig)[..] else {
        panic!("one packet")
    };
    assert_eq!(packet.backend, Some("10.0.2.11:8080".parse().unwrap()));
    assert_eq!(packet.service.as_ref().unwrap().name, "web");
    let after = packet.after.as_ref().unwrap().headers.unwrap();
    assert_eq!(after.destination.to_string(), "10.0.1.10");
}

#[test]
fn a_drop_and_an_answer_say_what_they_are() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 198.51.100.9:80"]);
    let session = rig.tap().start(&settings(TapFilter::default())).unwrap();
    assert!(rig.send(CLIENTS, &syn()).is_empty());
    rig.exchange(CLIENTS, &echo_request("10.0.1.10", "203.0.113.10", b"x"));
    rig.exchange(CLIENTS, &arp_request("10.0.1.10", "203.0.113.10"));
    let seen = packets(&session, &rig);
    let fates: Vec<&Fate> = seen.iter().map(|packet| &packet.fate).collect();
    assert_eq!(
        fates,
        [
            &Fate::Drop(DropReason::NoRoute.into()),
            &Fate::Reply,
            &Fate::Reply
        ]
    );
    assert!(seen[0].after.is_none());
    assert_eq!(
        seen[1].before.as_ref().unwrap().headers.unwrap().protocol,
        1
    );
    assert_eq!(seen[2].before.as_ref().unwrap().headers, None);
}

#[test]
fn only_what_matches_is_told_and_of_that_one_in_so_many() {
    let mut rig = Rig::new(&[WEB]);
    let only = TapFilter {
        port: Some(80),
        protocol: Some(Protocol::Tcp),
        ..filter("10.0.1.10")
    };
    let tap = TapSettings {
        sample: 3,
        ..settings(only)
    };
    let session = rig.tap().start(&tap).unwrap();
    for _ in 0..9 {
        rig.send(CLIENTS, &syn());
        rig.send(CLIENTS, &Build::udp(CLIENT, VIP).frame());
        rig.send(CLIENTS, &Build::tcp("10.0.1.11:5", VIP).frame());
    }
    assert_eq!(packets(&session, &rig).len(), 3);
}

#[test]
fn a_client_that_does_not_read_loses_packets_and_holds_up_nobody() {
    let mut rig = Rig::new(&[WEB]);
    let session = rig.tap().start(&settings(TapFilter::default())).unwrap();
    for _ in 0..RECORDS + 10 {
        rig.exchange(CLIENTS, &syn());
    }
    assert_eq!(batch(&session, &rig).lost, 10);
    let mut told = 0;
    while told < RECORDS {
        let more = packets(&session, &rig).len();
        assert!(more > 0 || told + 256 == RECORDS);
        told += more.max(256 * usize::from(more == 0));
    }
    rig.exchange(CLIENTS, &syn());
    assert_eq!(packets(&session, &rig).len(), 1);
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn one_at_a_time_and_off_when_it_goes() {
    let mut rig = Rig::new(&[WEB]);
    let first = rig.tap().start(&settings(TapFilter::default())).unwrap();
    assert!(rig.tap().start(&settings(TapFilter::default())).is_none());
    drop(first);
    rig.exchange(CLIENTS, &syn());
    let second = rig.tap().start(&settings(TapFilter::default())).unwrap();
    assert!(
        packets(&second, &rig).is_empty(),
        "of what came before nothing is told"
    );
    rig.exchange(CLIENTS, &syn());
    assert_eq!(packets(&second, &rig).len(), 1);
}

#[test]
fn a_frame_handed_over_is_told_by_both_workers() {
    let settings_of = RigSettings {
        workers: 2,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings_of, &[WEB]);
    let session = rig.tap().start(&settings(TapFilter::default())).unwrap();
    rig.arrive(0, CLIENTS, &syn());
    rig.arrive(1, CLIENTS, &syn());
    rig.run();
    let seen = packets(&session, &rig);
    let again = seen
        .iter()
        .filter(|packet| packet.fate.comes_again())
        .count();
    assert_eq!((seen.len(), again), (3, 1));
}

fn headers_of(source: u8, destination: u8, ports: Option<(u16, u16)>) -> Headers {
    Headers {
        protocol: 6,
        source: [10, 0, 0, source].into(),
        destination: [10, 0, 0, destination].into(),
        ports,
        flags: None,
    }
}

proptest! {
    #[test]
    fn both_directions_of_a_flow_match_alike(
        ends in (0..3u8, 0..3u8),
        ports in proptest::option::of((0..3u16, 0..3u16)),
        client in proptest::option::of(0..3u8),
        service in proptest::option::of(0..3u8),
        port in proptest::option::of(0..3u16),
    ) {
        let address = |last: u8| [10, 0, 0, last].into();
        let filter = TapFilter {
            client: client.map(address),
            service: service.map(address),
            port,
            protocol: Some(Protocol::Tcp),
        };
        let there = headers_of(ends.0, ends.1, ports);
        let back = headers_of(ends.1, ends.0, ports.map(|(from, to)| (to, from)));
        let matched = headers::matches(&filter, Some(&there));
        prop_assert_eq!(matched, headers::matches(&filter, Some(&back)));
        let udp = TapFilter { protocol: Some(Protocol::Udp), ..filter };
        prop_assert!(!headers::matches(&udp, Some(&there)));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = headers::read(&bytes);
    }
}
