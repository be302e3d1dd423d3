//! TCP states as netfilter names and moves them, and what it takes for a reset to be believed
//! (Linux, nf_conntrack_proto_tcp.c).
//!
//! Sequence numbers are followed but data is not judged by them: only a reset can do harm, and a
//! window that was seen wrongly would do more. What lies outside the window is passed on without
//! being believed, or a guess from outside would make the next one exact.

use crate::flow::Direction;
use crate::wire::parse::{Segment, TcpFlags};
use crate::wire::plain::Said;

/// Farthest that a window can be shifted (RFC 7323 section 2.3).
const MAX_SHIFT: u8 = 14;

/// State of a TCP connection as seen from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// The client sent SYN.
    SynSent,
    /// As [`TcpState::SynSent`], and it was noted that the backend has not answered: the client sent
    /// SYN again, or an error came back.
    SynFailed,
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

/// What one side of a connection has sent, seen from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side {
    /// Behind the last byte it has sent.
    end: u32,
    /// What it expects next: its highest acknowledgement.
    expects: u32,
    /// Largest window it has announced, in units of `1 << shift`.
    window: u16,
    /// How far its windows are shifted (RFC 7323 section 2.2), and what was seen of it:
    /// [`Side::SENT`], [`Side::ACKNOWLEDGED`].
    marks: u8,
}

/// What both sides have sent, field by field: so it is as short as it can be, for a record
/// to fit a cache line, and a side is found without a multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(Rust, packed(2))]
pub struct Progress {
    end: [u32; 2],
    expects: [u32; 2],
    window: [u16; 2],
    marks: [u8; 2],
}

/// What a reset is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetWorth {
    /// It ends the connection.
    Exact,
    /// It lies in the window but is not exact: its receiver will ask the sender whether it is
    /// meant (RFC 5961 section 3.2), so it is passed on and changes nothing.
    InWindow,
    /// Nobody who sees the connection could have sent it.
    Forged,
}

impl Side {
    const NONE: Self = Self {
        end: 0,
        expects: 0,
        window: 0,
        // Whose SYN was not seen may scale as much as anybody (RFC 7323 section 2.3).
        marks: MAX_SHIFT,
    };
    const SHIFT: u8 = 0x0f;
    const SENT: u8 = 0x10;
    const ACKNOWLEDGED: u8 = 0x20;

    const fn shift(&self) -> u8 {
        self.marks & Self::SHIFT
    }

    const fn has_sent(&self) -> bool {
        self.marks & Self::SENT != 0
    }

    const fn has_acknowledged(&self) -> bool {
        self.marks & Self::ACKNOWLEDGED != 0
    }

    /// Whether a segment that ends here lies in the window, as far as it is known.
    const fn may_receive(&self, end: u32) -> bool {
        !self.has_acknowledged() || end.wrapping_sub(self.expects) <= self.window_or_probe()
    }

    /// Whether it can have sent all bytes before this one, as far as is known.
    const fn may_have_sent(&self, end: u32) -> bool {
        !self.has_sent() || !is_after(end, self.end)
    }

    /// The window; a byte is sent to ask whether one that was closed has opened.
    const fn window_or_probe(&self) -> u32 {
        match (self.window as u32) << self.shift() {
            0 => 1,
            window => window,
        }
    }

    /// Takes in what it has sent, and how much it would receive.
    #[inline]
    fn send(&mut self, other: &Self, end: u32, window: u16) {
        let is_news = is_after(end, self.end) && other.may_receive(end);
        if is_news || !self.has_sent() {
            self.end = end;
            self.marks |= Self::SENT;
        }
        self.window = window.max(self.window);
    }
}

impl Progress {
    /// Nothing was sent yet.
    pub const NONE: Self = Self {
        end: [Side::NONE.end; 2],
        expects: [Side::NONE.expects; 2],
        window: [Side::NONE.window; 2],
        marks: [Side::NONE.marks; 2],
    };

