//! The whole path of a packet, on one screen.
//!
//! ```text
//!   frames --> parse, whose flow? --> fetch buckets --> fetch records --> one verdict each
//!                                                                            |
//!      plain and settled:   what the record has learnt -> translate -> Forward
//!      connection known:    still valid in this version? -> next hop -> translate -> Forward
//!      connection unknown:  frontend? -> policy -> affinity, Maglev -> next hop
//!                                     -> both directions inserted -> translate -> Forward
//!      an ICMP error:       the packet it quotes -> its connection -> translate both -> Forward
//!      a question to us:    ARP, NDP, echo, port without backend, lost connection -> Reply
//!      nobody's:            a connection of its own that only crosses, or -> Kernel
//! ```
//!
//! The engine is pure: frames, time and a [`Snapshot`] in, verdicts out. A burst goes through in
//! stages, all frames a stage, so that the memory of one frame arrives while others are worked
//! on. Nothing is allocated, locked or logged for a packet, and no clock is read.
//!
//! Each stage is a function of its own: one loop with little in hand keeps it in registers.
//!
//! A frame whose verdict is `HandOver`, `Hold`, `Wait` or `Drop` has not been changed.

mod answer;
mod burst;
mod complaint;
mod evidence;
mod explain;
mod express;
mod forward;
mod insert;
mod known;
mod lane;
mod limit;
mod opening;
mod owner;
mod pieces;
mod review;
mod transit;
mod unknown;
mod ways;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sluice_conf::settings;

use crate::affinity::AffinityTable;
use crate::clock::Time;
use crate::conntrack::{ConnId, ConnTable, Seconds};
use crate::flow::Direction;
use crate::fragments::FragmentTable;
use crate::io::PacketIo;
use crate::nat::ports::{Picker, PortBlocks};
use crate::neighbour::Network;
use crate::service::ServiceMap;
use crate::snapshot::Snapshot;
use crate::stats::{PerWorker, WorkerCounters};
use crate::verdict::{DropReason, PacketKey, Ports, Verdict};

pub use lane::{Lane, Tracked};
pub use review::Sent;

use burst::{Ready, Scratch, Step, Whole};
use express::{Express, Passenger};
use forward::Way;
use limit::TokenBucket;
use review::Review;
use ways::Ways;

#[cfg(test)]
mod tests;

/// Most frames of a burst.
pub const MAX_BURST: usize = 64;

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Number of the worker.
    pub worker: u16,
    /// How many workers there are.
    pub workers: u16,
    /// Connections it can hold.
    pub connections: settings::dataplane::Connections,
    /// Timeouts.
    pub timeouts: settings::dataplane::Timeouts,
    /// Source ports and addresses.
    pub source_nat: settings::dataplane::SourceNat,
    /// Fragmented packets it can follow.
    pub fragments: settings::dataplane::Fragments,
    /// Limit of answers.
    pub answers: settings::dataplane::Answers,
    /// Random, so that nobody outside can guess hash buckets and source ports.
    pub seed: u64,
}

/// One worker's packet path with its connections.
#[derive(Debug)]
pub struct Engine {
    worker: u16,
    workers: u16,
    v4: Lane<Ipv4Addr>,
    v6: Lane<Ipv6Addr>,
    affinity: Arc<AffinityTable>,
    ports: PortBlocks,
    picker: Picker,
    answers: TokenBucket,
    echoes: TokenBucket,
    random: u64,
    counters: Arc<PerWorker<WorkerCounters>>,
    scratch: Scratch,
    released: Vec<(PacketKey, Ports)>,
    review: Review,
    express: Express,
    /// Frames since the last look at connections.
    processed: usize,
    /// Most new connections of a burst.
    openings: usize,
}

/// What every decision about one burst rests on.
#[derive(Clone, Copy)]
struct Moment<'a> {
    services: &'a ServiceMap,
    network: &'a Network,
    network_version: u32,
    now: Time,
    seconds: Seconds,
}

impl<'a> Moment<'a> {
    fn new(snapshot: &'a Snapshot, now: Time) -> Self {
        Self {
            services: &snapshot.services,
            network: &snapshot.network,
            network_version: snapshot.network_version(),
            now,
            seconds: now.seconds(),
        }
    }
}

/// A connection with the direction of the packet at hand.
#[derive(Clone, Copy)]
struct Found {
    id: ConnId,
    direction: Direction,
}

impl Engine {
    /// An engine without connections. `counters` and `affinity` are those of all workers.
    pub fn new(
        settings: &EngineSettings,
        counters: Arc<PerWorker<WorkerCounters>>,
        affinity: Arc<AffinityTable>,
        now: Time,
    ) -> Self {
        let EngineSettings {
            worker,
            workers,
            source_nat,
            ..
        } = settings;
        let ports = PortBlocks::new(source_nat.ports, *workers);
        Self {
            worker: *worker,
            workers: *workers,
            v4: lane(settings, source_nat.address, now),
            v6: lane(settings, source_nat.address6, now),
            affinity,
            ports,
            picker: Picker::new(ports.block(*worker)),
            answers: TokenBucket::new(settings.answers.per_second, now),
            echoes: TokenBucket::new(settings.answers.per_second, now),
            random: settings.seed.rotate_left(17) | 1,
            counters,
            scratch: Scratch::default(),
            released: Vec::with_capacity(MAX_BURST),
            review: Review::default(),
            express: Express::new(),
            processed: 0,
            openings: usize::MAX,
        }
    }

