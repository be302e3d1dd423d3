//! Frame to meaning: offsets and five-tuple, or the reason why not.

use std::net::Ipv4Addr;

use etherparse::{ArpPacketSlice, EtherType, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice};
use etherparse::{TcpHeaderSlice, UdpHeaderSlice};
use sluice_conf::Protocol;

use super::checksum;
use crate::flow::{End, FiveTuple};
use crate::neighbour::MacAddress;
use crate::verdict::DropReason;

/// Bytes of an Ethernet II header.
pub const ETHERNET_LEN: usize = 14;

/// Flags of a TCP header, as in its 14th byte (RFC 9293 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;

    /// Whether any of `flags` is set.
    pub const fn any(self, flags: u8) -> bool {
        self.0 & flags != 0
    }
}

/// A TCP or UDP packet over IPv4. Offsets count from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who talks to whom.
    pub tuple: FiveTuple<Ipv4Addr>,
    /// Where the TCP or UDP header starts; the IPv4 header starts at [`ETHERNET_LEN`].
    pub transport: u16,
    /// Where the IPv4 packet ends; what follows is Ethernet padding.
    pub end: u16,
    /// TCP flags; none for UDP.
    pub flags: TcpFlags,
    /// Time to live, as it arrived.
    pub ttl: u8,
}

/// An ICMP echo request over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Who asks.
    pub source: Ipv4Addr,
    /// Who is asked.
    pub destination: Ipv4Addr,
    /// Where the ICMP header starts.
    pub transport: u16,
    /// Where the IPv4 packet ends.
    pub end: u16,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Whether it asks.
    pub is_request: bool,
    /// Sender's Ethernet address.
    pub sender_mac: MacAddress,
    /// Sender's IPv4 address.
    pub sender: Ipv4Addr,
    /// The address asked for.
    pub wanted: Ipv4Addr,
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// TCP or UDP.
    Packet(Packet),
    /// ICMP echo request.
    Echo(Echo),
    /// ARP.
    Arp(Arp),
}

/// Reads a frame from its Ethernet header on.
///
/// Guarantees for what it returns: all headers are whole; the IPv4 header checksum is right; the
/// packet is no fragment; `end` lies within the frame; UDP's length field lies within the packet.
///
/// # Errors
/// The reason to drop the frame.
pub fn parse(frame: &[u8]) -> Result<Parsed, DropReason> {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).map_err(|_| DropReason::Truncated)?;
    let rest = frame.get(ETHERNET_LEN..).ok_or(DropReason::Truncated)?;
    match ethernet.ether_type() {
        EtherType::IPV4 => parse_ipv4(rest),
        EtherType::ARP => parse_arp(rest).map(Parsed::Arp),
        _ => Err(DropReason::NotIpv4),
    }
}

fn parse_ipv4(bytes: &[u8]) -> Result<Parsed, DropReason> {
    use etherparse::err::ipv4::HeaderSliceError;
    let ip = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| match error {
        HeaderSliceError::Len(_) => DropReason::Truncated,
        HeaderSliceError::Content(_) => DropReason::BadHeader,
    })?;
    let header_len = ip.slice().len();
    let total_len = usize::from(ip.total_len());
    if total_len < header_len {
        return Err(DropReason::BadHeader);
    }
    let segment = bytes
        .get(header_len..total_len)
        .ok_or(DropReason::Truncated)?;
    if !checksum::is_right(ip.slice()) {
        return Err(DropReason::BadIpChecksum);
    }
    if ip.is_fragmenting_payload() {
        return Err(DropReason::Fragment);
    }
    // A frame slot has at most 4,096 bytes, so both offsets fit 16 bits.
    let transport = (ETHERNET_LEN + header_len) as u16;
    let end = (ETHERNET_LEN + total_len) as u16;
    let (source, destination) = (ip.source_addr(), ip.destination_addr());
    let packet = |protocol, ports: (u16, u16), flags| {
        let tuple = FiveTuple {
            source: End::new(source, ports.0),
            destination: End::new(destination, ports.1),
            protocol,
        };
        Parsed::Packet(Packet {
            tuple,
            transport,
            end,
            flags,
            ttl: ip.ttl(),
        })
    };
    match ip.protocol() {
        IpNumber::TCP => {
            let (ports, flags) = parse_tcp(segment)?;
            Ok(packet(Protocol::Tcp, ports, flags))
        }
        IpNumber::UDP => Ok(packet(
            Protocol::Udp,
            parse_udp(segment)?,
            TcpFlags::default(),
        )),
        IpNumber::ICMP => match segment {
            // Type 8, code 0: echo request (RFC 792).
            [8, 0, _, _, _, _, _, _, ..] => Ok(Parsed::Echo(Echo {
                source,
                destination,
                transport,
                end,
            })),
            [_, _, _, _, _, _, _, _, ..] => Err(DropReason::Protocol),
            _ => Err(DropReason::Truncated),
        },
        _ => Err(DropReason::Protocol),
    }
}

