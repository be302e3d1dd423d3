//! Every protocol, there and back, in both families and modes and at whatever worker.

use super::world::*;
use super::*;
use crate::testutil::rig::RigSettings;
use crate::verdict::DropReason;

fn first(protocol: Protocol, client: &str, vip: &str) -> Build {
    Build::packet(protocol, client, vip).flags(SYN)
}

#[test]
fn every_protocol_goes_and_comes_back_with_right_checksums() {
    everywhere(|world, settings, policy| {
        for (name, protocol) in PROTOCOLS {
            let mut rig = Rig::with(settings, &[&world.web(name, &[11, 12], policy)]);
            for n in 0..16 {
                let client = world.client(40_000 + n);
                let at = usize::from(n);
                let packet = first(protocol, &client, &world.vip(80)).ttl(9);
                let sent = through(&mut rig, at, IN, &packet.frame());
                let there = seen(&sent.1);
                assert_eq!(there.hops, 8);
                match policy {
                    "preserve" => assert_eq!(there.ends().0, client),
                    _ => assert_eq!(there.source, world.gateway()),
                }
                assert!(
                    [11, 12]
                        .map(|n| world.backend(n, 8080))
                        .contains(&there.ends().1)
                );

                let reply = answering(&sent).flags(SYN | ACK).ttl(200);
                let back = through(&mut rig, at + 1, OUT, &reply.frame());
                let back = seen(&back.1);
                assert_eq!(back.ends(), (world.vip(80), client));
                assert_eq!(back.hops, 199);
            }
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
            assert_eq!(rig.connections(), 16);
        }
    });
}

#[test]
fn options_and_extension_headers_stay_as_they_are() {
    everywhere(|world, settings, policy| {
        for (name, protocol) in PROTOCOLS {
            let mut rig = Rig::with(settings, &[&world.web(name, &[11], policy)]);
            let packet = first(protocol, &world.client(40_000), &world.vip(80));
            let (frame, kept) = match world.v6 {
                // Record route with room for one address.
                false => {
                    let options = [7, 7, 4, 0, 0, 0, 0, 0];
                    (packet.options(&options).frame(), options.to_vec())
                }
                // Hop-by-hop and destination options, padding each, in front of the transport.
                true => {
                    let mut frame = packet.frame();
                    let next = std::mem::replace(&mut frame[20], 0);
                    let headers = [60, 0, 1, 4, 0, 0, 0, 0, next, 0, 1, 4, 0, 0, 0, 0];
                    frame.splice(54..54, headers);
                    let length = (frame.len() - 54) as u16;
                    frame[18..20].copy_from_slice(&length.to_be_bytes());
                    (frame, headers.to_vec())
                }
            };
            let sent = through(&mut rig, 1, IN, &frame);
            let there = seen(&sent.1);
            assert!(there.header.ends_with(&kept), "{there:?}");
            assert_eq!(there.ends().1, world.backend(11, 8080));
            assert_eq!(sent.1.len(), frame.len());
            assert_eq!(rig.drops(), vec![]);
        }
    });
}

#[test]
fn a_service_of_two_families_keeps_them_apart() {
    let both = "web tcp 203.0.113.10:80 [2001:db8:9::10]:80 -> \
                10.0.2.11:8080 10.0.2.12:8080 [2001:db8:2::13]:8080";
    for workers in [1, 2, 4] {
        let settings = RigSettings {
            workers,
            ..RigSettings::default()
        };
        let mut rig = Rig::with(&settings, &[both]);
        for n in 0..40 {
            let syn = |world: World| first(Protocol::Tcp, &world.client(n + 1000), &world.vip(80));
            let v4 = through(&mut rig, n.into(), IN, &syn(WORLDS[0]).frame());
            assert_ne!(backend_of(&v4), "10.0.2.13:8080");
            let v6 = through(&mut rig, n.into(), IN, &syn(WORLDS[1]).frame());
            assert_eq!(backend_of(&v6), "[2001:db8:2::13]:8080");
        }
        // One family without backends does not serve itself from the other.
        rig.push(&["web tcp 203.0.113.10:80 [2001:db8:9::10]:80 -> 10.0.2.11:8080"]);
        let syn = first(Protocol::Tcp, &WORLDS[1].client(9), &WORLDS[1].vip(80));
        let sent = at(&mut rig, 0, CLIENTS, &syn.frame());
        let refused: Vec<Seen> = sent
            .iter()
            .map(|(_, frame)| seen(frame))
            .filter(|seen| seen.protocol == 58)
            .collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].payload[..2], [1, 4]);
    }
}

