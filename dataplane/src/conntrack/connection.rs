//! The record of one connection.

use sluice_conf::settings::dataplane::Timeouts;

use super::{Seconds, TcpState};
use crate::flow::{Address, Direction, FiveTuple};
use crate::wire::parse::TcpFlags;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// TCP.
    Tcp(TcpState),
    /// UDP, seen from the client only.
    UdpNew,
    /// UDP, seen in both directions, for less than [`STREAM_AGE`]: a question and its answer.
    UdpAnswered,
    /// UDP, seen in both directions for longer.
    UdpStream,
}

/// Age in seconds from which on answered UDP is a stream (Linux, nf_conntrack_proto_udp.c).
pub const STREAM_AGE: u32 = 2;

impl State {
    /// The state after a packet in `direction`, when the connection is `age` seconds old.
    #[must_use]
    pub fn next(self, direction: Direction, flags: TcpFlags, age: u32) -> Self {
        match (self, direction) {
            (State::Tcp(tcp), _) => State::Tcp(tcp.next(direction, flags)),
            (State::UdpNew, Direction::Reply) => State::UdpAnswered,
            (State::UdpAnswered, _) if age >= STREAM_AGE => State::UdpStream,
            (same, _) => same,
        }
    }

    /// Seconds without a packet after which the connection is forgotten.
    pub fn timeout(self, timeouts: &Timeouts) -> u32 {
        match self {
            State::Tcp(TcpState::SynSent) => timeouts.tcp_syn_sent,
            State::Tcp(TcpState::SynReceived) => timeouts.tcp_syn_received,
            State::Tcp(TcpState::PickedUp) => timeouts.tcp_syn_received,
            State::Tcp(TcpState::Established) => timeouts.tcp_established,
            State::Tcp(TcpState::FinWait) => timeouts.tcp_fin_wait,
            State::Tcp(TcpState::CloseWait) => timeouts.tcp_close_wait,
            State::Tcp(TcpState::LastAck) => timeouts.tcp_last_ack,
            State::Tcp(TcpState::TimeWait) => timeouts.tcp_time_wait,
            State::Tcp(TcpState::Close) => timeouts.tcp_close,
            State::UdpNew | State::UdpAnswered => timeouts.udp,
            State::UdpStream => timeouts.udp_stream,
        }
    }

    /// Name for the operator.
    pub const fn name(self) -> &'static str {
        match self {
            State::Tcp(tcp) => tcp.name(),
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
    /// When the first packet was seen.
    pub created: Seconds,
    /// When the last packet was seen.
    pub last_seen: Seconds,
    /// Who serves it.
    pub binding: Binding,
}

impl<A: Address> Connection<A> {
    /// What a free slot of the table holds.
    pub const UNUSED: Self = Self {
        original: FiveTuple::UNSPECIFIED,
        reply: FiveTuple::UNSPECIFIED,
        state: State::UdpNew,
        created: Seconds(0),
        last_seen: Seconds(0),
        binding: Binding {
            version: 0,
            service: 0,
            backend: None,
        },
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
        self.tuple(direction.reverse()).invert()
    }

    /// When it is forgotten if nothing more comes.
    pub fn deadline(&self, timeouts: &Timeouts) -> Seconds {
        Seconds(
            self.last_seen
                .0
                .saturating_add(self.state.timeout(timeouts)),
        )
    }
}
