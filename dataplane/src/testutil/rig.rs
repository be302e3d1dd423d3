//! A whole dataplane in memory: real workers over the in-memory I/O, time by hand.
//!
//! ```text
//!   client 10.0.1.10 ---- 0: 10.0.1.1 [gateway] 10.0.2.1 :1 ---- backends 10.0.2.11 to .19
//!   2001:db8:1::10      2001:db8:1::1           2001:db8:2::1     2001:db8:2::11 to ::19
//! ```

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use sluice_conf::message::dataplane::explain::{Explanation, Question};
use sluice_conf::settings::dataplane::{
    Answers, Connections as Capacity, Fragments, Limits, SourceNat, Timeouts,
};
use sluice_conf::{Generation, ServiceTable};

use super::{CLIENT_MAC, GATEWAY_MAC, RESERVED, table};
use crate::affinity::AffinityTable;
use crate::clock::Time;
use crate::handover::Handover;
use crate::io::InterfaceId;
use crate::io::memory::{MemoryIo, MemoryPool};
use crate::kernel::ToKernel;
use crate::listing::Query;
use crate::neighbour::{Link, MacAddress, Neighbour, Network, Route, Routing};
use crate::netlink::{Unresolved, unresolved};
use crate::pipeline::{Engine, EngineSettings};
use crate::service::{MapError, ServiceMap, Terms};
use crate::snapshot::{Publisher, Snapshot};
use crate::stats::{PerWorker, WorkerCounters};
use crate::tap::Tap;
use crate::verdict::DropReason;
use crate::worker::{Connections, Worker};

/// The interface towards clients.
pub const CLIENTS: InterfaceId = InterfaceId(0);
/// The interface towards backends.
pub const BACKENDS: InterfaceId = InterfaceId(1);
/// Ethernet address of the gateway on the backends' side.
pub const GATEWAY_BACKEND_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x02]);

/// Ethernet address of backend `10.0.2.last`.
pub const fn backend_mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 2, last])
}

/// A frame that left, and by which interface.
pub type Sent = (InterfaceId, Vec<u8>);

/// The dataplane.
#[derive(Debug)]
pub struct Rig {
    workers: Vec<Worker<MemoryIo>>,
    pool: MemoryPool,
    publisher: Publisher,
    counters: Arc<PerWorker<WorkerCounters>>,
    unresolved: Unresolved,
    kernel: Arc<Mutex<Vec<Vec<u8>>>>,
    queries: Vec<Sender<Query>>,
    tap: Arc<Tap>,
    now: Time,
    generation: u64,
    /// Largest table.
    pub limits: Limits,
}

/// What differs from the usual.
#[derive(Debug, Clone)]
pub struct RigSettings {
    /// Workers.
    pub workers: u16,
    /// Connections a worker can hold.
    pub capacity: u32,
    /// Slots of frame memory.
    pub slots: usize,
    /// Frames a hand-over ring holds.
    pub handover: usize,
    /// Answers a second.
    pub answers: u32,
    /// Source ports.
    pub source_nat: SourceNat,
    /// Fragments.
    pub fragments: Fragments,
}

impl Default for RigSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            capacity: 4096,
            slots: 4096,
            handover: 1024,
            answers: 1_000_000,
            source_nat: SourceNat {
                ports: RESERVED,
                ..SourceNat::default()
            },
            fragments: Fragments::default(),
        }
    }
}

/// IPv6 address of backend number `last`, which is `10.0.2.last` in IPv4: both end alike.
#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
pub fn backend_v6(last: u8) -> Ipv6Addr {
    format!("2001:db8:2::{last}").parse().unwrap()
}

/// The network of the picture above, with these backends resolved.
pub fn network(backends: impl IntoIterator<Item = u8>) -> Network {
    network_on(backends, |_| {})
}

