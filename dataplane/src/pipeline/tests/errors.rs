//! ICMP errors: translated, refused, and made by the gateway itself.

use super::world::*;
use super::*;
use crate::testutil::rig::{RigSettings, network_on};
use crate::verdict::DropReason;
use std::net::IpAddr;

/// A packet of each protocol from a client, and as its backend got it.
fn opened(rig: &mut Rig, world: World, protocol: Protocol, n: u16) -> (Vec<u8>, Sent) {
    let packet = Build::packet(protocol, &world.client(40_000 + n), &world.vip(80)).flags(SYN);
    let packet = match protocol {
        Protocol::Sctp => packet,
        _ => packet.payload(b"a question"),
    };
    let frame = packet.frame();
    let sent = through(rig, n.into(), IN, &frame);
    (frame, sent)
}

#[test]
fn a_backends_error_comes_from_the_vip_and_quotes_what_the_client_sent() {
    everywhere(|world, settings, policy| {
        for (name, protocol) in PROTOCOLS {
            let mut rig = Rig::with(settings, &[&world.web(name, &[11], policy)]);
            for n in 0..8 {
                let (question, sent) = opened(&mut rig, world, protocol, n);
                let arrived = seen(&sent.1);
                let ends = (arrived.destination, arrived.source);
                let kind = world.port_unreachable();
                let error = world.icmp(ends, kind, [0; 4], &sent.1[14..], from_backend(11));
                let back = through(&mut rig, usize::from(n) + 1, OUT, &error);
                let back = seen(&back.1);
                assert_eq!(back.source, ip(&world.vip(80)));
                assert_eq!(back.destination, ip(&world.client(1)));
                assert_eq!((back.payload[0], back.payload[1]), kind);
                assert_eq!(back.hops, 63);
                // What it quotes is what the client sent, but for its hop limit and what follows.
                let (quoted, question) = (back.quoted(), seen(&question));
                assert_eq!(quoted.ends(), question.ends());
                assert_eq!(quoted.hops + 1, question.hops);
                // SCTP looks at the verification tag alone (RFC 9260 section 10).
                if protocol == Protocol::Sctp {
                    assert_eq!(quoted.payload[4..8], question.payload[4..8]);
                } else {
                    assert!(quoted.is_right());
                    assert_eq!(quoted.payload[4..], question.payload[4..]);
                }
            }
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        }
    });
}

#[test]
fn a_routers_error_keeps_its_source_and_its_mtu() {
    everywhere(|world, settings, policy| {
        for (kind, more) in [
            (world.too_big(), [0, 0, 5, 0x14]),
            (world.time_exceeded(), [0; 4]),
        ] {
            let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
            let (question, sent) = opened(&mut rig, world, Protocol::Tcp, 3);
            let ends = (world.router(), seen(&sent.1).source);
            let error = world.icmp(ends, kind, more, &sent.1[14..], from_backend(11));
            let back = through(&mut rig, 1, OUT, &error);
            let back = seen(&back.1);
            assert_eq!(back.source, world.router());
            assert_eq!(back.payload[4..8], more);
            assert_eq!(back.quoted().ends(), seen(&question).ends());
            let count = (0..settings.workers).map(|w| rig.counters(w).complaints_translated.get());
            assert_eq!(count.sum::<u64>(), 1);
        }
    });
}

#[test]
fn an_error_from_the_clients_side_reaches_the_backend() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        for n in 0..8u16 {
            let (_, sent) = opened(&mut rig, world, Protocol::Udp, n);
            let at = usize::from(n);
            let answer = answering(&sent).payload(b"a long answer").frame();
            let back = through(&mut rig, at, OUT, &answer);
            let vip = ip(&world.vip(80));
            let client = ip(&world.client(1));
            for source in [client, world.router()] {
                let kind = world.too_big();
                let quote = &back.1[14..];
                let error = world.icmp((source, vip), kind, [0, 0, 5, 0], quote, FROM_CLIENT);
                let there = through(&mut rig, at + 1, IN, &error);
                let there = seen(&there.1);
                // The client complains by the name under which the backend knows it.
                let expected = match source == client {
                    true => seen(&sent.1).source,
                    false => source,
                };
                assert_eq!(there.source, expected);
                assert_eq!(there.destination, ip(&world.backend(11, 1)));
                assert_eq!(there.quoted().ends(), seen(&answer).ends());
                assert!(there.quoted().is_right());
            }
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn a_quote_may_end_behind_the_ports_but_not_before() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let (question, sent) = opened(&mut rig, world, Protocol::Tcp, 0);
        let header = seen(&sent.1).header.len();
        let mut refused = 0;
        for len in 0..header + 20 {
            let ends = (ip(&world.backend(11, 1)), seen(&sent.1).source);
            let quote = &sent.1[14..14 + len];
            let error = world.icmp(
                ends,
                world.port_unreachable(),
                [0; 4],
                quote,
                from_backend(11),
            );
            let back = at(&mut rig, len, BACKENDS, &error);
            if len < header + 4 {
                assert_eq!(back, []);
                refused += 1;
                continue;
            }
            let back = seen(&back[0].1);
            assert!(back.is_right());
            assert_eq!(back.quoted().ends(), seen(&question).ends());
            assert_eq!(back.quoted().payload.len(), len - header);
        }
        assert_eq!(rig.drops(), [(DropReason::BadQuote, refused)]);
        assert_eq!(rig.outstanding(), 0);
    });
}

