//! SCTP states, netfilter's words (Linux, nf_conntrack_proto_sctp.c): associations of one address
//! on each side.

use crate::flow::Direction;

// Chunk types (RFC 9260 section 3.2).
/// The chunk that begins an association.
pub const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// State of an association as seen from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SctpState {
    /// The client sent INIT.
    CookieWait,
    /// The client sent COOKIE ECHO.
    CookieEchoed,
    /// The backend acknowledged the cookie.
    Established,
    /// One side sent SHUTDOWN.
    Shutdown,
    /// ABORT or SHUTDOWN COMPLETE was seen.
    Closed,
}

impl SctpState {
    /// Whether a packet that begins with this chunk can begin an association.
    pub const fn may_begin(chunk: u8) -> bool {
        chunk == INIT
    }

    /// The state after a packet in `direction` that begins with `chunk`.
    #[must_use]
    pub const fn next(self, direction: Direction, chunk: u8) -> Self {
        match (chunk, direction, self) {
            (ABORT | SHUTDOWN_COMPLETE, _, _) => SctpState::Closed,
            (COOKIE_ECHO, Direction::Original, SctpState::CookieWait) => SctpState::CookieEchoed,
            (COOKIE_ACK, Direction::Reply, SctpState::CookieWait | SctpState::CookieEchoed) => {
                SctpState::Established
            }
            (INIT_ACK, _, state) => state,
            (SHUTDOWN | SHUTDOWN_ACK, _, SctpState::Established | SctpState::CookieEchoed) => {
                SctpState::Shutdown
            }
            (_, _, state) => state,
        }
    }

    /// Whether an INIT of the client in this state starts a new association on the old tuple.
    pub const fn may_be_reopened(self) -> bool {
        matches!(self, SctpState::Shutdown | SctpState::Closed)
    }

    /// Name, as `conntrack -L` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            SctpState::CookieWait => "COOKIE_WAIT",
            SctpState::CookieEchoed => "COOKIE_ECHOED",
            SctpState::Established => "ESTABLISHED",
            SctpState::Shutdown => "SHUTDOWN",
            SctpState::Closed => "CLOSED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Original, Reply};

    #[test]
    fn an_association_is_made_by_four_packets_and_ended_by_three() {
        let mut state = SctpState::CookieWait;
        for (direction, chunk, expected) in [
            (Reply, INIT_ACK, SctpState::CookieWait),
            (Original, COOKIE_ECHO, SctpState::CookieEchoed),
            (Reply, COOKIE_ACK, SctpState::Established),
            (Original, 0, SctpState::Established),
            (Reply, SHUTDOWN, SctpState::Shutdown),
            (Original, SHUTDOWN_ACK, SctpState::Shutdown),
            (Reply, SHUTDOWN_COMPLETE, SctpState::Closed),
        ] {
            state = state.next(direction, chunk);
            assert_eq!(state, expected, "after chunk {chunk}");
        }
    }

    #[test]
    fn an_abort_closes_from_every_state() {
        for state in [
            SctpState::CookieWait,
            SctpState::Established,
            SctpState::Shutdown,
        ] {
            assert_eq!(state.next(Reply, ABORT), SctpState::Closed);
        }
    }
}
