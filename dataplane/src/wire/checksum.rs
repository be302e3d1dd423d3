//! Internet checksums: whole (RFC 1071) and incremental (RFC 1624).

use etherparse::checksum::Sum16BitWords;

use super::Family;
use crate::flow::Direction;

/// The change of a checksum that follows from changed header words.
///
/// Equation 3 of RFC 1624: `HC' = ~(~HC + ~m + m')`. The sum of all `~m + m'` is collected here
/// and applied once. A broken checksum stays broken by the same amount: a forwarder must not make
/// a damaged packet look whole. It is of words and checksums that are all read in one order of bytes,
/// whichever (RFC 1071 section 2 (B)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(u32);

impl Delta {
    /// Adds the change of one 16-bit word.
    #[must_use]
    pub fn word(self, old: u16, new: u16) -> Self {
        // At most 2 * 0xffff a word: the 32 bits hold 32,768 words, far more than a header has.
        Self(self.0 + u32::from(!old) + u32::from(new))
    }

    /// Adds the change of one 16-bit word that becomes less by `by`, without a borrow.
    #[must_use]
    pub const fn less(self, by: u16) -> Self {
        // !m + m - by = 0xffff - by, whatever m is.
        Self(self.0 + !by as u32)
    }

    /// Adds the change of a 32-bit field.
    #[must_use]
    pub fn long(self, old: u32, new: u32) -> Self {
        let sum = u64::from(!old) + u64::from(new);
        // No more than two words add, and the same in the end: 2 to the power of 16 is 1.
        Self(self.0 + (sum & 0xffff) as u32 + (sum >> 16) as u32)
    }

    /// The checksum after the change.
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(u32::from(!checksum) + self.0)
    }

    /// The same change in 16 bits, to be kept.
    pub fn fold(self) -> FoldedDelta {
        FoldedDelta(fold(self.0))
    }
}

/// A [`Delta`] in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FoldedDelta(u16);

impl FoldedDelta {
    /// No change.
    pub const NONE: Self = Self(u16::MAX);

    /// The change, or the one that takes it back when packets go the other way.
    #[must_use]
    #[inline]
    pub const fn in_direction(self, direction: Direction) -> Delta {
        // No jump: packets of both directions come mixed. 0xffff - delta takes it back; another
        // 0xffff changes nothing, but that the sum is not 0 when nothing changes.
        let turn = (direction as u16).wrapping_neg();
        Delta((self.0 ^ turn) as u32 + turn as u32)
    }
}

const fn fold(sum: u32) -> u16 {
    let (once, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
    once + carry as u16
}

/// Checksum of a header or message whose checksum field holds 0.
pub fn of(bytes: &[u8]) -> u16 {
    Sum16BitWords::new()
        .add_slice(bytes)
        .ones_complement()
        .to_be()
}

/// As [`is_right`], for an IPv4 header without options.
pub fn is_header_right(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    // The sum does not depend on the order of bytes (RFC 1071 section 2 (B)).
    let sum: u64 = words
        .iter()
        .map(|w| u64::from(u32::from_ne_bytes(*w)))
        .sum();
    // 2 to the power of 16 is 1 modulo 0xffff, so folding keeps the remainder. No header is all zero.
    sum.is_multiple_of(0xffff)
}

/// Whether a header or message that includes its checksum is undamaged.
pub fn is_right(bytes: &[u8]) -> bool {
    of(bytes) == 0
}

/// Checksum of a TCP segment, UDP datagram or ICMPv6 message with its pseudo header: `segment` with
/// its checksum field, so 0 means undamaged; with the field set to 0 it is the value to write.
pub fn of_segment<A: Family>(source: A, destination: A, protocol: u8, segment: &[u8]) -> u16 {
    A::pseudo_header(source, destination, protocol, segment.len())
        .add_slice(segment)
        .ones_complement()
        .to_be()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, restated: the oracle for everything above.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn a_header_is_right_when_its_whole_checksum_is(mut header in any::<[u8; 20]>(), damage in any::<bool>()) {
            header[10..12].fill(0);
            let sum = of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header[7] ^= u8::from(damage);
            prop_assert_eq!(is_header_right(&header), is_right(&header));
        }

        #[test]
        fn a_folded_change_does_the_same_and_its_reverse_undoes_it(
            checksum in any::<u16>(),
            words in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..12),
        ) {
            let delta = words.iter().fold(Delta::default(), |delta, (old, new)| delta.word(*old, *new));
            let back = words.iter().fold(Delta::default(), |delta, (old, new)| delta.word(*new, *old));
            let folded = delta.fold();
            let [there, again] = [Direction::Original, Direction::Reply].map(|way| folded.in_direction(way));
            prop_assert_eq!(there.apply(checksum), delta.apply(checksum));
            prop_assert_eq!(again.apply(checksum), back.apply(checksum));
        }

        #[test]
        fn the_order_of_bytes_does_not_matter(
            checksum in any::<u16>(),
            words in proptest::collection::vec((any::<u16>(), any::<u16>()), 1..12),
        ) {
            let delta = words.iter().fold(Delta::default(), |delta, (old, new)| delta.word(*old, *new));
            let swapped = words
                .iter()
                .fold(Delta::default(), |delta, (old, new)| delta.word(old.swap_bytes(), new.swap_bytes()));
            prop_assert_eq!(swapped.apply(checksum.swap_bytes()).swap_bytes(), delta.apply(checksum));
        }

        #[test]
        fn the_whole_checksum_is_that_of_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(of(&bytes), reference(&bytes));
        }

        #[test]
        fn the_incremental_checksum_equals_the_whole_one(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..64).prop_filter("even", |b| b.len() % 2 == 0),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            // A header with at least one word that is not zero: 0x0000 and 0xffff are the same sum.
            bytes.extend([0x45, 0x00]);
            let at = at.index(bytes.len() / 2 - 1) * 2;
            let before = of(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(Delta::default().word(old, new).apply(before), of(&bytes));
        }

        #[test]
        fn a_long_is_its_two_words(checksum in any::<u16>(), old in any::<u32>(), new in any::<u32>()) {
            let words = Delta::default()
                .word((old >> 16) as u16, (new >> 16) as u16)
                .word(old as u16, new as u16);
            prop_assert_eq!(Delta::default().long(old, new).apply(checksum), words.apply(checksum));
        }
    }
}
