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
//! A frame whose verdict is `HandOver`, `Hold`, `Wait` or `Drop` has not been changed.

mod answer;
mod complaint;
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

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sluice_conf::settings;

use crate::affinity::AffinityTable;
use crate::clock::Time;
use crate::conntrack::{ConnId, ConnTable, Seconds};
use crate::flow::Direction;
use crate::fragments::FragmentTable;
use crate::io::{InterfaceId, PacketIo};
use crate::nat::ports::{Picker, PortBlocks};
use crate::neighbour::{Link, Network};
use crate::service::ServiceMap;
use crate::snapshot::Snapshot;
use crate::stats::{PerWorker, WorkerCounters};
use crate::verdict::{DropReason, PacketKey, Ports, Verdict};
use crate::wire::parse::{Arp, Complaint, Datagram, Echo, Packet, Parsed, Question, parse};

pub use lane::{Lane, Tracked};
pub use review::Sent;

use express::{Express, Passenger};
use forward::Way;
use limit::TokenBucket;
use opening::Prospect;
use review::Review;

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

/// An IP packet after the first stage.
#[derive(Debug, Clone, Copy)]
enum Ready<A> {
    /// TCP, UDP or SCTP of this worker, with its hash, and what it leads to if it is the first.
    Packet(Packet<A>, u64, Option<Prospect<A>>),
    /// An ICMP error, with the hash of the packet that would answer the quoted one.
    Complaint(Complaint<A>, u64),
    /// Echo request.
    Echo(Echo<A>),
    /// Decided already.
    Done(Verdict),
}

/// How a frame goes on after the first stage.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// As the next of the plain packets of IPv4.
    PlainV4,
    /// As the next of the plain packets of IPv6.
    PlainV6,
    /// As the next of those that go the whole way.
    Whole,
}

/// A burst after the first stage, kind by kind: each is as small as its kind allows.
#[derive(Debug, Default)]
struct Scratch {
    kinds: Vec<Kind>,
    v4: Vec<Passenger<Ipv4Addr>>,
    v6: Vec<Passenger<Ipv6Addr>>,
    wholes: Vec<Whole>,
    /// Plain packets that seem to belong to no connection, with their places.
    strangers: Vec<(usize, Whole)>,
}

impl Scratch {
    fn clear(&mut self) {
        self.kinds.clear();
        self.v4.clear();
        self.v6.clear();
        self.wholes.clear();
        self.strangers.clear();
    }
}

