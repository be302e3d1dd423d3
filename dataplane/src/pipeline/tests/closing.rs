//! How TCP connections open, end and are told so, packet by packet.

use super::world::*;
use super::*;
use crate::neighbour::Tags;
use crate::testutil::rig::{RigSettings, network_on};
use crate::verdict::DropReason;
use std::time::Duration;

/// An established connection at whatever worker: client 1001 to 2000, backend 2000 to 1001.
fn open(rig: &mut Rig, world: World, port: u16) -> Sent {
    let client = world.client(port);
    let syn = Build::tcp(&client, &world.vip(80))
        .flags(SYN)
        .numbers(1000, 0);
    let sent = through(rig, 0, IN, &syn.frame());
    let both = answering(&sent).flags(SYN | ACK).numbers(1999, 1001);
    through(rig, 1, OUT, &both.frame());
    let ack = Build::tcp(&client, &world.vip(80)).numbers(1001, 2000);
    through(rig, 2, IN, &ack.frame())
}

#[test]
fn only_a_reset_within_the_window_passes_and_only_an_exact_one_ends() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11, 12], policy)]);
        let sent = open(&mut rig, world, 40_000);
        let client = |flags, sequence| {
            Build::tcp(&world.client(40_000), &world.vip(80))
                .flags(flags)
                .numbers(sequence, 2000)
                .frame()
        };
        let backend = |flags, sequence| answering(&sent).flags(flags).numbers(sequence, 1001);
        // Far outside, from both sides, before and after a guess that would make it exact.
        for (guess, answer) in [(RST, RST), (SYN, SYN | ACK), (ACK, ACK), (RST, RST)] {
            let passes = guess != RST;
            let there = at(&mut rig, 0, CLIENTS, &client(guess, 90_000_000));
            assert_eq!(there.len(), usize::from(passes));
            let back = at(&mut rig, 1, BACKENDS, &backend(answer, 90_000_000).frame());
            assert_eq!(back.len(), usize::from(passes));
        }
        assert_eq!(rig.drops(), [(DropReason::ResetForged, 4)]);
        // One that is near passes, and the connection goes on: a SYN finds no new backend.
        through(&mut rig, 0, IN, &client(RST, 1010));
        through(&mut rig, 0, OUT, &backend(RST, 2010).frame());
        let again = through(&mut rig, 1, IN, &client(SYN, 7000));
        assert_eq!(ends(&again.1), ends(&sent.1));
        // The exact one ends it: after ten whole seconds it is forgotten.
        through(&mut rig, 2, OUT, &backend(RST, 2000).frame());
        rig.pass(Duration::from_secs(11));
        rig.run();
        assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
    });
}

#[test]
fn what_nobody_means_is_dropped_and_changes_nothing() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let scan = |port, flags| {
            let segment = Build::tcp(&world.client(port), &world.vip(80));
            segment.flags(flags).numbers(1001, 2000).frame()
        };
        // Nothing, everything, two beginnings with an end; of no connection, then of one.
        let scans = [0, 0x3f, SYN | FIN, SYN | RST, FIN, FIN | RST | ACK];
        for flags in scans {
            assert!(at(&mut rig, 0, CLIENTS, &scan(40_001, flags)).is_empty());
        }
        assert_eq!(rig.connections(), 0);
        let sent = open(&mut rig, world, 40_000);
        for flags in scans.into_iter().chain([SYN | ACK]) {
            assert!(at(&mut rig, 0, CLIENTS, &scan(40_000, flags)).is_empty());
        }
        for flags in scans.into_iter().chain([SYN]) {
            let answer = answering(&sent).flags(flags).numbers(2000, 1001);
            assert!(at(&mut rig, 1, BACKENDS, &answer.frame()).is_empty());
        }
        assert_eq!(rig.drops(), [(DropReason::TcpInvalid, 20)]);
        through(&mut rig, 1, IN, &scan(40_000, ACK));
        assert_eq!((rig.connections(), rig.outstanding()), (1, 0));
    });
}

