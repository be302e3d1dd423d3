use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::health::failure::Failure;
use crate::health::passive::Passive;
use crate::health::probe::{Action, Timing};

fn probe(service: &str) -> Arc<Probe> {
    let action = Action::Grpc {
        service: service.into(),
    };
    let timing = Timing::default();
    Arc::new(Probe { action, timing })
}

fn target(last: u8, probe: Option<Arc<Probe>>) -> Target {
    let address = ([10, 0, 0, last], 80).into();
    let by = probe.map_or_else(|| By::Connections(Passive::default()), By::Probe);
    Target { address, by }
}

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("default", name)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn board(max_in_flight: usize) -> Board {
    let settings = Settings {
        max_in_flight,
        ..Settings::default()
    };
    Board::new(settings, 7, Duration::ZERO)
}

const REFUSED: Outcome = Err(Failure::Refused);

/// Lets every probe until `end` end at once with `outcome`; returns when each started.
fn run(board: &mut Board, end: Duration, outcome: &Outcome) -> Vec<(Duration, Arc<Target>)> {
    let mut started = Vec::new();
    while let Some(now) = board.next().filter(|next| *next <= end) {
        board.release(now);
        while let Some(job) = board.start(now) {
            started.push((now, job.target.clone()));
            board.finish(job.id, &job.probe, outcome.clone(), now);
        }
    }
    started
}

fn healthy(judged: &[Judged]) -> Vec<(u8, bool)> {
    let last = |judged: &Judged| match judged.target.address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => panic!("{judged:?}"),
    };
    let healthy = judged
        .iter()
        .map(|judged| (last(judged), judged.verdict.healthy));
    healthy.collect()
}

#[test]
fn a_target_that_two_services_want_is_probed_once() {
    let mut board = board(10);
    let shared = target(1, Some(probe("")));
    board.set(&name("a"), vec![shared.clone(), shared.clone()], ms(0));
    board.set(&name("b"), vec![shared.clone()], ms(0));
    let started = run(&mut board, ms(25_000), &Ok(()));
    assert_eq!(started.len(), 5);
    board.set(&name("a"), Vec::new(), ms(25_000));
    assert_eq!(healthy(&board.of_service(&name("b"))), [(1, true)]);
    assert_eq!(board.of_service(&name("a")), []);
    board.set(&name("b"), Vec::new(), ms(25_000));
    assert_eq!(board.all(), []);
    assert_eq!(board.next(), None);
    assert_eq!(board.verdict(&shared), None);
}

#[test]
fn the_jitter_of_a_probe_counts_more_than_that_of_the_settings() {
    let apart = |jitter_percent: Option<u8>| {
        let timing = Timing {
            jitter_percent,
            ..Timing::default()
        };
        let action = Action::Connect;
        let probe = Arc::new(Probe { action, timing });
        let mut board = board(10);
        board.set(&name("a"), vec![target(1, Some(probe))], ms(0));
        let started = run(&mut board, ms(500_000), &Ok(()));
        let pairs = started.windows(2);
        let apart: BTreeSet<Duration> = pairs.map(|pair| pair[1].0 - pair[0].0).collect();
        (*apart.first().unwrap(), *apart.last().unwrap())
    };
    assert_eq!(apart(Some(0)), (ms(5000), ms(5000)));
    let (least, most) = apart(None);
    assert!((ms(4500)..ms(4600)).contains(&least), "{least:?}");
    assert!((ms(5400)..ms(5500)).contains(&most), "{most:?}");
    let (least, most) = apart(Some(50));
    assert!((ms(2500)..ms(3000)).contains(&least), "{least:?}");
    assert!((ms(7000)..ms(7500)).contains(&most), "{most:?}");
}

#[test]
fn what_is_known_of_a_target_that_stays_is_kept() {
    let mut board = board(10);
    let [one, two] = [1, 2].map(|last| target(last, Some(probe(""))));
    board.set(&name("a"), vec![one.clone()], ms(0));
    run(&mut board, ms(20_000), &REFUSED);
    let before = board.verdict(&one).unwrap();
    assert!(!before.healthy);
    board.set(&name("a"), vec![two, one.clone()], ms(20_000));
    assert_eq!(board.verdict(&one).unwrap(), before);
    assert_eq!(healthy(&board.all()), [(1, false), (2, true)]);
}

#[test]
fn a_target_whose_probe_is_altered_keeps_its_verdict_until_the_next() {
    let mut board = board(10);
    let settings = &mut board.settings;
    settings.initial = Initial::Pending;
    board.set(&name("a"), vec![target(1, Some(probe("old")))], ms(0));
    run(&mut board, ms(6_000), &Ok(()));
    board.set(&name("a"), vec![target(1, Some(probe("new")))], ms(6_000));
    assert_eq!(healthy(&board.all()), [(1, true)]);
    let pending = board.add(target(2, Some(probe("new"))), &HashMap::new(), 1, ms(6_000));
    assert!(!board.watched[&pending].verdict.healthy);
}

