//! Tables and networks put in force, against a gate that only records.

use super::*;
use crate::testutil::rig::network;
use crate::testutil::{RESERVED, table};
use sluice_conf::settings::dataplane::Limits;
use sluice_conf::{ServiceTable, TableEncoder};

fn apply(gateway: &Gateway, table: ServiceTable) -> Result<Generation, String> {
    let mut encoder = TableEncoder::default();
    gateway.apply(&encoder.encode(&Arc::new(table)).unwrap())
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
