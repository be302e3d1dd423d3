//! A burst between its stages: what is known of each frame, kind by kind.
//!
//! ```text
//!   prepare    what it says, whose it is          its bucket is fetched
//!   fetch      which record it may lead to        the record is fetched
//!   look ahead what a new connection will need    that is fetched
//! ```
//!
//! No stage changes a frame or a connection.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::express::Passenger;
use super::opening::Prospect;
use super::{Engine, Moment, Tracked};
use crate::io::{InterfaceId, PacketIo};
use crate::neighbour::Link;
use crate::verdict::{DropReason, Ports, Verdict};
use crate::wire::parse::{Arp, Complaint, Datagram, Echo, Packet, Parsed, Question, parse};

/// An IP packet after the first stage.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready<A> {
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
pub(super) enum Kind {
    /// As the next of the plain packets of IPv4.
    PlainV4,
    /// As the next of the plain packets of IPv6.
    PlainV6,
    /// As the next of those that go the whole way.
    Whole,
}

/// A burst after the first stage, kind by kind: each is as small as its kind allows.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) kinds: Vec<Kind>,
    pub(super) v4: Vec<Passenger<Ipv4Addr>>,
    pub(super) v6: Vec<Passenger<Ipv6Addr>>,
    pub(super) wholes: Vec<Whole>,
    /// Plain packets that seem to belong to no connection, with their places.
    pub(super) strangers: Vec<(usize, Whole)>,
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.kinds.clear();
        self.v4.clear();
        self.v6.clear();
        self.wholes.clear();
        self.strangers.clear();
    }
}

/// A frame that goes the whole way, after the first stage.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole {
    V4(Ready<Ipv4Addr>),
    V6(Ready<Ipv6Addr>),
    Arp(Arp),
    Question(Question),
    Done(Verdict),
}

impl Engine {
    /// First stage of a plain packet: what it says, and its bucket on the way to the cache. `None`
    /// when the frame has to go the whole way.
    #[inline]
    pub(super) fn prepare_plain(
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
    pub(super) fn fetch(&self, scratch: &mut Scratch) -> bool {
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
    pub(super) fn prepare_whole(
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
    pub(super) fn look_ahead_all<Io: PacketIo>(
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
}

/// Whether the frame was sent to the interface's own Ethernet address. A bridge that floods shows
/// us frames of others; whoever forwards those as well doubles them (RFC 1812 section 5.3.4).
fn is_for(frame: &[u8], link: &Link) -> bool {
    frame.starts_with(&link.mac.0)
}
