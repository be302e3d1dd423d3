//! Generator, wire and sink together, in namespaces of their own. Needs root. Nothing is judged by
//! time: a busy machine sends fewer frames, but counts each of them.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may; its helpers are tests too")]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use sluice_benches::generator::flow::Clients;
use sluice_benches::generator::frame::run_number;
use sluice_benches::generator::live::Seat;
use sluice_benches::generator::plan::{IMIX, Plan, Protocol, Script};
use sluice_benches::generator::sockets::monotonic;
use sluice_benches::namespace::Namespace;
use sluice_benches::rate::Rate;
use sluice_benches::sink::program::host;
use sluice_benches::sink::{Action, Expectation, Sink};
use sluice_benches::trial::{self, Kind, Outcome, Post};
use sluice_benches::wire::known::Known;
use sluice_benches::wire::measure::{self, Options};
use sluice_benches::wire::peer::Peer;
use sluice_benches::wire::readings::Readings;
use sluice_benches::wire::rig::Rig;
use sluice_benches::wire::{flood, idle, scale, sockets, updates};
use sluice_tests::netns::Netns;

const FLOWS: u32 = 500;

/// Two generators at once would leave each other little of the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Wire {
    plan: Plan,
    seat: Seat,
    sinks: [Sink; 2],
    _namespaces: [Netns; 2],
}

impl Wire {
    fn new(clients: &str, prefix: u32, target: &str) -> Self {
        let (near, far) = (Netns::create("g").unwrap(), Netns::create("s").unwrap());
        near.ip_batch(&format!(
            "link add g0 type veth peer name s0 netns {}\nlink set g0 up\n",
            far.name()
        ))
        .unwrap();
        far.ip_batch("link set s0 up\n").unwrap();
        let (here, there) = (Namespace::named(near.name()), Namespace::named(far.name()));
        let interface = here.interface("g0").unwrap();
        let target_mac = there.interface("s0").unwrap().mac;
        let clients = Clients::new(clients.parse().unwrap(), prefix).unwrap();
        let target: SocketAddr = target.parse().unwrap();
        let mut plan = Plan::new(interface.mac, target_mac, clients, vec![target]);
        plan.flows = u64::from(FLOWS);
        plan.rate = Rate(100_000.0);
        plan.duration = Duration::from_millis(100);
        let sinks = [
            Sink::attach(&there, "s0", FLOWS).unwrap(),
            Sink::attach(&here, "g0", FLOWS).unwrap(),
        ];
        let seat = Seat {
            namespace: here,
            interface,
            cpu: None,
            batch: 64,
        };
        Self {
            plan,
            seat,
            sinks,
            _namespaces: [near, far],
        }
    }

    fn run(&mut self, kind: Kind, action: Action) -> Outcome {
        let _alone = ONE_AT_A_TIME.lock();
        self.plan.run = run_number(monotonic());
        let target = self.plan.targets[0];
        let there = Expectation {
            flows: FLOWS,
            action,
            destination: Some(host(target.ip())),
            port: Some(target.port()),
            ..Expectation::of_run(0)
        };
        let here = Expectation {
            source: Some(host(target.ip())),
            ..Expectation::of_run(0)
        };
        let [far, near] = &mut self.sinks;
        let mut posts = [
            Post {
                sink: far,
                expectation: there,
            },
            Post {
                sink: near,
                expectation: here,
            },
        ];
        let seats = std::slice::from_ref(&self.seat);
        trial::run(kind, &self.plan, seats, &mut posts, |_| true).unwrap()
    }
}

/// What was sent arrived, each frame as it was sent.
fn assert_all_arrived(outcome: &Outcome) {
    let tally = &outcome.tallies[0];
    assert!(outcome.sent.sent > 0 && outcome.sent.finished);
    assert_eq!(tally.received, outcome.sent.sent);
    assert_eq!(tally.bytes, outcome.sent.bytes);
    assert_eq!(tally.checked, tally.received);
    assert_eq!((tally.wrong(), tally.moved, tally.late), (0, 0, 0));
    assert_eq!(tally.latency.count(), tally.received);
    assert!(outcome.loss == 0.0 && tally.flows <= u64::from(FLOWS));
    assert_eq!(tally.missing, 0, "what the generator leaves out is no gap");
}

#[test]
fn every_frame_of_either_generator_is_counted_with_right_sums() {
    for (clients, prefix, target) in [
        ("10.64.0.0", 16, "203.0.113.10:80"),
        ("fd00::", 112, "[2001:db8::1]:80"),
    ] {
        let mut wire = Wire::new(clients, prefix, target);
        for kind in [Kind::Live, Kind::Socket] {
            for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Icmp] {
                wire.plan.protocol = protocol;
                wire.plan.sizes = [61; 12];
                wire.plan.fit();
                assert_all_arrived(&wire.run(kind, Action::Drop));
            }
            wire.plan.protocol = Protocol::Udp;
            wire.plan.sizes = IMIX;
            wire.plan.fit();
            assert_all_arrived(&wire.run(kind, Action::Drop));
        }
    }
}

