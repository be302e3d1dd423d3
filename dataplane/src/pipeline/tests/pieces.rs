//! Fragments: they follow the first one of their packet, whatever their order and worker.

use super::world::*;
use super::*;
use crate::testutil::rig::{RigSettings, network, network_on};
use crate::verdict::DropReason;
use std::time::Duration;

fn question(world: World, port: u16, len: usize) -> Build {
    let payload: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
    Build::udp(&world.client(port), &world.vip(80))
        .may_fragment()
        .payload(&payload)
}

/// Lets the frames arrive one by one, each at another worker; what leaves.
fn arriving(rig: &mut Rig, from: usize, frames: &[Vec<u8>]) -> Vec<Sent> {
    let one = |(n, frame): (usize, &Vec<u8>)| at(rig, from + n * 3, CLIENTS, frame);
    frames.iter().enumerate().flat_map(one).collect()
}

#[test]
fn fragments_in_whatever_order_are_one_right_packet_to_the_backend() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11, 12], policy)]);
        let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]];
        for (n, order) in orders.into_iter().enumerate() {
            let packet = question(world, 40_000 + n as u16, 1000);
            let pieces = packet.fragments(256, 7 + n as u32);
            assert_eq!(pieces.len(), 4);
            let frames = order.map(|piece| pieces[piece].clone());
            let sent = arriving(&mut rig, n, &frames);
            assert_eq!(sent.len(), 4, "{order:?}: {:?}", rig.drops());
            assert!(
                sent.iter()
                    .all(|(to, f)| *to == BACKENDS && seen(f).is_right())
            );
            let whole = reassemble(&sent);
            assert!(whole.is_whole_right(), "{whole:?}");
            assert_eq!(whole.payload[8..], seen(&packet.frame()).payload[8..]);
            assert!(
                [11, 12]
                    .map(|b| world.backend(b, 8080))
                    .contains(&whole.ends().1)
            );
            assert!(sent.iter().all(|(_, f)| seen(f).hops == 63));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        assert_eq!(rig.connections(), orders.len());
    });
}

#[test]
fn a_backends_answer_in_fragments_comes_from_the_vip() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        for n in 0..8u16 {
            let packet = question(world, 40_000 + n, 10);
            let sent = through(&mut rig, n.into(), IN, &packet.frame());
            let answer = answering(&sent).may_fragment().payload(&[5; 600]);
            let mut pieces = answer.fragments(200, n.into());
            if n % 2 == 1 {
                pieces.reverse();
            }
            let arrive = |(m, frame): (usize, &Vec<u8>)| at(&mut rig, m * 5, BACKENDS, frame);
            let back: Vec<Sent> = pieces.iter().enumerate().flat_map(arrive).collect();
            assert_eq!(back.len(), 4);
            let whole = reassemble(&back);
            assert!(whole.is_whole_right());
            assert_eq!(whole.ends(), (world.vip(80), world.client(40_000 + n)));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn tcp_in_fragments_opens_a_connection_too() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let syn = Build::tcp(&world.client(40_000), &world.vip(80)).flags(SYN);
        let pieces = syn.may_fragment().payload(&[3; 100]).fragments(40, 1);
        let sent = arriving(&mut rig, 0, &pieces);
        assert_eq!(sent.len(), 3);
        assert!(reassemble(&sent).is_whole_right());
    });
}

