//! TCP states as netfilter names and moves them (Linux, nf_conntrack_proto_tcp.c).
//!
//! The tracker watches flags only: sequence numbers are not checked here.

use crate::flow::Direction;
use crate::wire::parse::TcpFlags;

/// State of a TCP connection as seen from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The client sent SYN.
    SynSent,
    /// The backend answered SYN-ACK.
    SynReceived,
    /// The handshake was not seen: the client went on where another gateway, or this one before a
    /// restart, had left off. Until the backend agrees, anybody could have sent that.
    PickedUp,
    /// The handshake is complete.
    Established,
    /// One side sent FIN.
    FinWait,
    /// The FIN was acknowledged, the other side may still send.
    CloseWait,
    /// Both sides sent FIN.
    LastAck,
    /// Both FINs were acknowledged.
    TimeWait,
    /// A reset was seen.
    Close,
}

/// What a segment means to the tracker; the order of the tests is netfilter's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Rst,
    Syn,
    SynAck,
    Fin,
    Ack,
    None,
}

impl Event {
    fn of(flags: TcpFlags) -> Self {
        let has = |flag| flags.any(flag);
        match () {
            () if has(TcpFlags::RST) => Event::Rst,
            () if has(TcpFlags::SYN) && has(TcpFlags::ACK) => Event::SynAck,
            () if has(TcpFlags::SYN) => Event::Syn,
            () if has(TcpFlags::FIN) => Event::Fin,
            () if has(TcpFlags::ACK) => Event::Ack,
            () => Event::None,
        }
    }
}

impl TcpState {
    /// Every state.
    pub const ALL: [TcpState; 9] = [
        TcpState::SynSent,
        TcpState::SynReceived,
        TcpState::PickedUp,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
    ];

    /// The state after a segment in `direction`.
    #[must_use]
    pub fn next(self, direction: Direction, flags: TcpFlags) -> Self {
        use TcpState::{
            CloseWait, Established, FinWait, LastAck, PickedUp, SynReceived, SynSent, TimeWait,
        };
        match (Event::of(flags), direction, self) {
            (Event::Rst, _, _) => TcpState::Close,
            (Event::SynAck, Direction::Reply, SynSent) => SynReceived,
            (Event::Fin, _, SynReceived | Established | PickedUp) => FinWait,
            (Event::Ack, Direction::Reply, PickedUp) => Established,
            (Event::Fin, _, FinWait | CloseWait) => LastAck,
            (Event::Ack, Direction::Original, SynReceived) => Established,
            (Event::Ack, _, FinWait) => CloseWait,
            (Event::Ack, _, LastAck) => TimeWait,
            (_, _, state) => state,
        }
    }

    /// Whether a SYN of the client in this state starts a new connection on the old tuple.
    pub const fn may_be_reopened(self) -> bool {
        matches!(
            self,
            TcpState::TimeWait | TcpState::Close | TcpState::LastAck
        )
    }

    /// Name, as `conntrack -L` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynReceived => "SYN_RECV",
            TcpState::PickedUp => "PICKED_UP",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};
    use TcpState::*;

    const SYN: u8 = TcpFlags::SYN;
    const ACK: u8 = TcpFlags::ACK;
    const FIN: u8 = TcpFlags::FIN;
    const RST: u8 = TcpFlags::RST;

    fn walk(steps: &[(Direction, u8, TcpState)]) {
        let mut state = SynSent;
        for (step, (direction, flags, expected)) in steps.iter().enumerate() {
            state = state.next(*direction, TcpFlags(*flags));
            assert_eq!(state, *expected, "step {step}");
        }
    }

    #[test]
    fn a_connection_closed_by_the_client_ends_in_time_wait() {
        walk(&[
            (Original, SYN, SynSent),
            (Reply, SYN | ACK, SynReceived),
            (Original, ACK, Established),
            (Reply, ACK, Established),
            (Original, FIN | ACK, FinWait),
            (Reply, ACK, CloseWait),
            (Reply, FIN | ACK, LastAck),
            (Original, ACK, TimeWait),
        ]);
    }

    #[test]
    fn a_connection_closed_by_the_backend_ends_in_time_wait() {
        walk(&[
            (Reply, SYN | ACK, SynReceived),
            (Original, ACK, Established),
            (Reply, FIN | ACK, FinWait),
            (Original, FIN | ACK, LastAck),
            (Reply, ACK, TimeWait),
        ]);
    }

    #[test]
    fn a_refused_connection_is_closed() {
        walk(&[(Reply, RST | ACK, Close)]);
    }

    #[test]
    fn a_reset_closes_from_every_state_and_wins_over_other_flags() {
        for state in TcpState::ALL {
            assert_eq!(state.next(Reply, TcpFlags(RST | FIN | ACK)), Close);
        }
    }

    #[test]
    fn a_repeated_syn_does_not_disturb_what_is_established() {
        assert_eq!(Established.next(Original, TcpFlags(SYN)), Established);
        assert_eq!(Established.next(Reply, TcpFlags(SYN | ACK)), Established);
    }
}
