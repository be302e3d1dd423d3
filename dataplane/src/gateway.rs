//! What is shared around the workers: the table in use, the network, the filter in the kernel.
//!
//! A change goes in one order. What becomes ours is ours before a worker knows of it; what is no
//! longer ours stays so until no worker uses it:
//!
//! ```text
//!   build (or refuse, nothing changed) -> filter grows -> publish -> every worker has it -> filter shrinks
//! ```
//!
//! A table that changes only who serves, not what is ours, leaves the filter alone.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::Sender;
use ipnet::IpNet;
use sluice_conf::message::dataplane::explain::Question;
use sluice_conf::settings::dataplane::SourceNat;
use sluice_conf::{Generation, ServiceTable, TableChange};

use crate::clock::{Clock, Time};
use crate::hygiene::Hygiene;
use crate::listing::Query;
use crate::neighbour::Network;
use crate::netlink::Resolve;
use crate::service::{CompiledService, Draft, MapError, ServiceMap, Terms};
use crate::snapshot::{Progress, Publisher, Snapshot};
use crate::stats::{PerWorker, WorkerCounters};
use crate::steer::{Endpoint, Filter, Headers};
use crate::xdp::{SteerStats, Steering};

/// How long workers may take to take up a snapshot before something is wrong with them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two looks at how far the workers are.
const LOOK: Duration = Duration::from_micros(20);

/// How long a backend that has left the table stays ours when other changes come. Resets need
/// seconds; a connection that is kept for longer than this may lose its way back.
const RETIREMENT: Duration = Duration::from_secs(24 * 3600);

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

    /// Takes back what must not outlive the process.
    fn end(&mut self) {}
}

/// The gate of a running dataplane: the XDP program, and what the rest of the kernel is told.
pub struct KernelGate {
    steering: Steering,
    hygiene: Hygiene,
}

impl KernelGate {
    /// The gate over both.
    pub fn new(steering: Steering, hygiene: Hygiene) -> Self {
        Self { steering, hygiene }
    }
}

impl Gate for KernelGate {
    fn extend(&mut self, filter: &Filter) -> Result<(), String> {
        let extended = self.steering.extend(filter);
        extended.map_err(|error| error.to_string())
    }

    fn shrink(&mut self, filter: &Filter) -> Result<(), String> {
        let networks: Vec<IpNet> = filter.networks.iter().copied().collect();
        self.hygiene.apply(&filter.vips, &networks);
        self.hygiene.look(!filter.backends.is_empty());
        let shrunk = self.steering.shrink(filter);
        shrunk.map_err(|error| error.to_string())
    }

    fn stats(&self) -> Option<SteerStats> {
        self.steering.stats().ok()
    }

    fn end(&mut self) {
        self.hygiene.end();
    }
}

/// Shared by the control threads, the netlink thread and the metrics thread.
pub struct Gateway {
    state: Mutex<State>,
    around: Around,
}

/// What a gateway works with.
pub struct Around {
    /// Source ports and address of the settings.
    pub source_nat: SourceNat,
    /// What the settings say about tables.
    pub terms: Terms,
    /// The counters of all workers.
    pub counters: Arc<PerWorker<WorkerCounters>>,
    /// The workers' channels for questions, one each.
    pub queries: Vec<Sender<Query>>,
    /// Next hops for the kernel to resolve.
    pub resolve: Resolve,
    /// Frame memory.
    pub slots: Slots,
    /// To wait for the workers by.
    pub clock: Clock,
    /// Once it is set, nobody waits for workers any more.
    pub stop: Arc<AtomicBool>,
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
    /// Whether the gate lets through what the filter says, and nothing more.
    is_exact: bool,
    retired: Retired,
    last_rejection: Option<String>,
}

/// Which table a client may change: the one in force, if that is the client's own last one.
#[derive(Debug, Default)]
pub struct Base(Option<u32>);

/// Why a table was not changed.
#[derive(Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// Another one is in force.
    OtherBase,
    /// What came out could not be put in force, in words.
    Invalid(String),
}

/// Backends that have left, and since when; oldest first.
#[derive(Default, Clone)]
struct Retired(VecDeque<(Endpoint, Time)>);

