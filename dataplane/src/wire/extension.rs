//! From the IPv6 header over its extension headers to the transport header (RFC 8200 section 4).
//!
//! The walk is bounded in headers and bytes and trusts no length. Hop-by-Hop Options, Destination
//! Options, Routing headers that are used up, and one Fragment header are passed over. What it does
//! not know, such as ESP, counts as the transport.

/// Bytes of the IPv6 header itself.
pub const IPV6_LEN: usize = 40;

/// Extension headers that are passed over at most.
const MAX_HEADERS: usize = 8;

/// Bytes of extension headers that are passed over at most.
const MAX_BYTES: usize = 256;

// Protocol numbers (IANA "Assigned Internet Protocol Numbers").
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

const FRAGMENT_LEN: usize = 8;

/// What follows the extension headers. Offsets count from the start of the IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Protocol number of what stands at `offset`. In a fragment that is not the first, it is what
    /// the Fragment header names, and `offset` holds bytes from the middle of the packet.
    pub protocol: u8,
    /// Where it starts; at most the length of the packet.
    pub offset: usize,
    /// What the Fragment header says, if there is one.
    pub fragment: Option<Fragment>,
}

/// A Fragment header (RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where the fragment's data belongs in the fragmented part of the packet, in bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// Which packet of its source and destination it is part of.
    pub identification: u32,
    /// Where the fragment's data starts in this packet: the byte behind the Fragment header.
    pub data: usize,
}

impl Fragment {
    /// Whether it is the whole packet, to be handled without regard to any other (RFC 6946).
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Why the transport header cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// A header reaches beyond the packet.
    Truncated,
    /// More headers, or more bytes of them, than are passed over.
    TooMany,
    /// The header of this number cannot be passed over here: AH (51), which translation would
    /// break; No Next Header (59); Hop-by-Hop Options (0) that do not stand first; a second
    /// Fragment header (44); a Routing header (43) with segments left, whose packet is not yet
    /// where it shall go (RFC 8200 section 4.4).
    Unsupported(u8),
    /// A Routing header of type 0, which is forbidden (RFC 5095).
    RoutingHeader0,
}

/// Walks from the IPv6 header to the transport header. `packet` starts at the IPv6 header and ends
/// where the payload length says.
///
/// # Errors
/// Why the transport header cannot be reached.
pub fn walk(packet: &[u8]) -> Result<Transport, Bad> {
    let fixed = packet.first_chunk::<IPV6_LEN>().ok_or(Bad::Truncated)?;
    let mut at = Transport {
        protocol: fixed[6],
        offset: IPV6_LEN,
        fragment: None,
    };
    let mut passed = 0;
    loop {
        let len = match at.protocol {
            HOP_BY_HOP if passed > 0 => return Err(Bad::Unsupported(HOP_BY_HOP)),
            HOP_BY_HOP | DESTINATION_OPTIONS => options_len(packet, at.offset)?,
            ROUTING => routing_len(packet, at.offset)?,
            FRAGMENT if at.fragment.is_some() => return Err(Bad::Unsupported(FRAGMENT)),
            FRAGMENT => FRAGMENT_LEN,
            AUTHENTICATION | NO_NEXT_HEADER => return Err(Bad::Unsupported(at.protocol)),
            _ => return Ok(at),
        };
        let end = at.offset + len;
        if passed == MAX_HEADERS || end > IPV6_LEN + MAX_BYTES {
            return Err(Bad::TooMany);
        }
        let header = packet.get(at.offset..end).ok_or(Bad::Truncated)?;
        if at.protocol == FRAGMENT {
            at.fragment = Some(read_fragment(header, end)?);
        }
        at.protocol = *header.first().ok_or(Bad::Truncated)?;
        at.offset = end;
        passed += 1;
        if at.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(at);
        }
    }
}

/// Length of a header that says it in its second byte, in units of 8 bytes without the first 8.
fn options_len(packet: &[u8], offset: usize) -> Result<usize, Bad> {
    let units = packet.get(offset + 1).ok_or(Bad::Truncated)?;
    Ok((usize::from(*units) + 1) * 8)
}

