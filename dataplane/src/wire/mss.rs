//! The Maximum Segment Size that the ends of a TCP connection announce (RFC 9293 section 3.7.1),
//! lowered on the way so that segments fit what lies between them.

use super::checksum::Delta;

const FIXED_LEN: usize = 20;
const FLAGS_AT: usize = 13;
const SYN: u8 = 0x02;
const CHECKSUM_AT: usize = 16;

// Kinds of options (RFC 9293 section 3.1).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;

/// Lowers the MSS option of a SYN or SYN-ACK to `limit` bytes. `tcp` starts at the TCP header and
/// may reach beyond it.
///
/// Returns the old and the new value when it has changed the segment; the checksum is then
/// corrected by the difference (RFC 1624), so a damaged segment stays damaged. Untouched are:
/// segments without SYN, options that do not keep their bounds, a value within the limit, and
/// segments without the option, which mean 536 over IPv4 and 1220 over IPv6.
pub fn clamp(tcp: &mut [u8], limit: u16) -> Option<(u16, u16)> {
    let header_len = usize::from(tcp.get(12)? >> 4) * 4;
    let header = tcp.get_mut(..header_len)?;
    if header.get(FLAGS_AT)? & SYN == 0 {
        return None;
    }
    let at = FIXED_LEN + find(header.get(FIXED_LEN..)?)? + 2;
    let old = read(header, at)?;
    if old <= limit {
        return None;
    }
    // At an odd place the value's bytes lie in two words of the sum, in the other order.
    let change = if at.is_multiple_of(2) {
        Delta::default().word(old, limit)
    } else {
        Delta::default().word(old.swap_bytes(), limit.swap_bytes())
    };
    let checksum = change.apply(read(header, CHECKSUM_AT)?);
    write(header, at, limit)?;
    write(header, CHECKSUM_AT, checksum)?;
    Some((old, limit))
}

/// Where the MSS option starts. With several, the last: it is the one that Linux obeys
/// (tcp_parse_options). `None` also when any option breaks its bounds.
fn find(options: &[u8]) -> Option<usize> {
    let mut found = None;
    let mut at = 0;
    while let Some(kind) = options.get(at) {
        match *kind {
            END => break,
            NO_OPERATION => at += 1,
            kind => {
                let len = usize::from(*options.get(at + 1)?);
                if len < 2 || at + len > options.len() || (kind == MSS && len != MSS_LEN) {
                    return None;
                }
                if kind == MSS {
                    found = Some(at);
                }
                at += len;
            }
        }
    }
    found
}

fn read(header: &[u8], at: usize) -> Option<u16> {
    header
        .get(at..)?
        .first_chunk()
        .map(|word| u16::from_be_bytes(*word))
}