#[test]
fn sctp_is_not_translated_when_it_is_damaged() {
    for world in WORLDS {
        let mut rig = Rig::new(&[&world.web("sctp", &[11], "")]);
        let mut init = first(Protocol::Sctp, &world.client(40_000), &world.vip(80)).frame();
        let last = init.len() - 1;
        init[last] ^= 4;
        assert_eq!(rig.send(CLIENTS, &init), []);
        init[last] ^= 4;
        let sent = through(&mut rig, 0, IN, &init);
        let mut data = Build::sctp(&world.client(40_000), &world.vip(80), 0).frame();
        data[last] ^= 4;
        assert_eq!(rig.send(CLIENTS, &data), []);
        let mut answer = answering(&sent).frame();
        answer[last] ^= 4;
        assert_eq!(rig.send(BACKENDS, &answer), []);
        assert_eq!(rig.drops(), [(DropReason::BadTransportChecksum, 3)]);
        assert_eq!((rig.connections(), rig.outstanding()), (1, 0));
    }
}

#[test]
fn a_damaged_packet_of_a_known_connection_stays_damaged_by_as_much() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        let query = Build::udp(&world.client(40_000), &world.vip(80)).payload(b"query");
        through(&mut rig, 0, IN, &query.frame());
        let mut damaged = query.frame();
        *damaged.last_mut().unwrap() ^= 1;
        let sent = at(&mut rig, 1, CLIENTS, &damaged);
        assert!(!seen(&sent[0].1).is_right());
        let mut mended = sent[0].1.clone();
        *mended.last_mut().unwrap() ^= 1;
        assert!(seen(&mended).is_right());
    });
}

#[test]
fn a_range_keeps_the_port_and_one_port_of_it_may_be_another_services() {
    everywhere(|world, settings, policy| {
        let range = format!("{}-5009", world.vip(5000));
        let lines = [
            format!("range udp {range} -> {};{policy}", world.backend(11, 0)),
            format!(
                "sip udp {} -> {};{policy}",
                world.vip(5004),
                world.backend(12, 99)
            ),
        ];
        let mut rig = Rig::with(settings, &[&lines[0], &lines[1]]);
        for port in 5000..5010 {
            let client = world.client(port + 1000);
            let query = Build::udp(&client, &world.vip(port)).payload(b"q");
            let sent = through(&mut rig, port.into(), IN, &query.frame());
            let expected = match port {
                5004 => world.backend(12, 99),
                port => world.backend(11, port),
            };
            assert_eq!(backend_of(&sent), expected);
            let back = through(&mut rig, 0, OUT, &answering(&sent).frame());
            assert_eq!(ends(&back.1), (world.vip(port), client));
        }
        let outside = Build::udp(&world.client(1), &world.vip(5010)).frame();
        let error = through(&mut rig, 0, (CLIENTS, CLIENTS), &outside);
        let error = seen(&error.1);
        assert_eq!(
            (error.payload[0], error.payload[1]),
            world.port_unreachable()
        );
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn a_whole_address_leads_every_port_to_the_same_port() {
    everywhere(|world, settings, policy| {
        let whole = format!("{}-65535", world.vip(1));
        let line = format!(
            "all tcp {whole} -> {} {};{policy}",
            world.backend(11, 0),
            world.backend(12, 0)
        );
        let mut rig = Rig::with(settings, &[&line]);
        for port in [1, 22, 80, 17_000, 30_000, 65_535] {
            let client = world.client(port);
            let syn = Build::tcp(&client, &world.vip(port)).flags(SYN).frame();
            let sent = through(&mut rig, port.into(), IN, &syn);
            assert!(backend_of(&sent).ends_with(&format!(":{port}")));
            let back = through(&mut rig, 1, OUT, &answer(&sent, SYN | ACK));
            assert_eq!(ends(&back.1), (world.vip(port), client));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn backends_of_whole_addresses_reach_each_other_through_the_vip() {
    everywhere(|world, settings, policy| {
        let line = format!(
            "sip udp {}-65535 -> {} {} {};{policy}",
            world.vip(1),
            world.backend(11, 0),
            world.backend(12, 0),
            world.backend(13, 0)
        );
        let mut rig = Rig::with(settings, &[&line]);
        for port in 5000..5060 {
            let client = world.backend(12, port);
            let macs = from_backend(12);
            let query = Build::udp(&client, &world.vip(5060)).macs(macs.0, macs.1);
            let sent = through(&mut rig, port.into(), (BACKENDS, BACKENDS), &query.frame());
            let frame = answering(&sent).payload(b"a").frame();
            let back = through(&mut rig, 0, (BACKENDS, BACKENDS), &frame);
            assert_eq!(ends(&back.1), (world.vip(5060), client));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}
