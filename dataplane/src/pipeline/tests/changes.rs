//! What live connections make of changes: of the table, of the network, of time.

use super::*;
use crate::io::InterfaceId;
use crate::neighbour::{MacAddress, Network, Routing};
use crate::testutil::rig::{BACKENDS, CLIENTS, Rig, network, on_link};
use crate::testutil::{Build, CLIENT_MAC};
use crate::wire::parse::TcpFlags;
use std::collections::HashMap;
use std::time::Duration;

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

/// Flags and sequence number of the reset that each side got, by interface.
fn resets(sent: &[Sent]) -> Vec<(InterfaceId, String, u32)> {
    let mut resets: Vec<_> = sent
        .iter()
        .map(|(interface, frame)| {
            let read = packet(frame);
            assert!(read.flags.any(RST) && read.is_right, "{read:?}");
            (*interface, read.destination, read.sequence)
        })
        .collect();
    resets.sort();
    resets
}

#[test]
fn both_sides_of_a_connection_are_reset_when_its_backend_goes() {
    for (client, vip, backend, other) in [
        (CLIENT, VIP, "10.0.2.11:8080", "10.0.2.12:8080"),
        (
            CLIENT6,
            VIP6,
            "[2001:db8:2::11]:8080",
            "[2001:db8:2::12]:8080",
        ),
    ] {
        let mut rig = Rig::new(&[&format!("web tcp {vip} -> {backend}")]);
        establish_with(&mut rig, client, vip);
        rig.push(&[&format!("web tcp {vip} -> {other}")]);
        // The client expects what it acknowledged last, the backend likewise.
        assert_eq!(
            resets(&rig.run()),
            [
                (CLIENTS, client.to_owned(), 2000),
                (BACKENDS, backend.to_owned(), 1001)
            ]
        );
        // A side that did not hear is told again when it sends.
        let late = Build::tcp(client, vip).numbers(1001, 2000).payload(b"more");
        assert_eq!(
            resets(&rig.send(CLIENTS, &late.frame())),
            [(CLIENTS, client.to_owned(), 2000)]
        );
        assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
        // The next connection goes to the backend that is there.
        let syn = Build::tcp(client, vip).flags(SYN).frame();
        assert_eq!(backend_of(&rig.exchange(CLIENTS, &syn)), other);
    }
}

#[test]
fn a_packet_that_comes_before_the_walk_ends_the_connection_for_both() {
    let mut rig = Rig::new(&[WEB]);
    let sent = establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.12:8080"]);
    let both = [
        (CLIENTS, CLIENT.to_owned(), 2000),
        (BACKENDS, "10.0.2.11:8080".to_owned(), 1001),
    ];
    assert_eq!(resets(&rig.send(BACKENDS, &answer(&sent, ACK))), both);
    establish(&mut rig, CLIENT);
    rig.push(&[WEB]);
    let both = both.map(|(interface, end, at)| (interface, end.replace("2.11", "2.12"), at));
    let late = Build::tcp(CLIENT, VIP).numbers(1001, 2000).frame();
    assert_eq!(resets(&rig.send(CLIENTS, &late)), both);
}

#[test]
fn a_drained_connection_goes_on_for_its_time_and_is_then_reset() {
    let mut rig = Rig::new(&[&format!("{WEB};drain=60")]);
    establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.12:8080;drain=60"]);
    let data = Build::tcp(CLIENT, VIP).numbers(1001, 2000).frame();
    for _ in 0..59 {
        assert_eq!(backend_of(&rig.exchange(CLIENTS, &data)), "10.0.2.11:8080");
        // Another table starts no new time.
        rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.12:8080;drain=60"]);
        rig.pass(Duration::from_secs(1));
    }
    rig.pass(Duration::from_secs(1));
    assert_eq!(
        resets(&rig.run()),
        [
            (CLIENTS, CLIENT.to_owned(), 2000),
            (BACKENDS, "10.0.2.11:8080".to_owned(), 1001)
        ]
    );
    assert_eq!(rig.connections(), 0);
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
    rig.pass(Duration::from_secs(30));
    rig.run();
    assert_eq!(rig.connections(), 2);
    rig.pass(Duration::from_secs(1));
    rig.run();
    assert_eq!(rig.connections(), 1);
    let close = Build::tcp(CLIENT, VIP)
        .flags(RST | ACK)
        .numbers(1001, 2000)
        .frame();
    rig.exchange(CLIENTS, &close);
    rig.pass(Duration::from_secs(11));
    rig.run();
    assert_eq!(
        (rig.connections(), rig.counters(0).connections_expired.get()),
        (0, 2)
    );
}

