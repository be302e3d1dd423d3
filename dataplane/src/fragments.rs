//! Which packets arrive in fragments, and the ports that their first fragments tell.
//!
//! Nothing is reassembled: each fragment is translated and sent on alone, and this table remembers
//! for a while what only the first of them says. It also refuses what no honest sender makes:
//! fragments that overlap (RFC 5722, RFC 8200 section 4.5), of which two receivers can build two
//! different packets.
//!
//! Memory is fixed. A packet stands in one of eight slots; when all are taken the oldest gives
//! way. No seed is needed: the identification differs from packet to packet, so nobody can keep a
//! window full for the packets of someone else without filling the table.

mod packet;

pub use packet::{Piece, Seen};

use crate::flow::{Address, mix, scale};
use packet::Packet;

/// Slots where a packet can stand.
const WINDOW: usize = 8;

/// Slots for each packet asked for: at half load a window is hardly ever full.
const SLOTS_PER_PACKET: usize = 2;

// Odd constants that keep a 0 from multiplying everything away.
const SALT: u64 = 0x9e37_79b9_7f4a_7c15;
const PEPPER: u64 = 0x2545_f491_4f6c_dd1d;

/// What the fragments of a packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<A> {
    /// Who sent the packet.
    pub source: A,
    /// Whom it is for.
    pub destination: A,
    /// IPv4's protocol number (RFC 791). In IPv6 fragments of one packet may differ in it, so there
    /// it must be the same for all (RFC 8200 section 4.5): the number of the Fragment header, 44.
    pub protocol: u8,
    /// The sender's number of the packet; 16 bits in IPv4.
    pub identification: u32,
}

/// The answer to one fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// What to do with it.
    pub seen: Seen,
    /// All bytes of the packet have now been seen; it is forgotten, and its identification is free.
    pub complete: bool,
    /// Another packet had to give way, though it was neither complete nor out of time.
    pub evicted: bool,
}

/// Packets whose fragments are arriving. Times are seconds of any clock that does not go back.
#[derive(Debug)]
pub struct FragmentTable<A> {
    slots: Box<[Option<Packet<A>>]>,
    timeout: u32,
    used: usize,
    /// Where the next step of expiry looks.
    cursor: usize,
}

impl<A: Address> FragmentTable<A> {
    /// A table for about `packets` at once, each followed for `timeout_seconds` after its first
    /// arrival (RFC 8200 section 4.5 says 60). About 640 bytes for each packet are taken here and
    /// never more.
    pub fn new(packets: u32, timeout_seconds: u32) -> Self {
        let slots = (packets as usize * SLOTS_PER_PACKET).max(WINDOW);
        Self {
            slots: vec![None; slots].into(),
            timeout: timeout_seconds,
            used: 0,
            cursor: 0,
        }
    }

    /// Packets that are followed, those out of time included until expiry finds them.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether no packet is followed.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes note of a fragment and says what to do with it.
    pub fn see(&mut self, key: Key<A>, piece: Piece, now: u32) -> Sighting {
        if piece.offset == 0 && !piece.more && piece.is_well_formed() {
            // A whole packet has no business with fragments of others (RFC 6946).
            return Sighting {
                seen: Seen::First,
                complete: true,
                evicted: false,
            };
        }
        let (at, evicted) = self.place(key, now);
        let packet = self.slots[at].get_or_insert_with(|| {
            self.used += 1;
            Packet::new(key, now)
        });
        let seen = packet.add(piece);
        let complete = packet.is_complete();
        if complete {
            self.clear(at);
        }
        Sighting {
            seen,
            complete,
            evicted,
        }
    }

    /// Looks at the next `steps` slots and forgets the packets that are out of time. Returns how
    /// many: packets that never became whole, or were refused.
    pub fn expire(&mut self, now: u32, steps: usize) -> usize {
        // Most of the time: looking at empty slots would cost every burst a cache miss each.
        if self.is_empty() {
            return 0;
        }
        let before = self.used;
        for _ in 0..steps.min(self.slots.len()) {
            if self.live(self.cursor, now).is_none() {
                self.clear(self.cursor);
            }
            self.cursor = (self.cursor + 1) % self.slots.len();
        }
        before - self.used
    }

    /// Where the packet stands or shall stand, and whether another had to give way for it.
    fn place(&mut self, key: Key<A>, now: u32) -> (usize, bool) {
        let count = self.slots.len();
        let first = scale(hash(&key), count);
        let window = || (first..first + WINDOW).map(|at| at % count);

        let is_it = |at: &usize| self.live(*at, now).is_some_and(|packet| packet.key == key);
        if let Some(at) = window().find(is_it) {
            return (at, false);
        }
        // A free slot sorts before all times.
        let since = |at: &usize| self.live(*at, now).map(|packet| packet.since);
        let at = window().min_by_key(since).unwrap_or(first);
        let evicted = self.live(at, now).is_some();
        self.clear(at);
        (at, evicted)
    }

    /// The packet of a slot, if it is not out of time.
    fn live(&self, at: usize, now: u32) -> Option<&Packet<A>> {
        let packet = self.slots[at].as_ref()?;
        (now.saturating_sub(packet.since) < self.timeout).then_some(packet)
    }

    fn clear(&mut self, at: usize) {
        if self.slots[at].take().is_some() {
            self.used -= 1;
        }
    }
}

fn hash<A: Address>(key: &Key<A>) -> u64 {
    let number = u64::from(key.identification) << 8 | u64::from(key.protocol);
    let addresses = mix(key.source.bits() ^ SALT, key.destination.bits() ^ PEPPER);
    mix(addresses ^ PEPPER, number ^ SALT)
}

#[cfg(test)]
mod tests;