#[test]
fn a_port_used_again_after_the_end_opens_a_new_connection() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let sent = open(&mut rig, world, 40_000);
        let client = |flags, numbers: (u32, u32)| {
            let segment = Build::tcp(&world.client(40_000), &world.vip(80));
            segment.flags(flags).numbers(numbers.0, numbers.1).frame()
        };
        // While it closes, a SYN is still that of the old connection: its backend will judge.
        through(&mut rig, 0, IN, &client(FIN | ACK, (1001, 2000)));
        through(
            &mut rig,
            0,
            OUT,
            &answering(&sent).numbers(2000, 1002).frame(),
        );
        let early = through(&mut rig, 0, IN, &client(SYN, (5_000, 0)));
        assert_eq!(ends(&early.1), ends(&sent.1));
        let fin = answering(&sent).flags(FIN | ACK).numbers(2000, 1002);
        through(&mut rig, 1, OUT, &fin.frame());
        through(&mut rig, 2, IN, &client(ACK, (1002, 2001)));
        // Its backend has left meanwhile; the new connection goes where it can be served.
        rig.push(&[&world.web("tcp", &[12], policy)]);
        let opened = at(&mut rig, 0, CLIENTS, &client(SYN, (9_000, 0)));
        assert_eq!(opened.len(), 1);
        assert_eq!(backend_of(&opened[0]), world.backend(12, 8080));
        let both = answering(&opened[0]).flags(SYN | ACK).numbers(70, 9_001);
        let back = through(&mut rig, 1, OUT, &both.frame());
        assert_eq!(ends(&back.1), (world.vip(80), world.client(40_000)));
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        assert_eq!(rig.connections(), 1);
    });
}

#[test]
fn with_direct_return_the_clients_packets_alone_tell_the_state() {
    for world in WORLDS {
        for workers in [1, 2, 4] {
            let settings = RigSettings {
                workers,
                ..RigSettings::default()
            };
            let backends = format!("{} {}", world.backend(11, 80), world.backend(12, 80));
            let line = format!("web tcp {} -> {backends};direct", world.vip(80));
            let mut rig = Rig::with(&settings, &[&line]);
            let client = |flags| Build::tcp(&world.client(40_000), &world.vip(80)).flags(flags);
            let syn = client(SYN).ttl(9).frame();
            let sent = through(&mut rig, 0, IN, &syn);
            let home: [u8; 6] = sent.1[..6].try_into().unwrap();
            assert!([backend_mac(11).0, backend_mac(12).0].contains(&home));
            assert_eq!(sent.1[6..12], GATEWAY_BACKEND_MAC.0);
            // Nothing else has changed but the hop limit and what follows from it.
            let (before, after) = (seen(&syn), seen(&sent.1));
            assert_eq!(after.ends(), before.ends());
            assert_eq!((after.payload, after.hops), (before.payload, 8));
            through(&mut rig, 1, IN, &client(ACK).frame());
            // Established: it outlives what a half-open one has.
            rig.pass(Duration::from_secs(4000));
            rig.run();
            assert_eq!(rig.connections(), 1);
            through(&mut rig, 2, IN, &client(FIN | ACK).frame());
            through(&mut rig, 3, IN, &client(ACK).frame());
            rig.pass(Duration::from_secs(200));
            rig.run();
            assert_eq!(rig.connections(), 0);
            // What was lost is picked up again, at the same backend.
            let again = through(&mut rig, 1, IN, &client(ACK).frame());
            assert_eq!(again.1[..6], home);
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        }
    }
}

