//! What is explained is what happens: each explanation is held against the packet itself.

use std::time::Duration;

use sluice_conf::message::dataplane::explain::{
    Class, Explanation, Outcome, Question, Sender, Source,
};
use sluice_conf::{Pool, Protocol};

use crate::testutil::rig::{BACKENDS, CLIENTS, Rig, RigSettings, network};
use crate::testutil::{Build, RESERVED, table};
use crate::verdict::DropReason;
use crate::wire::parse::TcpFlags;

const CLIENT: &str = "10.0.1.10:40000";
const VIP: &str = "203.0.113.10:80";

fn question(protocol: Protocol, source: &str, destination: &str) -> Question {
    Question {
        protocol,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn explained(rig: &Rig, protocol: Protocol, source: &str, destination: &str) -> Explanation {
    let question = question(protocol, source, destination);
    rig.explain(0, &question).expect("the only worker owns it")
}

fn tcp(rig: &Rig) -> Explanation {
    explained(rig, Protocol::Tcp, CLIENT, VIP)
}

fn syn() -> Vec<u8> {
    Build::tcp(CLIENT, VIP).flags(TcpFlags::SYN).frame()
}

fn dropped(explanation: &Explanation) -> &str {
    match &explanation.outcome {
        Outcome::Drop(reason) => &reason.name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_backend_that_is_explained_is_the_one_that_is_chosen() {
    let mut rig =
        Rig::new(&["web tcp 203.0.113.10:80 -> 10.0.2.11:8080 10.0.2.12:8080 10.0.2.13:8080"]);
    rig.run();
    let said = tcp(&rig);
    assert_eq!(said.outcome, Outcome::Forward);
    assert!(said.known.is_none() && said.affinity.is_none());
    assert_eq!(said.row.unwrap().rows, 307);
    let rule = said.rule.as_ref().unwrap();
    assert_eq!(
        (rule.class, rule.access.pool, rule.admitted),
        (Class::Other, Pool::Cluster, None)
    );
    let way = said.way.as_ref().unwrap();
    assert_eq!((way.interface.as_str(), way.mtu), ("interface 1", 1500));
    assert!(way.mac.is_some());
    let to = said.translation.unwrap();
    let masquerade = Source::Masquerade {
        address: "10.0.2.1".parse().unwrap(),
        first: RESERVED.first,
        last: RESERVED.last,
    };
    assert_eq!(to.source, masquerade);

    rig.exchange(CLIENTS, &syn());
    let now = tcp(&rig).known.unwrap();
    assert_eq!(now.connection.backend, to.destination);
    assert_eq!(now.connection.state, "SYN_SENT");
    assert_eq!((now.sender, now.goes_on), (Sender::Client, true));
}

#[test]
fn a_reply_is_explained_as_the_backends() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 10.0.2.11:8080;preserve"]);
    rig.exchange(CLIENTS, &syn());
    let said = explained(&rig, Protocol::Tcp, "10.0.2.11:8080", CLIENT);
    assert_eq!(said.known.unwrap().sender, Sender::Backend);
    let to = said.translation.unwrap();
    assert_eq!(to.source, Source::End(VIP.parse().unwrap()));
    assert_eq!(to.destination, CLIENT.parse().unwrap());
    assert_eq!(said.outcome, Outcome::Forward);
}

#[test]
fn refusals_are_told_as_the_service_wants_them() {
    for (policy, outcome) in [
        ("", Outcome::PortUnreachable),
        (";refuse=reset", Outcome::Reset),
        (";refuse=drop", Outcome::Drop(DropReason::Refused.into())),
    ] {
        let mut rig = Rig::new(&[&format!("web tcp 203.0.113.10:80 -> {policy}")]);
        rig.run();
        assert_eq!(tcp(&rig).outcome, outcome, "{policy}");
        let other = explained(&rig, Protocol::Tcp, CLIENT, "203.0.113.10:81");
        assert_eq!(other.outcome, Outcome::PortUnreachable);
    }
}

#[test]
fn drops_are_explained_by_the_reason_that_counts_them() {
    for (line, client, reason) in [
        (
            "web tcp 203.0.113.10:80 -> 10.0.2.11:80;from=192.0.2.0/24",
            CLIENT,
            "source_not_allowed",
        ),
        (
            "web tcp 203.0.113.10:80 -> 10.0.2.11:80;local",
            CLIENT,
            "no_local_backend",
        ),
        (
            "web tcp 203.0.113.10:80 -> 198.51.100.9:80",
            CLIENT,
            "no_route",
        ),
        (
            "web tcp 203.0.113.10:80 -> 10.0.2.11:80",
            "127.0.0.1:9",
            "martian",
        ),
    ] {
        let mut rig = Rig::new(&[line]);
        rig.run();
        assert_eq!(
            dropped(&explained(&rig, Protocol::Tcp, client, VIP)),
            reason
        );
        let frame = Build::tcp(client, VIP).flags(TcpFlags::SYN).frame();
        assert!(rig.send(CLIENTS, &frame).is_empty());
        let counted: Vec<&str> = rig
            .drops()
            .iter()
            .map(|(reason, _)| reason.name())
            .collect();
        assert_eq!(counted, [reason]);
    }
}

#[test]
fn an_unresolved_next_hop_makes_the_packet_wait() {
    let lines = ["web tcp 203.0.113.10:80 -> 10.0.2.11:80"];
    let mut rig = Rig::on(&RigSettings::default(), network([]), &lines);
    rig.run();
    let said = tcp(&rig);
    assert_eq!(said.outcome, Outcome::Hold);
    assert_eq!(said.way.unwrap().mac, None);
}

#[test]
fn affinity_says_who_and_for_how_long() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 10.0.2.11:80 10.0.2.12:80;affinity=60"]);
    rig.run();
    assert_eq!(tcp(&rig).affinity.unwrap().left, None);
    rig.exchange(CLIENTS, &syn());
    rig.pass(Duration::from_secs(20));
    let said = explained(&rig, Protocol::Tcp, "10.0.1.10:40001", VIP);
    let affinity = said.affinity.unwrap();
    assert_eq!((affinity.seconds, affinity.left), (60, Some(40)));
    assert_eq!(affinity.backend, said.translation.map(|to| to.destination));
    assert_eq!(said.row, None);
}

#[test]
fn a_connection_whose_backend_has_left_ends_with_its_next_packet() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 10.0.2.11:80"]);
    rig.exchange(CLIENTS, &syn());
    rig.push_table(table(&["web tcp 203.0.113.10:80 -> 10.0.2.12:80"]))
        .unwrap();
    let said = tcp(&rig);
    assert!(!said.known.unwrap().goes_on);
    assert_eq!(said.outcome, Outcome::Reset);
}

#[test]
fn what_is_nobodys_is_the_kernels() {
    let mut rig = Rig::new(&["web tcp 203.0.113.10:80 -> 10.0.2.11:80"]);
    rig.run();
    let said = explained(&rig, Protocol::Udp, CLIENT, "192.0.2.1:53");
    assert_eq!((said.outcome, said.rule), (Outcome::Kernel, None));
}

#[test]
fn ipv6_and_sctp_are_explained_alike() {
    let mut rig = Rig::new(&["web sctp [2001:db8::80]:80 -> [2001:db8:2::11]:80;preserve"]);
    rig.run();
    let client = "[2001:db8:1::10]:5000";
    let said = explained(&rig, Protocol::Sctp, client, "[2001:db8::80]:80");
    assert_eq!(said.outcome, Outcome::Forward);
    assert_eq!(
        said.translation.unwrap().source,
        Source::End(client.parse().unwrap())
    );
}

#[test]
fn exactly_one_worker_answers() {
    let settings = RigSettings {
        workers: 4,
        ..RigSettings::default()
    };
    let mut rig = Rig::with(&settings, &["web tcp 203.0.113.10:80 -> 10.0.2.11:80"]);
    rig.run();
    for port in 40_000..40_050 {
        let source = format!("10.0.1.10:{port}");
        let question = question(Protocol::Tcp, &source, VIP);
        let answers: Vec<_> = (0..4).filter_map(|w| rig.explain(w, &question)).collect();
        assert_eq!(answers.len(), 1, "{source}");
    }
    // Nothing was opened by asking.
    assert_eq!((rig.connections(), rig.send(BACKENDS, &[]).len()), (0, 0));
}

#[test]
fn a_packet_of_two_families_is_nobodys() {
    let rig = Rig::new(&["web tcp 203.0.113.10:80 -> 10.0.2.11:80"]);
    let mixed = question(Protocol::Tcp, CLIENT, "[2001:db8::80]:80");
    assert!(rig.explain(0, &mixed).is_none());
}
