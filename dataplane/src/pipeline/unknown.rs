//! Packets that belong to no connection yet: a new one is made, or they are refused.

use sluice_conf::{Forwarding, Pool, Refusal, SourceNat};

use super::known::is_bare_syn;
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{Binding, Connection, Handling, Progress, SctpState, State, TcpState};
use crate::flow::{Address, Direction, End, FiveTuple};
use crate::io::PacketIo;
use crate::service::{Choice, CompiledBackend, CompiledService, Served, Target};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, Signal, TcpFlags};

impl Engine {
    pub(super) fn unknown<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let to = packet.tuple.destination;
        let target = Target::from_end(to, packet.tuple.protocol);
        let services = moment.services;
        if !packet.place.has_transport() {
            return self.stray_fragment(packet, moment);
        }
        match services.frontend(&target) {
            Some(served) => self.open(io, frame, packet, served, moment),
            // A port that a Vip does not define is rejected, never forwarded.
            None if services.vips().get(target.address).is_some() => {
                self.refuse(io, frame, packet, Refusal::Icmp, moment)
            }
            None if services.is_service_address(target.address) => {
                Verdict::Drop(DropReason::Unallocated)
            }
            None => self.transit(io, frame, packet, moment),
        }
    }

    /// A fragment of a packet whose first fragment made no connection.
    fn stray_fragment<A: Tracked>(&self, packet: &Packet<A>, moment: Moment<'_>) -> Verdict {
        let to = packet.tuple.destination.address.into();
        let is_ours = moment.services.vips().get(to).is_some();
        match is_ours || moment.services.is_service_address(to) {
            true => Verdict::Drop(DropReason::Fragment),
            false => Verdict::Kernel {
                network: packet.place.network,
                otherwise: DropReason::Fragment,
            },
        }
    }

    /// A client's packet to a frontend.
    fn open<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        served: Served<'_>,
        moment: Moment<'_>,
    ) -> Verdict {
        let entry = &served.service.entry;
        let client = packet.tuple.source.address;
        let access = moment.services.access(served.frontend, client.into());
        let Some(state) = first_state(&packet.signal, entry.forwarding, access.source_nat) else {
            return self.reset(io, frame, packet, DropReason::NoAnswer, moment);
        };
        if let Err(reason) = self.may_open(io.bytes(frame), packet, served, moment) {
            return Verdict::Drop(reason);
        }
        let (place, backend) = match self.choose(&packet.tuple, served, access.pool, moment) {
            Choice::Row(place, backend, _) | Choice::Affinity(place, backend) => (place, backend),
            Choice::NotByPolicy => return Verdict::Drop(DropReason::NoLocalBackend),
            Choice::Nobody => return self.refuse(io, frame, packet, entry.refusal, moment),
        };
        let Some(end) = backend.end::<A>(packet.tuple.destination.port) else {
            return self.refuse(io, frame, packet, entry.refusal, moment);
        };
        let way = match moment.way(end.address) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
        if entry.forwarding == Forwarding::DirectReturn && way.hop.address != end.address {
            // Behind a router the Ethernet address would be the router's.
            return Verdict::Drop(DropReason::NoRoute);
        }
        let binding = Binding {
            version: moment.services.version(),
            service: served.place,
            backend: Some(place),
            until: None,
        };
        let connection = opened(packet.tuple, state, end, binding, entry.forwarding, moment);
        match self.insert(connection, access, way.hop.source, moment) {
            Ok(id) => {
                self.remember(client, served.service, backend, moment);
                self.count_new(backend);
                let direction = Direction::Original;
                self.forward(io, frame, packet, Found { id, direction }, way, moment)
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    fn may_open<A: Tracked>(
        &self,
        frame: &[u8],
        packet: &Packet<A>,
        served: Served<'_>,
        moment: Moment<'_>,
    ) -> Result<(), DropReason> {
        let client = packet.tuple.source.address;
        if self.is_martian(client, moment) {
            return Err(DropReason::Martian);
        }
        if served.frontend.guarded && !served.service.admits(client.into()) {
            return Err(DropReason::SourceNotAllowed);
        }
        match packet.has_right_checksum(frame) {
            true => Ok(()),
            false => Err(DropReason::BadTransportChecksum),
        }
    }

    /// The backend for a new connection. Every gateway computes the same hash, so they all choose
    /// the same one; with session affinity from the client's address alone.
    pub(super) fn choose<'a, A: Tracked>(
        &self,
        tuple: &FiveTuple<A>,
        served: Served<'a>,
        pool: Pool,
        moment: Moment<'_>,
    ) -> Choice<'a> {
        let service = served.service;
        let frontend = tuple.destination.address.into();
        let Some(seconds) = service.entry.affinity_seconds else {
            return service.choose(pool, frontend, tuple.hash(0), None);
        };
        let client = tuple.source.address;
        let now = moment.seconds.0;
        let remembered = self.affinity.get(service.key, client.bits(), now, seconds);
        let hash = End::new(client, 0).hash();
        service.choose(pool, frontend, hash, remembered)
    }

    /// Session affinity counts from the last new connection, as kube-proxy's does.
    fn remember<A: Address>(
        &self,
        client: A,
        service: &CompiledService,
        backend: &CompiledBackend,
        moment: Moment<'_>,
    ) {
        if service.entry.affinity_seconds.is_none() {
            return;
        }
        let (client, backend) = (client.bits(), backend.fingerprint());
        let evicted = self
            .affinity
            .put(service.key, client, backend, moment.seconds.0);
        if evicted {
            self.count(|counters| counters.affinity_evicted.add(1));
        }
    }

    /// Whether nobody can have sent from this address: it is no unicast address (RFC 1812 section
    /// 5.3.7), or it is ours.
    fn is_martian<A: Tracked>(&self, source: A, moment: Moment<'_>) -> bool {
        !source.is_sender()
            || moment.network.is_own(source)
            || moment.services.vips().get(source.into()).is_some()
            || A::lane(self).source == Some(source)
    }

    fn count_new(&self, backend: &CompiledBackend) {
        self.count(|counters| counters.connections_opened.add(1));
        if let Some(counters) = backend.counters.of(self.worker) {
            counters.connections.add(1);
        }
    }
}

