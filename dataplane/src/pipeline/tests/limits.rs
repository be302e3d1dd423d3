//! What is damaged, too much or leads nowhere: its reason, and nothing else.

use super::*;
use crate::neighbour::{MacAddress, Neighbour};
use crate::testutil::CLIENT_MAC;
use crate::testutil::rig::{
    BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Rig, RigSettings, backend_mac, network,
};
use crate::testutil::{Build, corrupt};
use crate::verdict::DropReason;
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn a_frame_waits_for_its_next_hop_and_then_goes_on() {
    let mut rig = Rig::new(&[WEB]);
    rig.set_network(network([]));
    let syn = Build::tcp(CLIENT, VIP).flags(SYN).frame();
    assert_eq!(rig.send(CLIENTS, &syn), []);
    assert_eq!(
        rig.wanted(),
        [Neighbour {
            interface: BACKENDS,
            address: "10.0.2.11".parse().unwrap(),
        }]
    );
    assert_eq!((rig.connections(), rig.outstanding()), (0, 1));
    rig.set_network(network([11]));
    let sent = rig.run();
    assert_eq!(backend_of(&sent[0]), "10.0.2.11:8080");
    assert_eq!(
        (rig.drops(), rig.outstanding(), rig.connections()),
        (vec![], 0, 1)
    );
}

#[test]
fn fragments_that_wait_for_their_next_hop_go_on_too() {
    let mut rig = Rig::new(&[DNS]);
    let vip = "203.0.113.10:53";
    rig.exchange(CLIENTS, &Build::udp(CLIENT, vip).payload(b"q").frame());
    rig.set_network(network([]));
    let long = Build::udp(CLIENT, vip).may_fragment().payload(&[7; 200]);
    let pieces = long.fragments(72, 9);
    assert_eq!(rig.send(CLIENTS, &pieces[0]), []);
    assert_eq!(rig.send(CLIENTS, &pieces[1]), []);
    assert_eq!((rig.drops(), rig.outstanding()), (vec![], 2));
    rig.set_network(network([11, 12]));
    assert_eq!(rig.run().len(), 2);
    rig.exchange(CLIENTS, &pieces[2]);
    assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
}

