//! VLAN tags, and questions about addresses on links with and without them.

use super::world::*;
use super::*;
use crate::testutil::rig::{RigSettings, network_on};
use crate::testutil::{CLIENT_MAC, GATEWAY_MAC, arp_request, echo_request};
use crate::verdict::DropReason;
use crate::wire::ndp::solicited_node;
use std::net::{IpAddr, Ipv6Addr};

fn rig_on(tags: [[u16; 2]; 2], lines: &[&str]) -> Rig {
    let network = network_on(11..=19, |links| {
        for (link, tags) in links.iter_mut().zip(tags) {
            link.tags = Tags(tags);
        }
    });
    Rig::on(&RigSettings::default(), network, lines)
}

fn tags_of(link: [u16; 2]) -> Vec<u16> {
    link.into_iter().filter(|tag| *tag != 0).collect()
}

#[test]
fn tags_are_those_of_the_link_that_a_packet_leaves_by() {
    let links = [[0, 0], [7, 0], [8, 0], [100, 7], [200, 7]];
    for world in WORLDS {
        for (name, protocol) in PROTOCOLS {
            for client_side in links {
                for backend_side in links {
                    let lines = world.web(name, &[11], "");
                    let mut rig = rig_on([client_side, backend_side], &[&lines]);
                    let (front, back) = (tags_of(client_side), tags_of(backend_side));
                    let packet = Build::packet(protocol, &world.client(40_000), &world.vip(80));
                    let frame = packet.flags(SYN).frame();
                    let sent = through(&mut rig, 0, IN, &tag(&frame, &front));
                    let bare = untagged(&sent.1);
                    assert_eq!(sent.1, tag(&bare, &back));
                    assert_eq!(bare.len(), frame.len());
                    assert_eq!(
                        bare[..12],
                        [backend_mac(11).0, GATEWAY_BACKEND_MAC.0].concat()
                    );

                    let reply = answering(&(BACKENDS, bare)).flags(SYN | ACK).frame();
                    let sent = through(&mut rig, 0, OUT, &tag(&reply, &back));
                    let bare = untagged(&sent.1);
                    assert_eq!(sent.1, tag(&bare, &front));
                    assert_eq!(bare[..12], [CLIENT_MAC.0, GATEWAY_MAC.0].concat());
                    assert_eq!(ends(&bare), (world.vip(80), world.client(40_000)));
                    assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
                }
            }
        }
    }
}

#[test]
fn other_tags_than_those_of_the_link_are_dropped() {
    for world in WORLDS {
        for (link, strangers) in [
            ([0, 0], [vec![7], vec![100, 7]]),
            ([7, 0], [vec![], vec![8]]),
            ([7, 0], [vec![7, 7], vec![0]]),
            ([100, 7], [vec![7], vec![7, 100]]),
        ] {
            let mut rig = rig_on([link, [0, 0]], &[&world.web("tcp", &[11], "")]);
            let syn = Build::tcp(&world.client(40_000), &world.vip(80)).flags(SYN);
            for stranger in &strangers {
                assert_eq!(rig.send(CLIENTS, &tag(&syn.frame(), stranger)), []);
            }
            assert_eq!(rig.drops(), [(DropReason::OtherVlan, 2)]);
            // Priority bits are no part of the tag.
            let own: Vec<u16> = tags_of(link).iter().map(|tag| tag | 0xe000).collect();
            through(&mut rig, 0, IN, &tag(&syn.frame(), &own));
            assert_eq!(rig.outstanding(), 0);
        }
    }
}

