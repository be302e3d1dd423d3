//! Answers in ICMP (RFC 792): echo reply and port unreachable, built in the frame that asked.

use std::net::Ipv4Addr;

use super::checksum::{self, Delta};
use super::parse::{ETHERNET_LEN, Echo};

const IP_LEN: usize = 20;
const ICMP_LEN: usize = 8;

/// Most bytes of the offending packet that an error quotes: an error is at most 576 bytes long
/// (RFC 1812 section 4.3.2.3).
const MAX_QUOTE: usize = 576 - IP_LEN - ICMP_LEN;

/// Time to live of packets that the gateway itself sends (IANA "IP Time to Live Parameter").
pub(super) const OWN_TTL: u8 = 64;

/// Turns an echo request into the reply of the address that was asked. The Ethernet addresses are
/// swapped: the answer goes back the way the request came.
///
/// False when `echo` was not read from this frame.
pub fn echo_reply(frame: &mut [u8], echo: &Echo) -> bool {
    if !swap_ethernet(frame) {
        return false;
    }
    let start = usize::from(echo.transport);
    let Some(icmp) = frame.get_mut(start..start + 4) else {
        return false;
    };
    let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
    icmp[0] = 0;
    let sum = Delta::default().word(0x0800, 0x0000).apply(sum);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());

    let Some(ip) = frame.get_mut(ETHERNET_LEN..start) else {
        return false;
    };
    let [.., _, _, _, _] = ip else { return false };
    ip[12..16].copy_from_slice(&echo.destination.octets());
    ip[16..20].copy_from_slice(&echo.source.octets());
    ip[8] = OWN_TTL;
    ip[10..12].fill(0);
    let sum = checksum::of(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Length of the frame that [`port_unreachable`] makes of a frame whose IPv4 packet ends at `end`.
pub fn error_len(end: u16) -> usize {
    let quote = usize::from(end).saturating_sub(ETHERNET_LEN).min(MAX_QUOTE);
    ETHERNET_LEN + IP_LEN + ICMP_LEN + quote
}

/// Turns a packet into "destination unreachable, port unreachable" (type 3, code 3) from the
/// address that it was sent to (as kube-proxy refuses). The frame must have been resized to
/// [`error_len`] before; the quoted packet is moved up in place.
///
/// False when the frame is too short for that.
pub fn port_unreachable(frame: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) -> bool {
    let quote_at = ETHERNET_LEN + IP_LEN + ICMP_LEN;
    let Some(quote) = frame.len().checked_sub(quote_at) else {
        return false;
    };
    if !swap_ethernet(frame) {
        return false;
    }
    frame.copy_within(ETHERNET_LEN..ETHERNET_LEN + quote, quote_at);
    let total = (IP_LEN + ICMP_LEN + quote) as u16;
    let packet = &mut frame[ETHERNET_LEN..];
    write_ip_header(&mut packet[..IP_LEN], total, 1, source, destination);
    let icmp = &mut packet[IP_LEN..];
    icmp[..ICMP_LEN].copy_from_slice(&[3, 3, 0, 0, 0, 0, 0, 0]);
    let sum = checksum::of(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Writes a 20-byte IPv4 header for a packet of our own; `header` is exactly 20 bytes long.
pub(super) fn write_ip_header(
    header: &mut [u8],
    total: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) {
    let [high, low] = total.to_be_bytes();
    // Don't fragment, no identification: an atomic datagram (RFC 6864 section 4.1).
    header[..12].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, OWN_TTL, protocol, 0, 0]);
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Sends the frame back to where it came from.
pub(super) fn swap_ethernet(frame: &mut [u8]) -> bool {
    let Some(header) = frame.first_chunk_mut::<12>() else {
        return false;
    };
    header.rotate_left(6);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::{Build, CLIENT_MAC, GATEWAY_MAC, echo_request};
    use crate::wire::parse::{Parsed, parse};
    use etherparse::{Icmpv4Type, SlicedPacket, TransportSlice};

    #[test]
    fn an_echo_reply_carries_the_same_payload_back() {
        let mut frame = echo_request("10.0.1.10", "203.0.113.10", b"abcdefgh");
        let Ok(Parsed::Echo(echo)) = parse(&frame) else {
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
        frame.resize(error_len(original.len() as u16), 0);
        let (vip, client) = (Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(10, 0, 1, 10));
        assert!(port_unreachable(&mut frame, vip, client));

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
    }

    #[test]
    fn an_error_is_at_most_576_bytes_long() {
        let original = Build::udp("10.0.1.10:4000", "203.0.113.10:99")
            .payload(&[0; 1400])
            .frame();
        assert_eq!(error_len(original.len() as u16), 14 + 576);
    }
}
