//! What backends make of the connections opened to them, as it is counted.

use super::world::*;
use super::*;
use crate::conntrack::{SctpState, State, TcpState};
use crate::flow::Direction;
use crate::pipeline::evidence::outcome;
use crate::stats::{Outcome, Totals};
use crate::testutil::rig::RigSettings;
use sluice_conf::message::dataplane::Attempts;
use std::time::Duration;

/// Seconds after which nothing is left of a connection that was not answered.
const FORGOTTEN: Duration = Duration::from_secs(200);

/// Answered, refused and silent, of all backends together.
fn attempts(rig: &Rig) -> [u64; 3] {
    let snapshot = rig.snapshot();
    let services = snapshot.services.services();
    let backends = services.flat_map(|service| &service.backends);
    let totals: Totals = backends.map(|each| Totals::of(&each.counters)).sum();
    let Attempts {
        answered,
        refused,
        silent,
    } = totals.attempts;
    let evidence: u64 = (0..rig.workers() as u16)
        .map(|worker| rig.counters(worker).evidence.get())
        .sum();
    assert!(evidence >= answered + refused + silent);
    [answered, refused, silent]
}

fn client(world: World, port: u16, flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let segment = Build::tcp(&world.client(port), &world.vip(80)).flags(flags);
    segment.numbers(numbers.0, numbers.1).frame()
}

/// A client's first segment, as its backend got it.
fn syn(rig: &mut Rig, world: World, worker: usize, port: u16) -> Sent {
    through(rig, worker, IN, &client(world, port, SYN, (1000, 0)))
}

/// An ICMP error from the backend that got `sent`, about that.
fn error(world: World, sent: &Sent, kind: (u8, u8)) -> Vec<u8> {
    let got = seen(&sent.1);
    let ends = (got.destination, got.source);
    world.icmp(ends, kind, [0; 4], &sent.1[14..], from_backend(11))
}

fn wait(rig: &mut Rig, seconds: Duration) {
    rig.pass(seconds);
    rig.run();
}

#[test]
fn a_backend_that_answers_counts_once_whatever_follows() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let sent = syn(&mut rig, world, 0, 40_000);
        assert_eq!(attempts(&rig), [0, 0, 0]);
        let answer = |flags, n| answering(&sent).flags(flags).numbers(n, 1001).frame();
        through(&mut rig, 1, OUT, &answer(SYN | ACK, 1999));
        assert_eq!(attempts(&rig), [1, 0, 0]);
        through(&mut rig, 1, OUT, &answer(SYN | ACK, 1999));
        through(&mut rig, 2, IN, &client(world, 40_000, ACK, (1001, 2000)));
        through(&mut rig, 0, OUT, &answer(ACK, 2000));
        // A reset of a connection that was taken is no refusal.
        through(&mut rig, 1, OUT, &answer(RST, 2000));
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([1, 0, 0], 0));
    });
}

#[test]
fn a_reset_in_answer_to_a_syn_counts_as_refusal() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let sent = syn(&mut rig, world, 0, 40_000);
        let reset_of = |sent, n| answering(sent).flags(RST | ACK).numbers(0, n).frame();
        let reset = |n| reset_of(&sent, n);
        assert!(at(&mut rig, 1, BACKENDS, &reset(77_777)).is_empty());
        assert_eq!(attempts(&rig), [0, 0, 0], "a guess is no evidence");
        through(&mut rig, 1, OUT, &reset(1001));
        through(&mut rig, 2, OUT, &reset(1001));
        assert_eq!(attempts(&rig), [0, 1, 0]);
        // The client tries again by the same port.
        let again = syn(&mut rig, world, 2, 40_000);
        through(&mut rig, 0, OUT, &reset_of(&again, 1001));
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([0, 2, 0], 0));
    });
}

#[test]
fn what_the_client_gives_up_counts_as_nothing() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        syn(&mut rig, world, 0, 40_000);
        through(&mut rig, 1, IN, &client(world, 40_000, RST, (1001, 0)));
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([0, 0, 0], 0));
    });
}

#[test]
fn a_syn_that_nobody_answers_counts_as_silence_when_it_expires() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        for port in 0..8 {
            syn(&mut rig, world, port.into(), 40_000 + port);
        }
        wait(&mut rig, Duration::from_secs(119));
        assert_eq!((attempts(&rig), rig.connections()), ([0, 0, 0], 8));
        // The backend stays where a new table puts it.
        rig.push(&[&world.web("tcp", &[12, 11], policy)]);
        wait(&mut rig, Duration::from_secs(3));
        assert_eq!((attempts(&rig), rig.connections()), ([0, 0, 8], 0));
    });
}