/// As [`network`], with links that `edit` has changed.
pub fn network_on(
    backends: impl IntoIterator<Item = u8>,
    edit: impl FnOnce(&mut [Link]),
) -> Network {
    let subnet = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 0);
    let own = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 1);
    let client = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
    let link = |mac, v4, v6| Link {
        mac,
        v4: vec![v4],
        v6: vec![v6],
        mtu: 1500,
        up: true,
        ..Link::default()
    };
    let (client_side, backend_side) = (Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 2, 1));
    let mut v4 = HashMap::from([((CLIENTS, Ipv4Addr::new(10, 0, 1, 10)), CLIENT_MAC)]);
    let mut v6 = HashMap::from([((CLIENTS, client), CLIENT_MAC)]);
    for last in backends {
        v4.insert((BACKENDS, Ipv4Addr::new(10, 0, 2, last)), backend_mac(last));
        v6.insert((BACKENDS, backend_v6(last)), backend_mac(last));
    }
    let mut links = vec![
        link(GATEWAY_MAC, client_side, own(1)),
        link(GATEWAY_BACKEND_MAC, backend_side, own(2)),
    ];
    edit(&mut links);
    Network::new(
        links,
        Routing::new(
            [
                on_link(Ipv4Addr::new(10, 0, 1, 0), 24, CLIENTS),
                on_link(Ipv4Addr::new(10, 0, 2, 0), 24, BACKENDS),
            ],
            v4,
        ),
        Routing::new(
            [
                on_link(subnet(1), 64, CLIENTS),
                on_link(subnet(2), 64, BACKENDS),
            ],
            v6,
        ),
    )
}

/// A route to what is on the link.
pub fn on_link<A>(destination: A, prefix_len: u8, interface: InterfaceId) -> Route<A> {
    Route {
        destination,
        prefix_len,
        interface,
        gateway: None,
        source: None,
        metric: 0,
    }
}

/// Keeps what the kernel would route on.
#[derive(Debug)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl ToKernel for Kept {
    fn is_there(&self) -> bool {
        true
    }

    fn give(&mut self, packet: &[u8]) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(packet.to_vec());
        true
    }
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: what cannot be set up must stop the test"
)]
impl Rig {
    /// One worker with the Services of these lines (see [`table`]).
    pub fn new(lines: &[&str]) -> Self {
        Self::with(&RigSettings::default(), lines)
    }

    /// As [`Rig::new`], with settings.
    pub fn with(settings: &RigSettings, lines: &[&str]) -> Self {
        Self::on(settings, network(11..=19), lines)
    }

    /// As [`Rig::with`], on another network; its links are the interfaces.
    pub fn on(settings: &RigSettings, network: Network, lines: &[&str]) -> Self {
        let workers = settings.workers;
        let interfaces = network.links().count() as u16;
        let network = Arc::new(network);
        let services = Arc::default();
        let (publisher, observers) = Publisher::new(Snapshot::new(services, network), workers);
        let counters = PerWorker::new(workers);
        let pool = MemoryPool::new(settings.slots, 1778);
        let (resolve, unresolved) = unresolved(64).unwrap();
        let handovers = Handover::new(workers, settings.handover).unwrap();
        let affinity = Arc::new(AffinityTable::new(4096, 7));
        let kernel = Arc::default();
        let tap = Arc::default();
        let mut queries = Vec::new();
        let now = Time(1_000_000_000);
        let mut made = Vec::new();
        for ((id, handover), observer) in (0..workers).zip(handovers).zip(observers) {
            let (ask, asked) = bounded(4);
            queries.push(ask);
            let engine = Engine::new(
                &engine_settings(settings, id),
                Arc::clone(&counters),
                Arc::clone(&affinity),
                now,
            );
            let links = Connections {
                handover,
                kernel: Box::new(Kept(Arc::clone(&kernel))),
                observer,
                resolve: resolve.clone(),
                queries: asked,
                counters: Arc::clone(&counters),
                tap: Arc::clone(&tap),
            };
            let io = pool.io(interfaces);
            made.push(Worker::new(id, 64, &settings.fragments, io, engine, links));
        }
        let mut rig = Self {
            workers: made,
            pool,
            publisher,
            counters,
            unresolved,
            kernel,
            queries,
            tap,
            now,
            generation: 0,
            limits: Limits::default(),
        };
        rig.push(lines);
        rig
    }

    /// Replaces the Services.
    pub fn push(&mut self, lines: &[&str]) {
        self.push_table(table(lines)).unwrap();
    }

