//! What the gateway answers itself.

use super::*;
use crate::testutil::rig::{CLIENTS, Rig, RigSettings};
use crate::testutil::{Build, GATEWAY_MAC, arp_request, echo_request};
use crate::verdict::DropReason;
use std::time::Duration;

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
        (rig.counters(0).icmp_errors.get(), rig.connections()),
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
        [
            (DropReason::Martian, 1),
            (DropReason::AnswerLimit, 7),
            (DropReason::NoAnswer, 1)
        ]
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