#[test]
fn a_syn_that_is_sent_again_and_again_counts_once() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let sent = syn(&mut rig, world, 0, 40_000);
        // A copy that the network made.
        syn(&mut rig, world, 1, 40_000);
        assert_eq!(attempts(&rig), [0, 0, 0]);
        for (seconds, worker) in [1, 2, 4, 8, 16].into_iter().zip(0..) {
            wait(&mut rig, Duration::from_secs(seconds));
            syn(&mut rig, world, worker, 40_000);
            assert_eq!(attempts(&rig), [0, 0, 1]);
        }
        syn(&mut rig, world, 1, 40_001);
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([0, 0, 2], 0));
        // A late answer is one all the same.
        syn(&mut rig, world, 0, 40_002);
        wait(&mut rig, Duration::from_secs(1));
        let again = syn(&mut rig, world, 1, 40_002);
        let both = answering(&again).flags(SYN | ACK).numbers(1999, 1001);
        through(&mut rig, 2, OUT, &both.frame());
        through(&mut rig, 0, IN, &client(world, 40_002, ACK, (1001, 2000)));
        assert_eq!(attempts(&rig), [1, 0, 3]);
        assert_eq!(backend_of(&sent), backend_of(&again));
        assert_eq!(rig.outstanding(), 0);
    });
}

#[test]
fn an_error_about_a_syn_counts_once_if_it_quotes_what_was_sent() {
    everywhere(|world, settings, policy| {
        let host = if world.v6 { (1, 3) } else { (3, 1) };
        for (port, kind) in [(40_000, world.port_unreachable()), (40_001, host)] {
            let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
            let sent = syn(&mut rig, world, 0, port);
            let other = answering(&sent); // Has the right ends, the other way round.
            let mut guess = sent.clone();
            let sequence = guess.1.len() - 20 + 4;
            guess.1[sequence] ^= 1;
            assert_eq!(ends(&other.frame()).0, backend_of(&sent));
            for no_refusal in [
                error(world, &guess, kind),
                error(world, &sent, world.too_big()),
                error(world, &sent, world.time_exceeded()),
            ] {
                through(&mut rig, 1, OUT, &no_refusal);
                assert_eq!(attempts(&rig), [0, 0, 0]);
            }
            for worker in 0..3 {
                through(&mut rig, worker, OUT, &error(world, &sent, kind));
                assert_eq!(attempts(&rig), [0, 1, 0]);
            }
            wait(&mut rig, Duration::from_secs(1));
            syn(&mut rig, world, 1, port);
            wait(&mut rig, FORGOTTEN);
            assert_eq!((attempts(&rig), rig.connections()), ([0, 1, 0], 0));
        }
    });
}

#[test]
fn an_error_about_a_connection_that_was_answered_is_no_refusal() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let sent = syn(&mut rig, world, 0, 40_000);
        let both = answering(&sent).flags(SYN | ACK).numbers(1999, 1001);
        through(&mut rig, 1, OUT, &both.frame());
        let unreachable = error(world, &sent, world.port_unreachable());
        through(&mut rig, 2, OUT, &unreachable);
        assert_eq!(attempts(&rig), [1, 0, 0]);
    });
}

#[test]
fn datagrams_need_no_answer_but_each_unreachable_counts() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("udp", &[11], policy)]);
        let question = |port| Build::udp(&world.client(port), &world.vip(80)).payload(b"?");
        let sent = through(&mut rig, 0, IN, &question(40_000).frame());
        through(&mut rig, 0, IN, &question(40_001).frame());
        wait(&mut rig, Duration::from_secs(2));
        through(&mut rig, 1, IN, &question(40_001).frame());
        let unreachable = error(world, &sent, world.port_unreachable());
        through(&mut rig, 1, OUT, &unreachable);
        through(&mut rig, 2, OUT, &unreachable);
        assert_eq!(attempts(&rig), [0, 2, 0]);
        for _ in 0..3 {
            through(&mut rig, 1, OUT, &answering(&sent).payload(b"!").frame());
            wait(&mut rig, Duration::from_secs(2));
        }
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([1, 2, 0], 0));
    });
}