impl Retired {
    /// With those who have left now; without those who came back, and who left long ago.
    fn after(&self, before: &BTreeSet<Endpoint>, now: &BTreeSet<Endpoint>, time: Time) -> Self {
        let known: HashSet<Endpoint> = self.endpoints().collect();
        let recent = |since: &Time| since.after(RETIREMENT) > time;
        let kept = self
            .0
            .iter()
            .filter(|(end, since)| !now.contains(end) && recent(since));
        let mut all: VecDeque<(Endpoint, Time)> = kept.copied().collect();
        let left = before
            .difference(now)
            .filter(|endpoint| !known.contains(endpoint));
        all.extend(left.map(|endpoint| (*endpoint, time)));
        let excess = all.len().saturating_sub(MAX_RETIRED);
        all.drain(..excess);
        Self(all)
    }

    fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.0.iter().map(|(endpoint, _)| *endpoint)
    }
}

impl Gateway {
    /// A gateway without table.
    pub fn new(publisher: Publisher, gate: Box<dyn Gate>, around: Around) -> Self {
        let state = State {
            publisher,
            gate,
            filter: Filter::default(),
            is_exact: false,
            retired: Retired::default(),
            last_rejection: None,
        };
        Self {
            state: Mutex::new(state),
            around,
        }
    }

    /// Puts a table in force; returns when every worker uses it.
    ///
    /// # Errors
    /// In words: why not. The old table stays.
    pub fn apply(&self, table: ServiceTable, base: &mut Base) -> Result<Generation, String> {
        let mut state = self.lock();
        let current = state.publisher.current();
        let draft = Draft::of(table, &current.services);
        self.replace(&mut state, &current, Ok(draft), base)
    }

    /// Changes the table in force; returns when every worker uses the new one.
    ///
    /// # Errors
    /// Another table is in force than the one that the change builds on, or as for
    /// [`Gateway::apply`]. The old table stays.
    pub fn amend(&self, change: TableChange, base: &mut Base) -> Result<Generation, ChangeRefused> {
        let mut state = self.lock();
        let current = state.publisher.current();
        let services = &current.services;
        if base.0 != Some(services.version()) || services.generation() != Some(change.base) {
            return Err(ChangeRefused::OtherBase);
        }
        let draft = Draft::by(change, services);
        let replaced = self.replace(&mut state, &current, draft, base);
        replaced.map_err(ChangeRefused::Invalid)
    }

    fn replace(
        &self,
        state: &mut State,
        current: &Snapshot,
        draft: Result<Draft, MapError>,
        base: &mut Base,
    ) -> Result<Generation, String> {
        let result = self.compile_and_put_in_force(state, current, draft);
        state.last_rejection = result.as_ref().err().cloned();
        let services = result?;
        *base = Base(Some(services.version()));
        Ok(services.generation().unwrap_or_default())
    }

    fn compile_and_put_in_force(
        &self,
        state: &mut State,
        current: &Snapshot,
        draft: Result<Draft, MapError>,
    ) -> Result<Arc<ServiceMap>, String> {
        let compiled = draft
            .and_then(|draft| ServiceMap::compile(draft, &current.services, &self.around.terms));
        let services = Arc::new(compiled.map_err(|error| error.to_string())?);
        let snapshot = Snapshot::new(Arc::clone(&services), Arc::clone(&current.network));
        self.put_in_force(state, current, snapshot)?;
        Ok(services)
    }

    /// Puts other Services in force.
    fn put_in_force(
        &self,
        state: &mut State,
        current: &Snapshot,
        snapshot: Snapshot,
    ) -> Result<(), String> {
        if state.is_exact && snapshot.services.reaches_as(&current.services) {
            let version = state.publisher.publish(snapshot);
            self.wait_for_workers(state, version);
            return Ok(());
        }
        let mut filter = self.filter(&snapshot);
        let now = self.around.clock.now();
        let before = &state.filter.backends;
        let retired = state.retired.after(before, &filter.backends, now);
        filter.retain_backends(retired.endpoints());
        self.change(state, snapshot, filter)?;
        state.retired = retired;
        Ok(())
    }

