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
use super::{Engine, Moment, Tracked};
use crate::io::{InterfaceId, PacketIo};
use crate::neighbour::Link;
use crate::verdict::{DropReason, Ports, Verdict};
use crate::wire::parse::{Arp, Complaint, Datagram, Echo, Packet, Parsed, Question, parse};
use crate::wire::plain;

/// An IP packet after the first stage.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready<A> {
    /// TCP, UDP or SCTP of this worker, with its hash, and the place of its prospect if it is the
    /// first of its connection.
    Packet(Packet<A>, u64, Option<u32>),
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
    /// As the next of the plain packets of IPv4, and the next of those of no connection.
    StrangerV4,
    /// The same of IPv6.
    StrangerV6,
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
    /// Plain packets that belong to no connection.
    pub(super) strangers: Vec<Whole>,
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
    /// First stage: what the frame says, whose it is, and its bucket on the way to the cache.
    #[inline]
    pub(super) fn prepare(
        &mut self,
        frame: &[u8],
        interface: InterfaceId,
        ports: Option<Ports>,
        scratch: &mut Scratch,
        moment: Moment<'_>,
    ) -> Kind {
        let kind = self.prepare_plain(frame, interface, scratch, moment);
        kind.unwrap_or_else(|| {
            let whole = self.prepare_whole(frame, interface, ports, moment);
            scratch.wholes.push(whole);
            Kind::Whole
        })
    }

    /// Of a plain packet; `None` when it is not plain.
    #[inline]
    fn prepare_plain(
        &self,
        frame: &[u8],
        interface: InterfaceId,
        scratch: &mut Scratch,
        moment: Moment<'_>,
    ) -> Option<Kind> {
        if !self.express.admits(frame, interface) {
            return None;
        }
        let whole = match frame.get(12..14)? {
            [0x08, 0x00] if plain::decides::<Ipv4Addr>(frame) => {
                Whole::V4(self.deciding(frame, moment)?)
            }
            [0x86, 0xdd] if plain::decides::<Ipv6Addr>(frame) => {
                Whole::V6(self.deciding(frame, moment)?)
            }
            [0x08, 0x00] => {
                scratch.v4.push(Passenger::read(frame, &self.v4.table)?);
                return Some(Kind::PlainV4);
            }
            [0x86, 0xdd] => {
                scratch.v6.push(Passenger::read(frame, &self.v6.table)?);
                return Some(Kind::PlainV6);
            }
            _ => return None,
        };
        scratch.wholes.push(whole);
        Some(Kind::Whole)
    }

    /// A plain packet that makes or ends a connection.
    fn deciding<A: Tracked>(&self, frame: &[u8], moment: Moment<'_>) -> Option<Ready<A>> {
        let passenger = Passenger::read(frame, &A::lane(self).table)?;
        self.change_over(frame, &passenger, moment)
    }

    /// Has a plain packet go the whole way.
    #[inline]
    pub(super) fn change_over<A: Tracked>(
        &self,
        frame: &[u8],
        passenger: &Passenger<A>,
        moment: Moment<'_>,
    ) -> Option<Ready<A>> {
        let packet = passenger.packet(frame)?;
        Some(match self.other_owner(&packet.tuple, moment) {
            Some(worker) => Ready::Done(Verdict::HandOver {
                worker,
                ports: None,
            }),
            None => Ready::Packet(packet, passenger.hash(), None),
        })
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
    pub(super) fn look_ahead_all<Io: PacketIo>(
        &mut self,
        io: &Io,
        frames: &[Io::Frame],
        scratch: &mut Scratch,
        moment: Moment<'_>,
    ) {
        let (mut v4, mut v6) = (scratch.v4.iter_mut(), scratch.v6.iter_mut());
        let mut wholes = scratch.wholes.iter_mut();
        let mut opened = 0;
        for (frame, kind) in frames.iter().zip(&mut scratch.kinds) {
            let bytes = io.bytes(frame);
            let stranger = match kind {
                Kind::PlainV4 => v4
                    .next()
                    .and_then(|passenger| self.stranger(bytes, passenger, moment, &mut opened))
                    .map(|ready| (Kind::StrangerV4, Whole::V4(ready))),
                Kind::PlainV6 => v6
                    .next()
                    .and_then(|passenger| self.stranger(bytes, passenger, moment, &mut opened))
                    .map(|ready| (Kind::StrangerV6, Whole::V6(ready))),
                _ => {
                    match wholes.next() {
                        Some(Whole::V4(ready)) => {
                            self.look_ahead(bytes, ready, moment, &mut opened);
                        }
                        Some(Whole::V6(ready)) => {
                            self.look_ahead(bytes, ready, moment, &mut opened);
                        }
                        _ => {}
                    }
                    None
                }
            };
            if let Some((is, whole)) = stranger {
                *kind = is;
                scratch.strangers.push(whole);
            }
        }
    }

    /// What a plain packet of no connection leads to; `None` of all others.
    #[inline]
    fn stranger<A: Tracked>(
        &mut self,
        frame: &[u8],
        passenger: &mut Passenger<A>,
        moment: Moment<'_>,
        opened: &mut usize,
    ) -> Option<Ready<A>> {
        if !passenger.is_stranger() || passenger.look_again(&A::lane(self).table) {
            return None;
        }
        let mut ready = self.change_over(frame, passenger, moment)?;
        self.look_ahead_of_stranger(frame, &mut ready, moment, opened);
        Some(ready)
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
