//! What is shared around the workers: the table in use, the network, the filter in the kernel.
//!
//! A change goes in one order. What becomes ours is ours before a worker knows of it; what is no
//! longer ours stays so until no worker uses it:
//!
//! ```text
//!   build (or refuse, nothing changed) -> filter grows -> publish -> every worker has it -> filter shrinks
//! ```

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::Sender;
use sluice_conf::settings::dataplane::SourceNat;
use sluice_conf::{Generation, ServiceTable};

use crate::listing::Query;
use crate::neighbour::Network;
use crate::service::ServiceMap;
use crate::snapshot::{Publisher, Snapshot};
use crate::stats::{PerWorker, WorkerCounters};
use crate::steer::{Endpoint, Filter};
use crate::worker::Resolve;
use crate::xdp::{SteerStats, Steering};

/// How long workers may take to take up a snapshot before something is wrong with them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two looks at how far the workers are.
const LOOK: Duration = Duration::from_micros(20);

/// Backends that are remembered after they left the table, because connections that keep the
/// client's address may still answer through them; the oldest is forgotten first.
const MAX_RETIRED: usize = 65_536;

/// What decides which frames come to the workers.
pub trait Gate: Send {
    /// Makes ours what is in `filter` and was not.
    ///
    /// # Errors
    /// In words: why not.
    fn extend(&mut self, filter: &Filter) -> Result<(), String>;

    /// Takes away what is no longer in `filter`.
    ///
    /// # Errors
    /// In words: why not.
    fn shrink(&mut self, filter: &Filter) -> Result<(), String>;

    /// What was counted.
    fn stats(&self) -> Option<SteerStats>;
}

impl Gate for Steering {
    fn extend(&mut self, filter: &Filter) -> Result<(), String> {
        Steering::extend(self, filter).map_err(|error| error.to_string())
    }

    fn shrink(&mut self, filter: &Filter) -> Result<(), String> {
        Steering::shrink(self, filter).map_err(|error| error.to_string())
    }

    fn stats(&self) -> Option<SteerStats> {
        Steering::stats(self).ok()
    }
}

/// Shared by the control threads, the netlink thread and the metrics thread.
pub struct Gateway {
    state: Mutex<State>,
    workers: u16,
    source_nat: SourceNat,
    counters: Arc<PerWorker<WorkerCounters>>,
    queries: Vec<Sender<Query>>,
    resolve: Sender<Resolve>,
    slots: Slots,
}

/// All slots of frame memory, and how many of them are in the pool that balances workers.
pub struct Slots {
    /// All slots.
    pub total: usize,
    /// Counts those in the pool.
    pub spare: Box<dyn Fn() -> usize + Send + Sync>,
}

struct State {
    publisher: Publisher,
    gate: Box<dyn Gate>,
    filter: Filter,
    retired: Retired,
    last_rejection: Option<String>,
}

/// Backends that have left, oldest first.
#[derive(Default)]
struct Retired(VecDeque<Endpoint>);

impl Retired {
    /// Notes who has left; who came back is no longer retired.
    fn update(&mut self, before: &BTreeSet<Endpoint>, now: &BTreeSet<Endpoint>) {
        let known: HashSet<Endpoint> = self.0.iter().copied().collect();
        self.0.retain(|endpoint| !now.contains(endpoint));
        let left = before
            .difference(now)
            .filter(|endpoint| !known.contains(endpoint));
        self.0.extend(left);
        let excess = self.0.len().saturating_sub(MAX_RETIRED);
        self.0.drain(..excess);
    }
}

impl Gateway {
    /// A gateway without table. `queries` has one channel for each worker.
    pub fn new(
        publisher: Publisher,
        gate: Box<dyn Gate>,
        source_nat: SourceNat,
        counters: Arc<PerWorker<WorkerCounters>>,
        queries: Vec<Sender<Query>>,
        resolve: Sender<Resolve>,
        slots: Slots,
    ) -> Self {
        let state = State {
            publisher,
            gate,
            filter: Filter::default(),
            retired: Retired::default(),
            last_rejection: None,
        };
        let workers = queries.len() as u16;
        Self {
            state: Mutex::new(state),
            workers,
            source_nat,
            counters,
            queries,
            resolve,
            slots,
        }
    }

    /// Puts a table in force; returns when every worker uses it.
    ///
    /// # Errors
    /// In words: why not. The old table stays.
    pub fn apply(&self, table: ServiceTable) -> Result<Generation, String> {
        let mut state = self.lock();
        let generation = table.generation;
        let result = self.replace(&mut state, table);
        state.last_rejection = result.as_ref().err().cloned();
        result.map(|()| generation)
    }

    fn replace(&self, state: &mut State, table: ServiceTable) -> Result<(), String> {
        let current = state.publisher.current();
        let mut filter = Filter::new(&table, &current.network, &self.source_nat);
        let services = ServiceMap::build(
            table,
            &current.services,
            self.workers,
            self.source_nat.ports,
        )
        .map_err(|error| error.to_string())?;
        state
            .retired
            .update(&state.filter.backends, &filter.backends);
        filter.retain_backends(state.retired.0.iter().copied());
        let network = Arc::clone(&current.network);
        state.change(
            Snapshot {
                services: Arc::new(services),
                network,
            },
            filter,
        )
    }