#[test]
fn a_verdict_of_probes_is_not_kept_when_nobody_probes_any_more() {
    let mut board = board(10);
    board.set(&name("a"), vec![target(1, Some(probe("")))], ms(0));
    run(&mut board, ms(20_000), &REFUSED);
    board.set(&name("a"), vec![target(1, None)], ms(20_000));
    assert_eq!(healthy(&board.all()), [(1, true)]);
}

#[test]
fn out_of_slots_probes_are_late_and_not_piled_up() {
    let mut board = board(1);
    let targets = [1, 2].map(|last| target(last, Some(probe(""))));
    board.set(&name("a"), targets.to_vec(), ms(0));
    let first = board.start(ms(5_000)).unwrap();
    assert!(board.start(ms(5_000)).is_none());
    assert_eq!(
        board.next(),
        None,
        "only the end of the probe is waited for"
    );
    board.finish(first.id, &first.probe, Ok(()), ms(60_000));
    let second = board.start(ms(60_000)).unwrap();
    assert!(second.late);
    assert_ne!(second.id, first.id);
    board.finish(second.id, &second.probe, Ok(()), ms(60_000));
    // The first one missed eleven periods, and is asked once.
    assert_eq!(board.start(ms(60_000)).unwrap().id, first.id);
    assert!(board.start(ms(60_000)).is_none());
}

#[test]
fn failed_connections_bring_the_next_probe_forward_but_not_without_end() {
    let mut board = board(10);
    let target = target(1, Some(probe("")));
    board.set(&name("a"), vec![target.clone()], ms(0));
    let failed = Evidence {
        resets: 1,
        ..Evidence::default()
    };
    let mut starts = Vec::new();
    for now in (0..6_000).step_by(100).map(ms) {
        board.evidence(&target, failed, now);
        starts.extend(run(&mut board, now, &Ok(())).iter().map(|(at, _)| *at));
    }
    let seconds: Vec<Duration> = (0..6).map(Duration::from_secs).collect();
    assert_eq!(starts, seconds, "once a timeout");
    let fine = Evidence {
        answered: 9,
        ..Evidence::default()
    };
    let next = board.next();
    board.evidence(&target, fine, ms(6_000));
    assert_eq!(board.next(), next);
}

#[test]
fn a_target_without_probe_is_ejected_for_a_time() {
    let mut board = board(10);
    board.set(&name("a"), vec![target(1, None), target(2, None)], ms(0));
    let failed = Evidence {
        unanswered: 5,
        ..Evidence::default()
    };
    board.evidence(&target(1, None), failed, ms(1_000));
    assert_eq!(healthy(&board.take_changes()), [(1, false)]);
    let verdict = board.verdict(&target(1, None)).unwrap();
    assert_eq!(
        verdict.reason.to_string(),
        "5 connections in a row failed, out of use for 30 s"
    );
    assert_eq!(board.next(), Some(ms(31_000)));
    board.release(ms(30_999));
    assert_eq!(board.take_changes(), []);
    board.release(ms(31_000));
    assert_eq!(healthy(&board.take_changes()), [(1, true)]);
    assert_eq!(board.next(), None);
}

#[test]
fn two_services_may_be_of_two_minds_about_one_backend() {
    let mut board = board(10);
    let [strict, patient] = [2, 10].map(|failures| Target {
        by: By::Connections(Passive {
            failures,
            pause: ms(1_000),
            ..Passive::default()
        }),
        ..target(1, None)
    });
    board.set(&name("strict"), vec![strict.clone()], ms(0));
    board.set(&name("patient"), vec![patient.clone()], ms(0));
    let failed = Evidence {
        resets: 3,
        ..Evidence::default()
    };
    for target in [&strict, &patient] {
        board.evidence(target, failed, ms(500));
    }
    assert_eq!(healthy(&board.of_service(&name("strict"))), [(1, false)]);
    assert_eq!(healthy(&board.of_service(&name("patient"))), [(1, true)]);
    assert_eq!(board.next(), Some(ms(1_500)));
}

#[test]
fn changes_that_nobody_took_are_told_once_as_they_are_now() {
    let mut board = board(10);
    board.set(&name("a"), vec![target(1, Some(probe("")))], ms(0));
    run(&mut board, ms(20_000), &REFUSED);
    run(&mut board, ms(30_000), &Ok(()));
    run(&mut board, ms(60_000), &REFUSED);
    assert_eq!(healthy(&board.take_changes()), [(1, false)]);
    assert_eq!(board.take_changes(), []);
    run(&mut board, ms(80_000), &Ok(()));
    board.set(&name("a"), Vec::new(), ms(80_000));
    assert_eq!(board.take_changes(), [], "of one that is gone");
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, Vec<(u8, u8)>),
    Evidence(u8, u8, Evidence),
    Pass(u64),
    Start,
    Finish(prop::sample::Index, bool),
}

