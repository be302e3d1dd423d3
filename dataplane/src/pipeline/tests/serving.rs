//! Who serves whom: affinity, pools, classes of clients, refusals, and tables that are full.

use std::sync::Arc;

use super::world::*;
use super::*;
use crate::testutil::rig::RigSettings;
use crate::testutil::{echo_request, table};
use crate::verdict::DropReason;
use sluice_conf::{Pool, SourceNat};
use std::collections::HashSet;
use std::time::Duration;

fn syn(world: World, port: u16) -> Vec<u8> {
    Build::tcp(&world.client(port), &world.vip(80))
        .flags(SYN)
        .frame()
}

fn total(rig: &Rig, counter: fn(&crate::stats::WorkerCounters) -> u64) -> u64 {
    (0..rig.workers() as u16)
        .map(|w| counter(rig.counters(w)))
        .sum()
}

#[test]
fn affinity_holds_over_ports_workers_and_new_backends_until_its_time_is_over() {
    everywhere(|world, settings, policy| {
        let policy = format!("{policy} affinity=100");
        let web = |backends: &[u8]| world.web("tcp", backends, &policy);
        let mut rig = Rig::with(settings, &[&web(&[11])]);
        let home = backend_of(&through(&mut rig, 0, IN, &syn(world, 1000)));
        rig.push(&[&web(&[11, 12, 13, 14, 15])]);
        // Each new connection starts the time again, and no packet of an old one does.
        for n in 0..10 {
            rig.pass(Duration::from_secs(99));
            let sent = through(&mut rig, n, IN, &syn(world, 2000 + n as u16));
            assert_eq!(backend_of(&sent), home);
        }
        // One that cannot serve any more is left, and not returned to.
        let draining = format!(
            "web tcp {} -> {home}/draining {};{policy}",
            world.vip(80),
            world.backend(12, 8080)
        );
        rig.push(&[&draining]);
        let moved = backend_of(&through(&mut rig, 1, IN, &syn(world, 3000)));
        assert_eq!(moved, world.backend(12, 8080));
        rig.push(&[&web(&[11, 12, 13, 14, 15])]);
        let sent = through(&mut rig, 2, IN, &syn(world, 3001));
        assert_eq!(backend_of(&sent), moved);
        assert_eq!(total(&rig, |c| c.affinity_evicted.get()), 0);
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn affinity_is_forgotten_when_no_new_connection_comes_in_time() {
    for world in WORLDS {
        let web = |backends: &[u8]| world.web("tcp", backends, "affinity=100");
        let mut rig = Rig::new(&[&web(&[11, 12, 13, 14, 15, 16, 17])]);
        let by_hash = backend_of(&through(&mut rig, 0, IN, &syn(world, 1)));
        let others: Vec<u8> = (11..=17)
            .filter(|n| world.backend(*n, 8080) != by_hash)
            .collect();
        rig.push(&[&web(&others)]);
        // The connection of the one that left is reset.
        rig.run();
        let remembered = backend_of(&through(&mut rig, 0, IN, &syn(world, 2)));
        rig.push(&[&web(&[11, 12, 13, 14, 15, 16, 17])]);
        // Packets of the connection itself do not hold it.
        rig.pass(Duration::from_secs(60));
        through(&mut rig, 0, IN, &syn(world, 2));
        rig.pass(Duration::from_secs(41));
        let sent = through(&mut rig, 0, IN, &syn(world, 3));
        assert_eq!(backend_of(&sent), by_hash);
        assert_ne!(remembered, by_hash);
    }
}

#[test]
fn an_affinity_that_had_to_make_room_is_counted() {
    // The rig remembers 4,096 clients, twice as many at most.
    let mut rig = Rig::with(
        &RigSettings {
            capacity: 1 << 15,
            ..RigSettings::default()
        },
        &["dns udp 203.0.113.10:53 -> 10.0.2.11:53;affinity=10800"],
    );
    for n in 0..10_000u32 {
        let client = format!("10.1.{}.{}:9", n >> 8, n & 255);
        rig.send(CLIENTS, &Build::udp(&client, "203.0.113.10:53").frame());
    }
    assert!(rig.counters(0).affinity_evicted.get() >= 10_000 - 8192);
    assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
}

#[test]
fn a_pool_serves_its_clients_alone() {
    for world in WORLDS {
        let backends = format!(
            "{} {}/local {}/only-local",
            world.backend(11, 8080),
            world.backend(12, 8080),
            world.backend(13, 8080)
        );
        let homes = |policy: &str| -> HashSet<String> {
            let mut rig = Rig::new(&[&format!("web tcp {} -> {backends};{policy}", world.vip(80))]);
            (1..200)
                .map(|port| backend_of(&through(&mut rig, 0, IN, &syn(world, port))))
                .collect()
        };
        let of = |lasts: [u8; 2]| lasts.map(|last| world.backend(last, 8080)).into();
        assert_eq!(homes(""), of([11, 12]));
        assert_eq!(homes("local"), of([12, 13]));
        // Nobody local: dropped in silence, for others could serve.
        let mut rig = Rig::new(&[&world.web("tcp", &[11], "local")]);
        assert_eq!(rig.send(CLIENTS, &syn(world, 1)), []);
        assert_eq!(rig.drops(), [(DropReason::NoLocalBackend, 1)]);
        assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
    }
}

#[test]
fn each_class_of_clients_has_its_own_access() {
    for world in WORLDS {
        for workers in [1, 2, 4] {
            let settings = RigSettings {
                workers,
                ..RigSettings::default()
            };
            let mut rig = Rig::with(&settings, &[]);
            let line = format!(
                "web tcp {} -> {} {}/only-local",
                world.vip(80),
                world.backend(11, 8080),
                world.backend(12, 8080)
            );
            let mut table = table(&[&line]);
            let network = |v4: &str, v6: &str| match world.v6 {
                true => v6.parse().unwrap(),
                false => v4.parse().unwrap(),
            };
            table.networks.pods = vec![network("10.0.1.32/27", "2001:db8:1::20/123")];
            table.networks.nodes = vec![network("10.0.1.64/27", "2001:db8:1::40/123")];
            let frontend = &mut Arc::make_mut(&mut table.services[0]).frontends[0];
            frontend.pods.source_nat = SourceNat::Preserve;
            frontend.nodes.pool = Pool::Cluster;
            frontend.others.pool = Pool::Local;
            rig.push_table(table).unwrap();
            for (last, home, keeps) in [(0x21, 11, true), (0x41, 11, false), (0x10, 12, false)] {
                let client = world.at(
                    &format!("10.0.1.{last}"),
                    &format!("2001:db8:1::{last:x}"),
                    4000,
                );
                let frame = Build::tcp(&client, &world.vip(80)).flags(SYN).frame();
                let sent = through(&mut rig, last, IN, &frame);
                assert_eq!(backend_of(&sent), world.backend(home, 8080));
                assert_eq!(ends(&sent.1).0 == client, keeps);
            }
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        }
    }
}

#[test]
fn guarded_frontends_admit_whom_they_name() {
    everywhere(|world, settings, policy| {
        let range = if world.v6 {
            "2001:db8:1::8/125"
        } else {
            "10.0.1.8/29"
        };
        let policy = format!("{policy} from={range}");
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], &policy)]);
        let query = |last: u8| {
            let client = world.at(
                &format!("10.0.1.{last}"),
                &format!("2001:db8:1::{last:x}"),
                9,
            );
            Build::udp(&client, &world.vip(80)).frame()
        };
        for (n, last) in [8, 15].into_iter().enumerate() {
            through(&mut rig, n, IN, &query(last));
        }
        for (n, last) in [7, 16].into_iter().enumerate() {
            assert_eq!(at(&mut rig, n, CLIENTS, &query(last)), []);
        }
        assert_eq!(rig.drops(), [(DropReason::SourceNotAllowed, 2)]);
        assert_eq!((rig.connections(), rig.outstanding()), (2, 0));
    });
}