fn routing_len(packet: &[u8], offset: usize) -> Result<usize, Bad> {
    match packet.get(offset + 2..offset + 4) {
        Some([0, _]) => Err(Bad::RoutingHeader0),
        Some([_, 0]) => options_len(packet, offset),
        Some(_) => Err(Bad::Unsupported(ROUTING)),
        None => Err(Bad::Truncated),
    }
}

fn read_fragment(header: &[u8], data: usize) -> Result<Fragment, Bad> {
    let [_, _, high, low, a, b, c, d] = *header else {
        return Err(Bad::Truncated);
    };
    // 13 bits of offset in units of 8 bytes, two reserved bits, one that says that more follow.
    let place = u16::from_be_bytes([high, low]);
    Ok(Fragment {
        offset: place & 0xfff8,
        more: place & 1 == 1,
        identification: u32::from_be_bytes([a, b, c, d]),
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UDP: u8 = 17;

    /// A packet of these headers, each a number and its bytes with the first left 0.
    fn packet(headers: &[(u8, Vec<u8>)], last: u8) -> Vec<u8> {
        let mut packet = vec![0; IPV6_LEN];
        packet[0] = 0x60;
        let mut number_at = 6;
        for (number, bytes) in headers {
            packet[number_at] = *number;
            number_at = packet.len();
            packet.extend(bytes);
        }
        packet[number_at] = last;
        packet.extend([0xda; 8]);
        packet
    }

    fn options(units: u8) -> Vec<u8> {
        let mut bytes = vec![1; (usize::from(units) + 1) * 8];
        bytes[..2].copy_from_slice(&[0, units]);
        bytes
    }

    fn routing(kind: u8, segments_left: u8) -> Vec<u8> {
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&[0, 2, kind, segments_left]);
        bytes
    }

    fn fragment(place: u16) -> Vec<u8> {
        let [high, low] = place.to_be_bytes();
        vec![0, 0, high, low, 1, 2, 3, 4]
    }

    #[test]
    fn without_extension_headers_the_transport_follows_at_once() {
        let expected = Transport {
            protocol: UDP,
            offset: IPV6_LEN,
            fragment: None,
        };
        assert_eq!(walk(&packet(&[], UDP)), Ok(expected));
        assert_eq!(walk(&packet(&[], UDP)[..IPV6_LEN]), Ok(expected));
    }

    #[test]
    fn known_headers_are_passed_over() {
        let headers = [
            (HOP_BY_HOP, options(0)),
            (DESTINATION_OPTIONS, options(1)),
            (ROUTING, routing(4, 0)),
            (FRAGMENT, fragment(1)),
            (DESTINATION_OPTIONS, options(0)),
        ];
        let expected = Transport {
            protocol: UDP,
            offset: IPV6_LEN + 8 + 16 + 24 + 8 + 8,
            fragment: Some(Fragment {
                offset: 0,
                more: true,
                identification: 0x0102_0304,
                data: IPV6_LEN + 8 + 16 + 24 + 8,
            }),
        };
        assert_eq!(walk(&packet(&headers, UDP)), Ok(expected));
    }

    #[test]
    fn the_walk_ends_at_a_fragment_that_is_not_the_first() {
        // The data behind it would read as headers, were it looked at.
        let found = walk(&packet(&[(FRAGMENT, fragment(1480))], NO_NEXT_HEADER)).unwrap();
        assert_eq!(found.protocol, NO_NEXT_HEADER);
        assert_eq!(found.offset, IPV6_LEN + 8);
        let fragment = found.fragment.unwrap();
        assert_eq!((fragment.offset, fragment.more), (1480, false));
        assert_eq!(fragment.data, IPV6_LEN + 8);
        assert!(!fragment.is_atomic());
    }

    #[test]
    fn a_fragment_that_is_the_whole_packet_is_atomic() {
        // The reserved bits say nothing.
        let found = walk(&packet(&[(FRAGMENT, fragment(6))], UDP)).unwrap();
        assert!(found.fragment.unwrap().is_atomic());
        assert_eq!(found.protocol, UDP);
    }

    #[test]
    fn headers_that_cannot_be_passed_over_are_named() {
        let unsupported = |headers: &[(u8, Vec<u8>)], last| match walk(&packet(headers, last)) {
            Err(Bad::Unsupported(number)) => number,
            other => panic!("{other:?}"),
        };
        assert_eq!(unsupported(&[], AUTHENTICATION), AUTHENTICATION);
        assert_eq!(unsupported(&[], NO_NEXT_HEADER), NO_NEXT_HEADER);
        let late = [(DESTINATION_OPTIONS, options(0)), (HOP_BY_HOP, options(0))];
        assert_eq!(unsupported(&late, UDP), HOP_BY_HOP);
        let twice = [(FRAGMENT, fragment(1)), (FRAGMENT, fragment(1))];
        assert_eq!(unsupported(&twice, UDP), FRAGMENT);
        assert_eq!(unsupported(&[(ROUTING, routing(4, 1))], UDP), ROUTING);
    }

    #[test]
    fn a_routing_header_of_type_0_is_refused_even_when_used_up() {
        for segments_left in [0, 1] {
            let headers = [(ROUTING, routing(0, segments_left))];
            assert_eq!(walk(&packet(&headers, UDP)), Err(Bad::RoutingHeader0));
        }
    }

    #[test]
    fn the_bounds_are_eight_headers_and_256_bytes() {
        let many = |count| vec![(DESTINATION_OPTIONS, options(0)); count];
        assert_eq!(walk(&packet(&many(8), UDP)).unwrap().offset, IPV6_LEN + 64);
        assert_eq!(walk(&packet(&many(9), UDP)), Err(Bad::TooMany));
        let ninth = [many(8), vec![(FRAGMENT, fragment(1480))]].concat();
        assert_eq!(walk(&packet(&ninth, UDP)), Err(Bad::TooMany));
        let long = |units| vec![(HOP_BY_HOP, options(units))];
        assert_eq!(
            walk(&packet(&long(31), UDP)).unwrap().offset,
            IPV6_LEN + 256
        );
        assert_eq!(walk(&packet(&long(32), UDP)), Err(Bad::TooMany));
    }

    #[test]
    fn a_header_beyond_the_packet_is_truncated() {
        let headers = [
            (HOP_BY_HOP, options(0)),
            (ROUTING, routing(4, 0)),
            (FRAGMENT, fragment(1)),
        ];
        let whole = packet(&headers, UDP);
        for len in 0..IPV6_LEN + 8 + 24 + 8 {
            assert_eq!(walk(&whole[..len]), Err(Bad::Truncated), "{len}");
        }
        assert!(walk(&whole[..IPV6_LEN + 8 + 24 + 8]).is_ok());
    }

    fn header() -> impl Strategy<Value = (u8, Vec<u8>)> {
        prop_oneof![
            (0..4u8).prop_map(|units| (DESTINATION_OPTIONS, options(units))),
            (1..8u8).prop_map(|kind| (ROUTING, routing(kind, 0))),
        ]
    }

    proptest! {
        #[test]
        fn any_chain_within_bounds_leads_to_its_transport(
            before in proptest::collection::vec(header(), 0..4),
            is_fragment in any::<bool>(),
            after in proptest::collection::vec(header(), 0..4),
        ) {
            let middle = is_fragment.then(|| (FRAGMENT, fragment(1)));
            let headers: Vec<_> = before.into_iter().chain(middle).chain(after).collect();
            let len: usize = headers.iter().map(|(_, bytes)| bytes.len()).sum();
            let found = walk(&packet(&headers, UDP)).unwrap();
            prop_assert_eq!(found.offset, IPV6_LEN + len);
            prop_assert_eq!(found.protocol, UDP);
            prop_assert_eq!(found.fragment.is_some(), is_fragment);
        }

        #[test]
        fn any_bytes_give_an_offset_within_the_packet(
            first in prop::sample::select(vec![0u8, 43, 44, 51, 59, 60, 6]),
            mut bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(vec![0u8, 43, 44, 60])], 0..400),
        ) {
            if let Some(number) = bytes.get_mut(6) {
                *number = first;
            }
            if let Ok(found) = walk(&bytes) {
                prop_assert!(found.offset <= bytes.len());
                prop_assert!(found.offset <= IPV6_LEN + MAX_BYTES);
                prop_assert!(found.fragment.is_none_or(|f| f.data <= found.offset));
                prop_assert!(found.fragment.is_none_or(|f| f.offset % 8 == 0));
            }
        }
    }
}
