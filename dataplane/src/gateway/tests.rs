//! Tables and networks put in force, against a gate that only records.

use super::*;
use crate::testutil::rig::network;
use crate::testutil::{RESERVED, table};
use sluice_conf::settings::dataplane::Limits;

fn apply(gateway: &Gateway, table: ServiceTable) -> Result<Generation, String> {
    gateway.apply(table, &mut Base::default())
}

/// Records what it is told, in order.
#[derive(Default, Clone)]
struct Recorder(Arc<Mutex<Vec<(&'static str, usize)>>>, Arc<AtomicBool>);

impl Recorder {
    /// The next filter is not made smaller.
    fn fail_once(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

impl Gate for Recorder {
    fn extend(&mut self, filter: &Filter) -> Result<(), String> {
        let size = filter.vips.len() + filter.backends.len();
        self.0.lock().unwrap().push(("extend", size));
        if size > 8 {
            Err("no room".into())
        } else {
            Ok(())
        }
    }

    fn shrink(&mut self, filter: &Filter) -> Result<(), String> {
        self.0
            .lock()
            .unwrap()
            .push(("shrink", filter.vips.len() + filter.backends.len()));
        match self.1.swap(false, Ordering::Relaxed) {
            true => Err("not now".into()),
            false => Ok(()),
        }
    }

    fn stats(&self) -> Option<SteerStats> {
        None
    }
}

fn with_gateway(test: impl FnOnce(&Gateway, &Recorder)) {
    let network = Arc::new(network([11]));
    let (publisher, mut observers) = Publisher::new(Snapshot::new(Arc::default(), network), 1);
    let recorder = Recorder::default();
    let (resolve, _requests) = crate::netlink::unresolved(64).unwrap();
    let (ask, _asked) = crossbeam::channel::bounded(1);
    let source_nat = SourceNat {
        ports: RESERVED,
        ..SourceNat::default()
    };
    let gate = Box::new(recorder.clone());
    let around = Around {
        source_nat,
        terms: Terms {
            workers: 1,
            reserved: RESERVED,
            limits: Limits::default(),
        },
        counters: PerWorker::new(1),
        queries: vec![ask],
        resolve,
        slots: Slots {
            total: 0,
            spare: Box::new(|| 0),
        },
        clock: Clock::start(),
        stop: Arc::default(),
    };
    let gateway = Gateway::new(publisher, gate, around);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                observers[0].observe();
                std::thread::yield_now();
            }
        });
        test(&gateway, &recorder);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_table_is_applied_whole_or_not_at_all() {
    with_gateway(|gateway, recorder| {
        let good = table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80"]);
        assert_eq!(apply(gateway, good), Ok(Generation(1)));
        assert_eq!(*recorder.0.lock().unwrap(), [("extend", 1), ("shrink", 1)]);

        let mut bad = table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80*0"]);
        bad.generation = Generation(2);
        let reason = apply(gateway, bad).unwrap_err();
        assert!(reason.contains("weight 0"), "{reason}");
        assert_eq!(gateway.last_rejection(), Some(reason));
        assert_eq!(
            gateway.snapshot().services.generation(),
            Some(Generation(1))
        );
        assert_eq!(recorder.0.lock().unwrap().len(), 2);
    });
}

#[test]
fn a_filter_that_is_refused_is_put_back() {
    with_gateway(|gateway, recorder| {
        apply(gateway, table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80"])).unwrap();
        recorder.0.lock().unwrap().clear();
        let most: Vec<String> = (1..=9)
            .map(|n| format!("s{n} tcp 203.0.113.{n}:80 -> 10.0.2.11:80"))
            .collect();
        let most: Vec<&str> = most.iter().map(String::as_str).collect();
        assert_eq!(apply(gateway, table(&most)), Err("no room".into()));
        assert_eq!(*recorder.0.lock().unwrap(), [("extend", 9), ("shrink", 1)]);
        assert_eq!(gateway.snapshot().services.services().len(), 1);
    });
}

#[test]
fn a_backend_that_left_stays_ours_for_its_connections() {
    with_gateway(|gateway, recorder| {
        apply(
            gateway,
            table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80;preserve"]),
        )
        .unwrap();
        apply(
            gateway,
            table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80;preserve"]),
        )
        .unwrap();
        assert_eq!(recorder.0.lock().unwrap().last(), Some(&("shrink", 3)));
    });
}

#[test]
fn a_change_of_who_serves_leaves_the_filter_alone() {
    with_gateway(|gateway, recorder| {
        let next = |generation, backends: &str, policy: &str| {
            let line = format!("a tcp 203.0.113.1:80 -> {backends}{policy}");
            let mut table = table(&[&line]);
            table.generation = Generation(generation);
            assert_eq!(apply(gateway, table), Ok(Generation(generation)));
            recorder.0.lock().unwrap().len()
        };
        assert_eq!(next(1, "10.0.2.11:80", ""), 2);
        assert_eq!(next(2, "10.0.2.11:80 10.0.2.12:80", ""), 2);
        assert_eq!(next(3, "", ""), 2);
        assert_eq!(
            next(4, "10.0.2.11:80", ";preserve"),
            4,
            "its replies are ours"
        );
        assert_eq!(next(5, "10.0.2.12:80", ";preserve"), 6);
        let snapshot = gateway.snapshot();
        assert_eq!(snapshot.services.generation(), Some(Generation(5)));
        let backend = snapshot.services.service(0).unwrap().backends[0].entry;
        assert_eq!(backend.address.to_string(), "10.0.2.12");
    });
}

#[test]
fn a_filter_that_could_not_shrink_is_tried_again_by_the_next_change() {
    with_gateway(|gateway, recorder| {
        let line = "a tcp 203.0.113.1:80 -> 10.0.2.11:80";
        recorder.fail_once();
        apply(gateway, table(&[line])).unwrap();
        apply(gateway, table(&[&format!("{line} 10.0.2.12:80")])).unwrap();
        apply(gateway, table(&[line])).unwrap();
        let told = recorder.0.lock().unwrap();
        let told: Vec<&str> = told.iter().map(|(what, _)| *what).collect();
        assert_eq!(told, ["extend", "shrink", "extend", "shrink"]);
    });
}

const A: &str = "a tcp 203.0.113.1:80 -> 10.0.2.11:80";
const MORE: &str = "a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80";

fn generation(number: u64, lines: &[&str]) -> ServiceTable {
    ServiceTable {
        generation: Generation(number),
        ..table(lines)
    }
}

#[test]
fn a_change_makes_the_table_that_would_have_come_whole() {
    with_gateway(|gateway, _| {
        let (mut base, b) = (Base::default(), "b tcp 203.0.113.2:80 -> 10.0.2.11:80");
        let tables = [&[A][..], &[MORE], &[MORE, b], &[A, b], &[b], &[]];
        let mut before = generation(1, &[]);
        gateway.apply(before.clone(), &mut base).unwrap();
        for (number, lines) in (2..).zip(tables) {
            let next = generation(number, lines);
            let applied = gateway.amend(next.since(&before), &mut base);
            assert_eq!(applied, Ok(Generation(number)));
            assert_eq!(gateway.snapshot().services.to_table(), next);
            before = next;
        }
    });
}

#[test]
fn a_change_of_a_table_that_is_not_in_force_is_not_applied() {
    with_gateway(|gateway, _| {
        let (mut own, mut other) = (Base::default(), Base::default());
        let (first, second) = (generation(1, &[A]), generation(2, &[MORE]));
        let change = || second.since(&first);
        let refused = Err(ChangeRefused::OtherBase);
        assert_eq!(gateway.amend(change(), &mut own), refused, "no table yet");
        gateway.apply(first.clone(), &mut own).unwrap();
        assert_eq!(
            gateway.amend(change(), &mut other),
            refused,
            "somebody else's"
        );
        let skipping = second.since(&generation(7, &[A]));
        assert_eq!(
            gateway.amend(skipping, &mut own),
            refused,
            "another generation"
        );
        // As many Services under the same number, and yet another table.
        let foreign = generation(1, &["x tcp 203.0.113.9:80 -> 10.0.2.13:80"]);
        gateway.apply(foreign.clone(), &mut other).unwrap();
        assert_eq!(
            gateway.amend(change(), &mut own),
            refused,
            "it was replaced"
        );
        assert_eq!(gateway.snapshot().services.to_table(), foreign);
        assert_eq!(gateway.last_rejection(), None);
        gateway.apply(first.clone(), &mut own).unwrap();
        assert_eq!(gateway.amend(change(), &mut own), Ok(Generation(2)));
    });
}

#[test]
fn a_change_that_is_refused_leaves_the_table_that_further_changes_build_on() {
    with_gateway(|gateway, _| {
        let mut base = Base::default();
        let first = generation(1, &[A]);
        gateway.apply(first.clone(), &mut base).unwrap();
        let bad = generation(2, &["a tcp 203.0.113.1:80 -> 127.0.0.1:80"]);
        let Err(ChangeRefused::Invalid(reason)) = gateway.amend(bad.since(&first), &mut base)
        else {
            panic!("not refused")
        };
        assert!(
            reason.contains("127.0.0.1 is a loopback address"),
            "{reason}"
        );
        assert_eq!(gateway.last_rejection(), Some(reason));
        assert_eq!(gateway.snapshot().services.to_table(), first);
        let mut outside = generation(3, &[MORE]).since(&first);
        outside.edits[0].place = 5;
        let Err(ChangeRefused::Invalid(reason)) = gateway.amend(outside, &mut base) else {
            panic!("not refused")
        };
        assert!(
            reason.contains("does not fit a table of 1 services"),
            "{reason}"
        );
        let good = generation(4, &[MORE]);
        assert_eq!(
            gateway.amend(good.since(&first), &mut base),
            Ok(Generation(4))
        );
        assert_eq!(gateway.last_rejection(), None);
    });
}