#[test]
fn forged_and_damaged_errors_go_nowhere() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        let (_, sent) = opened(&mut rig, world, Protocol::Udp, 0);
        let back = through(&mut rig, 0, OUT, &answering(&sent).payload(b"a").frame());
        let vip = ip(&world.vip(80));
        let client = ip(&world.client(1));
        let kind = world.port_unreachable();
        // About a packet that the Vip never sent: another port of the client.
        let unsent = Build::udp(&world.vip(80), &world.client(41_000)).frame();
        let forged = world.icmp((client, vip), kind, [0; 4], &unsent[14..], FROM_CLIENT);
        assert_eq!(at(&mut rig, 0, CLIENTS, &forged), []);
        assert_eq!(rig.drops(), [(DropReason::QuoteUnknown, 1)]);
        // About one that it sent, but told to somebody else.
        let other: IpAddr = ip(&world.at("203.0.113.77", "2001:db8:9::77", 1));
        let astray = world.icmp((client, other), kind, [0; 4], &back.1[14..], FROM_CLIENT);
        assert_eq!(at(&mut rig, 1, CLIENTS, &astray), []);
        assert_eq!(rig.drops(), [(DropReason::QuoteUnknown, 2)]);
        // Damaged on the way, or at the end of its way.
        let good = world.icmp((client, vip), kind, [0; 4], &back.1[14..], FROM_CLIENT);
        let mut damaged = good.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(at(&mut rig, 2, CLIENTS, &damaged), []);
        let mut late = good.clone();
        match world.v6 {
            true => late[21] = 1,
            false => {
                late[22] = 1;
                late[24..26].fill(0);
                let sum = crate::wire::checksum::of(&late[14..34]);
                late[24..26].copy_from_slice(&sum.to_be_bytes());
            }
        }
        assert_eq!(at(&mut rig, 3, CLIENTS, &late), []);
        let expected = [
            (DropReason::BadTransportChecksum, 1),
            (DropReason::QuoteUnknown, 2),
            (DropReason::Ttl, 1),
        ];
        assert_eq!(rig.drops(), expected);
        through(&mut rig, 3, IN, &good);
        // One about a connection of the host's own is the kernel's.
        let own = Build::udp(
            &std::net::SocketAddr::new(world.gateway(), 40_000).to_string(),
            &world.backend(12, 53),
        );
        let ends = (ip(&world.backend(12, 1)), world.gateway());
        let error = world.icmp(ends, kind, [0; 4], &own.frame()[14..], from_backend(12));
        assert_eq!(at(&mut rig, 1, BACKENDS, &error), []);
        assert_eq!(rig.to_kernel(), [error[14..].to_vec()]);
        assert_eq!(rig.outstanding(), 0);
    });
}

#[test]
fn a_hop_limit_that_runs_out_is_told_from_the_own_address() {
    everywhere(|world, settings, policy| {
        for (name, protocol) in PROTOCOLS {
            let mut rig = Rig::with(settings, &[&world.web(name, &[11], policy)]);
            let packet = Build::packet(protocol, &world.client(40_000), &world.vip(80)).flags(SYN);
            let last = packet.clone().ttl(1).frame();
            let error = through(&mut rig, 1, (CLIENTS, CLIENTS), &last);
            assert_eq!((&error.1[..6], &error.1[6..12]), (&last[6..12], &last[..6]));
            let error = seen(&error.1);
            assert_eq!(
                (error.source, error.destination),
                (world.front(), ip(&world.client(1)))
            );
            assert_eq!((error.payload[0], error.payload[1]), world.time_exceeded());
            assert_eq!(error.payload[8..], last[14..]);
            assert_eq!(rig.connections(), 0);
            // On the way back likewise.
            let sent = through(&mut rig, 0, IN, &packet.ttl(2).frame());
            let answer = answering(&sent).flags(SYN | ACK).ttl(1).frame();
            let error = through(&mut rig, 1, (BACKENDS, BACKENDS), &answer);
            assert_eq!(seen(&error.1).source, world.gateway());
            assert_eq!(seen(&error.1).payload[8..], answer[14..]);
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        }
    });
}