#[test]
fn a_backend_of_direct_return_that_left_is_answered_for() {
    for world in WORLDS {
        let line = |last| {
            let backend = world.backend(last, 80);
            format!("web tcp {} -> {backend};direct", world.vip(80))
        };
        let mut rig = Rig::new(&[&line(11)]);
        let client = |flags| Build::tcp(&world.client(40_000), &world.vip(80)).flags(flags);
        through(&mut rig, 0, IN, &client(SYN).frame());
        through(&mut rig, 0, IN, &client(ACK).frame());
        rig.push(&[&line(12)]);
        let reset = through(&mut rig, 0, (CLIENTS, CLIENTS), &client(ACK).frame());
        assert_eq!(packet(&reset.1).flags.0, RST);
        assert_eq!(ends(&reset.1), (world.vip(80), world.client(40_000)));
        let syn = through(&mut rig, 0, IN, &client(SYN).frame());
        assert_eq!(syn.1[..6], backend_mac(12).0);
        assert_eq!(rig.outstanding(), 0);
    }
}

#[test]
fn a_connection_picked_up_is_established_once_its_backend_agrees() {
    for world in WORLDS {
        for workers in [1, 2, 4] {
            let settings = RigSettings {
                workers,
                ..RigSettings::default()
            };
            let mut rig = Rig::with(&settings, &[&world.web("tcp", &[11, 12], "preserve")]);
            let data = |port| Build::tcp(&world.client(port), &world.vip(80)).payload(b"data");
            let agreed = through(&mut rig, 0, IN, &data(40_000).frame());
            through(&mut rig, 0, IN, &data(40_001).frame());
            let back = answering(&agreed).numbers(2000, 1004).frame();
            through(&mut rig, 1, OUT, &back);
            rig.pass(Duration::from_secs(61));
            rig.run();
            assert_eq!(rig.connections(), 1);
            // Neither the middle nor the end of a connection is picked up from a reset or SYN-ACK.
            for flags in [RST, SYN | ACK] {
                let odd = data(40_002).flags(flags).frame();
                let sent = at(&mut rig, 1, CLIENTS, &odd);
                assert!(sent.iter().all(|(to, _)| *to == CLIENTS));
            }
            assert_eq!((rig.connections(), rig.outstanding()), (1, 0));
        }
    }
}

#[test]
fn both_ends_are_told_with_the_tags_of_their_links() {
    for world in WORLDS {
        let tagged = network_on(11..=19, |links| {
            links[0].tags = Tags([7, 0]);
            links[1].tags = Tags([100, 8]);
        });
        let settings = RigSettings::default();
        let mut rig = Rig::on(&settings, tagged, &[&world.web("tcp", &[11], "")]);
        let client = |flags, numbers: (u32, u32)| {
            let segment = Build::tcp(&world.client(40_000), &world.vip(80));
            tag(
                &segment.flags(flags).numbers(numbers.0, numbers.1).frame(),
                &[7],
            )
        };
        let sent = through(&mut rig, 0, IN, &client(SYN, (1000, 0)));
        let bare = (BACKENDS, untagged(&sent.1));
        let both = answering(&bare)
            .flags(SYN | ACK)
            .numbers(1999, 1001)
            .frame();
        through(&mut rig, 0, OUT, &tag(&both, &[100, 8]));
        through(&mut rig, 0, IN, &client(ACK, (1001, 2000)));
        rig.push(&[&world.web("tcp", &[12], "")]);
        let mut resets = rig.run();
        resets.sort();
        assert_eq!(resets.len(), 2);
        let expected = [
            (CLIENTS, vec![0x81, 0, 0, 7], world.client(40_000), 2000u32),
            (
                BACKENDS,
                vec![0x88, 0xa8, 0, 100, 0x81, 0, 0, 8],
                world.backend(11, 8080),
                1001,
            ),
        ];
        for ((to, frame), (link, tags, end, sequence)) in resets.iter().zip(expected) {
            assert_eq!(*to, link);
            assert_eq!(frame[12..12 + tags.len()], tags);
            let reset = seen(frame);
            assert!(reset.is_right());
            assert_eq!(reset.ends().1, end);
            assert_eq!(reset.payload[4..8], sequence.to_be_bytes());
            assert_eq!(reset.payload[13], RST);
        }
        assert_eq!(rig.outstanding(), 0);
    }
}
