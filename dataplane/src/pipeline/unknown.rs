//! Packets that belong to no connection yet: a new one is made, or they are refused.

use std::net::IpAddr;

use sluice_conf::{Forwarding, Pool, Refusal, SourceNat};

use super::known::is_bare_syn;
use super::{Engine, Moment, Tracked};
use crate::conntrack::{SctpState, State, TcpState};
use crate::flow::{End, FiveTuple};
use crate::io::PacketIo;
use crate::service::{Choice, Served, ServiceMap, Target};
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

/// Place of the backend of a new connection, and its end.
pub(super) struct Chosen<A> {
    pub(super) place: u16,
    pub(super) end: End<A>,
}

/// Why a new connection gets no backend.
pub(super) enum Unserved {
    /// Others could serve, but not by the policy that counts for this client.
    NotByPolicy,
    /// Nobody can serve.
    Nobody,
}

impl<A: Tracked> Chosen<A> {
    /// The backend for a client that used port `port`.
    pub(super) fn of(choice: Choice<'_>, port: u16) -> Result<Self, Unserved> {
        let (place, backend) = match choice {
            Choice::Row(place, backend, _) | Choice::Affinity(place, backend) => (place, backend),
            Choice::NotByPolicy => return Err(Unserved::NotByPolicy),
            Choice::Nobody => return Err(Unserved::Nobody),
        };
        let end = backend.end(port).ok_or(Unserved::Nobody)?;
        Ok(Self { place, end })
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
            _ if !packet.is_sound() => Verdict::Drop(DropReason::TcpInvalid),
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
        let chosen: Chosen<A> = Chosen::of(choice, packet.tuple.destination.port).ok()?;
        let forwarding = served.service.entry.forwarding;
        let way = moment.way_to_backend(chosen.end.address, forwarding);
        way.err()
            .filter(|verdict| matches!(verdict, Verdict::Hold { .. }))
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

    /// Whether nobody can have sent from this address: it is no unicast address (RFC 1812 section
    /// 5.3.7), or it is ours.
    fn is_martian<A: Tracked>(&self, source: A, moment: Moment<'_>) -> bool {
        !source.is_sender()
            || moment.network.is_own(source)
            || moment.services.vips().get(source.into()).is_some()
            || A::lane(self).source == Some(source)
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

/// Whether a segment can be from the middle of a connection.
pub(super) fn is_picked_up(flags: TcpFlags) -> bool {
    flags.any(TcpFlags::ACK) && !flags.any(TcpFlags::SYN | TcpFlags::RST)
}
