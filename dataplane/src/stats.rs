//! What is counted. Each counter has one writer, a worker, and any number of readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::atomic::AtomicCell;
use crossbeam::utils::CachePadded;
use sluice_conf::message::dataplane::{Attempts, Traffic};

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

    /// As [`Counter::set`]; who reads it by [`Counter::follow`] sees all that was counted before.
    pub fn lead(&self, n: u64) {
        self.0.store(n, Ordering::Release);
    }

    /// As [`Counter::get`]; see [`Counter::lead`].
    pub fn follow(&self) -> u64 {
        self.0.load(Ordering::Acquire)
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
    /// Pieces of evidence about backends.
    pub evidence: Counter,
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
    /// What it made of connections.
    pub attempts: AttemptCounters,
}

/// What one worker counts of what a backend makes of the connections opened to it.
#[derive(Debug, Default)]
pub struct AttemptCounters {
    outcomes: [Counter; 3],
    /// Number of the worker's last piece of evidence about it.
    last: Counter,
}

/// What a backend makes of a connection opened to it; see [`Attempts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Answered,
    /// It refuses, or somebody on the way to it says that it cannot be reached.
    Refused,
    /// It says nothing.
    Silent,
}

impl AttemptCounters {
    /// Counts the piece of evidence that is the worker's `number`th.
    pub fn add(&self, outcome: Outcome, number: u64) {
        self.outcomes[outcome as usize].add(1);
        self.last.set(number);
    }

    /// Whether something was counted after the worker's `number`th piece of evidence.
    pub fn is_newer_than(&self, number: u64) -> bool {
        self.last.get() > number
    }

    /// All counts.
    pub fn get(&self) -> Attempts {
        let [answered, refused, silent] = &self.outcomes;
        Attempts {
            answered: answered.get(),
            refused: refused.get(),
            silent: silent.get(),
        }
    }
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
    /// What became of the connections.
    pub attempts: Attempts,
}

impl Totals {
    /// The sum over all workers.
    pub fn of(counters: &PerWorker<BackendCounters>) -> Self {
        Self {
            connections: counters.iter().map(|c| c.connections.get()).sum(),
            original: total(counters.iter().map(|c| c.original.get())),
            reply: total(counters.iter().map(|c| c.reply.get())),
            attempts: attempts(counters.iter().map(|c| c.attempts.get())),
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
            attempts: attempts([sum.attempts, one.attempts].into_iter()),
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

/// Sum of several readings.
pub fn attempts(readings: impl Iterator<Item = Attempts>) -> Attempts {
    readings.fold(Attempts::default(), |sum, one| Attempts {
        answered: sum.answered + one.answered,
        refused: sum.refused + one.refused,
        silent: sum.silent + one.silent,
    })
}