#[test]
fn connections_that_are_not_due_yet_hold_up_none_that_are() {
    let mut rig = Rig::new(&[DNS]);
    let ask = |rig: &mut Rig, ports: std::ops::Range<u16>| {
        for port in ports {
            let query = Build::udp(&format!("10.0.1.10:{port}"), "203.0.113.10:53");
            rig.exchange(CLIENTS, &query.payload(b"q").frame());
        }
    };
    ask(&mut rig, 1000..1200);
    rig.pass(Duration::from_secs(20));
    // Those that were opened last stand first in their second.
    ask(&mut rig, 1050..1200);
    rig.pass(Duration::from_secs(11));
    rig.turn(0);
    assert!(rig.connections() > 150, "a turn looks at a few only");
    rig.run();
    assert_eq!(rig.connections(), 150);
    rig.pass(Duration::from_secs(20));
    rig.run();
    let expired = rig.counters(0).connections_expired.get();
    assert_eq!((rig.connections(), expired), (0, 200));
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
fn a_next_hop_that_changes_its_ethernet_address_is_followed() {
    let mut rig = Rig::new(&[WEB]);
    establish(&mut rig, CLIENT);
    let mut moved = HashMap::from([((CLIENTS, "10.0.1.10".parse().unwrap()), CLIENT_MAC)]);
    moved.insert((BACKENDS, "10.0.2.11".parse().unwrap()), MacAddress([6; 6]));
    let old = network([11]);
    let links = old.links().map(|(_, link)| link.clone()).collect();
    let route = |to: &str, interface| on_link(to.parse().unwrap(), 24, interface);
    let routes = [route("10.0.1.0", CLIENTS), route("10.0.2.0", BACKENDS)];
    let v4 = Routing::new(routes, moved);
    rig.set_network(Network::new(links, v4, Routing::default()));
    let sent = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame());
    assert_eq!(sent.1[..6], [6; 6]);
}

#[test]
fn silent_connections_of_a_backend_that_left_do_not_stay() {
    let mut rig = Rig::new(&[WEB, DNS]);
    establish(&mut rig, CLIENT);
    rig.exchange(
        CLIENTS,
        &Build::udp(CLIENT, "203.0.113.10:53").payload(b"q").frame(),
    );
    rig.push(&[
        "web tcp 203.0.113.10:80 -> 10.0.2.13:8080",
        "dns udp 203.0.113.10:53 -> 10.0.2.13:53",
    ]);
    for _ in 0..64 {
        rig.run();
    }
    // UDP is forgotten at once, TCP waits a little for a peer that must be told.
    assert_eq!(rig.connections(), 1);
    rig.pass(Duration::from_secs(9));
    let (_, reset) = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame());
    assert_eq!(packet(&reset).flags, TcpFlags(RST));
    assert_eq!(rig.connections(), 0);

    establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.14:8080"]);
    for _ in 0..64 {
        rig.run();
    }
    rig.pass(Duration::from_secs(11));
    rig.run();
    assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
}

#[test]
fn silent_connections_of_a_backend_that_stays_are_kept() {
    let mut rig = Rig::new(&[WEB]);
    let sent = establish(&mut rig, CLIENT);
    rig.push(&["web tcp 203.0.113.10:80 -> 10.0.2.11:8080/draining 10.0.2.12:8080"]);
    for _ in 0..64 {
        rig.run();
    }
    rig.pass(Duration::from_secs(3600));
    rig.run();
    assert_eq!(
        ends(&rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame()).1),
        ends(&sent.1)
    );
}