/// A frame that goes the whole way, after the first stage.
#[derive(Debug, Clone, Copy)]
enum Whole {
    V4(Ready<Ipv4Addr>),
    V6(Ready<Ipv6Addr>),
    Arp(Arp),
    Question(Question),
    Done(Verdict),
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
        for (frame, ports) in frames.iter().zip(ports) {
            let (bytes, interface) = (io.bytes(frame), io.interface(frame));
            let kind = self.prepare_plain(bytes, interface, &mut scratch);
            scratch.kinds.push(kind.unwrap_or_else(|| {
                let whole = self.prepare_whole(bytes, interface, *ports, moment);
                scratch.wholes.push(whole);
                Kind::Whole
            }));
        }
        if self.fetch(&mut scratch) {
            self.look_ahead_all(io, frames, &mut scratch, moment);
        }
        let (mut v4, mut v6) = (scratch.v4.iter(), scratch.v6.iter());
        let mut wholes = scratch.wholes.iter();
        let mut strangers = scratch.strangers.iter().peekable();
        for (place, (frame, kind)) in frames.iter_mut().zip(&scratch.kinds).enumerate() {
            let (express, worker) = (&self.express, self.worker);
            let passed = match kind {
                Kind::PlainV4 => v4.next().and_then(|passenger| {
                    let (bytes, table) = (io.bytes_mut(frame), &mut self.v4.table);
                    passenger.pass(bytes, table, express, worker, &moment)
                }),
                Kind::PlainV6 => v6.next().and_then(|passenger| {
                    let (bytes, table) = (io.bytes_mut(frame), &mut self.v6.table);
                    passenger.pass(bytes, table, express, worker, &moment)
                }),
                Kind::Whole => {
                    if let Some(whole) = wholes.next() {
                        verdicts.push(self.decide(io, frame, whole, moment));
                    }
                    continue;
                }
            };
            match passed {
                Some(Ok(interface)) => verdicts.push(Verdict::Forward(interface)),
                Some(Err(reason)) => verdicts.push(Verdict::Drop(reason)),
                None => {
                    let interface = io.interface(frame);
                    let whole = match strangers.next_if(|(at, _)| *at == place) {
                        Some((_, whole)) => *whole,
                        None => self.prepare_whole(io.bytes(frame), interface, None, moment),
                    };
                    verdicts.push(self.decide(io, frame, &whole, moment));
                }
            }
        }
        scratch.clear();
        self.scratch = scratch;
    }

    /// First stage of a plain packet: what it says, and its bucket on the way to the cache. `None`
    /// when the frame has to go the whole way.
    #[inline]
    fn prepare_plain(
        &self,
        frame: &[u8],
        interface: InterfaceId,
        scratch: &mut Scratch,
    ) -> Option<Kind> {
        if !self.express.admits(frame, interface) {
            return None;
        }
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                scratch.v4.push(Passenger::read(frame, &self.v4.table)?);
                Some(Kind::PlainV4)
            }
            [0x86, 0xdd] => {
                scratch.v6.push(Passenger::read(frame, &self.v6.table)?);
                Some(Kind::PlainV6)
            }
            _ => None,
        }
    }

    /// Second stage: the record of each frame on the way to the cache. True when some may belong to
    /// no connection.
    #[inline]
    fn fetch(&self, scratch: &mut Scratch) -> bool {
        let mut has_strangers = false;
        for passenger in &mut scratch.v4 {
            has_strangers |= passenger.fetch(&self.v4.table);
        }
        for passenger in &mut scratch.v6 {
            has_strangers |= passenger.fetch(&self.v6.table);
        }
        for whole in &scratch.wholes {
            match whole {
                Whole::V4(Ready::Packet(_, hash, _)) => self.v4.table.prefetch_whole(*hash),
                Whole::V6(Ready::Packet(_, hash, _)) => self.v6.table.prefetch_whole(*hash),
                _ => {}
            }
        }
        has_strangers || !scratch.wholes.is_empty()
    }

    /// First stage of any frame: what it says, whose it is, and its bucket on the way to the cache.
    fn prepare_whole(
        &mut self,
        frame: &[u8],
        interface: InterfaceId,
        ports: Option<Ports>,
        moment: Moment<'_>,
    ) -> Whole {
        let Some(link) = moment.network.link(interface) else {
            return Whole::Done(Verdict::Drop(DropReason::OtherHost));
        };
        match parse(frame, link.tags) {
            Ok(Parsed::V4(_) | Parsed::V6(_)) if !is_for(frame, link) => {
                Whole::Done(Verdict::Drop(DropReason::OtherHost))
            }
            Ok(Parsed::V4(datagram)) => Whole::V4(self.ready(datagram, ports, moment)),
            Ok(Parsed::V6(datagram)) => Whole::V6(self.ready(datagram, ports, moment)),
            Ok(Parsed::Arp(arp)) => Whole::Arp(arp),
            Ok(Parsed::Question(question)) => Whole::Question(question),
            Err(reason) => Whole::Done(Verdict::Drop(reason)),
        }
    }

    /// Third stage: what those lead to that belong to no connection. Established ones have no such
    /// stage.
    fn look_ahead_all<Io: PacketIo>(
        &mut self,
        io: &Io,
        frames: &[Io::Frame],
        scratch: &mut Scratch,
        moment: Moment<'_>,
    ) {
        let (mut v4, mut v6) = (scratch.v4.iter(), scratch.v6.iter());
        let mut wholes = scratch.wholes.iter_mut();
        let mut opened = 0;
        for (place, (frame, kind)) in frames.iter().zip(&scratch.kinds).enumerate() {
            let bytes = io.bytes(frame);
            let is_stranger = match kind {
                Kind::PlainV4 => v4.next().is_some_and(Passenger::is_stranger),
                Kind::PlainV6 => v6.next().is_some_and(Passenger::is_stranger),
                Kind::Whole => {
                    if let Some(whole) = wholes.next() {
                        self.look_ahead(bytes, whole, moment, &mut opened);
                    }
                    false
                }
            };
            if is_stranger {
                let mut whole = self.prepare_whole(bytes, io.interface(frame), None, moment);
                self.look_ahead(bytes, &mut whole, moment, &mut opened);
                scratch.strangers.push((place, whole));
            }
        }
    }

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

    fn ready<A: Tracked>(
        &mut self,
        datagram: Datagram<A>,
        ports: Option<Ports>,
        moment: Moment<'_>,
    ) -> Ready<A> {
        let packet = match datagram {
            Datagram::Echo(echo) => return Ready::Echo(echo),
            Datagram::Complaint(complaint) => return self.ready_complaint(complaint, moment),
            Datagram::Packet(packet) if packet.place.piece.is_none() => packet,
            Datagram::Packet(_) | Datagram::Fragment(_) => {
                match self.follow(datagram, ports, moment) {
                    Ok(packet) => packet,
                    Err(verdict) => return Ready::Done(verdict),
                }
            }
        };
        if let Some(worker) = self.other_owner(&packet.tuple, moment) {
            let ports = packet.place.piece.map(|_| packet.tuple.ports());
            return Ready::Done(Verdict::HandOver { worker, ports });
        }
        let table = &A::lane(self).table;
        let hash = table.hash(&packet.tuple);
        table.prefetch_bucket(hash);
        Ready::Packet(packet, hash, None)
    }

    fn ready_complaint<A: Tracked>(&self, complaint: Complaint<A>, moment: Moment<'_>) -> Ready<A> {
        let answer = complaint.about.invert();
        match self.other_owner(&answer, moment) {
            Some(worker) => Ready::Done(Verdict::HandOver {
                worker,
                ports: None,
            }),
            None => Ready::Complaint(complaint, A::lane(self).table.hash(&answer)),
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
                self.packet(io, frame, packet, *hash, prospect.as_ref(), moment)
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
        ended: Vec::new(),
    }
}

/// Whether the frame was sent to the interface's own Ethernet address. A bridge that floods shows
/// us frames of others; whoever forwards those as well doubles them (RFC 1812 section 5.3.4).
fn is_for(frame: &[u8], link: &Link) -> bool {
    frame.starts_with(&link.mac.0)
}
