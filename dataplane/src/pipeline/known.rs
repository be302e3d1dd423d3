//! Packets of connections that are in the table.

use std::net::Ipv4Addr;

use sluice_conf::{BackendGone, Protocol};

use super::{Engine, Found, Moment, REVIEW_BUDGET, Review};
use crate::conntrack::{Binding, Connection, Seconds, State, TcpState};
use crate::flow::Direction;
use crate::io::PacketIo;
use crate::service::ServiceMap;
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, TcpFlags};

impl Engine {
    pub(super) fn known<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        found: Found,
        moment: Moment<'_>,
    ) -> Verdict {
        if starts_anew(self.table.get(found.id), found.direction, packet.flags) {
            self.table.remove(found.id);
            return self.unknown(io, frame, packet, moment);
        }
        if self.table.get(found.id).binding.version != moment.services.version() {
            match rebind(self.table.get(found.id), moment.services) {
                Some(binding) => *self.table.binding_mut(found.id) = binding,
                None => return self.orphan(io, frame, packet, found, moment),
            }
        }
        let to = self
            .table
            .get(found.id)
            .translated(found.direction)
            .destination;
        match moment.way(to.address, packet) {
            Ok(way) => self.forward(io, frame, packet, found, way, moment),
            Err(verdict) => verdict,
        }
    }

    /// After a new table, walks over all connections, some a call. Those that are silent would
    /// else keep a backend that is gone, and their record, for days. UDP is forgotten at once;
    /// TCP gets the short timeout of a closed connection, so that a peer that still sends is told.
    pub(super) fn revalidate(&mut self, services: &ServiceMap, now: Seconds) {
        if self.review.version != services.version() {
            self.review = Review {
                version: services.version(),
                next: Some(0),
            };
        }
        let Some(from) = self.review.next else { return };
        let end = from
            .saturating_add(REVIEW_BUDGET)
            .min(self.table.capacity() as u32);
        for number in from..end {
            let Some(id) = self.table.in_use(number) else {
                continue;
            };
            let connection = self.table.get(id);
            if connection.binding.version == services.version() {
                continue;
            }
            match (rebind(connection, services), connection.state) {
                (Some(binding), _) => *self.table.binding_mut(id) = binding,
                (None, State::Tcp(TcpState::Close)) => {}
                (None, State::Tcp(_)) => self.table.touch(id, State::Tcp(TcpState::Close), now),
                (None, State::UdpNew | State::UdpAnswered | State::UdpStream) => {
                    self.table.remove(id);
                }
            }
        }
        self.review.next = (end < self.table.capacity() as u32).then_some(end);
    }

    /// A packet of a connection whose backend is gone: the connection ends here. A client's UDP
    /// packet is the first of a new one (pkg/proxy/conntrack of kube-proxy).
    fn orphan<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        found: Found,
        moment: Moment<'_>,
    ) -> Verdict {
        if found.direction == Direction::Reply && packet.tuple.protocol == Protocol::Tcp {
            // The record stays, so that the client is told as well when it sends again.
            self.table
                .touch(found.id, State::Tcp(TcpState::Close), moment.seconds);
            return self.reset(io, frame, packet, DropReason::BackendGone, moment);
        }
        self.table.remove(found.id);
        match (packet.tuple.protocol, found.direction) {
            (Protocol::Udp, Direction::Original) => self.unknown(io, frame, packet, moment),
            (Protocol::Tcp, Direction::Original) if is_bare_syn(packet.flags) => {
                self.unknown(io, frame, packet, moment)
            }
            _ => self.reset(io, frame, packet, DropReason::BackendGone, moment),
        }
    }
}

/// Whether a client's SYN opens a new connection on the tuple of one that has ended.
fn starts_anew(connection: &Connection<Ipv4Addr>, direction: Direction, flags: TcpFlags) -> bool {
    match connection.state {
        State::Tcp(tcp) => {
            direction == Direction::Original && is_bare_syn(flags) && tcp.may_be_reopened()
        }
        _ => false,
    }
}

pub(super) fn is_bare_syn(flags: TcpFlags) -> bool {
    flags.any(TcpFlags::SYN) && !flags.any(TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN)
}

/// The connection's place in the map of this moment; `None` when it must end.
fn rebind(connection: &Connection<Ipv4Addr>, services: &ServiceMap) -> Option<Binding> {
    let version = services.version();
    let frontend = connection.original.destination;
    let (service, entry) = services.frontend(frontend, connection.original.protocol)?;
    let backend = entry.place_of(connection.reply.source);
    let keeps = entry.entry.backend_gone == BackendGone::Keep
        && connection.original.protocol == Protocol::Tcp;
    (backend.is_some() || keeps).then_some(Binding {
        version,
        service,
        backend,
    })
}