/// Probe 0 means none.
fn numbered(last: u8, kind: u8) -> Target {
    let probed = target(last, Some(probe(&kind.to_string())));
    let passive = Passive {
        failures: 3,
        pause: ms(2_000),
        longest: ms(5_000),
    };
    match kind {
        0 => Target {
            by: By::Connections(passive),
            ..probed
        },
        _ => probed,
    }
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = prop::collection::vec((0u8..6, 0u8..3), 0..8);
    let evidence =
        (0u32..4, 0u32..4, 0u32..2).prop_map(|(unanswered, resets, answered)| Evidence {
            unanswered,
            resets,
            answered,
        });
    prop_oneof![
        2 => (0u8..3, wanted).prop_map(|(service, wanted)| Step::Set(service, wanted)),
        3 => (0u8..6, 0u8..3, evidence).prop_map(|(last, kind, e)| Step::Evidence(last, kind, e)),
        3 => (0u64..4_000).prop_map(Step::Pass),
        6 => Just(Step::Start),
        6 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, ok)| Step::Finish(i, ok)),
    ]
}

/// What must hold between any two steps.
fn check(board: &Board, wanted: &BTreeMap<u8, BTreeSet<Target>>, flights: &[Job]) {
    let all: BTreeSet<&Target> = wanted.values().flatten().collect();
    let known = board.all();
    assert!(
        known
            .iter()
            .map(|judged| &*judged.target)
            .eq(all.iter().copied())
    );
    for (service, targets) in wanted {
        let of_service = board.of_service(&name(&service.to_string()));
        assert!(of_service.iter().map(|judged| &*judged.target).eq(targets));
    }
    assert_eq!(board.in_flight, flights.len());
    assert!(flights.len() <= board.settings.max_in_flight);
    let mut flying = BTreeSet::new();
    for job in flights {
        assert!(flying.insert(job.id), "two probes of one target in flight");
    }
    for (id, watched) in &board.watched {
        let waits = board.due.iter().filter(|(_, due)| due == id).count();
        let probed = watched.target.probe().is_some();
        let expected = usize::from(probed && !flying.contains(id));
        assert_eq!(waits, expected, "{watched:?}");
        let returns = board.returns.iter().filter(|(_, due)| due == id).count();
        assert_eq!(returns, usize::from(watched.ejection.until().is_some()));
        assert!(
            probed || watched.verdict.healthy == (returns == 0),
            "{watched:?}"
        );
    }
    let dangling = |(_, id): &&(Duration, Id)| !board.watched.contains_key(id);
    assert_eq!(board.due.iter().chain(&board.returns).find(dangling), None);
    assert!(
        board
            .changed
            .iter()
            .all(|id| board.watched.contains_key(id))
    );
}

proptest! {
    #[test]
    fn every_target_is_either_due_or_in_flight_whatever_happens(
        steps in prop::collection::vec(step(), 0..120),
        max_in_flight in 1usize..5,
    ) {
        let mut board = board(max_in_flight);
        let mut wanted: BTreeMap<u8, BTreeSet<Target>> = BTreeMap::new();
        // What a reader that follows the changes believes.
        let mut believed: BTreeMap<Target, bool> = BTreeMap::new();
        let (mut flights, mut now) = (Vec::new(), ms(0));
        for step in steps {
            match step {
                Step::Set(service, targets) => {
                    let targets: Vec<Target> =
                        targets.into_iter().map(|(last, kind)| numbered(last, kind)).collect();
                    board.set(&name(&service.to_string()), targets.clone(), now);
                    for judged in board.of_service(&name(&service.to_string())) {
                        believed.insert((*judged.target).clone(), judged.verdict.healthy);
                    }
                    wanted.insert(service, targets.into_iter().collect());
                }
                Step::Evidence(last, kind, evidence) => {
                    board.evidence(&numbered(last, kind), evidence, now);
                }
                Step::Pass(time) => {
                    now += ms(time);
                    board.release(now);
                }
                Step::Start => flights.extend(board.start(now)),
                Step::Finish(index, passed) if !flights.is_empty() => {
                    let job = flights.swap_remove(index.index(flights.len()));
                    let outcome = if passed { Ok(()) } else { REFUSED };
                    board.finish(job.id, &job.probe, outcome, now);
                }
                Step::Finish(..) => {}
            }
            check(&board, &wanted, &flights);
        }
        for judged in board.take_changes() {
            believed.insert((*judged.target).clone(), judged.verdict.healthy);
        }
        for judged in board.all() {
            prop_assert_eq!(believed.get(&*judged.target), Some(&judged.verdict.healthy));
        }
    }
}