#[test]
fn a_refusal_is_what_the_service_wants_it_to_be() {
    everywhere(|world, settings, _| {
        for (name, protocol) in PROTOCOLS {
            let client = world.client(40_000);
            let question = Build::packet(protocol, &client, &world.vip(80)).flags(SYN);
            let question = question.numbers(1000, 0).frame();
            for policy in ["", "refuse=reset", "refuse=drop"] {
                let mut rig = Rig::with(settings, &[&world.web(name, &[], policy)]);
                let sent = at(&mut rig, 1, CLIENTS, &question);
                assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
                if policy == "refuse=drop" {
                    assert_eq!(sent, []);
                    assert_eq!(rig.drops(), [(DropReason::Refused, 1)]);
                    continue;
                }
                assert_eq!((sent.len(), sent[0].0), (1, CLIENTS));
                let answer = seen(&sent[0].1);
                assert!(answer.is_right());
                assert_eq!(answer.source, ip(&world.vip(1)));
                assert_eq!(answer.hops, 64);
                if policy == "refuse=reset" && protocol == Protocol::Tcp {
                    assert_eq!(answer.ends(), (world.vip(80), client.clone()));
                    assert_eq!(answer.payload[4..12], [0, 0, 0, 0, 0, 0, 3, 0xe9]);
                    assert_eq!(answer.payload[13], RST | ACK);
                } else {
                    let kind = (answer.payload[0], answer.payload[1]);
                    assert_eq!(kind, world.port_unreachable());
                    assert_eq!(answer.payload[8..], question[14..]);
                }
            }
        }
    });
}