    /// From now on makes about so many new connections of a burst at most; the packets of others
    /// are judged [`Verdict::Later`].
    pub fn limit_openings(&mut self, most: usize) {
        self.openings = most;
    }

    /// The connections of a family, to list them.
    pub fn table<A: Tracked>(&self) -> &ConnTable<A> {
        &A::lane(self).table
    }

    /// Connections of both families.
    pub fn connections(&self) -> usize {
        self.v4.table.len() + self.v6.table.len()
    }

    /// Packets whose first fragment has come since the last call, with their ports: frames that wait
    /// for one of them can go on.
    pub fn released(&mut self) -> impl Iterator<Item = (PacketKey, Ports)> + '_ {
        self.released.drain(..)
    }

    /// Decides about a burst: pushes one verdict for each frame, in order. `ports` are those that
    /// another worker has found for a fragment.
    pub fn process<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frames: &mut [Io::Frame],
        ports: &[Option<Ports>],
        snapshot: &Snapshot,
        now: Time,
        verdicts: &mut Vec<Verdict>,
    ) {
        let moment = Moment::new(snapshot, now);
        self.express.follow(&moment);
        self.processed += frames.len();
        let mut scratch = std::mem::take(&mut self.scratch);
        let (steps, wholes) = scratch.begin(frames.len());
        self.prepare_all(io, frames, ports, steps, wholes, &moment);
        if self.fetch(steps, wholes) {
            self.look_ahead_all(io, frames, steps, wholes, moment);
        }
        self.decide_all(io, frames, steps, wholes, &moment, verdicts);
        self.v4.prospects.clear();
        self.v6.prospects.clear();
        self.scratch = scratch;
    }

    /// The last stage: one verdict for each frame.
    #[inline(never)]
    fn decide_all<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frames: &mut [Io::Frame],
        steps: &[Step],
        wholes: &[Whole],
        moment: &Moment<'_>,
        verdicts: &mut Vec<Verdict>,
    ) {
        for (frame, step) in frames.iter_mut().zip(steps) {
            let (bytes, express, worker) = (io.bytes_mut(frame), &self.express, self.worker);
            let verdict = match step {
                Step::V4(passenger) => {
                    let table = &mut self.v4.table;
                    if let Some(exit) = passenger.pass(bytes, table, express, worker, moment) {
                        verdicts.push(Verdict::Forward(exit));
                        continue;
                    }
                    self.go_whole(io, frame, passenger, *moment)
                }
                Step::V6(passenger) => {
                    let table = &mut self.v6.table;
                    if let Some(exit) = passenger.pass(bytes, table, express, worker, moment) {
                        verdicts.push(Verdict::Forward(exit));
                        continue;
                    }
                    self.go_whole(io, frame, passenger, *moment)
                }
                Step::Whole(place) => match wholes.get(*place as usize) {
                    Some(whole) => self.decide(io, frame, whole, *moment),
                    None => continue,
                },
            };
            verdicts.push(verdict);
        }
    }

    /// A plain packet that does not fit the short way goes the whole way.
    #[inline(never)]
    fn go_whole<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        passenger: &Passenger<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        match self.change_over(io.bytes(frame), passenger, moment) {
            Some(ready) => self.judge(io, frame, &ready, moment),
            None => Verdict::Drop(DropReason::Truncated),
        }
    }

    #[inline(never)]
    fn decide<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        whole: &Whole,
        moment: Moment<'_>,
    ) -> Verdict {
        match whole {
            Whole::V4(ready) => self.judge(io, frame, ready, moment),
            Whole::V6(ready) => self.judge(io, frame, ready, moment),
            Whole::Arp(arp) => self.arp(io, frame, arp, moment),
            Whole::Question(question) => self.question(io, frame, question, moment),
            Whole::Done(verdict) => *verdict,
        }
    }

    fn judge<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        ready: &Ready<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        match ready {
            Ready::Packet(packet, hash, prospect) => {
                self.packet(io, frame, packet, *hash, *prospect, moment)
            }
            Ready::Complaint(complaint, hash) => {
                self.complaint(io, frame, complaint, *hash, moment)
            }
            Ready::Echo(echo) => self.echo(io, frame, echo, moment),
            Ready::Done(verdict) => *verdict,
        }
    }

    fn count(&self, change: impl FnOnce(&WorkerCounters)) {
        if let Some(counters) = self.counters.of(self.worker) {
            change(counters);
        }
    }

    /// A number that an outsider cannot guess (xorshift64*, Marsaglia 2003 and Vigna 2016).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn lane<A: Tracked>(settings: &EngineSettings, source: Option<A>, now: Time) -> Lane<A> {
    let EngineSettings {
        connections,
        timeouts,
        fragments,
        seed,
        ..
    } = settings;
    Lane {
        table: ConnTable::new(connections.capacity, timeouts.clone(), *seed, now.seconds()),
        fragments: FragmentTable::new(fragments.packets, fragments.timeout),
        source,
        ways: Ways::new(),
        prospects: Vec::with_capacity(MAX_BURST),
        ended: Vec::new(),
    }
}
