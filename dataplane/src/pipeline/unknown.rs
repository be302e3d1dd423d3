//! Packets that belong to no connection yet: a new one is made, or they are refused.

use std::net::IpAddr;

use sluice_conf::{Forwarding, Pool, Refusal, SourceNat};

use super::known::is_bare_syn;
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{Binding, Connection, Handling, SctpState, State, TcpState};
use crate::flow::{Address, Direction, End, FiveTuple};
use crate::io::PacketIo;
use crate::service::{Choice, CompiledBackend, CompiledService, Served, ServiceMap, Target};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, Signal, TcpFlags};

/// Whom a packet of no connection is for.
pub(super) enum Addressee<'a> {
    /// A Service.
    Frontend(Served<'a>),
    /// A Vip, but a port that it does not define: rejected, never forwarded.
    Vip,
    /// An address of the Service networks that no Service has.
    Unallocated,
    /// No Service.
    Nobody,
}

impl<'a> Addressee<'a> {
    pub(super) fn of(target: &Target, services: &'a ServiceMap) -> Self {
        match services.frontend(target) {
            Some(served) => Self::Frontend(served),
            None if services.vips().get(target.address).is_some() => Self::Vip,
            None if services.is_service_address(target.address) => Self::Unallocated,
            None => Self::Nobody,
        }
    }
}

/// The backend of a new connection and where it is.
pub(super) struct Chosen<'a, A> {
    pub(super) place: u16,
    pub(super) backend: &'a CompiledBackend,
    pub(super) end: End<A>,
}

/// Why a new connection gets no backend.
pub(super) enum Unserved {
    /// Others could serve, but not by the policy that counts for this client.
    NotByPolicy,
    /// Nobody can serve.
    Nobody,
}

impl<'a, A: Tracked> Chosen<'a, A> {
    /// The backend for a client that used port `port`.
    pub(super) fn of(choice: Choice<'a>, port: u16) -> Result<Self, Unserved> {
        let (place, backend) = match choice {
            Choice::Row(place, backend, _) | Choice::Affinity(place, backend) => (place, backend),
            Choice::NotByPolicy => return Err(Unserved::NotByPolicy),
            Choice::Nobody => return Err(Unserved::Nobody),
        };
        let end = backend.end(port).ok_or(Unserved::Nobody)?;
        Ok(Self {
            place,
            backend,
            end,
        })
    }
}

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
        if !packet.place.has_transport() {
            return self.stray_fragment(packet, &target, moment);
        }
        match Addressee::of(&target, moment.services) {
            Addressee::Nobody => self.transit(io, frame, packet, moment),
            _ if !is_sound(&packet.signal) => Verdict::Drop(DropReason::TcpInvalid),
            Addressee::Frontend(served) => self.open(io, frame, packet, served, moment),
            Addressee::Vip => self.refuse(io, frame, packet, Refusal::Icmp, moment),
            Addressee::Unallocated => Verdict::Drop(DropReason::Unallocated),
        }
    }

    /// A fragment of a packet whose first fragment has made no connection. If that waits for its next
    /// hop, so does this one.
    fn stray_fragment<A: Tracked>(
        &self,
        packet: &Packet<A>,
        target: &Target,
        moment: Moment<'_>,
    ) -> Verdict {
        match Addressee::of(target, moment.services) {
            Addressee::Frontend(served) => self
                .awaited(packet, served, moment)
                .unwrap_or(Verdict::Drop(DropReason::Fragment)),
            Addressee::Vip | Addressee::Unallocated => Verdict::Drop(DropReason::Fragment),
            Addressee::Nobody => Verdict::Kernel {
                network: packet.place.network,
                otherwise: DropReason::Fragment,
            },
        }
    }

    /// What the first packet of the connection waits for, if it does.
    fn awaited<A: Tracked>(
        &self,
        packet: &Packet<A>,
        served: Served<'_>,
        moment: Moment<'_>,
    ) -> Option<Verdict> {
        let client = packet.tuple.source.address;
        self.admit(client, served, moment).ok()?;
        let access = moment.services.access(served.frontend, client.into());
        let choice = self.choose(&packet.tuple, served, access.pool, moment);
        let chosen: Chosen<'_, A> = Chosen::of(choice, packet.tuple.destination.port).ok()?;
        let forwarding = served.service.entry.forwarding;
        let way = moment.way_to_backend(chosen.end.address, forwarding);
        way.err()
            .filter(|verdict| matches!(verdict, Verdict::Hold { .. }))
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
        if let Err(reason) = self.admit(client, served, moment) {
            return Verdict::Drop(reason);
        }
        if !packet.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        let choice = self.choose(&packet.tuple, served, access.pool, moment);
        let Chosen {
            place,
            backend,
            end,
        } = match Chosen::of(choice, packet.tuple.destination.port) {
            Ok(chosen) => chosen,
            Err(Unserved::NotByPolicy) => return Verdict::Drop(DropReason::NoLocalBackend),
            Err(Unserved::Nobody) => return self.refuse(io, frame, packet, entry.refusal, moment),
        };
        let way = match moment.way_to_backend(end.address, entry.forwarding) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
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

    /// Whether the client may open connections to the frontend at all.
    pub(super) fn admit<A: Tracked>(
        &self,
        client: A,
        served: Served<'_>,
        moment: Moment<'_>,
    ) -> Result<(), DropReason> {
        if self.is_martian(client, moment) && !is_own_guest(client.into(), served, moment) {
            return Err(DropReason::Martian);
        }
        if served.frontend.guarded && !served.service.admits(client.into()) {
            return Err(DropReason::SourceNotAllowed);
        }
        Ok(())
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
            return service.choose(pool, frontend, tuple.hash(), None);
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

/// Whether a packet comes from the very Vip that it goes to, and its source ranges name that Vip:
/// where they hold a node, kube-proxy lets in what a node sends by the Vip's name.
fn is_own_guest(client: IpAddr, served: Served<'_>, moment: Moment<'_>) -> bool {
    let frontend = served.frontend;
    let access = moment.services.access(frontend, client);
    frontend.guarded
        && client == frontend.address
        && access.source_nat == SourceNat::Masquerade
        && served.service.admits(client)
}

pub(super) fn opened<A: Tracked>(
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
        ..Connection::UNUSED
    }
}

/// The state that a first packet leads to; `None` for one from the middle of a connection that is
/// not known here any more.
pub(super) fn first_state(
    signal: &Signal,
    forwarding: Forwarding,
    source_nat: SourceNat,
) -> Option<State> {
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

fn is_sound(signal: &Signal) -> bool {
    match signal {
        Signal::Tcp(segment) => segment.flags.is_sound(),
        Signal::Sctp(_) | Signal::Plain => true,
    }
}

/// Whether a segment can be from the middle of a connection.
pub(super) fn is_picked_up(flags: TcpFlags) -> bool {
    flags.any(TcpFlags::ACK) && !flags.any(TcpFlags::SYN | TcpFlags::RST)
}