#[test]
fn errors_resets_and_echoes_go_back_with_the_tags_of_the_question() {
    for world in WORLDS {
        let lines = format!("{} refuse=reset", world.web("tcp", &[], ""));
        let mut rig = rig_on([[100, 7], [0, 0]], &[&lines]);
        let syn = Build::tcp(&world.client(40_000), &world.vip(80)).flags(SYN);
        let echo = match world.v6 {
            true => echo_request("2001:db8:1::10", "2001:db8:9::10", b"hello"),
            false => echo_request("10.0.1.10", "203.0.113.10", b"hello"),
        };
        rig.push(&[
            &lines,
            &format!(
                "p udp {} -> {};ping=always",
                world.vip(53),
                world.backend(11, 53)
            ),
        ]);
        let undefined = Build::udp(&world.client(40_000), &world.vip(9)).frame();
        for question in [syn.frame(), echo, undefined] {
            let answer = through(&mut rig, 0, (CLIENTS, CLIENTS), &tag(&question, &[100, 7]));
            let bare = untagged(&answer.1);
            assert_eq!(answer.1, tag(&bare, &[100, 7]));
            assert_eq!(bare[..12], [CLIENT_MAC.0, GATEWAY_MAC.0].concat());
            assert_eq!(seen(&bare).source, ip(&world.vip(1)));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    }
}

#[test]
fn arp_is_answered_behind_tags() {
    let mut rig = rig_on(
        [[100, 7], [0, 0]],
        &["web tcp 10.0.1.100:80 -> 10.0.2.11:8080"],
    );
    let question = arp_request("10.0.1.10", "10.0.1.100");
    assert_eq!(rig.send(CLIENTS, &question), []);
    let (_, reply) = rig.exchange(CLIENTS, &tag(&question, &[100, 7]));
    let bare = untagged(&reply);
    assert_eq!(reply, tag(&bare, &[100, 7]));
    assert_eq!(bare[..12], [CLIENT_MAC.0, GATEWAY_MAC.0].concat());
    assert_eq!(
        bare[20..32],
        [&[0, 2][..], &GATEWAY_MAC.0, &[10, 0, 1, 100]].concat()
    );
    assert_eq!(rig.drops(), [(DropReason::OtherVlan, 1)]);
    assert_eq!(
        (rig.counters(0).arp_replies.get(), rig.outstanding()),
        (1, 0)
    );
}

/// A neighbour solicitation, whole and right.
fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr, mac: bool) -> Vec<u8> {
    let mut message = target.octets().to_vec();
    if mac {
        message.extend([1, 1]);
        message.extend(CLIENT_MAC.0);
    }
    let group = destination.octets();
    let to = match destination.is_multicast() {
        true => MacAddress([0x33, 0x33, group[12], group[13], group[14], group[15]]),
        false => GATEWAY_MAC,
    };
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2(CLIENT_MAC.0, to.0)
        .ipv6(source.octets(), destination.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut bytes, &message)
        .unwrap();
    bytes
}

const TARGET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 0x10);
const ASKER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

#[test]
fn a_solicitation_for_a_vip_is_answered_whoever_asks() {
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    for tags in [[0, 0], [7, 0], [100, 7]] {
        let mut rig = rig_on([tags, [0, 0]], &[&WORLDS[1].web("tcp", &[11], "")]);
        for (source, to, mac) in [
            (ASKER, solicited_node(TARGET), true),
            (ASKER, TARGET, false),
            (NOBODY, solicited_node(TARGET), false),
        ] {
            let question = solicitation(source, to, TARGET, mac);
            let question = tag(&question, &tags_of(tags));
            let answer = through(&mut rig, 0, (CLIENTS, CLIENTS), &question);
            let bare = untagged(&answer.1);
            assert_eq!(answer.1, tag(&bare, &tags_of(tags)));
            let told = seen(&bare);
            let is_probe = source == NOBODY;
            let (mac, to) = match is_probe {
                true => ([0x33, 0x33, 0, 0, 0, 1], all_nodes),
                false => (CLIENT_MAC.0, ASKER),
            };
            assert_eq!(bare[..12], [mac, GATEWAY_MAC.0].concat());
            assert_eq!(
                (told.source, told.destination),
                (TARGET.into(), IpAddr::V6(to))
            );
            assert_eq!((told.hops, told.payload.len()), (255, 32));
            let flags = if is_probe { 0x20 } else { 0x60 };
            assert_eq!(told.payload[..2], [136, 0]);
            assert_eq!(told.payload[4..8], [flags, 0, 0, 0]);
            assert_eq!(told.payload[8..24], TARGET.octets());
            assert_eq!(told.payload[24..], [&[2, 1][..], &GATEWAY_MAC.0].concat());
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        assert_eq!(rig.counters(0).ndp_replies.get(), 3);
    }
}

#[test]
fn solicitations_for_others_and_broken_ones_are_not_answered() {
    let mut rig = rig_on([[0, 0]; 2], &[&WORLDS[1].web("tcp", &[11], "")]);
    let other = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 0x11);
    let own = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    for target in [other, own] {
        let question = solicitation(ASKER, solicited_node(target), target, true);
        assert_eq!(rig.send(CLIENTS, &question), []);
    }
    let good = solicitation(ASKER, solicited_node(TARGET), TARGET, true);
    let mut routed = good.clone();
    routed[21] = 254;
    let mut damaged = good.clone();
    damaged[60] ^= 1;
    for broken in [routed, damaged] {
        assert_eq!(rig.send(CLIENTS, &broken), []);
    }
    let drops: u64 = rig.drops().iter().map(|(_, frames)| frames).sum();
    assert_eq!((drops, rig.outstanding()), (4, 0));
    assert!(rig.drops().contains(&(DropReason::SolicitationNotOurs, 2)));
    assert_eq!(rig.counters(0).ndp_replies.get(), 0);
}