#[test]
fn a_next_hop_that_stays_silent_costs_its_frames_only() {
    let mut rig = Rig::new(&[WEB]);
    rig.set_network(network([]));
    for port in 0..100 {
        rig.arrive(
            0,
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 1000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    assert_eq!(rig.run(), []);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.run(), []);
    assert_eq!(rig.drops(), [(DropReason::NeighbourUnresolved, 100)]);
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn what_belongs_to_no_connection_never_leaves_with_a_backends_address() {
    let mut rig = Rig::new(&[&format!("{WEB};preserve")]);
    let stray = Build::tcp("10.0.2.11:8080", CLIENT)
        .flags(ACK)
        .macs(backend_mac(11), GATEWAY_BACKEND_MAC);
    assert_eq!(rig.send(BACKENDS, &stray.frame()), []);
    let stray = Build::tcp("10.0.2.11:8080", "10.0.2.1:20000")
        .flags(ACK)
        .macs(backend_mac(11), GATEWAY_BACKEND_MAC);
    // To the masquerade ports: it may be the host's own, so the kernel is to answer it.
    assert_eq!(rig.send(BACKENDS, &stray.frame()), []);
    assert_eq!(rig.drops(), [(DropReason::NoConnection, 1)]);
    assert_eq!(rig.to_kernel(), [stray.frame()[14..].to_vec()]);
}

#[test]
fn a_full_table_and_exhausted_ports_have_their_own_reasons() {
    let settings = RigSettings {
        capacity: 1024,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB3]);
    for port in 0..1100u16 {
        rig.send(
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 20_000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    // Connections that nobody has answered make room.
    assert_eq!(rig.drops(), []);
    assert_eq!(rig.counters(0).connections_evicted.get(), 76);
    assert_eq!(rig.connections(), 1024);

    let mut settings = RigSettings::default();
    settings.source_nat.ports = "20000-20009".parse().unwrap();
    let mut rig = Rig::with(&settings, &[WEB]);
    for port in 0..15u16 {
        rig.send(
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 20_000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    assert_eq!(rig.drops(), [(DropReason::SourcePortsExhausted, 5)]);
}

#[test]
fn a_connection_that_has_ended_gives_up_its_source_port() {
    let mut settings = RigSettings::default();
    settings.source_nat.ports = "20000-20000".parse().unwrap();
    let mut rig = Rig::with(&settings, &[WEB]);
    let sent = establish(&mut rig, CLIENT);
    let other = Build::tcp("10.0.1.10:40001", VIP).flags(SYN).frame();
    assert_eq!(rig.send(CLIENTS, &other), []);
    rig.exchange(BACKENDS, &answer(&sent, RST));
    assert_eq!(ends(&rig.exchange(CLIENTS, &other).1).0, "10.0.2.1:20000");
    assert_eq!(rig.connections(), 1);
}

#[test]
fn damaged_frames_are_told_apart_and_change_nothing() {
    let mut rig = Rig::new(&[WEB]);
    establish(&mut rig, CLIENT);
    let reset = Build::tcp(CLIENT, VIP).flags(RST).frame();
    let edited = |edit: fn(&mut Vec<u8>)| {
        let mut frame = reset.clone();
        edit(&mut frame);
        frame
    };
    let frames = [
        edited(|f| f.truncate(20)),
        edited(|f| f[24] ^= 0xff),
        edited(|f| f[50] ^= 0xff),
        edited(|f| corrupt::protocol(f, 47)),
        edited(|f| f[12] = 0x87),
        Build::tcp(CLIENT, VIP).flags(RST).ttl(1).frame(),
    ];
    for frame in &frames {
        assert_eq!(rig.send(CLIENTS, frame), []);
    }
    let expected = [
        DropReason::Truncated,
        DropReason::NotIp,
        DropReason::BadIpChecksum,
        DropReason::BadTransportChecksum,
        DropReason::Protocol,
        DropReason::Ttl,
    ];
    assert_eq!(rig.drops(), expected.map(|reason| (reason, 1)));
    // The connection is still established: its next segment goes through.
    rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).flags(ACK).frame());
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn a_client_without_a_way_back_and_a_frame_too_long_have_their_reasons() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 192.0.2.1:80", DNS]);
    assert_eq!(
        rig.send(CLIENTS, &Build::tcp(CLIENT, VIP).flags(SYN).frame()),
        []
    );
    assert_eq!(rig.drops(), [(DropReason::NoRoute, 1)]);
    let long = Build::udp(CLIENT, "203.0.113.10:53").payload(&[0; 1473]);
    let (interface, error) = rig.exchange(CLIENTS, &long.frame());
    assert_eq!(interface, CLIENTS);
    // Fragmentation needed, from the gateway's own address, with the size that fits.
    assert_eq!(error[34..36], [3, 4]);
    assert_eq!(error[26..30], [10, 0, 1, 1]);
    assert_eq!(error[40..42], 1500u16.to_be_bytes());
    // Who lets routers cut it up gets that from the kernel.
    let sent = rig.send(CLIENTS, &long.may_fragment().frame());
    assert_eq!(sent, []);
    let cut = rig.to_kernel();
    assert_eq!((cut.len(), cut[0].len()), (1, 1501));
    assert_eq!(cut[0][16..20], [10, 0, 2, cut[0][19]]);
}

#[test]
fn a_million_frames_with_a_tenth_of_garbage_leave_every_slot_accounted_for() {
    let settings = RigSettings {
        workers: 2,
        slots: 1024,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB3, DNS]);
    let good: Vec<Vec<u8>> = (0..500u16)
        .flat_map(|n| {
            let client = format!("10.0.1.10:{}", 10_000 + n);
            let tcp = |flags| {
                Build::tcp(&client, VIP)
                    .flags(flags)
                    .payload(b"abc")
                    .frame()
            };
            [
                tcp(SYN),
                tcp(ACK),
                tcp(ACK | FIN),
                Build::udp(&client, "203.0.113.10:53").payload(b"q").frame(),
            ]
        })
        .collect();
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut received, mut sent) = (0, 0);
    while received < 1_000_000u64 {
        for _ in 0..128 {
            let mut frame = good[next() as usize % good.len()].clone();
            if next() % 10 == 0 {
                for _ in 0..1 + next() % 8 {
                    let at = next() as usize % frame.len();
                    frame[at] = next() as u8;
                }
                frame.truncate(1 + next() as usize % frame.len());
            }
            rig.arrive(
                next() as usize % 2,
                if next() % 2 == 0 { CLIENTS } else { BACKENDS },
                &frame,
            );
            received += 1;
        }
        sent += rig.run().len() as u64;
        assert_eq!(
            rig.outstanding() as u64,
            rig.counters(0).waiting.get() + rig.counters(1).waiting.get()
        );
    }
    rig.pass(Duration::from_secs(10));
    rig.run();
    let dropped: u64 = rig.drops().iter().map(|(_, frames)| frames).sum();
    assert_eq!(received, sent + dropped);
    assert_eq!(rig.outstanding(), 0);
    let reasons: HashSet<_> = rig.drops().iter().map(|(reason, _)| *reason).collect();
    assert!(reasons.contains(&DropReason::Truncated), "{reasons:?}");
}

#[test]
fn frames_for_other_hosts_and_from_nowhere_are_not_forwarded() {
    let mut rig = Rig::new(&[DNS]);
    let query = |source: &str| Build::udp(source, "203.0.113.10:53").payload(b"q");
    for flooded in [MacAddress([6; 6]), MacAddress::BROADCAST] {
        assert_eq!(
            rig.send(CLIENTS, &query(CLIENT).macs(CLIENT_MAC, flooded).frame()),
            []
        );
    }
    for source in [
        "127.0.0.1:9",
        "0.0.0.1:9",
        "224.0.0.1:9",
        "203.0.113.10:53",
        "10.0.2.1:9",
    ] {
        assert_eq!(rig.send(CLIENTS, &query(source).frame()), []);
    }
    assert_eq!(
        rig.drops(),
        [(DropReason::OtherHost, 2), (DropReason::Martian, 5)]
    );
    assert_eq!(rig.connections(), 0);
}

#[test]
fn acknowledgements_out_of_nowhere_do_not_hold_records_for_days() {
    let mut rig = Rig::new(&[&format!("{WEB};preserve")]);
    let mut damaged = Build::tcp(CLIENT, VIP).payload(b"x").frame();
    damaged[54] ^= 1;
    assert_eq!(rig.send(CLIENTS, &damaged), []);
    assert_eq!(rig.drops(), [(DropReason::BadTransportChecksum, 1)]);
    for port in 1000..2000 {
        rig.exchange(
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{port}"), VIP).frame(),
        );
    }
    let agreed = rig.exchange(CLIENTS, &Build::tcp(CLIENT, VIP).frame());
    rig.exchange(BACKENDS, &answer(&agreed, ACK));
    rig.pass(Duration::from_secs(61));
    for _ in 0..64 {
        rig.run();
    }
    assert_eq!(rig.connections(), 1, "only the one that the backend knows");
}

#[test]
fn a_question_and_its_answer_do_not_hold_a_port_as_long_as_a_stream() {
    let mut rig = Rig::new(&[DNS]);
    let query = Build::udp(CLIENT, "203.0.113.10:53").payload(b"q").frame();
    let sent = rig.exchange(CLIENTS, &query);
    rig.exchange(BACKENDS, &answer(&sent, 0));
    rig.pass(Duration::from_secs(31));
    rig.run();
    assert_eq!(rig.connections(), 0);
    let sent = rig.exchange(CLIENTS, &query);
    rig.exchange(BACKENDS, &answer(&sent, 0));
    rig.pass(Duration::from_secs(2));
    rig.exchange(CLIENTS, &query);
    rig.pass(Duration::from_secs(119));
    rig.run();
    assert_eq!(rig.connections(), 1);
}

#[test]
fn what_is_for_the_host_goes_to_it_with_its_last_hop() {
    let mut rig = Rig::new(&[WEB]);
    let last_hop = Build::tcp("10.0.2.11:8080", "10.0.2.1:20000")
        .flags(ACK)
        .ttl(1)
        .macs(backend_mac(11), GATEWAY_BACKEND_MAC)
        .frame();
    assert_eq!(rig.send(BACKENDS, &last_hop), []);
    assert_eq!(rig.to_kernel(), [last_hop[14..].to_vec()]);
}

#[test]
fn strays_to_a_masquerade_address_of_our_own_are_dropped() {
    let mut settings = RigSettings::default();
    settings.source_nat.address = Some("203.0.113.99".parse().unwrap());
    let mut rig = Rig::with(&settings, &[WEB]);
    let stray = Build::tcp("10.0.2.11:8080", "203.0.113.99:20000")
        .flags(ACK)
        .macs(backend_mac(11), GATEWAY_BACKEND_MAC);
    assert_eq!(rig.send(BACKENDS, &stray.frame()), []);
    assert_eq!(rig.drops(), [(DropReason::NoConnection, 1)]);
    assert_eq!(rig.to_kernel(), Vec::<Vec<u8>>::new());
}

/// First packets of so many clients that nobody has seen before.
fn herd(clients: u16) -> Vec<Vec<u8>> {
    let syn = |n: u16| {
        let client = format!("10.0.1.{}:{}", 20 + n / 200, 20_000 + n % 200);
        Build::tcp(&client, VIP).flags(SYN).frame()
    };
    (0..clients).map(syn).collect()
}

#[test]
fn a_herd_of_new_connections_is_opened_whole() {
    let mut rig = Rig::new(&[WEB3]);
    let herd = herd(500);
    for syn in &herd {
        rig.arrive(0, CLIENTS, syn);
    }
    assert_eq!(rig.run().len(), herd.len());
    assert_eq!((rig.drops(), rig.connections()), (vec![], herd.len()));
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn a_flood_of_new_connections_takes_no_turn_of_established_ones() {
    let settings = RigSettings {
        slots: 8192,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB]);
    let sent = establish(&mut rig, CLIENT);
    rig.exchange(BACKENDS, &answer(&sent, ACK));
    let data = Build::tcp(CLIENT, VIP).numbers(1001, 2000).frame();
    // Before each packet of the connection, a dozen first packets.
    let herd = herd(3600);
    for syns in herd.chunks(12) {
        syns.iter().for_each(|syn| rig.arrive(0, CLIENTS, syn));
        rig.arrive(0, CLIENTS, &data);
    }
    let left = rig.run();
    let is_data = |sent: &&Sent| packet(&sent.1).flags.0 & (SYN | ACK) == ACK;
    assert_eq!(left.iter().filter(is_data).count(), 300);
    let opened = left.len() - 300;
    assert!(opened >= 512, "{opened} of the flood were opened");
    let dropped = (herd.len() - opened) as u64;
    assert_eq!(rig.drops(), [(DropReason::OpeningsLimit, dropped)]);
    assert_eq!(rig.connections(), opened + 1);
    assert_eq!(rig.outstanding(), 0);
}