    /// Replaces the Services.
    ///
    /// # Errors
    /// As [`ServiceMap::build`].
    pub fn push_table(&mut self, mut table: ServiceTable) -> Result<(), MapError> {
        self.generation += 1;
        table.generation = Generation(self.generation);
        let current = self.publisher.current();
        let workers = self.workers.len() as u16;
        let services = Arc::new(ServiceMap::build(
            table,
            &current.services,
            &Terms {
                workers,
                reserved: RESERVED,
                limits: self.limits,
            },
        )?);
        self.publisher
            .publish(Snapshot::new(services, Arc::clone(&current.network)));
        Ok(())
    }

    /// Replaces the network.
    pub fn set_network(&mut self, network: Network) {
        let services = Arc::clone(&self.publisher.current().services);
        self.publisher
            .publish(Snapshot::new(services, Arc::new(network)));
    }

    /// Packets that were given to the kernel since the last call, without Ethernet header.
    pub fn to_kernel(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.kernel.lock().unwrap())
    }

    /// Lets time pass.
    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// A frame arrives at a worker; it is not looked at before [`Rig::run`].
    pub fn arrive(&mut self, worker: usize, interface: InterfaceId, frame: &[u8]) {
        assert!(
            self.workers[worker].io().inject(interface, frame),
            "no free slot"
        );
    }

    /// One turn of one worker.
    pub fn turn(&mut self, worker: usize) {
        self.workers[worker].turn(self.now);
    }

    /// Turns every worker until none has anything to do; what left, by worker.
    pub fn run(&mut self) -> Vec<Sent> {
        let now = self.now;
        while self
            .workers
            .iter_mut()
            .map(|worker| worker.turn(now))
            .fold(false, |a, b| a | b)
        {}
        self.workers
            .iter_mut()
            .flat_map(|worker| worker.io().take_output())
            .collect()
    }

    /// A frame arrives at the first worker; what leaves.
    pub fn send(&mut self, interface: InterfaceId, frame: &[u8]) -> Vec<Sent> {
        self.arrive(0, interface, frame);
        self.run()
    }

    /// A frame arrives at the first worker and one leaves; that one.
    pub fn exchange(&mut self, interface: InterfaceId, frame: &[u8]) -> Sent {
        let mut sent = self.send(interface, frame);
        let drops: Vec<_> = self.drops();
        assert_eq!(
            sent.len(),
            1,
            "one frame should have left; drops so far: {drops:?}"
        );
        sent.remove(0)
    }

    /// Drops so far, by reason, of all workers; only those that happened.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let count = |reason: DropReason| self.counters.iter().map(|c| c.drops(reason)).sum();
        let all = DropReason::ALL
            .iter()
            .map(|reason| (*reason, count(*reason)));
        all.filter(|(_, frames)| *frames > 0).collect()
    }

    /// The counters of a worker.
    pub fn counters(&self, worker: u16) -> &WorkerCounters {
        self.counters.of(worker).unwrap()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Connections in all tables.
    pub fn connections(&self) -> usize {
        self.workers
            .iter()
            .map(|worker| worker.engine().connections())
            .sum()
    }

    /// The engine of a worker, to look at its connections.
    pub fn engine(&self, worker: usize) -> &Engine {
        self.workers[worker].engine()
    }

    /// Slots that hold a frame; 0 when nothing has leaked and nothing waits.
    pub fn outstanding(&self) -> usize {
        self.pool.outstanding()
    }

    /// Next hops that workers wanted resolved since the last call.
    pub fn wanted(&self) -> Vec<Neighbour> {
        self.unresolved.take().collect()
    }

    /// Asks a worker for its connections.
    pub fn ask(&self, worker: usize, query: Query) {
        self.queries[worker].send(query).unwrap();
    }

    /// The switch that its workers look at.
    pub fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// What a worker says would become of a packet.
    pub fn explain(&self, worker: usize, question: &Question) -> Option<Explanation> {
        let engine = self.workers[worker].engine();
        engine.answer(question, &self.snapshot(), self.now)
    }

    /// What workers read now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }
}

fn engine_settings(settings: &RigSettings, worker: u16) -> EngineSettings {
    EngineSettings {
        worker,
        workers: settings.workers,
        connections: Capacity {
            capacity: settings.capacity,
        },
        timeouts: Timeouts::default(),
        source_nat: settings.source_nat.clone(),
        fragments: settings.fragments.clone(),
        answers: Answers {
            per_second: settings.answers,
        },
        seed: 0x5eed + u64::from(worker),
    }
}
