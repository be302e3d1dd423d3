//! Where packets go and what becomes of their addresses.

use super::*;
use crate::testutil::rig::{BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Rig, RigSettings, backend_mac};
use crate::testutil::{Build, CLIENT_MAC, GATEWAY_MAC};
use std::collections::HashMap;

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
        .numbers(2000, 1001)
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
