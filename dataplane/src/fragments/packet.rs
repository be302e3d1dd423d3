//! The fragments of one packet: which ranges of it have been seen, and what they say together.

use super::Key;

/// Pieces of a packet at most: 65,535 bytes in pieces of 1,024.
const MAX_PIECES: usize = 64;

/// All but the last piece are a multiple of this long (RFC 791, RFC 8200 section 4.5).
const UNIT: u16 = 8;

/// What one fragment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where its data belongs in the packet, in bytes.
    pub offset: u16,
    /// Bytes of its data.
    pub len: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// Source and destination port; read from the fragment with offset 0, ignored in all others.
    pub ports: Option<(u16, u16)>,
}

impl Piece {
    pub(super) fn end(&self) -> u32 {
        u32::from(self.offset) + u32::from(self.len)
    }

    pub(super) fn is_well_formed(&self) -> bool {
        let is_whole = self.len > 0 && (!self.more || self.len.is_multiple_of(UNIT));
        // A first fragment too short for its ports is a way past filters (RFC 1858, RFC 7112).
        is_whole && self.offset.is_multiple_of(UNIT) && (self.offset > 0 || self.ports.is_some())
    }
}

/// What to do with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is the first: goes on, and so do those of its packet that wait.
    First,
    /// Not the first, but that has been seen with these ports: goes on.
    Known((u16, u16)),
    /// The first has not been seen: the frame waits.
    Unknown,
    /// Seen before, byte range for byte range: refused; the rest of the packet is not.
    Duplicate,
    /// It overlaps another or contradicts what others said (where the packet ends, its ports): it
    /// and all later fragments of the packet are refused.
    Overlap,
    /// The packet comes in more pieces than are followed: refused from here on.
    TooMany,
    /// The packet would be longer than 65,535 bytes: refused from here on.
    TooLong,
    /// No data, a length or offset that no fragment can have, or a first fragment without ports:
    /// refused from here on.
    Malformed,
}

impl Seen {
    fn condemns_packet(self) -> bool {
        matches!(
            self,
            Seen::Overlap | Seen::TooMany | Seen::TooLong | Seen::Malformed
        )
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<A> {
    pub(super) key: Key<A>,
    /// Seconds at its first-arriving fragment, from which the timeout counts.
    pub(super) since: u32,
    ports: Option<(u16, u16)>,
    /// Where the packet ends, once its last fragment has been seen.
    total: Option<u16>,
    /// Sum of the pieces, which never overlap.
    bytes: u16,
    refused: Option<Seen>,
    count: u8,
    /// Start and end of the pieces, in order.
    pieces: [(u16, u16); MAX_PIECES],
}

impl<A> Packet<A> {
    pub(super) fn new(key: Key<A>, since: u32) -> Self {
        Self {
            key,
            since,
            ports: None,
            total: None,
            bytes: 0,
            refused: None,
            count: 0,
            pieces: [(0, 0); MAX_PIECES],
        }
    }

    pub(super) fn add(&mut self, piece: Piece) -> Seen {
        let seen = self.refused.unwrap_or_else(|| self.judge(piece));
        if seen.condemns_packet() {
            self.refused = Some(seen);
        }
        seen
    }

    fn judge(&mut self, piece: Piece) -> Seen {
        if !piece.is_well_formed() {
            return Seen::Malformed;
        }
        let (start, Ok(end)) = (piece.offset, u16::try_from(piece.end())) else {
            return Seen::TooLong;
        };
        let range = (start, end);
        let at = self.pieces().partition_point(|seen| seen.0 < start);
        if self.pieces().get(at) == Some(&range) {
            return self.judge_repeated(piece, end);
        }
        if self.overlaps(at, range) || self.contradicts_end(piece.more, end) {
            return Seen::Overlap;
        }
        if !self.insert(at, range) {
            return Seen::TooMany;
        }
        if !piece.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.ports = piece.ports;
            return Seen::First;
        }
        self.ports.map_or(Seen::Unknown, Seen::Known)
    }

    /// The range is known; the same again is a duplicate, but not if the rest of it differs.
    fn judge_repeated(&self, piece: Piece, end: u16) -> Seen {
        let is_same_end = piece.more == (self.total != Some(end));
        let has_same_ports = piece.offset > 0 || piece.ports == self.ports;
        if is_same_end && has_same_ports {
            Seen::Duplicate
        } else {
            Seen::Overlap
        }
    }

    fn pieces(&self) -> &[(u16, u16)] {
        self.pieces.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// Whether a piece that would stand at `at` reaches into the one before or the one behind.
    fn overlaps(&self, at: usize, (start, end): (u16, u16)) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.pieces().get(at));
        let behind = self.pieces().get(at);
        before.is_some_and(|piece| piece.1 > start) || behind.is_some_and(|piece| piece.0 < end)
    }

    /// Whether the piece lies behind the packet's end, or ends the packet before what was seen.
    fn contradicts_end(&self, more: bool, end: u16) -> bool {
        let furthest = self.pieces().last().map_or(0, |piece| piece.1);
        match self.total {
            Some(total) => !more || end > total,
            None => !more && end < furthest,
        }
    }

    fn insert(&mut self, at: usize, (start, end): (u16, u16)) -> bool {
        let count = usize::from(self.count);
        if count == MAX_PIECES {
            return false;
        }
        self.pieces.copy_within(at..count, at + 1);
        self.pieces[at] = (start, end);
        self.count += 1;
        self.bytes += end - start;
        true
    }

    pub(super) fn is_complete(&self) -> bool {
        self.refused.is_none() && self.total == Some(self.bytes)
    }
}
