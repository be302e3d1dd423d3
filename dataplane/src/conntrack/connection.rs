//! The record of one connection.

use sluice_conf::settings::dataplane::Timeouts;

use super::{Deadline, Progress, SctpState, Seconds, TcpState};
use crate::flow::{Address, Direction, End, FiveTuple};
use crate::wire::parse::{Signal, TcpFlags};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// TCP.
    Tcp(TcpState),
    /// SCTP.
    Sctp(SctpState),
    /// UDP, seen from the client only.
    UdpNew,
    /// UDP, seen in both directions, for less than [`STREAM_AGE`]: a question and its answer.
    UdpAnswered,
    /// UDP, seen in both directions for longer.
    UdpStream,
}

/// Age in seconds from which on answered UDP is a stream (Linux, nf_conntrack_proto_udp.c).
pub const STREAM_AGE: u32 = 2;

/// How badly a full table can do without a connection; less is given up first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// It has ended.
    Ended,
    /// Nobody has answered yet, or nobody agreed.
    Opening,
    /// A question that was answered.
    Answered,
    /// Both sides use it.
    Established,
}

impl State {
    /// The state after a packet in `direction`, when the connection is `age` seconds old.
    #[must_use]
    pub fn next(self, direction: Direction, signal: &Signal, age: u32) -> Self {
        match (self, signal, direction) {
            (State::Tcp(tcp), Signal::Tcp(segment), _) => {
                State::Tcp(tcp.next(direction, segment.flags))
            }
            (State::Sctp(sctp), Signal::Sctp(chunk), _) => {
                State::Sctp(sctp.next(direction, *chunk))
            }
            (State::UdpNew, _, Direction::Reply) => State::UdpAnswered,
            (State::UdpAnswered, _, _) if age >= STREAM_AGE => State::UdpStream,
            (same, _, _) => same,
        }
    }

    /// The state that follows when only the client's packets are ever seen: what it goes on to do
    /// tells what the backend has answered.
    #[must_use]
    pub fn seen_from_one_side(self, signal: &Signal) -> Self {
        match (self, signal) {
            (
                State::Tcp(TcpState::SynSent | TcpState::SynFailed | TcpState::PickedUp),
                Signal::Tcp(segment),
            ) if segment.flags.any(TcpFlags::ACK) => State::Tcp(TcpState::Established),
            (State::Sctp(SctpState::CookieEchoed), Signal::Sctp(0)) => {
                State::Sctp(SctpState::Established)
            }
            (same, _) => same,
        }
    }

    /// Whether the client's first packet has had no answer yet.
    pub const fn awaits_answer(self) -> bool {
        matches!(
            self,
            State::Tcp(TcpState::SynSent | TcpState::SynFailed)
                | State::Sctp(SctpState::CookieWait)
                | State::UdpNew
        )
    }

    /// Whether it is one of UDP's.
    pub const fn is_udp(self) -> bool {
        matches!(self, State::UdpNew | State::UdpAnswered | State::UdpStream)
    }

    /// Seconds without a packet after which the connection is forgotten.
    pub fn timeout(self, timeouts: &Timeouts) -> u32 {
        match self {
            State::Tcp(TcpState::SynSent | TcpState::SynFailed) => timeouts.tcp_syn_sent,
            State::Tcp(TcpState::SynReceived) => timeouts.tcp_syn_received,
            State::Tcp(TcpState::PickedUp) => timeouts.tcp_syn_received,
            State::Tcp(TcpState::Established) => timeouts.tcp_established,
            State::Tcp(TcpState::FinWait) => timeouts.tcp_fin_wait,
            State::Tcp(TcpState::CloseWait) => timeouts.tcp_close_wait,
            State::Tcp(TcpState::LastAck) => timeouts.tcp_last_ack,
            State::Tcp(TcpState::TimeWait) => timeouts.tcp_time_wait,
            State::Tcp(TcpState::Close) => timeouts.tcp_close,
            State::Sctp(SctpState::Established) => timeouts.sctp_established,
            State::Sctp(SctpState::Closed) => timeouts.tcp_close,
            State::Sctp(_) => timeouts.sctp_opening,
            State::UdpNew | State::UdpAnswered => timeouts.udp,
            State::UdpStream => timeouts.udp_stream,
        }
    }

    /// What a full table loses with it.
    pub const fn value(self) -> Value {
        match self {
            State::Tcp(TcpState::TimeWait | TcpState::Close | TcpState::LastAck)
            | State::Sctp(SctpState::Closed | SctpState::Shutdown) => Value::Ended,
            State::Tcp(
                TcpState::SynSent
                | TcpState::SynFailed
                | TcpState::SynReceived
                | TcpState::PickedUp,
            )
            | State::Sctp(SctpState::CookieWait | SctpState::CookieEchoed)
            | State::UdpNew => Value::Opening,
            State::UdpAnswered => Value::Answered,
            State::Tcp(TcpState::Established | TcpState::FinWait | TcpState::CloseWait)
            | State::Sctp(SctpState::Established)
            | State::UdpStream => Value::Established,
        }
    }