#[test]
fn packets_interleaved_are_kept_apart() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11, 12, 13], policy)]);
        let packets: Vec<_> = (0..10).map(|n| question(world, 5000 + n, 300)).collect();
        let pieces: Vec<_> = (0u32..)
            .zip(&packets)
            .map(|(n, packet)| packet.fragments(104, n))
            .collect();
        let mut sent = Vec::new();
        for place in [2, 0, 1] {
            for (n, pieces) in pieces.iter().enumerate() {
                sent.extend(at(&mut rig, n + place, CLIENTS, &pieces[place]));
            }
        }
        assert_eq!(sent.len(), 30);
        for n in 0..10u32 {
            let of = |frame: &[u8]| seen(frame).piece.unwrap().0 == n;
            let own: Vec<Sent> = sent.iter().filter(|(_, f)| of(f)).cloned().collect();
            let whole = reassemble(&own);
            assert!(whole.is_whole_right());
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn repetitions_and_overlaps_are_dropped() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        let pieces = question(world, 40_000, 300).fragments(104, 1);
        let twice = [&pieces[0], &pieces[0], &pieces[1], &pieces[1], &pieces[2]];
        let twice: Vec<_> = twice.into_iter().cloned().collect();
        assert_eq!(arriving(&mut rig, 0, &twice).len(), 3);
        assert_eq!(rig.drops(), [(DropReason::FragmentOverlap, 2)]);
        // An overlap condemns the packet: nothing of it leaves any more.
        let other = question(world, 40_000, 300).fragments(96, 2);
        let mine = question(world, 40_000, 300).fragments(104, 2);
        let mixed = [
            mine[0].clone(),
            other[1].clone(),
            mine[1].clone(),
            mine[2].clone(),
        ];
        assert_eq!(arriving(&mut rig, 0, &mixed).len(), 1);
        assert_eq!(rig.drops(), [(DropReason::FragmentOverlap, 5)]);
        assert_eq!(rig.outstanding(), 0);
    });
}

#[test]
fn fragments_without_a_first_one_wait_for_their_time_and_not_in_any_number() {
    for world in WORLDS {
        let mut settings = RigSettings::default();
        settings.fragments.waiting = 10;
        let mut rig = Rig::with(&settings, &[&world.web("udp", &[11], "")]);
        for n in 0..15 {
            let pieces = question(world, 40_000, 300).fragments(104, n);
            assert_eq!(rig.send(CLIENTS, &pieces[1]), []);
        }
        assert_eq!(rig.drops(), [(DropReason::FragmentLimit, 5)]);
        assert_eq!(rig.outstanding(), 10);
        assert_eq!(rig.counters(0).fragments_waiting.get(), 10);
        rig.pass(Duration::from_secs(29));
        assert_eq!(rig.run(), []);
        assert_eq!(rig.outstanding(), 10);
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.run(), []);
        let limit = (DropReason::FragmentLimit, 5);
        assert_eq!(rig.drops(), [limit, (DropReason::FragmentTimeout, 10)]);
        assert_eq!(rig.outstanding(), 0);
        assert_eq!(rig.counters(0).fragments_waiting.get(), 0);
    }
}

#[test]
fn a_first_fragment_that_makes_no_connection_takes_the_rest_with_it() {
    everywhere(|world, settings, policy| {
        // Outside the range that may use the Service.
        let policy = format!("{policy} from=192.0.2.0/24 from=2001:db8:77::/48");
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], &policy)]);
        let pieces = question(world, 40_000, 300).fragments(104, 1);
        assert_eq!(arriving(&mut rig, 0, &pieces), []);
        let refused = (DropReason::SourceNotAllowed, 1);
        assert_eq!(rig.drops(), [(DropReason::Fragment, 2), refused]);
        assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
    });
}

#[test]
fn fragments_that_are_nobodys_go_to_the_kernel_whole() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        let elsewhere = world.at("198.51.100.1", "2001:db8:aaaa::1", 53);
        let packet = Build::udp(&world.client(40_000), &elsewhere).may_fragment();
        let mut pieces = packet.payload(&[1; 300]).fragments(104, 1);
        pieces.reverse();
        assert_eq!(arriving(&mut rig, 1, &pieces), []);
        let mut given = rig.to_kernel();
        given.sort();
        let mut expected: Vec<_> = pieces.iter().map(|frame| frame[14..].to_vec()).collect();
        expected.sort();
        assert_eq!(given, expected);
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn sctp_in_fragments_passes_only_with_its_port() {
    for world in WORLDS {
        let packet = Build::sctp(&world.client(40_000), &world.vip(80), 1).may_fragment();
        let packet = packet.payload(&[1, 0, 0, 60].repeat(15));
        let pieces = packet.fragments(24, 1);
        let mut rig = Rig::new(&[&world.web("sctp", &[11], "preserve")]);
        assert_eq!(arriving(&mut rig, 0, &pieces), []);
        let drops = rig.drops();
        assert_eq!(drops, [(DropReason::Fragment, pieces.len() as u64)]);

        let same = format!(
            "s sctp {} -> {};preserve",
            world.vip(80),
            world.backend(11, 80)
        );
        let mut rig = Rig::new(&[&same]);
        let sent = arriving(&mut rig, 0, &pieces);
        assert_eq!(sent.len(), pieces.len());
        assert!(reassemble(&sent).is_whole_right());
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    }
}