    /// Puts a view of the network in force.
    pub fn set_network(&self, network: Network) {
        let mut state = self.lock();
        let current = state.publisher.current();
        let snapshot = Snapshot::new(Arc::clone(&current.services), Arc::new(network));
        let same_addresses = current.network.host_addresses().collect::<HashSet<_>>()
            == snapshot.network.host_addresses().collect();
        if same_addresses {
            state.publisher.publish(snapshot);
            return;
        }
        let mut filter = self.filter(&snapshot);
        filter.retain_backends(state.retired.endpoints());
        if let Err(reason) = self.change(&mut state, snapshot.clone(), filter) {
            tracing::error!(
                reason,
                "the kernel's filter could not follow a change of addresses"
            );
            state.publisher.publish(snapshot);
        }
    }

    fn filter(&self, snapshot: &Snapshot) -> Filter {
        let (networks, services) = (snapshot.services.networks(), snapshot.services.services());
        let entries = services.map(|service| &service.entry);
        Filter::of(
            networks,
            entries,
            &snapshot.network,
            &self.around.source_nat,
        )
    }

    /// Whether the program in the kernel gives a packet to the workers.
    pub fn steers(&self, question: &Question) -> bool {
        let (source, destination) = (question.source, question.destination);
        self.lock().filter.owns(&Headers {
            source: source.ip(),
            destination: destination.ip(),
            protocol: question.protocol.number(),
            ports: Some((source.port(), destination.port())),
        })
    }

    /// Asks the kernel to resolve the way to every backend and to keep it fresh, so that the first
    /// packet of a client need not wait and a backend that moved is found again.
    pub fn confirm_next_hops(&self) {
        let current = self.snapshot();
        self.confirm(&current.network, current.services.services());
    }

    /// The same for the Services that the last table has changed.
    pub fn confirm_fresh_next_hops(&self) {
        let current = self.snapshot();
        self.confirm(&current.network, current.services.fresh());
    }

    fn confirm<'a>(&self, network: &Network, services: impl Iterator<Item = &'a CompiledService>) {
        let mut asked = HashSet::new();
        for backend in services.flat_map(|service| &service.backends) {
            let Some(wanted) = network.way_to(backend.entry.address) else {
                continue;
            };
            if asked.insert(wanted) && !self.around.resolve.ask(wanted) {
                return;
            }
        }
    }

    /// Takes back what must not outlive the process.
    pub fn end(&self) {
        self.lock().gate.end();
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
        (self.around.slots.total, (self.around.slots.spare)())
    }

    /// The counters of all workers.
    pub fn counters(&self) -> &PerWorker<WorkerCounters> {
        &self.around.counters
    }

    /// The workers' channels for questions.
    pub fn queries(&self) -> &[Sender<Query>] {
        &self.around.queries
    }

    /// Puts a snapshot in force, filter first. After an error the old one is in force, filter
    /// included.
    fn change(&self, state: &mut State, snapshot: Snapshot, filter: Filter) -> Result<(), String> {
        if let Err(reason) = state.gate.extend(&filter) {
            // What was added already must not stay: nobody would serve it.
            let shrunk = state.gate.shrink(&state.filter);
            state.is_exact &= shrunk.is_ok();
            if let Err(more) = shrunk {
                tracing::error!(reason = more, "the kernel's filter could not be put back");
            }
            return Err(reason);
        }
        let version = state.publisher.publish(snapshot);
        state.filter = filter;
        self.wait_for_workers(state, version);
        // What is ours too long is counted and dropped by the workers; the next change tries again.
        let shrunk = state.gate.shrink(&state.filter);
        state.is_exact = shrunk.is_ok();
        if let Err(reason) = shrunk {
            tracing::error!(reason, "the kernel's filter could not be made smaller");
        }
        Ok(())
    }

    fn wait_for_workers(&self, state: &mut State, version: u64) {
        let progress = state.publisher.progress();
        self.wait(&progress, version);
        state.publisher.clear();
    }

    fn wait(&self, progress: &Progress, version: u64) {
        let deadline = self.around.clock.now().after(PATIENCE);
        while !progress.reached(version) && !self.around.stop.load(Ordering::Relaxed) {
            if self.around.clock.now() >= deadline {
                tracing::error!("a worker has not taken up a change within {PATIENCE:?}");
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left a whole state behind: it changes by single assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