    /// Whether it has ended, so that its tuple may be given to another.
    pub const fn has_ended(self) -> bool {
        matches!(
            self,
            State::Tcp(TcpState::TimeWait | TcpState::Close) | State::Sctp(SctpState::Closed)
        )
    }

    /// Name for the operator.
    pub const fn name(self) -> &'static str {
        match self {
            State::Tcp(tcp) => tcp.name(),
            State::Sctp(sctp) => sctp.name(),
            State::UdpNew => "NEW",
            State::UdpAnswered => "ANSWERED",
            State::UdpStream => "STREAM",
        }
    }
}

/// Which Service and backend the connection was given to, as places in one version of the
/// [`ServiceMap`](crate::service::ServiceMap); in another version they mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Binding {
    /// Version of the map.
    pub version: u32,
    /// Place of the Service.
    pub service: u32,
    /// Place of the backend in the Service; `None` when it is gone and the connection is kept.
    pub backend: Option<u16>,
    /// When a kept connection must have ended; `None` without a limit, as of UDP, which is not kept.
    pub until: Option<Deadline>,
}

/// What becomes of a connection's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Handling {
    /// They are translated.
    #[default]
    Translated,
    /// They go to the backend as they are, by Ethernet address; it answers without us.
    Direct,
    /// They are no Service's and only cross the gateway.
    Passing,
}

/// One connection: the memory of a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection<A> {
    /// As the client sends: client to frontend.
    pub original: FiveTuple<A>,
    /// As the backend answers: backend to client, or to the masquerade address.
    pub reply: FiveTuple<A>,
    /// Where it stands.
    pub state: State,
    /// What becomes of its packets.
    pub handling: Handling,
    /// When the first packet was seen, of UDP; of others nobody asks, and their record has no room.
    pub created: Seconds,
    /// When the last packet was seen.
    pub last_seen: Seconds,
    /// Who serves it.
    pub binding: Binding,
    /// What both sides have sent, with TCP.
    pub progress: Progress,
}

impl<A: Address> Connection<A> {
    /// What a free slot of the table holds.
    pub const UNUSED: Self = Self {
        original: FiveTuple::UNSPECIFIED,
        reply: FiveTuple::UNSPECIFIED,
        state: State::UdpNew,
        handling: Handling::Translated,
        created: Seconds(0),
        last_seen: Seconds(0),
        binding: Binding {
            version: 0,
            service: 0,
            backend: None,
            until: None,
        },
        progress: Progress::NONE,
    };

    /// The tuple that a packet in `direction` arrives with.
    pub const fn tuple(&self, direction: Direction) -> &FiveTuple<A> {
        match direction {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// The tuple that a packet in `direction` leaves with: the other direction's, inverted.
    pub const fn translated(&self, direction: Direction) -> FiveTuple<A> {
        match self.handling {
            Handling::Translated | Handling::Passing => self.tuple(direction.reverse()).invert(),
            Handling::Direct => *self.tuple(direction),
        }
    }

    /// Who serves it.
    pub const fn backend(&self) -> End<A> {
        self.reply.source
    }

    /// Whether a packet that neither opens nor ends anything changes nothing but the time and what
    /// was sent: both sides use it, and its end is not in sight.
    pub const fn is_settled(&self) -> bool {
        matches!(
            self.state,
            State::Tcp(TcpState::Established) | State::UdpStream
        ) && self.binding.until.is_none()
    }

    /// When it is forgotten if nothing more comes: the first second that begins its timeout after the
    /// last packet, which may have come at the end of its own second.
    pub fn deadline(&self, timeouts: &Timeouts) -> Seconds {
        deadline(self.last_seen, self.state, self.binding.until, timeouts)
    }

    /// Whether it was kept for a time and that time is over.
    pub fn is_overdue(&self, now: Seconds) -> bool {
        self.binding
            .until
            .is_some_and(|until| until.seconds() <= now)
    }
}

/// As [`Connection::deadline`].
pub(super) fn deadline(
    last_seen: Seconds,
    state: State,
    until: Option<Deadline>,
    timeouts: &Timeouts,
) -> Seconds {
    let timeout = state.timeout(timeouts).saturating_add(1);
    let idle = Seconds(last_seen.0.saturating_add(timeout));
    until.map_or(idle, |until| idle.min(until.seconds()))
}