#[test]
fn a_first_fragment_that_waits_for_its_next_hop_is_no_repetition_of_itself() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        rig.set_network(network([]));
        let pieces = question(world, 40_000, 300).fragments(104, 1);
        assert_eq!(at(&mut rig, 1, CLIENTS, &pieces[0]), []);
        rig.set_network(network([11]));
        let mut sent = rig.run();
        assert_eq!(sent.len(), 1, "{:?}", rig.drops());
        sent.extend(arriving(&mut rig, 0, &pieces[1..]));
        assert!(reassemble(&sent).is_whole_right());
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn later_fragments_wait_with_the_first_for_its_next_hop() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        for (n, order) in [[0, 1, 2], [2, 1, 0], [1, 0, 2]].into_iter().enumerate() {
            rig.set_network(network([]));
            let pieces = question(world, 40_000 + n as u16, 300).fragments(104, n as u32);
            let frames = order.map(|piece| pieces[piece].clone());
            assert_eq!(arriving(&mut rig, n, &frames), [], "{:?}", rig.drops());
            rig.set_network(network([11]));
            let sent = rig.run();
            assert_eq!(sent.len(), 3, "{order:?}: {:?}", rig.drops());
            assert!(reassemble(&sent).is_whole_right());
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        assert_eq!(rig.connections(), 3);
    });
}

#[test]
fn fragments_that_do_not_fit_are_cut_by_the_kernel_or_told_of_once() {
    for world in WORLDS {
        let narrow = network_on(11..=19, |links| links[1].mtu = 1280);
        let settings = RigSettings::default();
        let mut rig = Rig::on(&settings, narrow, &[&world.web("udp", &[11], "")]);
        let pieces = question(world, 40_000, 2500).fragments(1400, 1);
        assert_eq!(pieces.len(), 2);
        let sent = arriving(&mut rig, 0, &pieces);
        if world.v6 {
            let told = seen(&sent[0].1);
            assert_eq!((told.payload[0], told.payload[1]), world.too_big());
            assert_eq!((sent.len(), sent[0].0, rig.drops()), (2, CLIENTS, vec![]));
        } else {
            let given = rig.to_kernel();
            assert_eq!(given.len(), 1);
            let mut whole: Vec<Sent> =
                vec![(BACKENDS, [&[0; 12][..], &[8, 0], &given[0]].concat())];
            whole.extend(sent);
            assert!(reassemble(&whole).is_whole_right());
            assert_eq!(rig.drops(), vec![]);
        }
        assert_eq!(rig.outstanding(), 0);
    }
}

#[test]
fn a_repetition_after_the_end_waits_in_vain_and_costs_its_slot_only() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        let pieces = question(world, 40_000, 300).fragments(104, 1);
        assert_eq!(arriving(&mut rig, 0, &pieces).len(), 3);
        assert_eq!(arriving(&mut rig, 0, &pieces[1..]), []);
        assert_eq!(rig.outstanding(), 2);
        rig.pass(Duration::from_secs(30));
        rig.run();
        assert_eq!(rig.drops(), [(DropReason::FragmentTimeout, 2)]);
        assert_eq!(rig.outstanding(), 0);
    });
}