#[test]
fn an_association_is_answered_or_refused() {
    everywhere(|world, settings, policy| {
        const INIT: u8 = 1;
        const ABORT: u8 = 6;
        const COOKIE_ECHO: u8 = 10;
        let mut rig = Rig::with(settings, &[&world.web("sctp", &[11], policy)]);
        let chunk = |port, kind| Build::sctp(&world.client(port), &world.vip(80), kind).frame();
        let sent = through(&mut rig, 0, IN, &chunk(40_000, INIT));
        let (source, destination) = ends(&sent.1);
        let abort = Build::sctp(&destination, &source, ABORT);
        let abort = abort.macs(backend_mac(11), GATEWAY_BACKEND_MAC).frame();
        through(&mut rig, 1, OUT, &abort);
        assert_eq!(attempts(&rig), [0, 1, 0]);
        through(&mut rig, 1, IN, &chunk(40_001, INIT));
        through(&mut rig, 0, IN, &chunk(40_001, COOKIE_ECHO));
        through(&mut rig, 0, IN, &chunk(40_002, INIT));
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([1, 1, 0], 0));
    });
}

#[test]
fn a_flood_of_syns_counts_no_more_than_the_table_held() {
    for world in WORLDS {
        let settings = RigSettings {
            capacity: 256,
            ..RigSettings::default()
        };
        let mut rig = Rig::with(&settings, &[&world.web("tcp", &[11, 12], "")]);
        for port in 0..4000 {
            syn(&mut rig, world, 0, 20_000 + port);
        }
        let (held, evicted) = (
            rig.connections() as u64,
            &rig.counters(0).connections_evicted,
        );
        assert_eq!(held + evicted.get(), 4000);
        assert!(held <= 256 && attempts(&rig) == [0, 0, 0]);
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([0, 0, held], 0));
        assert_eq!(rig.outstanding(), 0);
    }
}

#[test]
fn with_direct_return_nobody_is_silent() {
    for world in WORLDS {
        let line = format!(
            "web tcp {} -> {};direct",
            world.vip(80),
            world.backend(11, 80)
        );
        let mut rig = Rig::new(&[&line]);
        syn(&mut rig, world, 0, 40_000);
        syn(&mut rig, world, 0, 40_001);
        wait(&mut rig, Duration::from_secs(3));
        syn(&mut rig, world, 0, 40_001);
        through(&mut rig, 0, IN, &client(world, 40_000, ACK, (1001, 2000)));
        assert_eq!(attempts(&rig), [1, 0, 0]);
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([1, 0, 0], 1));
    }
}

#[test]
fn nobody_is_blamed_for_a_connection_whose_backend_has_left() {
    everywhere(|world, settings, policy| {
        let policy = &format!("{policy} keep");
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let sent = syn(&mut rig, world, 0, 40_000);
        syn(&mut rig, world, 1, 40_001);
        rig.push(&[&world.web("tcp", &[12], policy)]);
        wait(&mut rig, Duration::from_secs(2));
        let error = error(world, &sent, world.port_unreachable());
        through(&mut rig, 1, OUT, &error);
        syn(&mut rig, world, 1, 40_001);
        wait(&mut rig, FORGOTTEN);
        assert_eq!((attempts(&rig), rig.connections()), ([0, 0, 0], 0));
    });
}

#[test]
fn only_the_first_answer_is_an_outcome() {
    let tcp = TcpState::ALL.map(State::Tcp);
    let others = [
        State::Sctp(SctpState::CookieWait),
        State::Sctp(SctpState::CookieEchoed),
        State::Sctp(SctpState::Established),
        State::Sctp(SctpState::Closed),
        State::UdpNew,
        State::UdpAnswered,
        State::UdpStream,
    ];
    let opening = [
        State::Tcp(TcpState::SynSent),
        State::Tcp(TcpState::SynFailed),
        State::Sctp(SctpState::CookieWait),
        State::UdpNew,
    ];
    let closed = [State::Tcp(TcpState::Close), State::Sctp(SctpState::Closed)];
    for before in tcp.into_iter().chain(others) {
        for after in tcp.into_iter().chain(others) {
            for direction in Direction::BOTH {
                let expected = match (opening.contains(&before), closed.contains(&after)) {
                    (false, _) => None,
                    (true, false) => Some(Outcome::Answered),
                    (true, true) => (direction == Direction::Reply).then_some(Outcome::Refused),
                };
                assert_eq!(outcome(before, after, direction), expected);
            }
        }
    }
}
