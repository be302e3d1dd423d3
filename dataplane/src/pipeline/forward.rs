//! The last stage of a packet that goes on: next hop, size, translation, tags.

use super::express::counters;
use super::pieces::may_change_ports;
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{Connection, Handling};
use crate::flow::FiveTuple;
use crate::io::{InterfaceId, PacketIo};
use crate::neighbour::{Link, NextHop};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, Signal};
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
        let way = self.way(backend)?;
        if forwarding == Forwarding::DirectReturn && way.hop.address != backend {
            return Err(Verdict::Drop(DropReason::NoRoute));
        }
        Ok(way)
    }
}

impl Engine {
    /// Translates a packet of a connection, counts and notes it.
    pub(super) fn forward<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        found: Found,
        way: Way<'_, A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let connection = A::lane(self).table.get(found.id);
        let to = connection.translated(found.direction);
        if let Err(reason) = may_translate(io.bytes(frame), packet, &to) {
            return Verdict::Drop(reason);
        }
        let fits = packet.place.len() <= way.link.mtu as usize;
        if !fits && !packet.place.may_fragment {
            return self.too_big(io, frame, packet, way.link.mtu, moment);
        }
        let bytes = io.bytes(frame).len();
        if !translate(io.bytes_mut(frame), packet, &to) {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.clamp(io, frame, packet, &connection, moment);
        self.note(packet, found, &connection, moment);
        if let Some(counters) = counters(connection.binding, moment)
            && let Some(counters) = counters.of(self.worker)
        {
            counters.traffic(found.direction).add(bytes);
        }
        self.learn(found, &way, moment);
        if !fits {
            // The kernel cuts it up on its way (RFC 791 section 2.3).
            return Verdict::Kernel {
                network: packet.place.network,
                otherwise: DropReason::FrameTooLong,
            };
        }
        send(io, frame, way.hop.interface, way.link, way.ethernet, moment)
    }

    /// Notes what the packet says about its connection.
    pub(super) fn note<A: Tracked>(
        &mut self,
        packet: &Packet<A>,
        found: Found,
        connection: &Connection<A>,
        moment: Moment<'_>,
    ) {
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
    }

    fn clamp<A: Tracked, Io: PacketIo>(
        &self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        connection: &Connection<A>,
        moment: Moment<'_>,
    ) {
        let service = match connection.handling {
            Handling::Translated => moment.services.service(connection.binding.service),
            Handling::Direct | Handling::Passing => None,
        };
        if let Some(limit) = service.and_then(|service| service.entry.mss_clamp)
            && clamp_mss(io.bytes_mut(frame), packet, limit)
        {
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
    let changes_ports = packet.tuple.ports() != to.ports();
    if !changes_ports || may_change_ports(packet.tuple.protocol) {
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
