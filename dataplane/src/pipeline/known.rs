//! Packets of connections that are in the table.

use sluice_conf::{BackendGone, Protocol};

use super::evidence::is_repeated;
use super::lane::Ended;
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{
    Binding, Connection, Deadline, Handling, ResetWorth, SctpState, Seconds, State, TcpState,
};
use crate::flow::Direction;
use crate::io::PacketIo;
use crate::service::{ServiceMap, Target};
use crate::stats::Outcome;
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, Segment, Signal, TcpFlags};

impl Engine {
    pub(super) fn packet<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        hash: u64,
        prospect: Option<u32>,
        moment: Moment<'_>,
    ) -> Verdict {
        let lane = A::lane(self);
        let found = lane.table.lookup(hash, &packet.tuple);
        if found.is_none()
            && let Some(prospect) = prospect.and_then(|place| lane.prospects.get(place as usize))
        {
            return self.establish(io, frame, packet, *prospect, moment);
        }
        // A damaged segment must not make, end or reset a connection.
        let decisive = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST;
        if packet.flags().any(decisive) && !packet.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        // What is for the host itself goes no hop further.
        let goes_on = || found.is_some() || !is_for_host(packet, moment);
        let verdict = match found {
            _ if packet.place.hop_limit <= 1 && goes_on() => {
                self.time_exceeded(io, frame, packet, moment)
            }
            Some((id, direction)) => self.known(io, frame, packet, Found { id, direction }, moment),
            None => self.unknown(io, frame, packet, moment),
        };
        match verdict {
            Verdict::Hold { hop, .. } => Verdict::Hold {
                hop,
                ports: packet.place.piece.map(|_| packet.tuple.ports()),
            },
            verdict => verdict,
        }
    }

    fn known<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        found: Found,
        moment: Moment<'_>,
    ) -> Verdict {
        let mut connection = A::lane(self).table.get(found.id);
        if starts_anew(&connection, found.direction, &packet.signal) {
            A::lane_mut(self).table.remove(found.id);
            return self.unknown(io, frame, packet, moment);
        }
        if !may_say(&connection, found.direction, &packet.signal) {
            return Verdict::Drop(DropReason::TcpInvalid);
        }
        if connection.binding.version != moment.services.version() {
            match rebind(&connection, moment.services, moment.seconds) {
                Some(binding) => {
                    A::lane_mut(self).table.rebind(found.id, binding);
                    connection.binding = binding;
                }
                None => return self.orphan(io, frame, packet, found, moment),
            }
        }
        if connection.is_overdue(moment.seconds) {
            return self.orphan(io, frame, packet, found, moment);
        }
        if let Some(worth) = reset_worth(&connection, found.direction, &packet.signal)
            && worth != ResetWorth::Exact
        {
            return self.doubtful_reset(io, frame, packet, found, worth, moment);
        }
        if is_repeated(&connection, found.direction, packet, moment.seconds) {
            connection.state = self.fail(found.id, &connection, Outcome::Silent, moment);
        }
        match moment.way(way_of(&connection, found.direction)) {
            Ok(way) => self.forward(io, frame, packet, found, &mut connection, way, moment),
            Err(verdict) => verdict,
        }
    }

    /// A reset that is not exact changes nothing here; its receiver may ask whether it is meant.
    fn doubtful_reset<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        found: Found,
        worth: ResetWorth,
        moment: Moment<'_>,
    ) -> Verdict {
        if worth == ResetWorth::Forged {
            return Verdict::Drop(DropReason::ResetForged);
        }
        let mut connection = A::lane(self).table.get(found.id);
        let unsaid = Packet {
            signal: Signal::Plain,
            ..*packet
        };
        match moment.way(way_of(&connection, found.direction)) {
            Ok(way) => self.forward(io, frame, &unsaid, found, &mut connection, way, moment),
            Err(verdict) => verdict,
        }
    }

    /// A packet of a connection whose backend is gone: the connection ends here. A client's UDP
    /// packet is the first of a new one (pkg/proxy/conntrack of kube-proxy).
    fn orphan<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        found: Found,
        moment: Moment<'_>,
    ) -> Verdict {
        let lane = A::lane_mut(self);
        let connection = lane.table.get(found.id);
        if wants_reset(&connection) {
            lane.ended.push(Ended::one(connection, found.direction));
        }
        if found.direction == Direction::Reply && packet.tuple.protocol == Protocol::Tcp {
            // The record stays, so that the client is told as well when it sends again.
            lane.table
                .touch(found.id, State::Tcp(TcpState::Close), moment.seconds);
            return self.reset(io, frame, packet, DropReason::BackendGone, moment);
        }
        lane.table.remove(found.id);
        let begins = match &packet.signal {
            Signal::Tcp(segment) => is_bare_syn(segment.flags),
            Signal::Sctp(chunk) => SctpState::may_begin(*chunk),
            Signal::Plain => packet.tuple.protocol == Protocol::Udp,
        };
        match found.direction {
            Direction::Original if begins => self.unknown(io, frame, packet, moment),
            _ => self.reset(io, frame, packet, DropReason::BackendGone, moment),
        }
    }
}