fn parse_tcp(segment: &[u8]) -> Result<((u16, u16), TcpFlags), DropReason> {
    use etherparse::err::tcp::HeaderSliceError;
    let tcp = TcpHeaderSlice::from_slice(segment).map_err(|error| match error {
        HeaderSliceError::Len(_) => DropReason::Truncated,
        HeaderSliceError::Content(_) => DropReason::BadHeader,
    })?;
    if tcp.source_port() == 0 || tcp.destination_port() == 0 {
        return Err(DropReason::BadHeader);
    }
    let flags = tcp.slice().get(13).copied().unwrap_or_default();
    Ok(((tcp.source_port(), tcp.destination_port()), TcpFlags(flags)))
}

fn parse_udp(segment: &[u8]) -> Result<(u16, u16), DropReason> {
    let udp = UdpHeaderSlice::from_slice(segment).map_err(|_| DropReason::Truncated)?;
    let length = usize::from(udp.length());
    if length < 8 || udp.source_port() == 0 || udp.destination_port() == 0 {
        return Err(DropReason::BadHeader);
    }
    if length > segment.len() {
        return Err(DropReason::Truncated);
    }
    Ok((udp.source_port(), udp.destination_port()))
}

fn parse_arp(bytes: &[u8]) -> Result<Arp, DropReason> {
    let arp = ArpPacketSlice::from_slice(bytes).map_err(|_| DropReason::Truncated)?;
    let mac = <[u8; 6]>::try_from(arp.sender_hw_addr()).map_err(|_| DropReason::BadHeader)?;
    let address = |bytes: &[u8]| {
        <[u8; 4]>::try_from(bytes)
            .map(Ipv4Addr::from)
            .map_err(|_| DropReason::BadHeader)
    };
    Ok(Arp {
        is_request: arp.operation() == etherparse::ArpOperation::REQUEST,
        sender_mac: MacAddress(mac),
        sender: address(arp.sender_protocol_addr())?,
        wanted: address(arp.target_protocol_addr())?,
    })
}

