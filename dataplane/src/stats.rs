//! What is counted. Each counter has one writer, a worker, and any number of readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::atomic::AtomicCell;
use crossbeam::utils::CachePadded;
use sluice_conf::message::dataplane::Traffic;

use crate::flow::Direction;
use crate::io::{InterfaceId, RingStats};
use crate::verdict::DropReason;

/// A number that one thread changes and others read. Adding is a plain load and store, never a
/// locked instruction, which is why there must be only one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owner of the counter may.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Replaces the value; only the owner of the counter may.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value as some recent moment had it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Frames and bytes.
#[derive(Debug, Default)]
pub struct TrafficCounter {
    frames: Counter,
    bytes: Counter,
}

impl TrafficCounter {
    /// Counts one frame of `bytes` bytes.
    pub fn add(&self, bytes: usize) {
        self.frames.add(1);
        self.bytes.add(bytes as u64);
    }

    /// Counts many frames at once.
    pub fn add_all(&self, traffic: Traffic) {
        self.frames.add(traffic.frames);
        self.bytes.add(traffic.bytes);
    }

    /// Both numbers.
    pub fn get(&self) -> Traffic {
        Traffic {
            frames: self.frames.get(),
            bytes: self.bytes.get(),
        }
    }
}

/// Everything that one worker counts, but for Services.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    drops: Drops,
    /// Pulled from receive rings.
    pub received: TrafficCounter,
    /// Put on transmit rings.
    pub transmitted: TrafficCounter,
    /// Frames given to other workers.
    pub handed_over: Counter,
    /// Frames taken over from other workers.
    pub taken_over: Counter,
    /// Frames that waited for a neighbour.
    pub held: Counter,
    /// Frames waiting for a neighbour now.
    pub waiting: Counter,
    /// ARP replies sent.
    pub arp_replies: Counter,
    /// Echo replies sent.
    pub echo_replies: Counter,
    /// Neighbour advertisements sent.
    pub ndp_replies: Counter,
    /// ICMP errors sent.
    pub icmp_errors: Counter,
    /// ICMP errors of others translated and passed on.
    pub complaints_translated: Counter,
    /// TCP resets sent.
    pub resets: Counter,
    /// Connections in the table now.
    pub connections: Counter,
    /// Connections made.
    pub connections_opened: Counter,
    /// Connections that ran into their timeout.
    pub connections_expired: Counter,
    /// Connections that a full table gave up for new ones.
    pub connections_evicted: Counter,
    /// Connections whose source port was hard to find: the worker's ports towards that backend run
    /// out soon.
    pub source_ports_scarce: Counter,
    /// Clients that session affinity forgot before their time for others.
    pub affinity_evicted: Counter,
    /// Fragmented packets that were given up for others.
    pub fragments_evicted: Counter,
    /// Segments whose announced segment size was lowered.
    pub mss_clamped: Counter,
    /// Packets handed to the kernel because they are no Service's.
    pub to_kernel: Counter,
    /// Frames that the engine made of nothing.
    pub own_frames: Counter,
    /// Fragments waiting for the first of their packet now.
    pub fragments_waiting: Counter,
    /// First packets waiting for their connections to be opened now.
    pub openings_waiting: Counter,
    /// Turns of the loop that found something to do.
    pub busy_turns: Counter,
    /// Turns of the loop that found nothing to do.
    pub idle_turns: Counter,
    /// Frames given by others and not yet taken, as of the last reading.
    pub inbox: Counter,
    /// Slots on fill and receive rings, as of the last reading.
    pub slots_receiving: Counter,
    /// Slots on transmit and completion rings, as of the last reading.
    pub slots_transmitting: Counter,
    /// Slots on the free list, as of the last reading.
    pub slots_free: Counter,
    rings: Box<[RingCounters]>,
}

