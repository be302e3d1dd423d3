//! The whole path of a packet, on one screen.
//!
//! ```text
//!   frames --> parse, whose flow? --> fetch buckets --> fetch records --> one verdict each
//!                                                                            |
//!      connection known:    still valid in this version? -> next hop -> translate -> Forward
//!      connection unknown:  frontend? -> backend -> next hop -> both directions inserted
//!                                                        -> translate -> Forward
//!      a question to us:    ARP, echo, port without backend, lost connection -> Reply
//! ```
//!
//! The engine is pure: frames, time and a [`Snapshot`] in, verdicts out. A burst goes through in
//! stages, all frames a stage, so that the memory of one frame arrives while others are worked
//! on. Nothing is allocated, locked or logged for a packet, and no clock is read.
//!
//! A frame whose verdict is `HandOver`, `Hold` or `Drop` has not been changed.

mod answer;
mod known;
mod limit;
mod unknown;

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_conf::settings;

use crate::clock::Time;
use crate::conntrack::{ConnId, ConnTable, Connection, Seconds};
use crate::flow::{Direction, End, FiveTuple, scale};
use crate::io::{InterfaceId, PacketIo};
use crate::nat::ports::PortBlocks;
use crate::neighbour::{Link, Network, NextHop};
use crate::service::ServiceMap;
use crate::snapshot::Snapshot;
use crate::stats::{PerWorker, WorkerCounters};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Arp, ETHERNET_LEN, Echo, Packet, Parsed, TcpFlags, parse};
use crate::wire::rewrite::{EthernetPair, translate};

use limit::TokenBucket;

#[cfg(test)]
mod tests;

/// Most frames of a burst.
pub const MAX_BURST: usize = 64;

/// Connections that are looked at for expiry after a burst.
const EXPIRY_BUDGET: usize = 2 * MAX_BURST;

/// Records that are looked at after a burst as long as a new table is being followed: a table of
/// 262,144 connections is through after 2,048 bursts.
const REVIEW_BUDGET: u32 = 128;

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
    /// Source ports and address.
    pub source_nat: settings::dataplane::SourceNat,
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
    table: ConnTable<Ipv4Addr>,
    ports: PortBlocks,
    source_address: Option<Ipv4Addr>,
    answers: TokenBucket,
    echoes: TokenBucket,
    random: u64,
    counters: Arc<PerWorker<WorkerCounters>>,
    scratch: Vec<Prepared>,
    review: Review,
}

/// How far the walk over all connections is that follows a new table.
#[derive(Debug, Clone, Copy, Default)]
struct Review {
    /// The version that the walk is for.
    version: u32,
    /// The record to go on from; `None` when the walk has ended.
    next: Option<u32>,
}

/// A frame after the first stage.
#[derive(Debug, Clone, Copy)]
enum Prepared {
    /// TCP or UDP of this worker, with its hash.
    Packet(Packet, u64),
    /// ARP.
    Arp(Arp),
    /// ICMP echo request.
    Echo(Echo),
    /// Decided already.
    Done(Verdict),
}

/// What every decision about one burst rests on.
#[derive(Clone, Copy)]
struct Moment<'a> {
    services: &'a ServiceMap,
    network: &'a Network,
    now: Time,
    seconds: Seconds,
}

/// A connection with the direction of the packet at hand.
#[derive(Clone, Copy)]
struct Found {
    id: ConnId,
    direction: Direction,
}

impl Engine {
    /// An engine without connections. `counters` are those of all workers.
    pub fn new(
        settings: &EngineSettings,
        counters: Arc<PerWorker<WorkerCounters>>,
        now: Time,
    ) -> Self {
        let EngineSettings {
            worker,
            workers,
            source_nat,
            seed,
            ..
        } = settings;
        let timeouts = settings.timeouts.clone();
        Self {
            worker: *worker,
            workers: *workers,
            table: ConnTable::new(
                settings.connections.capacity,
                timeouts,
                *seed,
                now.seconds(),
            ),
            ports: PortBlocks::new(source_nat.ports, *workers),
            source_address: source_nat.address,
            answers: TokenBucket::new(settings.answers.per_second, now),
            echoes: TokenBucket::new(settings.answers.per_second, now),
            random: seed.rotate_left(17) | 1,
            counters,
            scratch: Vec::with_capacity(MAX_BURST),
            review: Review::default(),
        }
    }

    /// The connections, to list them.
    pub fn table(&self) -> &ConnTable<Ipv4Addr> {
        &self.table
    }

