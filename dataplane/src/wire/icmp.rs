//! Answers in ICMP (RFC 792, RFC 4443): echo replies and errors, built in the frame that asked.

use super::checksum::Delta;
use super::parse::{Echo, Place};
use super::rewrite::swap_ethernet;
use super::{Family, IcmpKind, OWN_HOP_LIMIT};

/// Bytes of an ICMP header.
const HEADER: usize = 8;

/// Turns an echo request into the reply of the address that was asked. The Ethernet addresses are
/// swapped: the answer goes back the way the request came.
///
/// False when `echo` was not read from this frame.
pub fn echo_reply<A: Family>(frame: &mut [u8], echo: &Echo<A>) -> bool {
    if !swap_ethernet(frame) {
        return false;
    }
    let Some(icmp) = frame.get_mut(usize::from(echo.place.transport)..) else {
        return false;
    };
    let Some(icmp) = icmp.first_chunk_mut::<4>() else {
        return false;
    };
    let kinds = [A::ECHO_REQUEST, A::ECHO_REPLY].map(|kind| u16::from(kind) << 8);
    let sum = Delta::default()
        .word(kinds[0], kinds[1])
        .apply(u16::from_be_bytes([icmp[2], icmp[3]]));
    icmp[0] = A::ECHO_REPLY;
    icmp[2..].copy_from_slice(&sum.to_be_bytes());
    let Some(packet) = frame.get_mut(usize::from(echo.place.network)..) else {
        return false;
    };
    // Swapping the addresses does not change ICMPv6's pseudo header.
    let used = echo.place.hop_limit.saturating_sub(OWN_HOP_LIMIT);
    A::readdress(packet, (echo.destination, echo.source), used)
}

/// Length of the frame that [`error`] makes of the frame of `place`.
pub fn error_len<A: Family>(place: &Place) -> usize {
    let quote = place.len().min(A::MAX_ERROR - A::HEADER_LEN - HEADER);
    usize::from(place.network) + A::HEADER_LEN + HEADER + quote
}

/// Turns a packet into the ICMP error about it, sent back the way it came. The frame must have been
/// resized to [`error_len`] before; the quoted packet is moved up in place. `more` are the last four
/// bytes of the ICMP header: the MTU of a packet that is too big, else 0.
///
/// False when the frame is too short for that.
pub fn error<A: Family>(
    frame: &mut [u8],
    place: &Place,
    kind: IcmpKind,
    more: u32,
    (source, destination): (A, A),
) -> bool {
    let network = usize::from(place.network);
    let quote_at = network + A::HEADER_LEN + HEADER;
    let Some(quote) = frame.len().checked_sub(quote_at) else {
        return false;
    };
    if !swap_ethernet(frame) {
        return false;
    }
    frame.copy_within(network..network + quote, quote_at);
    let (header, message) = frame[network..].split_at_mut(A::HEADER_LEN);
    A::write_header(
        header,
        message.len(),
        A::ICMP,
        A::ERROR_CLASS,
        OWN_HOP_LIMIT,
        source,
        destination,
    );
    message[..4].copy_from_slice(&[kind.0, kind.1, 0, 0]);
    message[4..HEADER].copy_from_slice(&more.to_be_bytes());
    let sum = A::icmp_checksum(source, destination, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbour::Tags;
    use crate::testutil::{Build, CLIENT_MAC, GATEWAY_MAC, echo_request};
    use crate::wire::checksum;
    use crate::wire::parse::{Datagram, Parsed, parse};
    use etherparse::{Icmpv4Type, SlicedPacket, TransportSlice};
    use std::net::Ipv4Addr;

    fn place(frame: &[u8]) -> Place {
        match parse(frame, Tags::default()) {
            Ok(Parsed::V4(Datagram::Packet(packet))) => packet.place,
            other => panic!("not a packet: {other:?}"),
        }
    }

    #[test]
    fn an_echo_reply_carries_the_same_payload_back() {
        let mut frame = echo_request("10.0.1.10", "203.0.113.10", b"abcdefgh");
        let Ok(Parsed::V4(Datagram::Echo(echo))) = parse(&frame, Tags::default()) else {
            panic!("not an echo")
        };
        assert!(echo.has_right_checksum(&frame));
        assert!(echo_reply(&mut frame, &echo));

        let mut expected = Vec::new();
        etherparse::PacketBuilder::ethernet2(GATEWAY_MAC.0, CLIENT_MAC.0)
            .ipv4([203, 0, 113, 10], [10, 0, 1, 10], 64)
            .icmpv4_echo_reply(7, 1)
            .write(&mut expected, b"abcdefgh")
            .unwrap();
        assert_eq!(frame, expected);
    }

    #[test]
    fn port_unreachable_quotes_the_packet_and_comes_from_the_vip() {
        let original = Build::udp("10.0.1.10:4000", "203.0.113.10:99")
            .payload(b"hello")
            .frame();
        let mut frame = original.clone();
        let place = place(&frame);
        frame.resize(error_len::<Ipv4Addr>(&place), 0);
        let (vip, client) = (Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(10, 0, 1, 10));
        let kind = Ipv4Addr::PORT_UNREACHABLE;
        assert!(error(&mut frame, &place, kind, 0, (vip, client)));

        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else {
            panic!("not ICMP")
        };
        assert!(matches!(
            icmp.icmp_type(),
            Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port)
        ));
        assert_eq!(icmp.payload(), &original[14..]);
        assert!(checksum::is_right(&frame[34..]));
        assert!(checksum::is_right(&frame[14..34]));
        assert_eq!(&frame[26..34], &[203, 0, 113, 10, 10, 0, 1, 10]);
        assert_eq!(frame[..12], [CLIENT_MAC.0, GATEWAY_MAC.0].concat());
        assert_eq!(frame[15], 0xc0, "network control");
    }

    #[test]
    fn an_error_is_at_most_576_bytes_long() {
        let original = Build::udp("10.0.1.10:4000", "203.0.113.10:99")
            .payload(&[0; 1400])
            .frame();
        let place = place(&original);
        assert_eq!(error_len::<Ipv4Addr>(&place), 14 + 576);
    }
}