impl Packet {
    /// Whether the transport checksum is right; a UDP checksum of 0 means that there is none
    /// (RFC 768). Reads the whole packet: for packets that make or change a connection only.
    pub fn has_right_checksum(&self, frame: &[u8]) -> bool {
        let Some(segment) = frame.get(usize::from(self.transport)..usize::from(self.end)) else {
            return false;
        };
        let segment = match (self.tuple.protocol, segment) {
            (Protocol::Udp, [_, _, _, _, _, _, 0, 0, ..]) => return true,
            // What lies behind UDP's own length is no part of the datagram.
            (Protocol::Udp, [_, _, _, _, high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                segment.get(..length).unwrap_or(segment)
            }
            _ => segment,
        };
        let FiveTuple {
            source,
            destination,
            protocol,
        } = self.tuple;
        let (source, destination) = (source.address.octets(), destination.address.octets());
        checksum::of_segment(source, destination, protocol.number(), segment) == 0
    }
}

impl Echo {
    /// Whether the ICMP checksum is right.
    pub fn has_right_checksum(&self, frame: &[u8]) -> bool {
        let message = frame.get(usize::from(self.transport)..usize::from(self.end));
        message.is_some_and(checksum::is_right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::{Build, corrupt};
    use proptest::prelude::*;

    fn flow(frame: &[u8]) -> Packet {
        match parse(frame) {
            Ok(Parsed::Packet(packet)) => packet,
            other => panic!("not a packet: {other:?}"),
        }
    }

    #[test]
    fn a_tcp_segment_is_read_to_its_offsets() {
        let frame = Build::tcp("10.0.1.10:40000", "203.0.113.10:80")
            .flags(TcpFlags::SYN)
            .frame();
        let packet = flow(&frame);
        assert_eq!(
            packet.tuple.to_string(),
            "TCP 10.0.1.10:40000 -> 203.0.113.10:80"
        );
        assert_eq!((packet.transport, packet.end), (34, 54));
        assert_eq!(packet.flags, TcpFlags(TcpFlags::SYN));
        assert!(packet.has_right_checksum(&frame));
    }

    #[test]
    fn ethernet_padding_is_not_part_of_the_packet() {
        let mut frame = Build::udp("10.0.1.10:4000", "203.0.113.10:53").frame();
        let end = frame.len();
        frame.resize(60, 0xaa);
        assert_eq!(usize::from(flow(&frame).end), end);
        assert!(flow(&frame).has_right_checksum(&frame));
    }

    #[test]
    fn ip_options_move_the_transport_header() {
        let frame = Build::tcp("10.0.1.10:40000", "203.0.113.10:80")
            .options(&[1, 1, 1, 0])
            .frame();
        assert_eq!(flow(&frame).transport, 38);
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_told_apart() {
        let good = || {
            Build::tcp("10.0.1.10:40000", "203.0.113.10:80")
                .payload(b"hello")
                .frame()
        };
        let edited = |edit: fn(&mut Vec<u8>)| {
            let mut frame = good();
            edit(&mut frame);
            parse(&frame).unwrap_err()
        };
        assert_eq!(edited(|f| f.truncate(13)), DropReason::Truncated);
        assert_eq!(edited(|f| f.truncate(30)), DropReason::Truncated);
        assert_eq!(edited(|f| f.truncate(50)), DropReason::Truncated);
        assert_eq!(edited(|f| f[12] = 0x86), DropReason::NotIpv4);
        assert_eq!(edited(|f| f[14] = 0x55), DropReason::BadHeader);
        assert_eq!(edited(|f| f[14] = 0x44), DropReason::BadHeader);
        assert_eq!(edited(|f| f[24] ^= 1), DropReason::BadIpChecksum);
        assert_eq!(edited(|f| f[46] = 0x10), DropReason::BadHeader);
        assert_eq!(
            edited(|f| corrupt::fragment(f, 0x2000)),
            DropReason::Fragment
        );
        assert_eq!(
            edited(|f| corrupt::fragment(f, 0x0001)),
            DropReason::Fragment
        );
        assert_eq!(edited(|f| corrupt::protocol(f, 47)), DropReason::Protocol);
    }

    #[test]
    fn a_damaged_payload_shows_in_the_transport_checksum() {
        let mut frame = Build::udp("10.0.1.10:4000", "203.0.113.10:53")
            .payload(b"query")
            .frame();
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert!(!flow(&frame).has_right_checksum(&frame));
    }

    #[test]
    fn udp_without_checksum_counts_as_right() {
        let mut frame = Build::udp("10.0.1.10:4000", "203.0.113.10:53")
            .payload(b"query")
            .frame();
        frame[40..42].fill(0);
        assert!(flow(&frame).has_right_checksum(&frame));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256), ip in any::<bool>()) {
            if ip && bytes.len() > 24 {
                bytes[12..14].copy_from_slice(&[8, 0]);
                bytes[14] = 0x45;
            }
            if let Ok(Parsed::Packet(packet)) = parse(&bytes) {
                let _ = packet.has_right_checksum(&bytes);
                prop_assert!(usize::from(packet.end) <= bytes.len());
            }
        }

        #[test]
        fn a_shortened_or_bent_packet_never_panics(cut in 0usize..80, at in 0usize..60, value in any::<u8>()) {
            let mut frame = Build::tcp("10.0.1.10:40000", "203.0.113.10:80").payload(&[7; 20]).frame();
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
            frame.truncate(cut);
            let _ = parse(&frame);
        }
    }
}