/// One counter for each reason.
#[derive(Debug)]
struct Drops([Counter; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// The last reading of one interface's rings. Taken twice a second, so it may cost more than a
/// [`Counter`].
#[derive(Debug, Default)]
pub struct RingCounters {
    interface: String,
    reading: AtomicCell<RingStats>,
}

impl RingCounters {
    /// Name of the interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Notes a reading.
    pub fn set(&self, stats: RingStats) {
        self.reading.store(stats);
    }

    /// The last reading.
    pub fn get(&self) -> RingStats {
        self.reading.load()
    }
}

impl WorkerCounters {
    /// Counters of a worker that serves these interfaces.
    pub fn new(interfaces: &[String]) -> Self {
        let rings = |interface: &String| RingCounters {
            interface: interface.clone(),
            ..RingCounters::default()
        };
        Self {
            rings: interfaces.iter().map(rings).collect(),
            ..Self::default()
        }
    }

    /// Readings of the rings, by interface.
    pub fn rings(&self) -> &[RingCounters] {
        &self.rings
    }

    /// Name of an interface, for the operator.
    pub fn interface_name(&self, interface: InterfaceId) -> String {
        let ring = self.rings.get(usize::from(interface.0));
        ring.map_or_else(
            || format!("interface {}", interface.0),
            |ring| ring.interface.clone(),
        )
    }

    /// Counts a drop.
    pub fn drop(&self, reason: DropReason) {
        self.drops.0[reason as usize].add(1);
    }

    /// Drops for one reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize].get()
    }

    /// Drops for any reason.
    pub fn all_drops(&self) -> u64 {
        self.drops.0.iter().map(Counter::get).sum()
    }
}

/// What one worker counts of one backend of one Service.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Connections made.
    pub connections: Counter,
    /// Client to backend.
    pub original: TrafficCounter,
    /// Backend to client.
    pub reply: TrafficCounter,
}

impl BackendCounters {
    /// Of one direction.
    #[inline]
    pub fn traffic(&self, direction: Direction) -> &TrafficCounter {
        // No jump: packets of both directions come mixed.
        [&self.original, &self.reply][direction as usize]
    }
}

/// One set of counters a worker, each on cache lines of its own.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[CachePadded<T>]>);

impl<T: Default> PerWorker<T> {
    /// Fresh counters for so many workers.
    pub fn new(workers: u16) -> Arc<Self> {
        Self::with(workers, T::default)
    }
}

impl<T> PerWorker<T> {
    /// Counters for so many workers, each as `make` makes them.
    pub fn with(workers: u16, make: impl Fn() -> T) -> Arc<Self> {
        Arc::new(Self(
            (0..workers).map(|_| CachePadded::new(make())).collect(),
        ))
    }

    /// The counters of a worker.
    pub fn of(&self, worker: u16) -> Option<&T> {
        self.0.get(usize::from(worker)).map(|padded| &**padded)
    }

    /// The counters of all workers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &**padded)
    }
}

/// One reading of what was counted of a backend or of a Service, by all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Connections made.
    pub connections: u64,
    /// Client to backend.
    pub original: Traffic,
    /// Backend to client.
    pub reply: Traffic,
}

impl Totals {
    /// The sum over all workers.
    pub fn of(counters: &PerWorker<BackendCounters>) -> Self {
        Self {
            connections: counters.iter().map(|c| c.connections.get()).sum(),
            original: total(counters.iter().map(|c| c.original.get())),
            reply: total(counters.iter().map(|c| c.reply.get())),
        }
    }

    /// Both directions with their names.
    pub fn directions(&self) -> [(&'static str, Traffic); 2] {
        [("original", self.original), ("reply", self.reply)]
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(readings: I) -> Self {
        readings.fold(Self::default(), |sum, one| Self {
            connections: sum.connections + one.connections,
            original: total([sum.original, one.original].into_iter()),
            reply: total([sum.reply, one.reply].into_iter()),
        })
    }
}

/// Sum of several readings.
pub fn total(readings: impl Iterator<Item = Traffic>) -> Traffic {
    readings.fold(Traffic::default(), |sum, one| Traffic {
        frames: sum.frames + one.frames,
        bytes: sum.bytes + one.bytes,
    })
}
