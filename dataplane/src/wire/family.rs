//! What differs between IPv4 and IPv6 in the bytes of a packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;

use super::checksum::{self, Delta};
use super::extension;
use crate::flow::Address;

/// A packet that an ICMP error quotes; it may be cut off anywhere behind its IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<A> {
    /// Who sent it.
    pub source: A,
    /// Whom it was for.
    pub destination: A,
    /// Its transport protocol number.
    pub protocol: u8,
    /// Where its transport header starts.
    pub transport: usize,
}

/// Type and code of an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpKind(pub u8, pub u8);

/// An address family on the wire.
pub trait Family: Address {
    /// Ethernet type, as it stands in a frame.
    const ETHERTYPE: [u8; 2];
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// ICMP type of an echo request.
    const ECHO_REQUEST: u8;
    /// ICMP type of an echo reply.
    const ECHO_REPLY: u8;
    /// The port is not served.
    const PORT_UNREACHABLE: IcmpKind;
    /// The hop limit ran out.
    const TIME_EXCEEDED: IcmpKind;
    /// The packet does not fit; the MTU stands in the last four bytes of the header.
    const TOO_BIG: IcmpKind;
    /// Bytes of a header without options or extensions.
    const HEADER_LEN: usize;
    /// Most bytes of an ICMP error, IP header included (RFC 1812 section 4.3.2.3, RFC 4443 section
    /// 2.4).
    const MAX_ERROR: usize;
    /// Traffic class of an ICMP error: of IPv4 one is network control (RFC 1812 section 4.3.2.5).
    const ERROR_CLASS: u8;

    /// Whether an ICMP type is an error, which quotes a packet.
    fn is_error(kind: u8) -> bool;

    /// Whether an ICMP error says that a packet's destination cannot be reached, whatever the packet
    /// (RFC 792, RFC 4443 section 3.1); one that is only too big can be.
    fn is_unreachable(kind: u8, code: u8) -> bool;

    /// The sum of the pseudo header of a transport segment (RFC 9293 section 3.1, RFC 8200 section
    /// 8.1).
    fn pseudo_header(source: Self, destination: Self, protocol: u8, len: usize) -> Sum16BitWords;

    /// Checksum of an ICMP message: 0 when its own checksum is right; with that field 0, the value
    /// to write.
    fn icmp_checksum(source: Self, destination: Self, message: &[u8]) -> u16;

    /// Reads a quoted IP header; `None` when it is not whole, or quotes a fragment without ports.
    fn read_quote(quoted: &[u8]) -> Option<Quote<Self>>;

    /// Writes a header without options in front of `payload_len` bytes. `header` has exactly
    /// [`Family::HEADER_LEN`] bytes.
    fn write_header(
        header: &mut [u8],
        payload_len: usize,
        protocol: u8,
        class: u8,
        hop_limit: u8,
        source: Self,
        destination: Self,
    );

    /// Gives a header that stands at the start of `packet` other addresses, and takes `hops` from
    /// its hop limit. False, and nothing changed, when `packet` is too short.
    fn readdress(packet: &mut [u8], to: (Self, Self), hops: u8) -> bool;

    /// What tells apart fragments with one identification: the protocol in IPv4 (RFC 791 section
    /// 3.2), nothing more in IPv6 (RFC 8200 section 4.5).
    fn fragment_protocol(number: u8) -> u8;

    /// Adds the change from one address to another.
    fn change(delta: Delta, old: Self, new: Self) -> Delta;
}

impl Family for Ipv4Addr {
    const ETHERTYPE: [u8; 2] = [0x08, 0x00];
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const PORT_UNREACHABLE: IcmpKind = IcmpKind(3, 3);
    const TIME_EXCEEDED: IcmpKind = IcmpKind(11, 0);
    const TOO_BIG: IcmpKind = IcmpKind(3, 4);
    const HEADER_LEN: usize = 20;
    const MAX_ERROR: usize = 576;
    const ERROR_CLASS: u8 = 0xc0;

    fn is_error(kind: u8) -> bool {
        // Unreachable, time exceeded, parameter problem. Source quench is dead (RFC 6633), and a
        // redirect is for the next host only.
        matches!(kind, 3 | 11 | 12)
    }

    fn is_unreachable(kind: u8, code: u8) -> bool {
        const TOO_BIG: u8 = 4;
        kind == 3 && code != TOO_BIG
    }

    fn pseudo_header(source: Self, destination: Self, protocol: u8, len: usize) -> Sum16BitWords {
        Sum16BitWords::new()
            .add_4bytes(source.octets())
            .add_4bytes(destination.octets())
            .add_2bytes([0, protocol])
            .add_2bytes((len as u16).to_be_bytes())
    }

    fn icmp_checksum(_: Self, _: Self, message: &[u8]) -> u16 {
        checksum::of(message)
    }