#[test]
fn connections_are_answered_like_a_server_does() {
    let mut wire = Wire::new("10.64.0.0", 16, "203.0.113.10:80");
    wire.plan.protocol = Protocol::Tcp;
    wire.plan.script = Script::Connection;
    wire.plan.pause = Duration::from_millis(1);
    wire.plan.fit();
    for kind in [Kind::Live, Kind::Socket] {
        let outcome = wire.run(kind, Action::Reply);
        assert_all_arrived(&outcome);
        let [far, near] = &outcome.tallies[..] else {
            panic!("two sinks");
        };
        assert!(far.replied > 0 && far.replied < far.received);
        assert_eq!(near.received, far.replied);
        assert_eq!((near.checked, near.wrong()), (near.received, 0));
    }
}

#[test]
fn frames_of_another_run_are_not_counted() {
    let mut wire = Wire::new("10.64.0.0", 16, "203.0.113.10:80");
    let outcome = wire.run(Kind::Live, Action::Drop);
    assert_all_arrived(&outcome);
    let [far, _] = &mut wire.sinks;
    far.expect(&Expectation::of_run(wire.plan.run ^ 1)).unwrap();
    assert_eq!(far.tally().unwrap().received, 0);
}

/// Whether a peer is here; those that are not are left out, as their packages come with
/// `make bench-wire` only.
fn present(peer: &Peer) -> bool {
    let missing = peer.missing();
    if let Some(missing) = missing {
        eprintln!("{missing} is not installed, so its peer is not tested");
    }
    missing.is_none()
}

/// Sluice itself is not here: its daemons are built by other packages.
#[test]
fn every_peer_sends_on_what_it_should_with_right_sums_and_addresses() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut rig = Rig::build(FLOWS).unwrap();
    rig.plan.flows = u64::from(FLOWS);
    let peers = [
        Peer::Bare,
        Peer::BareBusy,
        Peer::Testpmd,
        Peer::Nftables,
        Peer::NftablesThreaded,
        Peer::Iptables,
        Peer::IptablesThreaded,
        // Once more, after all others: they have left nothing behind.
        Peer::Bare,
        Peer::Nftables,
    ];
    for peer in peers.into_iter().filter(present) {
        // Each Service has its share of the flows.
        rig.aim(3);
        let running = peer.start(&rig, 3).unwrap();
        let (rate, time) = (Rate(20_000.0), Duration::from_millis(100));
        // That frames arrive wrong would be an error; that a busy machine loses some is none.
        let outcome = measure::try_rate(&mut rig, peer, rate, time, Kind::Live).unwrap();
        let tally = &outcome.tallies[0];
        assert!(tally.received > 0, "{}", peer.name());
        assert!(tally.received <= outcome.sent.sent);
        assert_eq!((tally.moved, tally.late), (0, 0), "{}", peer.name());
        peer.stop(&mut rig, running).unwrap();
    }
}

#[test]
fn nothing_is_sent_on_once_a_peer_has_ended() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut rig = Rig::build(FLOWS).unwrap();
    rig.plan.flows = u64::from(FLOWS);
    for peer in [Peer::NftablesThreaded, Peer::IptablesThreaded] {
        if !present(&peer) {
            continue;
        }
        let running = peer.start(&rig, 1).unwrap();
        peer.stop(&mut rig, running).unwrap();
        let (rate, time) = (Rate(20_000.0), Duration::from_millis(20));
        let outcome = measure::try_rate(&mut rig, peer, rate, time, Kind::Live).unwrap();
        assert!(outcome.sent.sent > 0);
        assert_eq!(outcome.tallies[0].received, 0, "{}", peer.name());
    }
}

#[test]
fn sockets_are_answered_in_full_through_every_peer_that_leads_to_backends() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut rig = Rig::build(FLOWS).unwrap();
    let arguments = sockets::Arguments {
        socket_rounds: 1,
        socket_trial: 200,
        socket_connections: 8,
        socket_streams: 2,
    };
    let peers = [
        Peer::Nftables,
        Peer::Haproxy,
        Peer::IptablesThreaded,
        Peer::Nginx,
        Peer::NftablesThreaded,
    ];
    for peer in peers.into_iter().filter(present) {
        let round = sockets::round(&mut rig, peer, &arguments).unwrap();
        let (short, bulk) = (round.short.tally, round.bulk.tally);
        assert!(short.done > 0, "{}: {short:?}", peer.name());
        assert!(short.bytes >= short.done * 64, "{}: {short:?}", peer.name());
        assert!(
            bulk.bytes > 0 && bulk.done == 0,
            "{}: {bulk:?}",
            peer.name()
        );
    }
}

#[test]
fn the_programs_explain_themselves() {
    for program in [
        env!("CARGO_BIN_EXE_bench-wire"),
        env!("CARGO_BIN_EXE_loadgen"),
    ] {
        let output = Command::new(program).arg("--help").output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage:"));
    }
}

