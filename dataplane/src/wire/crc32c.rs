//! The checksum of SCTP: CRC32c over the whole packet (RFC 9260 section 6.8 and appendix A).
//!
//! It covers the ports but no address, so a packet whose ports change needs it anew. Writing it
//! makes a damaged packet look whole: a forwarder asks [`is_right`] first.

use std::ops::Range;

/// Bytes of the common header (RFC 9260 section 3.1).
const HEADER_LEN: usize = 12;

const FIELD: Range<usize> = 8..HEADER_LEN;

/// Whether an SCTP packet, from its common header on, is undamaged; one without a whole header is
/// not.
pub fn is_right(packet: &[u8]) -> bool {
    of(packet).is_some_and(|checksum| packet.get(FIELD) == Some(&checksum))
}

/// Writes the checksum into an SCTP packet. False when the packet has no whole common header.
pub fn write(packet: &mut [u8]) -> bool {
    match (of(packet), packet.get_mut(FIELD)) {
        (Some(checksum), Some(field)) => {
            field.copy_from_slice(&checksum);
            true
        }
        _ => false,
    }
}

/// The bytes to store, as they stand on the wire: lowest first (RFC 9260 appendix A). What the
/// field holds now does not matter; it counts as 0.
pub fn of(packet: &[u8]) -> Option<[u8; 4]> {
    let (header, data) = packet.split_first_chunk::<HEADER_LEN>()?;
    let mut header = *header;
    header[FIELD].fill(0);
    Some(::crc32c::crc32c_append(::crc32c::crc32c(&header), data).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit, the polynomial of RFC 9260 appendix A reflected.
    fn reference(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
            })
        })
    }

    #[test]
    fn the_polynomial_is_that_of_rfc_3720() {
        // Appendix B.4, the bytes as they are sent.
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, sent) in [
            (&[0; 32][..], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&rising, [0x4e, 0x79, 0xdd, 0x46]),
            (&falling, [0x5c, 0xdb, 0x3f, 0x11]),
        ] {
            assert_eq!(::crc32c::crc32c(bytes).to_le_bytes(), sent);
            assert_eq!(reference(bytes).to_le_bytes(), sent);
        }
    }

    #[test]
    fn a_packet_of_zeros_has_the_checksum_of_rfc_3720() {
        // Its field counts as 0, so only the order of the bytes is in question.
        let mut packet = [0; 32];
        assert!(!is_right(&packet));
        assert!(write(&mut packet));
        assert_eq!(packet[8..12], [0xaa, 0x36, 0x91, 0x8a]);
        assert!(is_right(&packet));
    }

    #[test]
    fn a_packet_without_a_whole_header_is_neither_right_nor_written() {
        let mut packet = [0x55; 11];
        assert!(!is_right(&packet));
        assert!(!write(&mut packet));
        assert_eq!(packet, [0x55; 11]);
        assert_eq!(of(&packet), None);
        assert!(write(&mut [0; 12]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_the_whole_checksum_and_nothing_else(
            packet in proptest::collection::vec(any::<u8>(), 12..300),
        ) {
            let mut written = packet.clone();
            prop_assert!(write(&mut written));
            let mut expected = packet;
            expected[8..12].fill(0);
            let checksum = reference(&expected);
            expected[8..12].copy_from_slice(&checksum.to_le_bytes());
            prop_assert_eq!(&written, &expected);
            prop_assert!(is_right(&written));
        }

        #[test]
        fn a_flipped_bit_is_seen(
            mut packet in proptest::collection::vec(any::<u8>(), 12..300),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            write(&mut packet);
            let at = at.index(packet.len());
            packet[at] ^= 1u8 << bit;
            prop_assert!(!is_right(&packet));
        }
    }
}