fn opened<A: Tracked>(
    original: FiveTuple<A>,
    state: State,
    backend: End<A>,
    binding: Binding,
    forwarding: Forwarding,
    moment: Moment<'_>,
) -> Connection<A> {
    Connection {
        original,
        reply: FiveTuple {
            source: backend,
            destination: original.source,
            protocol: original.protocol,
        },
        state,
        handling: match forwarding {
            Forwarding::Nat => Handling::Translated,
            Forwarding::DirectReturn => Handling::Direct,
        },
        created: moment.seconds,
        last_seen: moment.seconds,
        binding,
        progress: Progress::NONE,
    }
}

/// The state that a first packet leads to; `None` for one from the middle of a connection that is
/// not known here any more.
fn first_state(signal: &Signal, forwarding: Forwarding, source_nat: SourceNat) -> Option<State> {
    // With the client's address kept, Maglev finds the backend again and the connection goes on
    // as if nothing had been lost; with masquerade the source port is lost for good.
    let goes_on = forwarding == Forwarding::DirectReturn || source_nat == SourceNat::Preserve;
    match signal {
        Signal::Plain => Some(State::UdpNew),
        Signal::Tcp(segment) if is_bare_syn(segment.flags) => Some(State::Tcp(TcpState::SynSent)),
        Signal::Tcp(segment) if goes_on && is_picked_up(segment.flags) => {
            Some(State::Tcp(TcpState::PickedUp))
        }
        Signal::Sctp(chunk) if SctpState::may_begin(*chunk) => {
            Some(State::Sctp(SctpState::CookieWait))
        }
        Signal::Tcp(_) | Signal::Sctp(_) => None,
    }
}

/// Whether a segment can be from the middle of a connection.
pub(super) fn is_picked_up(flags: TcpFlags) -> bool {
    flags.any(TcpFlags::ACK) && !flags.any(TcpFlags::SYN | TcpFlags::RST)
}