/// Short trials: that figures come about, not what they are.
fn short() -> Options {
    Options {
        kind: Kind::Live,
        flows: FLOWS,
        size: 62,
        trial: Duration::from_millis(60),
        repeats: 1,
        // Whatever a busy machine loses, the lowest rates pass.
        loss: 0.9,
        precision: 0.9,
    }
}

/// Rates that every machine can send.
fn known(peer: Peer) -> Known {
    let known = Known::default().with(peer, Script::Data, Rate(20_000.0));
    known.with(peer, Script::Connection, Rate(8_000.0))
}

fn only(readings: &Readings, name: &str) -> f64 {
    let found = readings.of(name);
    assert_eq!(found.len(), 1, "{name}: {readings:?}");
    found[0]
}

#[test]
fn a_flood_is_counted_apart_from_the_connections_beside_it() {
    let mut wire = Wire::new("10.64.0.0", 16, "203.0.113.10:80");
    wire.plan.protocol = Protocol::Tcp;
    wire.plan.send_beside(Rate(20_000.0), Rate(60_000.0));
    wire.plan.fit();
    for kind in [Kind::Live, Kind::Socket] {
        let outcome = wire.run(kind, Action::Drop);
        assert_all_arrived(&outcome);
        let tally = &outcome.tallies[0];
        assert_eq!(tally.flood, outcome.sent.flooded);
        let all = outcome.sent.flooded + outcome.sent.sent;
        assert_eq!(outcome.sent.flooded, wire.plan.floods_before(all));
        assert!(outcome.sent.flooded > 2 * outcome.sent.sent);
    }
}

#[test]
fn new_connections_are_sighted_at_their_address_only() {
    let mut wire = Wire::new("10.64.0.0", 16, "203.0.113.10:80");
    wire.plan.protocol = Protocol::Tcp;
    wire.plan.send_beside(Rate(1000.0), Rate(1000.0));
    wire.plan.fit();
    let mut sighting = wire.sinks[0].sighting().unwrap();
    sighting.watch("203.0.113.11".parse().unwrap()).unwrap();
    wire.run(Kind::Live, Action::Drop);
    assert_eq!(sighting.seen().unwrap(), None);
    sighting.watch("203.0.113.10".parse().unwrap()).unwrap();
    assert_eq!(sighting.seen().unwrap(), None);
    let outcome = wire.run(Kind::Live, Action::Drop);
    let (first, last) = sighting.seen().unwrap().unwrap();
    assert!(outcome.sent.start <= first && first < last && last < monotonic());
}

#[test]
fn each_scenario_reads_its_figures_of_the_kernel() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut rig = Rig::build(FLOWS).unwrap();
    let (peer, options, mut readings) = (Peer::Nftables, short(), Readings::default());
    let name = peer.name();
    flood::round(&mut rig, peer, &mut known(peer), &options, &mut readings).unwrap();
    let loss = only(&readings, &format!("loss beside the flood: {name}"));
    assert!((0.0..=100.0).contains(&loss), "{loss}");
    let sent = only(&readings, &format!("SYNs sent: {name}"));
    let arrived = only(&readings, &format!("SYNs that got through: {name}"));
    assert!(sent > 0.0 && arrived <= sent, "{arrived} of {sent}");

    updates::round(&mut rig, peer, &mut known(peer), &options, &mut readings).unwrap();
    for rate in [1, 10, 100] {
        let at = format!("at {rate} changes a second: {name}");
        assert!(only(&readings, &format!("changes made {at}")) > 0.0);
        assert!(only(&readings, &format!("dip {at}")).abs() <= 100.0);
        assert!(only(&readings, &format!("p99.9 {at}")) > 0.0);
    }
    assert!(only(&readings, &format!("flows broken by changes: {name}")) >= 0.0);
    let delays = readings.of(&format!("change to first packet: {name}"));
    assert!(
        !delays.is_empty() && delays.iter().all(|delay| *delay > 0.0),
        "{delays:?}"
    );

    updates::full_push(&mut rig, peer, 3, &mut known(peer), &options, &mut readings).unwrap();
    let delays = readings.of(&format!("push of 3 Services to first packet: {name}"));
    assert!(
        !delays.is_empty() && delays.iter().all(|delay| *delay > 0.0),
        "{delays:?}"
    );

    scale::round(&mut rig, peer, &[200, 1 << 30], &options, &mut readings).unwrap();
    assert!(only(&readings, &format!("200 live connections: {name}")) > 0.0);
    assert!(
        readings
            .of(&format!("{} live connections: {name}", 1 << 30))
            .is_empty()
    );
}

#[test]
fn single_packets_of_the_bare_forwarder_have_a_latency() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut rig = Rig::build(FLOWS).unwrap();
    let mut readings = Readings::default();
    let latency = idle::one(&mut rig, Peer::Bare, &short(), &mut readings).unwrap();
    assert!(latency.p50 > 0 && latency.p50 <= latency.p99);
    for quantile in ["p50", "p99"] {
        let name = format!("single packets: {}, {quantile}", Peer::Bare.name());
        assert!(only(&readings, &name) > 0.0);
    }
}
