//! An independent judge of checksums: etherparse.

use etherparse::{Icmpv6Slice, NetSlice, SlicedPacket, TransportSlice};

/// What there is to say about a frame's checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// All are right.
    Right,
    /// One is wrong.
    Wrong,
    /// It is no whole packet of a protocol with a checksum over all of it.
    Unknown,
}

/// Judges a frame without tags.
pub fn judge(frame: &[u8]) -> Judged {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return Judged::Unknown;
    };
    let (Some(net), Some(transport)) = (&packet.net, &packet.transport) else {
        return Judged::Unknown;
    };
    match is_right(net, transport) {
        None => Judged::Unknown,
        Some(true) => Judged::Right,
        Some(false) => Judged::Wrong,
    }
}

fn is_right(net: &NetSlice<'_>, transport: &TransportSlice<'_>) -> Option<bool> {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let is_header_right = header.calc_header_checksum() == header.header_checksum;
            Some(is_header_right && is_right_v4(header.source, header.destination, transport)?)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            is_right_v6(header.source, header.destination, transport)
        }
        NetSlice::Arp(_) => None,
    }
}

fn is_right_v4(from: [u8; 4], to: [u8; 4], transport: &TransportSlice<'_>) -> Option<bool> {
    match transport {
        TransportSlice::Tcp(tcp) => Some(tcp.calc_checksum_ipv4(from, to).ok()? == tcp.checksum()),
        // RFC 768: 0 means that the sender made none.
        TransportSlice::Udp(udp) if udp.checksum() == 0 => Some(true),
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = header.calc_checksum_ipv4_raw(from, to, udp.payload());
            Some(sum.ok()? == udp.checksum())
        }
        TransportSlice::Icmpv4(icmp) => Some(etherparse_sum(icmp.slice())),
        _ => None,
    }
}

fn is_right_v6(from: [u8; 16], to: [u8; 16], transport: &TransportSlice<'_>) -> Option<bool> {
    match transport {
        TransportSlice::Tcp(tcp) => Some(tcp.calc_checksum_ipv6(from, to).ok()? == tcp.checksum()),
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = header.calc_checksum_ipv6_raw(from, to, udp.payload());
            Some(sum.ok()? == udp.checksum())
        }
        TransportSlice::Icmpv6(icmp) => Some(Icmpv6Slice::is_checksum_valid(icmp, from, to)),
        _ => None,
    }
}

/// Whether the ones' complement sum over a message with its checksum comes out even.
fn etherparse_sum(message: &[u8]) -> bool {
    etherparse::checksum::Sum16BitWords::new()
        .add_slice(message)
        .ones_complement()
        == 0
}