    /// Decides about a burst: pushes one verdict for each frame, in order.
    pub fn process<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frames: &mut [Io::Frame],
        snapshot: &Snapshot,
        now: Time,
        verdicts: &mut Vec<Verdict>,
    ) {
        let (services, network) = (&*snapshot.services, &*snapshot.network);
        let moment = Moment {
            services,
            network,
            now,
            seconds: now.seconds(),
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        for frame in frames.iter() {
            scratch.push(self.prepare(io.bytes(frame), io.interface(frame), snapshot));
        }
        for prepared in &scratch {
            if let Prepared::Packet(_, hash) = prepared {
                self.table.prefetch_record(*hash);
            }
        }
        for (frame, prepared) in frames.iter_mut().zip(&scratch) {
            verdicts.push(match prepared {
                Prepared::Packet(packet, hash) => self.packet(io, frame, packet, *hash, moment),
                Prepared::Arp(arp) => self.arp(io, frame, arp, moment),
                Prepared::Echo(echo) => self.echo(io, frame, echo, moment),
                Prepared::Done(verdict) => *verdict,
            });
        }
        self.scratch = scratch;
    }

    /// Forgets connections that have been idle for too long, or that a new table has left without
    /// a backend; a bounded number a call.
    pub fn tidy(&mut self, services: &ServiceMap, now: Time) {
        let mut expired = 0;
        self.table
            .expire(now.seconds(), EXPIRY_BUDGET, |_| expired += 1);
        self.revalidate(services, now.seconds());
        let connections = self.table.len() as u64;
        self.count(|counters| {
            counters.connections_expired.add(expired);
            counters.connections.set(connections);
        });
    }

    /// First stage: what the frame says, whose it is, and its bucket on the way to the cache.
    fn prepare(&self, frame: &[u8], interface: InterfaceId, snapshot: &Snapshot) -> Prepared {
        let link = snapshot.network.link(interface);
        match parse(frame) {
            Ok(Parsed::Packet(_) | Parsed::Echo(_)) if !is_for(frame, link) => {
                Prepared::Done(Verdict::Drop(DropReason::OtherHost))
            }
            Err(reason) => Prepared::Done(Verdict::Drop(reason)),
            Ok(Parsed::Packet(packet)) => match self.other_owner(&packet.tuple, snapshot) {
                Some(worker) => Prepared::Done(Verdict::HandOver(worker)),
                None => {
                    let hash = self.table.hash(&packet.tuple);
                    self.table.prefetch_bucket(hash);
                    Prepared::Packet(packet, hash)
                }
            },
            Ok(Parsed::Arp(arp)) => Prepared::Arp(arp),
            Ok(Parsed::Echo(echo)) => Prepared::Echo(echo),
        }
    }

    /// The worker that owns the packet's flow, if it is another one; computed from the packet.
    ///
    /// From a client: by the client's address and port. To a client that keeps its address: the
    /// same, seen from the other side. To a masquerade port: the worker whose block holds it.
    fn other_owner(&self, tuple: &FiveTuple<Ipv4Addr>, snapshot: &Snapshot) -> Option<u16> {
        if self.workers == 1 {
            return None;
        }
        let by_client = |end: End<Ipv4Addr>| scale(end.hash(), usize::from(self.workers)) as u16;
        let to = tuple.destination;
        let services = &snapshot.services;
        let is_own = snapshot.network.is_own(to.address) || self.source_address == Some(to.address);
        // An address that serves both clients and masquerade: the port tells the two apart.
        let owner = match self.ports.owner(to.port).filter(|_| is_own) {
            Some(worker) if services.frontend(to, tuple.protocol).is_none() => worker,
            None if !is_own && !services.is_used_by_clients(to.address) => by_client(to),
            _ => by_client(tuple.source),
        };
        (owner != self.worker).then_some(owner)
    }

    fn packet<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        hash: u64,
        moment: Moment<'_>,
    ) -> Verdict {
        if packet.ttl <= 1 {
            return Verdict::Drop(DropReason::Ttl);
        }
        // A damaged segment must not make, end or reset a connection.
        let decisive = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
        if packet.flags.any(decisive) && !packet.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        match self.table.lookup(hash, &packet.tuple) {
            Some((id, direction)) => self.known(io, frame, packet, Found { id, direction }, moment),
            None => self.unknown(io, frame, packet, moment),
        }
    }

    /// Last stage of a packet with a connection: translate, count, note.
    fn forward<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        found: Found,
        way: Way,
        moment: Moment<'_>,
    ) -> Verdict {
        let connection = self.table.get(found.id);
        let to = connection.translated(found.direction);
        let age = moment.seconds.0.saturating_sub(connection.created.0);
        let state = connection.state.next(found.direction, packet.flags, age);
        self.count_traffic(connection, found.direction, io.bytes(frame).len(), moment);
        if !translate(io.bytes_mut(frame), packet, &to, way.ethernet) {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.table.touch(found.id, state, moment.seconds);
        Verdict::Forward(way.hop.interface)
    }

    fn count_traffic(
        &self,
        connection: &Connection<Ipv4Addr>,
        direction: Direction,
        bytes: usize,
        moment: Moment<'_>,
    ) {
        let binding = connection.binding;
        let backend = binding.backend.and_then(|place| {
            moment
                .services
                .service(binding.service)?
                .backends
                .get(usize::from(place))
        });
        if let Some(counters) = backend.and_then(|backend| backend.counters.of(self.worker)) {
            match direction {
                Direction::Original => counters.original.add(bytes),
                Direction::Reply => counters.reply.add(bytes),
            }
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

/// Whether the frame was sent to the interface's own Ethernet address. A bridge that floods shows
/// us frames of others; whoever forwards those as well doubles them (RFC 1812 section 5.3.4).
fn is_for(frame: &[u8], link: Option<&Link>) -> bool {
    link.is_some_and(|link| frame.starts_with(&link.mac.0))
}

/// Where a packet goes on, resolved.
#[derive(Clone, Copy)]
struct Way {
    hop: NextHop,
    ethernet: EthernetPair,
}

impl Moment<'_> {
    /// The way to `destination` for a packet of `packet`'s size.
    fn way(&self, destination: Ipv4Addr, packet: &Packet) -> Result<Way, Verdict> {
        let drop = |reason| Err(Verdict::Drop(reason));
        let Some(hop) = self.network.next_hop(destination) else {
            return drop(DropReason::NoRoute);
        };
        let Some(link) = self.network.link(hop.interface) else {
            return drop(DropReason::NoRoute);
        };
        if usize::from(packet.end) - ETHERNET_LEN > link.mtu as usize {
            return drop(DropReason::FrameTooLong);
        }
        match self.network.neighbour(hop.interface, hop.address) {
            Some(mac) => {
                let ethernet = EthernetPair {
                    source: link.mac,
                    destination: mac,
                };
                Ok(Way { hop, ethernet })
            }
            None => Err(Verdict::Hold(hop)),
        }
    }
}
