//! What live connections make of changes: of the table, of the network, of time.

use super::*;
use crate::neighbour::MacAddress;
use crate::testutil::rig::{BACKENDS, CLIENTS, Rig, network};
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
    rig.pass(Duration::from_secs(10));
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

#[test]
fn the_client_is_reset_also_when_the_lost_backend_speaks_first() {
    let mut rig = Rig::new(&[&format!("{WEB3};preserve")]);
    let sent = establish(&mut rig, CLIENT);
    let last = packet(&sent.1).tuple.destination.address.octets()[3];
    let others: Vec<String> = (11..=13)
        .filter(|n| *n != last)
        .map(|n| format!("10.0.2.{n}:8080"))
        .collect();
    rig.push(&[&format!(
        "web tcp 203.0.113.10:80 -> {};preserve",
        others.join(" ")
    )]);
    let (to, _) = rig.exchange(BACKENDS, &answer(&sent, ACK));
    assert_eq!(to, BACKENDS);
    let (to, reset) = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame());
    assert_eq!((to, packet(&reset).flags), (CLIENTS, TcpFlags(RST)));
}