#[test]
fn a_ping_is_answered_as_the_service_wants() {
    for world in WORLDS {
        let echo = match world.v6 {
            true => echo_request("2001:db8:1::10", "2001:db8:9::10", b"hello"),
            false => echo_request("10.0.1.10", "203.0.113.10", b"hello"),
        };
        for (backends, policy, answered) in [
            (&[11][..], "", true),
            (&[], "", false),
            (&[11], "ping=never", false),
            (&[], "ping=always", true),
        ] {
            let mut rig = Rig::new(&[&world.web("tcp", backends, policy)]);
            let sent = rig.send(CLIENTS, &echo);
            assert_eq!(sent.len(), usize::from(answered));
            let refused: &[_] = if answered {
                &[]
            } else {
                &[(DropReason::EchoRefused, 1)]
            };
            assert_eq!(rig.drops(), refused);
            assert_eq!(rig.counters(0).echo_replies.get(), u64::from(answered));
            for (_, frame) in &sent {
                let reply = seen(frame);
                assert!(reply.is_right());
                assert_eq!((reply.source, reply.hops), (ip(&world.vip(1)), 64));
                assert_eq!(reply.payload[0], if world.v6 { 129 } else { 0 });
                assert_eq!(reply.payload[4..], seen(&echo).payload[4..]);
            }
        }
    }
}

#[test]
fn an_address_of_the_service_network_that_no_service_has_is_dropped() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[]);
        let mut table = table(&[&world.web("tcp", &[11], policy)]);
        let network = if world.v6 {
            "2001:db8:9::/112"
        } else {
            "203.0.113.0/24"
        };
        table.networks.services = vec![network.parse().unwrap()];
        rig.push_table(table).unwrap();
        let nobody = world.at("203.0.113.99", "2001:db8:9::99", 80);
        for (n, (_, protocol)) in PROTOCOLS.into_iter().enumerate() {
            let question = Build::packet(protocol, &world.client(9), &nobody).flags(SYN);
            assert_eq!(at(&mut rig, n, CLIENTS, &question.frame()), []);
        }
        let echo = match world.v6 {
            true => echo_request("2001:db8:1::10", "2001:db8:9::99", b"hello"),
            false => echo_request("10.0.1.10", "203.0.113.99", b"hello"),
        };
        assert_eq!(at(&mut rig, 0, CLIENTS, &echo), []);
        assert_eq!(rig.drops(), [(DropReason::Unallocated, 4)]);
        assert_eq!(rig.to_kernel(), Vec::<Vec<u8>>::new());
        assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
        through(&mut rig, 0, IN, &syn(world, 9));
    });
}

#[test]
fn a_full_table_gives_up_what_is_half_open_and_never_what_is_established() {
    for world in WORLDS {
        for policy in ["", "preserve"] {
            let settings = RigSettings {
                capacity: 64,
                ..RigSettings::default()
            };
            let mut rig = Rig::with(&settings, &[&world.web("tcp", &[11], policy)]);
            let establish = |rig: &mut Rig, port| {
                let sent = through(rig, 0, IN, &syn(world, port));
                through(rig, 0, OUT, &answer(&sent, SYN | ACK));
                let ack = Build::tcp(&world.client(port), &world.vip(80)).numbers(1001, 2001);
                through(rig, 0, IN, &ack.frame())
            };
            let homes: Vec<Sent> = (1..=32).map(|port| establish(&mut rig, port)).collect();
            // A flood of half-open ones takes only what the others leave.
            for port in 1000..3000 {
                rig.send(CLIENTS, &syn(world, port));
            }
            assert_eq!(rig.connections(), 64);
            assert_eq!(rig.drops(), []);
            assert_eq!(rig.counters(0).connections_evicted.get(), 2000 - 32);
            for (port, home) in (1..).zip(&homes) {
                let data = Build::tcp(&world.client(port), &world.vip(80)).numbers(1001, 2001);
                let sent = through(&mut rig, 0, IN, &data.frame());
                assert_eq!(ends(&sent.1), ends(&home.1));
            }
            // Once all are established nobody gets in any more.
            for port in 100..132 {
                establish(&mut rig, port);
            }
            let evicted = rig.counters(0).connections_evicted.get();
            assert_eq!(rig.send(CLIENTS, &syn(world, 5000)), []);
            assert_eq!(rig.drops(), [(DropReason::ConnectionTableFull, 1)]);
            assert_eq!(rig.counters(0).connections_evicted.get(), evicted);
            assert_eq!((rig.connections(), rig.outstanding()), (64, 0));
        }
    }
}