    /// Takes in a segment.
    pub fn note(&mut self, direction: Direction, segment: &Segment) {
        let mut side = self.side(direction);
        let is_syn = segment.flags.any(TcpFlags::SYN);
        // Who has acknowledged something has had its SYN: another one is a guess from outside.
        if is_syn && !side.has_acknowledged() {
            side = Side {
                marks: segment.scale.unwrap_or(0).min(MAX_SHIFT),
                ..Side::NONE
            };
            self.set(direction, side);
        }
        // The window of a SYN itself is never scaled; a broken unit counts as a whole one.
        let window = match is_syn {
            true => segment.window.div_ceil(1 << side.shift()),
            false => segment.window,
        };
        if segment.flags.any(TcpFlags::ACK) {
            self.advance(
                direction,
                Said {
                    end: segment.sequence_end(),
                    acknowledgement: segment.acknowledgement,
                    window,
                },
            );
        } else {
            let other = self.side(direction.reverse());
            side.send(&other, segment.sequence_end(), window);
            self.set(direction, side);
        }
    }

    /// Takes in what a segment says that acknowledges and opens nothing.
    #[inline]
    pub fn advance(&mut self, direction: Direction, said: Said) {
        let other = self.side(direction.reverse());
        let mut side = self.side(direction);
        side.send(&other, said.end, said.window);
        let expected = said.acknowledgement;
        let is_news = is_after(expected, side.expects) && other.may_have_sent(expected);
        if is_news || !side.has_acknowledged() {
            side.expects = expected;
            side.marks |= Side::ACKNOWLEDGED;
        }
        self.set(direction, side);
    }

    /// What a reset in `direction` is worth.
    pub fn judge(&self, direction: Direction, segment: &Segment) -> ResetWorth {
        let (sender, receiver) = (self.side(direction), self.side(direction.reverse()));
        if !receiver.has_acknowledged() {
            // The receiver has only sent its SYN: the reset must acknowledge just that.
            let refuses =
                segment.flags.any(TcpFlags::ACK) && segment.acknowledgement == receiver.end;
            let follows = sender.has_sent() && segment.sequence == sender.end;
            return match receiver.has_sent() {
                true if !(refuses || follows) => ResetWorth::Forged,
                _ => ResetWorth::Exact,
            };
        }
        let at = segment.sequence;
        if at == receiver.expects || (sender.has_sent() && at == sender.end) {
            return ResetWorth::Exact;
        }
        let ahead = at.wrapping_sub(receiver.expects);
        if ahead <= receiver.window_or_probe() {
            ResetWorth::InWindow
        } else {
            ResetWorth::Forged
        }
    }

    /// What the receiver of packets in `direction` expects next, if it has said so; else `Err` with
    /// the end of what it has sent, when it has sent anything.
    pub fn expected(&self, direction: Direction) -> Result<u32, Option<u32>> {
        let receiver = self.side(direction.reverse());
        match receiver.has_acknowledged() {
            true => Ok(receiver.expects),
            false => Err(receiver.has_sent().then_some(receiver.end)),
        }
    }

    #[inline]
    const fn side(&self, direction: Direction) -> Side {
        let side = direction as usize;
        Side {
            end: self.end[side],
            expects: self.expects[side],
            window: self.window[side],
            marks: self.marks[side],
        }
    }

    #[inline]
    const fn set(&mut self, direction: Direction, to: Side) {
        let side = direction as usize;
        self.end[side] = to.end;
        self.expects[side] = to.expects;
        self.window[side] = to.window;
        self.marks[side] = to.marks;
    }
}