#[test]
fn what_does_not_fit_is_told_with_the_mtu_and_a_bounded_quote() {
    for world in WORLDS {
        let lines = world.web("udp", &[11], "");
        let narrow = network_on(11..=19, |links| links[1].mtu = 1300);
        let settings = RigSettings {
            answers: 2,
            ..RigSettings::default()
        };
        let mut rig = Rig::on(&settings, narrow, &[&lines]);
        let long = Build::udp(&world.client(40_000), &world.vip(80)).payload(&[7; 1400]);
        let frame = long.frame();
        for _ in 0..2 {
            let error = through(&mut rig, 0, (CLIENTS, CLIENTS), &frame);
            let error = seen(&error.1);
            let (most, header) = if world.v6 { (1280, 40) } else { (576, 20) };
            assert_eq!(error.header.len(), header);
            assert_eq!(header + error.payload.len(), most);
            assert_eq!((error.payload[0], error.payload[1]), world.too_big());
            assert_eq!(error.payload[4..8], 1300u32.to_be_bytes());
            assert_eq!(error.source, world.front());
            assert_eq!(error.payload[8..], frame[14..14 + most - header - 8]);
        }
        assert_eq!(rig.send(CLIENTS, &frame), []);
        assert_eq!(rig.drops(), [(DropReason::AnswerLimit, 1)]);
        assert_eq!(rig.outstanding(), 0);
    }
}

#[test]
fn nobody_is_told_of_errors_resets_or_later_fragments() {
    for world in WORLDS {
        let mut rig = Rig::new(&[&world.web("tcp", &[], "")]);
        let reset = Build::tcp(&world.client(40_000), &world.vip(80)).flags(RST);
        assert_eq!(rig.send(CLIENTS, &reset.clone().ttl(1).frame()), []);
        assert_eq!(rig.send(CLIENTS, &reset.frame()), []);
        assert_eq!(
            rig.drops(),
            [(DropReason::Ttl, 1), (DropReason::NoAnswer, 1)]
        );

        let mut rig = Rig::new(&[&world.web("udp", &[], "")]);
        let long = Build::udp(&world.client(40_000), &world.vip(80)).payload(&[7; 64]);
        let pieces = long.may_fragment().fragments(32, 9);
        let told: Vec<usize> = pieces.iter().map(|p| rig.send(CLIENTS, p).len()).collect();
        assert_eq!(told, [1, 0, 0]);
        assert_eq!(rig.drops(), [(DropReason::Fragment, 2)]);
        assert_eq!(rig.outstanding(), 0);
    }
}

#[test]
fn an_error_about_direct_return_goes_to_the_backend_as_it_is() {
    for world in WORLDS {
        for workers in [1, 2, 4] {
            let settings = RigSettings {
                workers,
                ..RigSettings::default()
            };
            let line = format!(
                "web tcp {} -> {};direct",
                world.vip(80),
                world.backend(11, 80)
            );
            let mut rig = Rig::with(&settings, &[&line]);
            let syn = Build::tcp(&world.client(40_000), &world.vip(80)).flags(SYN);
            through(&mut rig, 0, IN, &syn.frame());
            // The backend has answered by itself, with a segment that some router could not pass.
            let answer = Build::tcp(&world.vip(80), &world.client(40_000)).payload(&[1; 40]);
            let ends = (world.router(), ip(&world.vip(80)));
            let quote = &answer.frame()[14..];
            let error = world.icmp(ends, world.too_big(), [0, 0, 5, 0], quote, FROM_CLIENT);
            let there = through(&mut rig, 1, IN, &error);
            assert_eq!(there.1[..6], backend_mac(11).0);
            let there = seen(&there.1);
            assert_eq!((there.source, there.destination), ends);
            assert_eq!(there.quoted().ends(), (world.vip(80), world.client(40_000)));
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        }
    }
}
