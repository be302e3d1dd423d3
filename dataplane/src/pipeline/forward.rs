//! The last stage of a packet that goes on: next hop, size, translation, tags.

use super::evidence::outcome;
use super::pieces::may_change_ports;
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{Connection, Handling, State};
use crate::flow::FiveTuple;
use crate::io::{InterfaceId, PacketIo};
use crate::neighbour::{Link, NextHop};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, Signal};
use crate::wire::plain;
use crate::wire::rewrite::{EthernetPair, clamp_mss, translate, write_ethernet};
use crate::wire::tags::retag;
use sluice_conf::{Forwarding, Protocol};

/// Where a packet goes on, resolved.
#[derive(Clone, Copy)]
pub(super) struct Way<'a, A> {
    pub(super) hop: NextHop<A>,
    pub(super) link: &'a Link,
    pub(super) ethernet: EthernetPair,
}

impl<'a> Moment<'a> {
    /// The way to `destination`.
    pub(super) fn way<A: Tracked>(&self, destination: A) -> Result<Way<'a, A>, Verdict> {
        let no_route = Verdict::Drop(DropReason::NoRoute);
        let hop = self.network.next_hop(destination).ok_or(no_route)?;
        let link = self.network.link(hop.interface).ok_or(no_route)?;
        match self.network.mac(hop.interface, hop.address) {
            Some(mac) => {
                let ethernet = EthernetPair {
                    source: link.mac,
                    destination: mac,
                };
                Ok(Way {
                    hop,
                    link,
                    ethernet,
                })
            }
            None => Err(Verdict::Hold {
                hop: hop.neighbour(),
                ports: None,
            }),
        }
    }

    /// The way to a backend. With direct return it must be on a link of ours: behind a router the
    /// Ethernet address would be the router's.
    pub(super) fn way_to_backend<A: Tracked>(
        &self,
        backend: A,
        forwarding: Forwarding,
    ) -> Result<Way<'a, A>, Verdict> {
        self.way(backend)?.if_to_backend(backend, forwarding)
    }
}

impl<A: Tracked> Way<'_, A> {
    /// The same, if it may lead to a backend; see [`Moment::way_to_backend`].
    pub(super) fn if_to_backend(self, backend: A, forwarding: Forwarding) -> Result<Self, Verdict> {
        match forwarding == Forwarding::DirectReturn && self.hop.address != backend {
            true => Err(Verdict::Drop(DropReason::NoRoute)),
            false => Ok(self),
        }
    }
}

impl Engine {
    /// Translates a packet of a connection, counts and notes it. `connection` is the one that was
    /// found; its state follows.
    #[expect(
        clippy::too_many_arguments,
        reason = "what every stage of a packet has, and its connection"
    )]
    pub(super) fn forward<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        found: Found,
        connection: &mut Connection<A>,
        way: Way<'_, A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let to = connection.translated(found.direction);
        if let Err(reason) = may_translate(io.bytes(frame), packet, &to) {
            return Verdict::Drop(reason);
        }
        let fits = packet.place.len() <= way.link.mtu as usize;
        if !fits && !packet.place.may_fragment {
            return self.too_big(io, frame, packet, way.link.mtu, moment);
        }
        let bytes = io.bytes(frame).len();
        let translated = match plain::is_plain(packet, bytes) {
            true => plain::translate(io.bytes_mut(frame), &packet.tuple, &to),
            false => translate(io.bytes_mut(frame), packet, &to),
        };
        if !translated {
            return Verdict::Drop(DropReason::Truncated);
        }
        let service = moment.services.service(connection.binding.service);
        if let Some(limit) = service.and_then(|service| service.entry.mss_clamp)
            && connection.handling == Handling::Translated
        {
            self.clamp(io, frame, packet, limit);
        }
        let before = connection.state;
        connection.state = self.note(packet, found, connection, moment);
        if let Some(backend) = service.zip(connection.binding.backend)
            && let Some(backend) = backend.0.backends.get(usize::from(backend.1))
            && let Some(counters) = backend.counters.of(self.worker)
        {
            counters.traffic(found.direction).add(bytes);
            if before != connection.state {
                let outcome = outcome(before, connection.state, found.direction);
                self.testify(&counters.attempts, outcome);
            }
        }
        if connection.is_settled() {
            self.learn(found, connection, &way, moment);
        }
        if !fits {
            // The kernel cuts it up on its way (RFC 791 section 2.3).
            return Verdict::Kernel {
                network: packet.place.network,
                otherwise: DropReason::FrameTooLong,
            };
        }
        send(io, frame, way.hop.interface, way.link, way.ethernet, moment)
    }

    /// Notes what the packet says about its connection. Returns the state that follows.
    fn note<A: Tracked>(
        &mut self,
        packet: &Packet<A>,
        found: Found,
        connection: &Connection<A>,
        moment: Moment<'_>,
    ) -> State {
        let age = moment.seconds.0.saturating_sub(connection.created.0);
        let mut state = connection.state.next(found.direction, &packet.signal, age);
        if connection.handling == Handling::Direct {
            state = state.seen_from_one_side(&packet.signal);
        }
        let table = &mut A::lane_mut(self).table;
        if let Signal::Tcp(segment) = &packet.signal {
            let progress = &mut table.hot_mut(found.id).progress;
            progress.note(found.direction, segment);
        }
        table.touch(found.id, state, moment.seconds);
        state
    }

    #[cold]
    fn clamp<A: Tracked, Io: PacketIo>(
        &self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        limit: u16,
    ) {
        if clamp_mss(io.bytes_mut(frame), packet, limit) {
            self.count(|counters| counters.mss_clamped.add(1));
        }
    }
}

/// SCTP's checksum cannot follow a change incrementally: it must be right, and all there.
fn may_translate<A: Tracked>(
    frame: &[u8],
    packet: &Packet<A>,
    to: &FiveTuple<A>,
) -> Result<(), DropReason> {
    if may_change_ports(packet.tuple.protocol) || packet.tuple.ports() == to.ports() {
        return Ok(());
    }
    debug_assert_eq!(packet.tuple.protocol, Protocol::Sctp);
    if packet.place.piece.is_some() {
        return Err(DropReason::Fragment);
    }
    match packet.has_right_checksum(frame) {
        true => Ok(()),
        false => Err(DropReason::BadTransportChecksum),
    }
}

/// Addresses a frame that is done to its next hop and gives it the tags of its way.
pub(super) fn send<Io: PacketIo>(
    io: &mut Io,
    frame: &mut Io::Frame,
    interface: InterfaceId,
    link: &Link,
    ethernet: EthernetPair,
    moment: Moment<'_>,
) -> Verdict {
    let from = moment.network.link(io.interface(frame));
    let tags = from.map_or(link.tags, |from| from.tags);
    if retag(io, frame, tags, link.tags) && write_ethernet(io.bytes_mut(frame), ethernet) {
        Verdict::Forward(interface)
    } else {
        Verdict::Drop(DropReason::FrameTooLong)
    }
}