#[test]
fn scarce_source_ports_are_told_before_the_first_one_is_missing() {
    for world in WORLDS {
        let mut settings = RigSettings::default();
        settings.source_nat.ports = "20000-20199".parse().unwrap();
        let mut rig = Rig::with(&settings, &[&world.web("udp", &[11], "")]);
        let mut sources = HashSet::new();
        let mut first_scarce = None;
        for n in 0..200u16 {
            let query = Build::udp(&world.client(1000 + n), &world.vip(80)).frame();
            for (_, frame) in rig.send(CLIENTS, &query) {
                assert!(sources.insert(ends(&frame).0), "a source twice");
            }
            if rig.counters(0).source_ports_scarce.get() > 0 {
                first_scarce = first_scarce.or(Some((n, rig.drops())));
            }
        }
        let (n, drops) = first_scarce.unwrap();
        assert!((100..195).contains(&n), "scarce at {n} of 200");
        assert_eq!(drops, []);
        let missing = 200 - sources.len() as u64;
        assert!(missing < 10, "{missing} of 200 found no port");
        assert_eq!(rig.outstanding(), 0);
    }
}

#[test]
fn the_segment_size_that_both_ends_announce_is_lowered_and_nothing_else() {
    everywhere(|world, settings, policy| {
        let policy = format!("{policy} mss=1200");
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], &policy)]);
        let with = |segment: Build, size: u16| {
            let [high, low] = size.to_be_bytes();
            segment.tcp_options(&[2, 4, high, low, 1, 1, 1, 1])
        };
        let client = |port| Build::tcp(&world.client(port), &world.vip(80));
        let lowered = through(&mut rig, 0, IN, &with(client(1).flags(SYN), 1460).frame());
        assert_eq!(seen(&lowered.1).payload[20..24], [2, 4, 4, 176]);
        let both = with(answering(&lowered).flags(SYN | ACK), 9000);
        let back = through(&mut rig, 1, OUT, &both.frame());
        assert_eq!(seen(&back.1).payload[20..], [2, 4, 4, 176, 1, 1, 1, 1]);
        let small = through(&mut rig, 2, IN, &with(client(2).flags(SYN), 536).frame());
        assert_eq!(seen(&small.1).payload[20..24], [2, 4, 2, 24]);
        // Where it has no meaning it is no option to touch.
        let data = through(&mut rig, 0, IN, &with(client(1), 1460).frame());
        assert_eq!(seen(&data.1).payload[20..24], [2, 4, 5, 180]);
        assert_eq!(total(&rig, |c| c.mss_clamped.get()), 2);
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn a_masquerade_address_of_the_settings_is_answered_for() {
    for workers in [1, 2, 4] {
        let mut settings = RigSettings {
            workers,
            ..RigSettings::default()
        };
        settings.source_nat.address = Some("10.0.2.200".parse().unwrap());
        settings.source_nat.address6 = Some("2001:db8:2::200".parse().unwrap());
        for world in WORLDS {
            let mut rig = Rig::with(&settings, &[&world.web("udp", &[11, 12], "")]);
            let own = ip(&world.at("10.0.2.200", "2001:db8:2::200", 1));
            for n in 0..40 {
                let client = world.client(1000 + n);
                let query = Build::udp(&client, &world.vip(80)).frame();
                let sent = through(&mut rig, n.into(), IN, &query);
                assert_eq!(seen(&sent.1).source, own);
                let back = through(&mut rig, 1, OUT, &answering(&sent).frame());
                assert_eq!(ends(&back.1), (world.vip(80), client));
            }
            if !world.v6 {
                let question = crate::testutil::arp_request("10.0.2.11", "10.0.2.200");
                let reply = at(&mut rig, 0, BACKENDS, &question);
                assert_eq!(reply[0].1[22..28], GATEWAY_BACKEND_MAC.0);
            }
            assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        }
    }
}