fn is_for_host<A: Tracked>(packet: &Packet<A>, moment: Moment<'_>) -> bool {
    let to = packet.tuple.destination;
    let target = Target::from_end(to, packet.tuple.protocol);
    moment.network.is_own(to.address) && moment.services.frontend(&target).is_none()
}

/// Whether there is somebody to be told that the connection has ended: both sides of a TCP
/// connection that is open.
pub(super) fn wants_reset<A: Tracked>(connection: &Connection<A>) -> bool {
    let is_open = |state| !matches!(state, TcpState::Close | TcpState::TimeWait);
    connection.handling == Handling::Translated
        && matches!(connection.state, State::Tcp(state) if is_open(state))
}

/// Where a packet goes: to whom it is translated, or with direct return to the backend's link.
pub(super) fn way_of<A: Tracked>(connection: &Connection<A>, direction: Direction) -> A {
    match (connection.handling, direction) {
        (Handling::Direct, Direction::Original) => connection.backend().address,
        _ => connection.translated(direction).destination.address,
    }
}

/// Whether the first packet of a client opens a new connection on the tuple of one that has ended.
pub(super) fn starts_anew<A: Tracked>(
    connection: &Connection<A>,
    direction: Direction,
    signal: &Signal,
) -> bool {
    direction == Direction::Original
        && match (connection.state, signal) {
            (State::Tcp(tcp), Signal::Tcp(segment)) => {
                is_bare_syn(segment.flags) && tcp.may_be_reopened()
            }
            (State::Sctp(sctp), Signal::Sctp(chunk)) => {
                SctpState::may_begin(*chunk) && sctp.may_be_reopened()
            }
            _ => false,
        }
}

/// Whether a side of a connection of ours can mean this. A backend opens nothing on the tuple of a
/// client's connection, and a client accepts nothing.
fn may_say<A: Tracked>(connection: &Connection<A>, direction: Direction, signal: &Signal) -> bool {
    let Signal::Tcp(Segment { flags, .. }) = signal else {
        return true;
    };
    let is_of_other_side =
        flags.any(TcpFlags::SYN) && flags.any(TcpFlags::ACK) == (direction == Direction::Original);
    connection.handling == Handling::Passing || (flags.is_sound() && !is_of_other_side)
}

/// What a TCP reset is worth; `None` for everything else. With direct return only one side is seen,
/// and there is nothing to judge by.
fn reset_worth<A: Tracked>(
    connection: &Connection<A>,
    direction: Direction,
    signal: &Signal,
) -> Option<ResetWorth> {
    match signal {
        Signal::Tcp(segment) if segment.flags.any(TcpFlags::RST) => {
            Some(connection.progress.judge(direction, segment))
        }
        _ => None,
    }
}

pub(super) fn is_bare_syn(flags: TcpFlags) -> bool {
    flags.any(TcpFlags::SYN) && !flags.any(TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN)
}

/// The binding in the map of this moment when its Service has not changed: nothing has to be
/// looked up then.
pub(super) fn carried(binding: &Binding, services: &ServiceMap) -> Option<Binding> {
    let version = services.version();
    if binding.version == version {
        return Some(*binding);
    }
    binding.backend?;
    let service = services.carried(binding.version, binding.service)?;
    Some(Binding {
        version,
        service,
        ..*binding
    })
}

/// The connection's place in the map of this moment; `None` when it must end.
pub(super) fn rebind<A: Tracked>(
    connection: &Connection<A>,
    services: &ServiceMap,
    now: Seconds,
) -> Option<Binding> {
    if let Some(same) = carried(&connection.binding, services) {
        return Some(same);
    }
    let version = services.version();
    let protocol = connection.original.protocol;
    let target = Target::from_end(connection.original.destination, protocol);
    if connection.handling == Handling::Passing {
        // What has become a Service's is no longer nobody's.
        let passes = !services.vips().is_used(target.address);
        let binding = Binding {
            version,
            ..connection.binding
        };
        return passes.then_some(binding);
    }
    let served = services.frontend(&target)?;
    let backend = connection.backend();
    let place = served
        .service
        .place_of(backend.address.into(), backend.port);
    let kept = Binding {
        version,
        service: served.place,
        backend: place,
        until: None,
    };
    match (place, served.service.entry.backend_gone) {
        (Some(_), _) => Some(kept),
        (None, _) if protocol == Protocol::Udp => None,
        (None, BackendGone::Keep) => Some(kept),
        (None, BackendGone::Drain { seconds }) => {
            let until = connection.binding.until;
            let until = until.unwrap_or(Deadline::at(Seconds(now.0.saturating_add(seconds))));
            Some(Binding {
                until: Some(until),
                ..kept
            })
        }
        (None, BackendGone::Reset) => None,
    }
}
