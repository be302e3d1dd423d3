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
use crate::wire::Family;
use crate::wire::parse::{
    Arp, Complaint, Datagram, ETHERNET_LEN, Echo, Packet, Parsed, Question, parse,
};

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

/// How a frame goes on after the first stage. Its kind stands by itself: what is hidden in a field
/// has to be worked out for each frame.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Step {
    /// A plain packet of IPv4.
    V4(Passenger<Ipv4Addr>),
    /// A plain packet of IPv6.
    V6(Passenger<Ipv6Addr>),
    /// The whole way, as what stands at this place of those that do.
    Whole(u32),
}

/// A burst after the first stage.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Of each frame one, in order; what stands behind is of an earlier burst.
    pub(super) steps: Vec<Step>,
    /// Those that go the whole way; kept apart, for they are longer.
    pub(super) wholes: Vec<Whole>,
}

impl Scratch {
    /// Makes room for a burst: its steps, and no frame yet that goes the whole way.
    #[inline]
    pub(super) fn begin(&mut self, frames: usize) -> (&mut [Step], &mut Vec<Whole>) {
        let Self { steps, wholes } = self;
        wholes.clear();
        if steps.len() < frames {
            steps.resize(frames, Step::Whole(0));
        }
        (&mut steps[..frames], wholes)
    }
}

/// Adds a frame to those that go the whole way.
fn push(wholes: &mut Vec<Whole>, whole: Whole) -> Step {
    wholes.push(whole);
    Step::Whole(wholes.len() as u32 - 1)
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
    /// First stage: what each frame says, whose it is, and its bucket on the way to the cache.
    #[inline(never)]
    pub(super) fn prepare_all<Io: PacketIo>(
        &mut self,
        io: &Io,
        frames: &[Io::Frame],
        ports: &[Option<Ports>],
        steps: &mut [Step],
        wholes: &mut Vec<Whole>,
        moment: &Moment<'_>,
    ) {
        for ((frame, ports), step) in frames.iter().zip(ports).zip(steps) {
            let (bytes, interface) = (io.bytes(frame), io.interface(frame));
            self.prepare(bytes, interface, ports, step, wholes, moment);
        }
    }

    #[inline(always)]
    fn prepare(
        &mut self,
        frame: &[u8],
        interface: InterfaceId,
        ports: &Option<Ports>,
        step: &mut Step,
        wholes: &mut Vec<Whole>,
        moment: &Moment<'_>,
    ) {
        if self
            .prepare_plain(frame, interface, step, wholes, moment)
            .is_none()
        {
            *step = push(
                wholes,
                self.prepare_whole(frame, interface, *ports, *moment),
            );
        }
    }

    /// Of a plain packet; `None`, and nothing noted, when it is not plain.
    #[inline(always)]
    fn prepare_plain(
        &self,
        frame: &[u8],
        interface: InterfaceId,
        step: &mut Step,
        wholes: &mut Vec<Whole>,
        moment: &Moment<'_>,
    ) -> Option<()> {
        let start = frame.first_chunk::<ETHERNET_LEN>()?;
        if !self.express.admits(*start.first_chunk()?, interface) {
            return None;
        }
        let [.., high, low] = *start;
        let decides;
        if [high, low] == Ipv4Addr::ETHERTYPE {
            let passenger;
            (passenger, decides) = Passenger::read(frame, &self.v4.table)?;
            *step = Step::V4(passenger);
        } else if [high, low] == Ipv6Addr::ETHERTYPE {
            let passenger;
            (passenger, decides) = Passenger::read(frame, &self.v6.table)?;
            *step = Step::V6(passenger);
        } else {
            return None;
        }
        match decides {
            true => self.take_whole(frame, step, wholes, *moment),
            false => Some(()),
        }
    }

    /// Has a plain packet that does more than to acknowledge go the whole way.
    #[inline(never)]
    fn take_whole(
        &self,
        frame: &[u8],
        step: &mut Step,
        wholes: &mut Vec<Whole>,
        moment: Moment<'_>,
    ) -> Option<()> {
        let whole = match step {
            Step::V4(passenger) => Whole::V4(self.change_over(frame, passenger, moment)?),
            Step::V6(passenger) => Whole::V6(self.change_over(frame, passenger, moment)?),
            Step::Whole(_) => return Some(()),
        };
        *step = push(wholes, whole);
        Some(())
    }

    /// What a plain packet is on the whole way.
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
    #[inline(never)]
    pub(super) fn fetch(&self, steps: &mut [Step], wholes: &[Whole]) -> bool {
        let mut has_strangers = false;
        for step in steps {
            has_strangers |= match step {
                Step::V4(passenger) => passenger.fetch(&self.v4.table),
                Step::V6(passenger) => passenger.fetch(&self.v6.table),
                Step::Whole(_) => true,
            };
        }
        for whole in wholes {
            match whole {
                Whole::V4(Ready::Packet(_, hash, _)) => self.v4.table.prefetch_whole(*hash),
                Whole::V6(Ready::Packet(_, hash, _)) => self.v6.table.prefetch_whole(*hash),
                _ => {}
            }
        }
        has_strangers
    }

    #[inline(never)]
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
        steps: &mut [Step],
        wholes: &mut Vec<Whole>,
        moment: Moment<'_>,
    ) {
        for step in &mut *steps {
            match step {
                Step::V4(passenger) => passenger.fetch_second(&self.v4.table),
                Step::V6(passenger) => passenger.fetch_second(&self.v6.table),
                Step::Whole(_) => {}
            }
        }
        let mut opened = 0;
        for (frame, step) in frames.iter().zip(steps) {
            let bytes = io.bytes(frame);
            let stranger = match step {
                Step::V4(passenger) => self
                    .stranger(bytes, passenger, moment, &mut opened)
                    .map(Whole::V4),
                Step::V6(passenger) => self
                    .stranger(bytes, passenger, moment, &mut opened)
                    .map(Whole::V6),
                Step::Whole(place) => {
                    match wholes.get_mut(*place as usize) {
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
            if let Some(whole) = stranger {
                *step = push(wholes, whole);
            }
        }
        self.v4.prefetch_room();
        self.v6.prefetch_room();
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
