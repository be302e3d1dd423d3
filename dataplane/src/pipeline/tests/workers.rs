//! Several workers: whose flow is it?

use super::*;
use crate::listing::{Query, Tally, Wanted};
use crate::testutil::Build;
use crate::testutil::rig::{BACKENDS, CLIENTS, Rig, RigSettings};
use crate::verdict::DropReason;
use sluice_conf::message::dataplane::ConnectionFilter;
use sluice_conf::{Protocol, ServiceName};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Every flow of these clients through `workers` workers, every frame at the wrong one too.
fn through_workers(workers: u16, policy: &str) {
    let settings = RigSettings {
        workers,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[&format!("{WEB3};{policy}")]);
    for port in 30_000..30_200u16 {
        let client = format!("10.0.1.10:{port}");
        let at = |n: u16| usize::from(port.wrapping_add(n) % workers);
        rig.arrive(at(0), CLIENTS, &Build::tcp(&client, VIP).flags(SYN).frame());
        let sent = rig.run();
        assert_eq!(sent.len(), 1, "{:?}", rig.drops());
        rig.arrive(at(1), BACKENDS, &answer(&sent[0], SYN | ACK));
        let back = rig.run();
        assert_eq!(ends(&back[0].1), (VIP.into(), client.clone()));
        rig.arrive(
            at(2),
            CLIENTS,
            &Build::tcp(&client, VIP).flags(ACK | FIN).frame(),
        );
        assert_eq!(ends(&rig.run()[0].1), ends(&sent[0].1));
    }
    assert_eq!(
        (rig.drops(), rig.outstanding(), rig.connections()),
        (vec![], 0, 200)
    );
    let sum = |f: fn(&crate::stats::WorkerCounters) -> u64| {
        (0..workers).map(|w| f(rig.counters(w))).sum::<u64>()
    };
    assert_eq!(sum(|c| c.handed_over.get()), sum(|c| c.taken_over.get()));
    assert_eq!(workers > 1, sum(|c| c.handed_over.get()) > 0);
}

#[test]
fn frames_at_the_wrong_worker_reach_the_owner_in_both_modes() {
    for workers in [1, 2, 3, 4] {
        through_workers(workers, "");
        through_workers(workers, "preserve");
    }
}

#[test]
fn node_ports_and_masquerade_ports_of_one_address_find_their_owners() {
    let settings = RigSettings {
        workers: 4,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(
        &settings,
        &["web tcp node:10.0.2.1:30080 -> 10.0.2.11:8080"],
    );
    for port in 30_000..30_100u16 {
        let client = format!("10.0.1.10:{port}");
        rig.arrive(
            usize::from(port % 4),
            CLIENTS,
            &Build::tcp(&client, "10.0.2.1:30080").flags(SYN).frame(),
        );
        let sent = rig.run();
        rig.arrive(
            usize::from(port % 3),
            BACKENDS,
            &answer(&sent[0], SYN | ACK),
        );
        assert_eq!(ends(&rig.run()[0].1), ("10.0.2.1:30080".into(), client));
    }
}

#[test]
fn a_full_hand_over_ring_is_a_counted_drop() {
    let settings = RigSettings {
        workers: 2,
        handover: 4,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB]);
    for port in 0..64u16 {
        rig.arrive(
            0,
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{}", 1000 + port), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    let sent = rig.run().len() as u64;
    let drops = rig.drops();
    assert_eq!(drops, [(DropReason::HandoverFull, 64 - sent)]);
    assert!(sent > 4 && sent < 64);
    assert_eq!(rig.outstanding(), 0);
}

#[test]
fn connections_are_listed_by_service_and_client() {
    let mut rig = Rig::new(&[WEB, DNS]);
    establish(&mut rig, CLIENT);
    rig.exchange(
        CLIENTS,
        &Build::udp("10.0.1.10:5353", "203.0.113.10:53")
            .payload(b"q")
            .frame(),
    );
    rig.pass(Duration::from_secs(3));
    let mut list = |filter: ConnectionFilter| {
        let (answer, answered) = crossbeam::channel::bounded(1);
        rig.ask(0, Query::List(Wanted { filter, answer }));
        for _ in 0..64 {
            rig.run();
        }
        answered.try_recv().unwrap()
    };
    let all = list(ConnectionFilter {
        limit: 10,
        ..ConnectionFilter::default()
    });
    assert_eq!(all.len(), 2);
    let web = ConnectionFilter {
        service: Some("web".into()),
        limit: 10,
        ..ConnectionFilter::default()
    };
    let web = list(web);
    assert_eq!(web.len(), 1);
    assert_eq!(web[0].client.to_string(), CLIENT);
    assert_eq!(web[0].frontend.to_string(), VIP);
    assert_eq!(web[0].backend.to_string(), "10.0.2.11:8080");
    assert_eq!(
        (web[0].state.as_str(), web[0].idle_seconds),
        ("ESTABLISHED", 3)
    );
    let nobody = Some("10.9.9.9".parse().unwrap());
    assert_eq!(
        list(ConnectionFilter {
            client: nobody,
            limit: 10,
            ..ConnectionFilter::default()
        }),
        []
    );
}

#[test]
fn open_connections_are_counted_by_service_frontend_and_backend() {
    let mut rig = Rig::new(&[WEB, DNS]);
    establish(&mut rig, CLIENT);
    let ended = "10.0.1.10:40077";
    establish(&mut rig, ended);
    let reset = Build::tcp(ended, VIP).flags(RST);
    rig.exchange(CLIENTS, &reset.numbers(1001, 0).frame());
    let question = Build::udp("10.0.1.10:5353", "203.0.113.10:53");
    rig.exchange(CLIENTS, &question.payload(b"q").frame());
    let mut count = |services: HashSet<ServiceName>| {
        let (answer, answered) = crossbeam::channel::bounded(1);
        let services = Arc::new(services);
        rig.ask(0, Query::Count(Tally { services, answer }));
        for _ in 0..64 {
            rig.run();
        }
        answered.try_recv().unwrap().counts
    };
    let web = ServiceName {
        namespace: "default".into(),
        name: "web".into(),
        port: String::new(),
        protocol: Protocol::Tcp,
    };
    let counts = count(HashSet::from([web.clone()]));
    assert_eq!(counts.len(), 1, "{counts:?}");
    assert_eq!((&counts[0].service, counts[0].connections), (&web, 1));
    assert_eq!(counts[0].frontend.to_string(), VIP);
    assert_eq!(counts[0].backend.to_string(), "10.0.2.11:8080");
    assert_eq!(count(HashSet::new()), []);
}

#[test]
fn handed_over_frames_leave_the_own_queue_its_turn() {
    let settings = RigSettings {
        workers: 2,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &[WEB]);
    // Flows of worker 1 that arrive at worker 0, more than a burst, and one at worker 1 itself.
    for port in 1000..1300 {
        rig.arrive(
            0,
            CLIENTS,
            &Build::tcp(&format!("10.0.1.10:{port}"), VIP)
                .flags(SYN)
                .frame(),
        );
    }
    rig.turn(0);
    rig.turn(0);
    rig.arrive(
        1,
        CLIENTS,
        &Build::tcp("10.0.1.10:999", VIP).flags(SYN).frame(),
    );
    rig.turn(1);
    assert_eq!(rig.counters(1).received.get().frames, 1);
    assert!(rig.counters(1).taken_over.get() >= 32);
}
