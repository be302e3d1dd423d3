//! Packets that are no Service's and still come here, because one end could be a backend's or is
//! one of ours: the gateway must not swallow them.
//!
//! A backend that clients reach by its own name answers them as it answers clients of the Service.
//! The two are told apart by following the direct connections from their first packet on: a
//! TCP answer of no connection at all is not passed on, for it could show a client of the Service
//! an address that it never used (kubernetes/kubernetes pull request 74840).

use super::known::is_bare_syn;
use super::unknown::is_picked_up;
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{Binding, Connection, Handling, InsertError, SctpState, State, TcpState};
use crate::flow::{Direction, FiveTuple};
use crate::io::PacketIo;
use crate::service::Target;
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Packet, Signal};

impl Engine {
    pub(super) fn transit<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let tuple = packet.tuple;
        let to_kernel = Verdict::Kernel {
            network: packet.place.network,
            otherwise: DropReason::NoConnection,
        };
        let to = tuple.destination.address;
        if A::lane(self).source == Some(to) && !moment.network.is_own(to) {
            // The masquerade address of the settings is ours alone.
            return Verdict::Drop(DropReason::NoConnection);
        }
        let Some(may_be_answer) = crosses(&tuple, moment) else {
            return to_kernel;
        };
        let Some(state) = passing_state(&packet.signal, may_be_answer) else {
            return Verdict::Drop(DropReason::NoConnection);
        };
        let way = match moment.way(to) {
            Ok(way) => way,
            Err(Verdict::Drop(_)) => return to_kernel,
            Err(verdict) => return verdict,
        };
        let mut connection = Connection {
            original: tuple,
            reply: tuple.invert(),
            state,
            handling: Handling::Passing,
            created: moment.seconds,
            last_seen: moment.seconds,
            binding: Binding {
                version: moment.services.version(),
                ..Binding::default()
            },
            ..Connection::UNUSED
        };
        let table = &A::lane(self).table;
        let hashes = [&connection.original, &connection.reply].map(|tuple| table.hash(tuple));
        match self.insert_or_evict(&connection, hashes) {
            Ok(id) => {
                let direction = Direction::Original;
                let found = Found { id, direction };
                self.forward(io, frame, packet, found, &mut connection, way, moment)
            }
            Err(InsertError::Full) => Verdict::Drop(DropReason::ConnectionTableFull),
            Err(InsertError::InUse(_)) => Verdict::Drop(DropReason::NoConnection),
        }
    }
}

/// Whether a packet that crosses may be the answer to another; `None` when neither end is a
/// backend that answers clients by its own name, so that the kernel can have it.
pub(super) fn crosses<A: Tracked>(tuple: &FiveTuple<A>, moment: Moment<'_>) -> Option<bool> {
    let is_end = |end| {
        let target = Target::from_end(end, tuple.protocol);
        moment.services.is_preserving_backend(&target)
    };
    let (from_backend, to_backend) = (is_end(tuple.source), is_end(tuple.destination));
    let is_kernels =
        moment.network.is_own(tuple.destination.address) || !(from_backend || to_backend);
    (!is_kernels).then_some(from_backend && !to_backend)
}

/// The state that a first packet leads to. An answer begins nothing, but with UDP nobody can tell
/// an answer from a question.
fn passing_state(signal: &Signal, may_be_answer: bool) -> Option<State> {
    match signal {
        Signal::Plain => Some(State::UdpNew),
        Signal::Tcp(segment) if is_bare_syn(segment.flags) => Some(State::Tcp(TcpState::SynSent)),
        Signal::Tcp(segment) if !may_be_answer && is_picked_up(segment.flags) => {
            Some(State::Tcp(TcpState::PickedUp))
        }
        Signal::Sctp(chunk) if SctpState::may_begin(*chunk) || !may_be_answer => {
            Some(State::Sctp(SctpState::CookieWait))
        }
        Signal::Tcp(_) | Signal::Sctp(_) => None,
    }
}