/// Whether `a` comes after `b` in sequence space (RFC 9293 section 3.4).
const fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
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
    pub const ALL: [TcpState; 10] = [
        TcpState::SynSent,
        TcpState::SynFailed,
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
            CloseWait, Established, FinWait, LastAck, PickedUp, SynFailed, SynReceived, SynSent,
            TimeWait,
        };
        match (Event::of(flags), direction, self) {
            (Event::Rst, _, _) => TcpState::Close,
            (Event::SynAck, Direction::Reply, SynSent | SynFailed) => SynReceived,
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
            TcpState::SynSent | TcpState::SynFailed => "SYN_SENT",
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

    fn segment(flags: u8, sequence: u32, acknowledgement: u32) -> Segment {
        Segment {
            flags: TcpFlags(flags),
            sequence,
            acknowledgement,
            window: 1000,
            header_len: 20,
            data_len: 0,
            scale: None,
        }
    }

    fn syn(flags: u8, sequence: u32, acknowledgement: u32, scale: u8) -> Segment {
        Segment {
            scale: Some(scale),
            ..segment(flags, sequence, acknowledgement)
        }
    }

    fn established() -> Progress {
        let mut progress = Progress::NONE;
        progress.note(Original, &syn(SYN, 100, 0, 2));
        progress.note(Reply, &syn(SYN | ACK, 900, 101, 0));
        progress.note(Original, &segment(ACK, 101, 901));
        progress
    }

    #[test]
    fn only_an_exact_reset_ends_a_connection() {
        let progress = established();
        let worth = |direction, at| progress.judge(direction, &segment(RST, at, 0));
        assert_eq!(worth(Reply, 901), ResetWorth::Exact);
        assert_eq!(worth(Original, 101), ResetWorth::Exact);
        assert_eq!(worth(Reply, 902), ResetWorth::InWindow);
        // The client's window is scaled by four, the backend's is not.
        assert_eq!(worth(Reply, 901 + 4000), ResetWorth::InWindow);
        assert_eq!(worth(Reply, 901 + 4001), ResetWorth::Forged);
        assert_eq!(worth(Original, 101 + 1001), ResetWorth::Forged);
        assert_eq!(worth(Reply, 900), ResetWorth::Forged);
    }

    #[test]
    fn what_lies_outside_the_window_teaches_nobody_the_exact_number() {
        let guesses = [
            segment(SYN, 5_000_000, 0),
            segment(ACK, 5_000_000, 901),
            segment(ACK, 101, 70_000),
        ];
        for guess in guesses {
            let mut progress = established();
            progress.note(Original, &guess);
            let blind = segment(RST, guess.sequence_end(), 0);
            if guess.sequence != 101 {
                assert_eq!(progress.judge(Original, &blind), ResetWorth::Forged);
            }
            assert_eq!(progress.expected(Original), Ok(101));
            assert_eq!(progress.expected(Reply), Ok(901));
            let meant = segment(RST, 101, 0);
            assert_eq!(progress.judge(Original, &meant), ResetWorth::Exact);
        }
    }

    #[test]
    fn a_window_of_unknown_scale_is_as_wide_as_any() {
        let mut progress = Progress::NONE;
        progress.note(Original, &segment(ACK, 100, 900));
        progress.note(Reply, &segment(ACK, 900, 100));
        // Far beyond 1,000 bytes, but not beyond 1,000 shifted by 14.
        progress.note(Original, &segment(ACK, 1_000_100, 900));
        progress.note(Reply, &segment(ACK, 900, 1_000_100));
        assert_eq!(progress.expected(Original), Ok(1_000_100));
    }

    #[test]
    fn a_reset_of_a_syn_must_acknowledge_it() {
        let mut progress = Progress::NONE;
        progress.note(Original, &segment(SYN, 100, 0));
        let worth =
            |acknowledgement| progress.judge(Reply, &segment(RST | ACK, 0, acknowledgement));
        assert_eq!(worth(101), ResetWorth::Exact);
        assert_eq!(worth(102), ResetWorth::Forged);
        assert_eq!(
            progress.judge(Original, &segment(RST, 101, 0)),
            ResetWorth::Exact
        );
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut progress = Progress::NONE;
        progress.note(Original, &segment(ACK, u32::MAX - 1, 5));
        progress.note(Reply, &segment(ACK, 5, u32::MAX));
        progress.note(Original, &segment(ACK, 3, 5));
        progress.note(Reply, &segment(ACK, 5, 3));
        assert_eq!(progress.expected(Original), Ok(3));
        assert_eq!(
            progress.judge(Original, &segment(RST, 3, 0)),
            ResetWorth::Exact
        );
    }
}