    fn read_quote(quoted: &[u8]) -> Option<Quote<Self>> {
        let header = quoted.first_chunk::<20>()?;
        let transport = usize::from(header[0] & 0x0f) * 4;
        let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
        if header[0] >> 4 != 4 || transport < Self::HEADER_LEN || is_later_fragment {
            return None;
        }
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        Some(Quote {
            source: address(12),
            destination: address(16),
            protocol: header[9],
            transport,
        })
    }

    fn write_header(
        header: &mut [u8],
        payload_len: usize,
        protocol: u8,
        class: u8,
        hop_limit: u8,
        source: Self,
        destination: Self,
    ) {
        let Some(header) = header.first_chunk_mut::<20>() else {
            return;
        };
        let [high, low] = ((Self::HEADER_LEN + payload_len) as u16).to_be_bytes();
        // Don't fragment, no identification: an atomic datagram (RFC 6864 section 4.1).
        header[..12].copy_from_slice(&[
            0x45, class, high, low, 0, 0, 0x40, 0, hop_limit, protocol, 0, 0,
        ]);
        header[12..16].copy_from_slice(&source.octets());
        header[16..].copy_from_slice(&destination.octets());
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    fn readdress(packet: &mut [u8], (source, destination): (Self, Self), hops: u8) -> bool {
        let Some(header) = packet.first_chunk_mut::<20>() else {
            return false;
        };
        let word = |header: &[u8; 20], at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let mut delta = Delta::default();
        for (at, new) in [(12, source), (16, destination)] {
            let old = u32::from(word(header, at)) << 16 | u32::from(word(header, at + 2));
            delta = delta.long(old, new.to_bits());
            header[at..at + 4].copy_from_slice(&new.octets());
        }
        let before = word(header, 8);
        header[8] = header[8].saturating_sub(hops);
        let sum = delta.word(before, word(header, 8)).apply(word(header, 10));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        true
    }

    fn fragment_protocol(number: u8) -> u8 {
        number
    }

    fn change(delta: Delta, old: Self, new: Self) -> Delta {
        delta.long(old.to_bits(), new.to_bits())
    }
}

impl Family for Ipv6Addr {
    const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const PORT_UNREACHABLE: IcmpKind = IcmpKind(1, 4);
    const TIME_EXCEEDED: IcmpKind = IcmpKind(3, 0);
    const TOO_BIG: IcmpKind = IcmpKind(2, 0);
    const HEADER_LEN: usize = 40;
    const MAX_ERROR: usize = 1280;
    const ERROR_CLASS: u8 = 0;

    fn is_error(kind: u8) -> bool {
        // Unreachable, too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    }

    fn is_unreachable(kind: u8, _: u8) -> bool {
        kind == 1
    }

    fn pseudo_header(source: Self, destination: Self, protocol: u8, len: usize) -> Sum16BitWords {
        Sum16BitWords::new()
            .add_16bytes(source.octets())
            .add_16bytes(destination.octets())
            .add_4bytes((len as u32).to_be_bytes())
            .add_4bytes([0, 0, 0, protocol])
    }

    fn icmp_checksum(source: Self, destination: Self, message: &[u8]) -> u16 {
        checksum::of_segment(source, destination, Self::ICMP, message)
    }

    fn read_quote(quoted: &[u8]) -> Option<Quote<Self>> {
        let header = quoted.first_chunk::<40>()?;
        let found = extension::walk(quoted).ok()?;
        if found.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return None;
        }
        let address = |at: usize| {
            let bytes: [u8; 16] = header[at..].first_chunk().copied().unwrap_or_default();
            Ipv6Addr::from(bytes)
        };
        Some(Quote {
            source: address(8),
            destination: address(24),
            protocol: found.protocol,
            transport: found.offset,
        })
    }

    fn write_header(
        header: &mut [u8],
        payload_len: usize,
        protocol: u8,
        class: u8,
        hop_limit: u8,
        source: Self,
        destination: Self,
    ) {
        let Some(header) = header.first_chunk_mut::<40>() else {
            return;
        };
        let [high, low] = (payload_len as u16).to_be_bytes();
        let [first, second] = (0x6000 | u16::from(class) << 4).to_be_bytes();
        header[..8].copy_from_slice(&[first, second, 0, 0, high, low, protocol, hop_limit]);
        header[8..24].copy_from_slice(&source.octets());
        header[24..].copy_from_slice(&destination.octets());
    }

    fn readdress(packet: &mut [u8], (source, destination): (Self, Self), hops: u8) -> bool {
        let Some(header) = packet.first_chunk_mut::<40>() else {
            return false;
        };
        header[7] = header[7].saturating_sub(hops);
        header[8..24].copy_from_slice(&source.octets());
        header[24..].copy_from_slice(&destination.octets());
        true
    }

    fn fragment_protocol(_: u8) -> u8 {
        0
    }

    fn change(delta: Delta, old: Self, new: Self) -> Delta {
        let (old, new) = (old.to_bits(), new.to_bits());
        let longs = [96, 64, 32, 0].map(|at| ((old >> at) as u32, (new >> at) as u32));
        let change = |delta: Delta, (old, new)| delta.long(old, new);
        longs.into_iter().fold(delta, change)
    }
}