    /// Puts a view of the network in force.
    pub fn set_network(&self, network: Network) {
        let mut state = self.lock();
        let current = state.publisher.current();
        let snapshot = Snapshot {
            services: Arc::clone(&current.services),
            network: Arc::new(network),
        };
        let same_links = current.network.links().eq(snapshot.network.links());
        if same_links {
            state.publisher.publish(snapshot);
            return;
        }
        let table = snapshot.services.to_table();
        let mut filter = Filter::new(&table, &snapshot.network, &self.source_nat);
        filter.retain_backends(state.retired.0.iter().copied());
        if let Err(reason) = state.change(snapshot, filter) {
            tracing::error!(
                reason,
                "the kernel's filter could not follow a change of addresses"
            );
        }
    }

    /// Asks the kernel to resolve the way to every backend and to keep it fresh, so that the first
    /// packet of a client need not wait and a backend that moved is found again.
    pub fn confirm_next_hops(&self) {
        let Snapshot { services, network } = (*self.lock().publisher.current()).clone();
        let mut asked = HashSet::new();
        for backend in services.services().flat_map(|service| &service.backends) {
            let Some(hop) = network.next_hop(backend.end.address) else {
                continue;
            };
            let wanted = (hop.interface, hop.address);
            if asked.insert(wanted) && self.resolve.try_send(wanted).is_err() {
                return;
            }
        }
    }

    /// What workers read now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.lock().publisher.current()
    }

    /// Why the last table was refused, if it was.
    pub fn last_rejection(&self) -> Option<String> {
        self.lock().last_rejection.clone()
    }

    /// What the XDP program has counted.
    pub fn steer_stats(&self) -> Option<SteerStats> {
        self.lock().gate.stats()
    }

    /// All slots of frame memory, and those in the pool that balances workers.
    pub fn slots(&self) -> (usize, usize) {
        (self.slots.total, (self.slots.spare)())
    }

    /// The counters of all workers.
    pub fn counters(&self) -> &PerWorker<WorkerCounters> {
        &self.counters
    }

    /// The workers' channels for questions.
    pub fn queries(&self) -> &[Sender<Query>] {
        &self.queries
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left a whole state behind: it changes by single assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change(&mut self, snapshot: Snapshot, filter: Filter) -> Result<(), String> {
        self.gate.extend(&filter)?;
        let version = self.publisher.publish(snapshot);
        self.filter = filter;
        let progress = self.publisher.progress();
        let mut waited = Duration::ZERO;
        while !progress.reached(version) {
            if waited >= PATIENCE {
                return Err(format!(
                    "a worker has not taken up the table within {PATIENCE:?}"
                ));
            }
            std::thread::sleep(LOOK);
            waited += LOOK;
        }
        self.gate.shrink(&self.filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::rig::network;
    use crate::testutil::{RESERVED, table};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Records what it is told, in order.
    #[derive(Default, Clone)]
    struct Recorder(Arc<Mutex<Vec<(&'static str, usize)>>>);

    impl Gate for Recorder {
        fn extend(&mut self, filter: &Filter) -> Result<(), String> {
            self.0
                .lock()
                .unwrap()
                .push(("extend", filter.vips.len() + filter.backends.len()));
            Ok(())
        }

        fn shrink(&mut self, filter: &Filter) -> Result<(), String> {
            self.0
                .lock()
                .unwrap()
                .push(("shrink", filter.vips.len() + filter.backends.len()));
            Ok(())
        }

        fn stats(&self) -> Option<SteerStats> {
            None
        }
    }

    fn with_gateway(test: impl FnOnce(&Gateway, &Recorder)) {
        let network = Arc::new(network([11]));
        let (publisher, mut observers) = Publisher::new(
            Snapshot {
                services: Arc::default(),
                network,
            },
            1,
        );
        let recorder = Recorder::default();
        let (resolve, _requests) = crossbeam::channel::bounded(64);
        let (ask, _asked) = crossbeam::channel::bounded(1);
        let source_nat = SourceNat {
            ports: RESERVED,
            address: None,
        };
        let gate = Box::new(recorder.clone());
        let gateway = Gateway::new(
            publisher,
            gate,
            source_nat,
            PerWorker::new(1),
            vec![ask],
            resolve,
            Slots {
                total: 0,
                spare: Box::new(|| 0),
            },
        );
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
            assert_eq!(gateway.apply(good), Ok(Generation(1)));
            assert_eq!(*recorder.0.lock().unwrap(), [("extend", 1), ("shrink", 1)]);

            let mut bad = table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80*0"]);
            bad.generation = Generation(2);
            let reason = gateway.apply(bad).unwrap_err();
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
    fn a_backend_that_left_stays_ours_for_its_connections() {
        with_gateway(|gateway, recorder| {
            gateway
                .apply(table(&[
                    "a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80;preserve",
                ]))
                .unwrap();
            gateway
                .apply(table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80;preserve"]))
                .unwrap();
            assert_eq!(recorder.0.lock().unwrap().last(), Some(&("shrink", 3)));
        });
    }
}
