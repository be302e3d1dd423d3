//! Packets that belong to no connection yet: a new one is made, or they are refused.

use std::net::Ipv4Addr;

use sluice_conf::{Protocol, SourceNat};

use super::answer::may_be_answered;
use super::known::is_bare_syn;
use super::{Engine, Found, Moment, Way};
use crate::conntrack::{Binding, ConnId, Connection, InsertError, State, TcpState};
use crate::flow::{Direction, End, FiveTuple};
use crate::io::PacketIo;
use crate::nat::ports::candidates;
use crate::service::{CompiledBackend, CompiledService};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, TcpFlags};

impl Engine {
    pub(super) fn unknown<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        moment: Moment<'_>,
    ) -> Verdict {
        let tuple = &packet.tuple;
        let Some((place, service)) = moment.services.frontend(tuple.destination, tuple.protocol)
        else {
            return match moment.services.vip(tuple.destination.address) {
                Some(_) => self.refuse(io, frame, packet, moment),
                None => Verdict::Drop(DropReason::NoConnection),
            };
        };
        let Some(state) = first_state(packet, service) else {
            return self.reset(io, frame, packet, DropReason::NoAnswer, moment);
        };
        if self.is_martian(tuple.source.address, moment) {
            return Verdict::Drop(DropReason::Martian);
        }
        if !packet.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        // The same hash on every gateway: they all choose the same backend.
        let Some((backend_place, backend)) = service.pick(tuple.hash(0)) else {
            return self.refuse(io, frame, packet, moment);
        };
        let way = match moment.way(backend.end.address, packet) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
        let version = moment.services.version();
        let connection = Connection {
            original: *tuple,
            reply: tuple.invert(),
            state,
            created: moment.seconds,
            last_seen: moment.seconds,
            binding: Binding {
                version,
                service: place,
                backend: Some(backend_place),
            },
        };
        match self.insert(connection, service, backend, way) {
            Ok(id) => {
                self.count_new(backend);
                let found = Found {
                    id,
                    direction: Direction::Original,
                };
                self.forward(io, frame, packet, found, way, moment)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Whether nobody can have sent from this address: it is no unicast address (RFC 1812 section
    /// 5.3.7), or it is ours.
    fn is_martian(&self, source: Ipv4Addr, moment: Moment<'_>) -> bool {
        !may_be_answered(source)
            || moment.network.is_own(source)
            || moment.services.vip(source).is_some()
            || self.source_address == Some(source)
    }

    /// Inserts the connection with the source that its backend gets to see.
    fn insert(
        &mut self,
        mut connection: Connection<Ipv4Addr>,
        service: &CompiledService,
        backend: &CompiledBackend,
        way: Way,
    ) -> Result<ConnId, DropReason> {
        let client = connection.original.source;
        let protocol = connection.original.protocol;
        let reply_to = |source| FiveTuple {
            source: backend.end,
            destination: source,
            protocol,
        };
        // A backend that talks to itself through the Vip must not see its own address as source:
        // it would answer itself and never the gateway (kube-proxy's hairpin rule).
        let hairpin = client.address == backend.end.address;
        if service.entry.source_nat == SourceNat::Preserve && !hairpin {
            connection.reply = reply_to(client);
            match self.table.insert(connection) {
                Ok(id) => return Ok(id),
                Err(InsertError::Full) => return Err(DropReason::ConnectionTableFull),
                // The client uses one port towards two frontends with a common backend: only
                // another source can keep the two apart.
                Err(InsertError::InUse(_)) => {}
            }
        }
        let address = self.source_address.unwrap_or(way.hop.source);
        self.insert_masqueraded(connection, |port| reply_to(End::new(address, port)))
    }

    fn insert_masqueraded(
        &mut self,
        mut connection: Connection<Ipv4Addr>,
        reply: impl Fn(u16) -> FiveTuple<Ipv4Addr>,
    ) -> Result<ConnId, DropReason> {
        let block = self.ports.block(self.worker);
        let mut ended = None;
        for port in candidates(block, self.next_random()) {
            connection.reply = reply(port);
            match self.table.insert(connection) {
                Ok(id) => return Ok(id),
                Err(InsertError::Full) => return Err(DropReason::ConnectionTableFull),
                Err(InsertError::InUse(other)) => {
                    let has_ended = self.has_ended(other);
                    ended = ended.or(has_ended.then_some((other, port)));
                }
            }
        }
        // All taken: one that has ended gives up its port before its time.
        let (other, port) = ended.ok_or(DropReason::SourcePortsExhausted)?;
        self.table.remove(other);
        connection.reply = reply(port);
        self.table
            .insert(connection)
            .map_err(|_| DropReason::SourcePortsExhausted)
    }

    fn has_ended(&self, id: ConnId) -> bool {
        matches!(
            self.table.get(id).state,
            State::Tcp(TcpState::TimeWait | TcpState::Close)
        )
    }

    fn count_new(&self, backend: &CompiledBackend) {
        self.count(|counters| counters.connections_opened.add(1));
        if let Some(counters) = backend.counters.of(self.worker) {
            counters.connections.add(1);
        }
    }
}

/// The state that a first packet leads to; `None` for a segment from the middle of a connection
/// that is not known here any more.
fn first_state(packet: &Packet, service: &CompiledService) -> Option<State> {
    match packet.tuple.protocol {
        Protocol::Udp => Some(State::UdpNew),
        Protocol::Tcp if is_bare_syn(packet.flags) => Some(State::Tcp(TcpState::SynSent)),
        // With the client's address kept, Maglev finds the backend again and the connection goes
        // on as if nothing had been lost; with masquerade the source port is lost for good.
        Protocol::Tcp
            if service.entry.source_nat == SourceNat::Preserve
                && packet.flags.any(TcpFlags::ACK)
                && !packet.flags.any(TcpFlags::SYN | TcpFlags::RST) =>
        {
            Some(State::Tcp(TcpState::PickedUp))
        }
        Protocol::Tcp => None,
    }
}