fn write(header: &mut [u8], at: usize, value: u16) -> Option<()> {
    *header.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum;
    use proptest::prelude::*;

    const ACK: u8 = 0x10;

    /// A segment whose checksum is right; the pseudo header is left out, as it does not change.
    fn segment(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0];
        let header_len = FIXED_LEN + options.len().next_multiple_of(4);
        tcp.extend([(header_len / 4 * 16) as u8, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.resize(header_len, 0);
        tcp.extend(data);
        let sum = checksum::of(&tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        tcp
    }

    fn clamped(flags: u8, options: &[u8], limit: u16) -> Option<Vec<u8>> {
        let before = segment(flags, options, b"data");
        let mut after = before.clone();
        if clamp(&mut after, limit).is_none() {
            assert_eq!(after, before);
            return None;
        }
        assert!(checksum::is_right(&after));
        assert_eq!(after.len(), before.len());
        Some(after[FIXED_LEN..FIXED_LEN + options.len()].to_vec())
    }

    #[test]
    fn syn_and_syn_ack_are_lowered_to_the_limit() {
        for flags in [SYN, SYN | ACK] {
            let mut tcp = segment(flags, &[2, 4, 0x05, 0xb4], b"");
            assert_eq!(clamp(&mut tcp, 1380), Some((1460, 1380)));
            assert_eq!(tcp, segment(flags, &[2, 4, 0x05, 0x64], b""));
            assert_eq!(clamp(&mut tcp, 1380), None);
        }
    }

    #[test]
    fn other_segments_keep_what_they_say() {
        assert_eq!(clamped(ACK, &[2, 4, 0x05, 0xb4], 1380), None);
    }

    #[test]
    fn a_value_within_the_limit_is_never_raised() {
        assert_eq!(clamped(SYN, &[2, 4, 0x05, 0x64], 1380), None);
        assert_eq!(clamped(SYN, &[2, 4, 0, 0], 1380), None);
    }

    #[test]
    fn a_missing_option_is_not_added() {
        assert_eq!(clamped(SYN, &[], 1380), None);
        assert_eq!(clamped(SYN, &[1, 1, 4, 2], 1380), None);
        assert_eq!(clamped(SYN, &[0, 2, 4, 0x05, 0xb4], 1380), None);
    }

    #[test]
    fn the_option_is_found_at_an_odd_place() {
        let after = clamped(SYN, &[1, 2, 4, 0x05, 0xb4, 3, 3, 7], 1380);
        assert_eq!(after, Some(vec![1, 2, 4, 0x05, 0x64, 3, 3, 7]));
    }

    #[test]
    fn of_several_options_the_last_is_lowered() {
        let after = clamped(SYN, &[2, 4, 0x05, 0xb4, 2, 4, 0x05, 0xb4], 1380);
        assert_eq!(after, Some(vec![2, 4, 0x05, 0xb4, 2, 4, 0x05, 0x64]));
    }

    #[test]
    fn options_that_break_their_bounds_are_left_alone() {
        for options in [
            &[1, 2, 4, 0x05][..],
            &[2, 3, 0x05, 0xb4],
            &[2, 5, 0x05, 0xb4, 0],
            &[2, 0, 0x05, 0xb4],
            &[3, 1, 2, 4, 0x05, 0xb4],
            &[8, 40, 2, 4, 0x05, 0xb4],
            &[2, 4, 0x05, 0xb4, 8, 10, 0, 0],
            &[2, 4, 0x05, 0xb4, 8, 5, 0, 0],
            &[1, 1, 1, 2],
        ] {
            assert_eq!(clamped(SYN, options, 1), None, "{options:?}");
        }
    }

    #[test]
    fn a_header_that_is_cut_short_is_left_alone() {
        let whole = segment(SYN, &[2, 4, 0x05, 0xb4], b"");
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert_eq!(clamp(&mut cut, 1380), None);
            assert_eq!(cut, whole[..len]);
        }
        let mut short = whole;
        short[12] = 0x40;
        assert_eq!(clamp(&mut short, 1380), None);
    }

    /// Well-formed options: padding, the MSS, and others.
    fn options() -> impl Strategy<Value = (Vec<u8>, u16)> {
        let other = prop_oneof![
            Just(vec![1]),
            Just(vec![4, 2]),
            any::<u8>().prop_map(|shift| vec![3, 3, shift]),
            any::<[u8; 8]>().prop_map(|times| [&[8, 10], &times[..]].concat()),
        ];
        let others = || proptest::collection::vec(other.clone(), 0..3);
        (others(), any::<u16>(), others())
            .prop_map(|(before, mss, after)| {
                let [high, low] = mss.to_be_bytes();
                let all = [before.concat(), vec![2, 4, high, low], after.concat()];
                (all.concat(), mss)
            })
            .prop_filter("fits", |(options, _)| options.len() <= 40)
    }

    proptest! {
        #[test]
        fn a_right_checksum_stays_right(
            (options, mss) in options(),
            limit in any::<u16>(),
            data in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut tcp = segment(SYN, &options, &data);
            let changed = clamp(&mut tcp, limit);
            prop_assert_eq!(changed, (mss > limit).then_some((mss, limit)));
            prop_assert!(checksum::is_right(&tcp));
        }

        #[test]
        fn any_bytes_keep_their_sum(
            mut tcp in proptest::collection::vec(any::<u8>(), 0..100),
            limit in any::<u16>(),
        ) {
            if let Some(offset) = tcp.get_mut(12) {
                *offset |= 0x50;
            }
            let (before, len) = (checksum::is_right(&tcp), tcp.len());
            clamp(&mut tcp, limit);
            prop_assert_eq!(tcp.len(), len);
            prop_assert_eq!(checksum::is_right(&tcp), before);
        }
    }
}
