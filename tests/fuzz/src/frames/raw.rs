//! Edits of frames as bytes: what a peer answers, what a router complains, and sums made right.

use etherparse::checksum::Sum16BitWords;

const ETHERNET: usize = 14;

/// Where the transport header of a frame starts, its protocol and its addresses' place; for frames
/// without tags and without IPv6 extension headers.
fn layout(frame: &[u8]) -> Option<(usize, u8, std::ops::Range<usize>)> {
    match frame.get(12..14)? {
        [8, 0] => {
            let header = usize::from(frame.get(14)? & 0xf) * 4;
            Some((ETHERNET + header, *frame.get(23)?, 26..34))
        }
        [0x86, 0xdd] => Some((ETHERNET + 40, *frame.get(20)?, 22..54)),
        _ => None,
    }
}

/// Makes lengths, IPv4 header checksum and transport checksum right, where there are any.
pub fn mend(frame: &mut [u8]) -> Option<()> {
    let (transport, protocol, addresses) = layout(frame)?;
    let is_v4 = addresses.len() == 8;
    if is_v4 {
        let len = u16::try_from(frame.len() - ETHERNET).ok()?;
        frame.get_mut(16..18)?.copy_from_slice(&len.to_be_bytes());
        frame.get_mut(24..26)?.fill(0);
        let sum = Sum16BitWords::new().add_slice(frame.get(ETHERNET..transport)?);
        frame[24..26].copy_from_slice(&sum.ones_complement().to_ne_bytes());
    } else {
        let len = u16::try_from(frame.len().checked_sub(ETHERNET + 40)?).ok()?;
        frame.get_mut(18..20)?.copy_from_slice(&len.to_be_bytes());
    }
    let len = frame.len().checked_sub(transport)?;
    let at = transport
        + match protocol {
            6 => 16,
            17 => {
                let len = u16::try_from(len).ok()?.to_be_bytes();
                frame
                    .get_mut(transport + 4..transport + 6)?
                    .copy_from_slice(&len);
                6
            }
            1 | 58 => 2,
            _ => return Some(()),
        };
    frame.get_mut(at..at + 2)?.fill(0);
    let mut sum = Sum16BitWords::new().add_slice(&frame[transport..]);
    if protocol != 1 {
        let len = u16::try_from(len).ok()?.to_be_bytes();
        sum = sum
            .add_slice(&frame[addresses])
            .add_2bytes([0, protocol])
            .add_2bytes(len);
    }
    let sum = match sum.ones_complement() {
        0 if protocol == 17 => 0xffff,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    Some(())
}

/// What whoever got the frame sends back: ends swapped, with these TCP flags.
pub fn answer(frame: &[u8], flags: u8) -> Option<Vec<u8>> {
    let (transport, protocol, addresses) = layout(frame)?;
    let mut back = frame.to_vec();
    back[0..12].rotate_left(6);
    let half = addresses.len() / 2;
    back.get_mut(addresses)?.rotate_left(half);
    let hops = if half == 4 { 22 } else { 21 };
    *back.get_mut(hops)? = 64;
    if matches!(protocol, 6 | 17 | 132) {
        back.get_mut(transport..transport + 4)?.rotate_left(2);
    }
    if protocol == 6 {
        let numbers = back.get_mut(transport + 4..transport + 12)?;
        numbers.rotate_left(4);
        let next = u32::from_be_bytes(*numbers.last_chunk()?).wrapping_add(1);
        numbers[4..].copy_from_slice(&next.to_be_bytes());
        *back.get_mut(transport + 13)? = flags & 0x17;
    }
    mend(&mut back)?;
    Some(back)
}

/// An ICMP error about the frame from a router, or from whom it was sent to.
pub fn complaint(
    frame: &[u8],
    kind: u8,
    code: u8,
    router: Option<u8>,
    quoted: usize,
) -> Option<Vec<u8>> {
    let (_, _, addresses) = layout(frame)?;
    let quote = frame.get(ETHERNET..)?;
    let quote = &quote[..quote.len().min(quoted)];
    let half = addresses.len() / 2;
    let mut error = frame.get(..14)?.to_vec();
    error[0..12].rotate_left(6);
    let mut ends = frame.get(addresses)?.to_vec();
    ends.rotate_left(half);
    if let Some(last) = router {
        ends[half - 1] = last;
    }
    match half {
        4 => error.extend([0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0]),
        _ => error.extend([0x60, 0, 0, 0, 0, 0, 58, 64]),
    }
    error.extend(ends);
    error.extend([kind, code, 0, 0, 0, 0, 5, 0]);
    error.extend(quote);
    mend(&mut error)?;
    Some(error)
}
