//! Frame to meaning: offsets and five-tuple, or the reason why not.

mod icmp;
mod ip;
mod transport;

use etherparse::{ArpPacketSlice, EtherType};
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) use transport::window_scale;

use super::Family;
use super::checksum;
use super::crc32c;
use super::ndp::Solicitation;
use crate::flow::FiveTuple;
use crate::neighbour::{MacAddress, Tags};
use crate::verdict::DropReason;
use sluice_conf::Protocol;

/// Bytes of an Ethernet II header without tags.
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
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;

    /// Whether any of `flags` is set.
    pub const fn any(self, flags: u8) -> bool {
        self.0 & flags != 0
    }

    /// Whether a sender that keeps to the protocol sets these together; the rest is what scanners
    /// send (tcp_valid_flags of Linux, nf_conntrack_proto_tcp.c).
    pub const fn is_sound(self) -> bool {
        const SYN_URG: u8 = TcpFlags::SYN | TcpFlags::URG;
        const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
        const RST_ACK: u8 = TcpFlags::RST | TcpFlags::ACK;
        const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
        const FIN_ACK_URG: u8 = FIN_ACK | TcpFlags::URG;
        const ACK_URG: u8 = TcpFlags::ACK | TcpFlags::URG;
        // What asks to push data or tells of congestion fits everything.
        let shaping = FIN_ACK_URG | TcpFlags::SYN | TcpFlags::RST;
        matches!(
            self.0 & shaping,
            TcpFlags::SYN
                | SYN_URG
                | SYN_ACK
                | TcpFlags::RST
                | RST_ACK
                | FIN_ACK
                | FIN_ACK_URG
                | TcpFlags::ACK
                | ACK_URG
        )
    }
}

/// What a transport header says to a connection tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A TCP segment.
    Tcp(Segment),
    /// An SCTP packet, by the type of its first chunk (RFC 9260 section 3.2).
    Sctp(u8),
    /// A UDP datagram, or a fragment that is not the first of its packet.
    Plain,
}

/// A TCP segment without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; counts with [`TcpFlags::ACK`].
    pub acknowledgement: u32,
    /// Receive window as written, not scaled.
    pub window: u16,
    /// Bytes of header.
    pub header_len: u8,
    /// Bytes of data.
    pub data_len: u16,
    /// Window scale that a SYN announces (RFC 7323 section 2.2).
    pub scale: Option<u8>,
}

impl Segment {
    /// The sequence number behind the segment: SYN and FIN take one each (RFC 9293 section 3.4).
    pub fn sequence_end(&self) -> u32 {
        let control = [TcpFlags::SYN, TcpFlags::FIN].map(|flag| u32::from(self.flags.any(flag)));
        self.sequence
            .wrapping_add(u32::from(self.data_len))
            .wrapping_add(control[0] + control[1])
    }
}

/// Where a packet stands in its frame, and what its IP header says. Offsets count from the start of
/// the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where the IP header starts.
    pub network: u16,
    /// Where the transport header starts.
    pub transport: u16,
    /// Where the IP packet ends; what follows is Ethernet padding.
    pub end: u16,
    /// Time to live or hop limit, as it arrived.
    pub hop_limit: u8,
    /// Whether a router may cut it up.
    pub may_fragment: bool,
    /// What it is a piece of, if it is one.
    pub piece: Option<Piece>,
}

impl Place {
    /// Bytes of the IP packet.
    pub const fn len(&self) -> usize {
        (self.end - self.network) as usize
    }

    /// Whether the IP packet is empty, which it never is.
    pub const fn is_empty(&self) -> bool {
        self.end == self.network
    }

    /// Whether a transport header is there: of fragments only the first has one.
    pub const fn has_transport(&self) -> bool {
        match self.piece {
            Some(piece) => piece.offset == 0,
            None => true,
        }
    }
}

/// A fragment's place in its packet (RFC 791 section 3.1, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Identification that all fragments of the packet share.
    pub identification: u32,
    /// First byte, counted in the payload of the whole packet.
    pub offset: u16,
    /// Bytes.
    pub len: u16,
    /// Whether more follow.
    pub more: bool,
}

/// A TCP, UDP or SCTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<A> {
    /// Who talks to whom.
    pub tuple: FiveTuple<A>,
    /// Where it stands.
    pub place: Place,
    /// What it says.
    pub signal: Signal,
}

/// A fragment that is not the first of its packet: it has no ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<A> {
    /// Who sent it.
    pub source: A,
    /// Whom it is for.
    pub destination: A,
    /// Protocol of the packet.
    pub protocol: Protocol,
    /// Where it stands.
    pub place: Place,
    /// Its place in the packet.
    pub piece: Piece,
}

/// An echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<A> {
    /// Who asks.
    pub source: A,
    /// Who is asked.
    pub destination: A,
    /// Where it stands; the ICMP header is the transport header.
    pub place: Place,
}

/// An ICMP error about a packet (RFC 792, RFC 4443).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complaint<A> {
    /// Who complains: the packet's destination, or a router on the way.
    pub source: A,
    /// To whom.
    pub destination: A,
    /// Where it stands; the ICMP header is the transport header.
    pub place: Place,
    /// The packet complained of, as it arrived there.
    pub about: FiveTuple<A>,
    /// Where the quoted IP header starts.
    pub quoted_network: u16,
    /// Where the quoted transport header starts.
    pub quoted_transport: u16,
}

/// What an IP packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<A> {
    /// TCP, UDP or SCTP, the first fragment of such a packet included.
    Packet(Packet<A>),
    /// Another fragment of such a packet.
    Fragment(Fragment<A>),
    /// Echo request.
    Echo(Echo<A>),
    /// ICMP error.
    Complaint(Complaint<A>),
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
    /// Where the ARP packet starts.
    pub start: u16,
}

/// A neighbour solicitation and where its IPv6 header starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub solicitation: Solicitation,
    /// Where the IPv6 header starts.
    pub network: u16,
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// IPv4.
    V4(Datagram<Ipv4Addr>),
    /// IPv6.
    V6(Datagram<Ipv6Addr>),
    /// ARP.
    Arp(Arp),
    /// IPv6 neighbour solicitation.
    Question(Question),
}

/// Reads a frame from its Ethernet header on. `tags` are those that frames of its link carry.
///
/// Guarantees for what it returns: all headers are whole; the IPv4 header checksum is right;
/// `network <= transport <= end`, and `end` lies within the frame; UDP's length field lies within
/// the packet. Of a first fragment the whole transport header is there (RFC 1858 section 3).
///
/// # Errors
/// The reason to drop the frame.
pub fn parse(frame: &[u8], tags: Tags) -> Result<Parsed, DropReason> {
    let (kind, start) = ethernet(frame, tags)?;
    match kind {
        EtherType::IPV4 => ip::parse_v4(frame, start).map(Parsed::V4),
        EtherType::IPV6 => ip::parse_v6(frame, start),
        EtherType::ARP => parse_arp(frame, start).map(Parsed::Arp),
        _ => Err(DropReason::NotIp),
    }
}

/// Type of the frame behind its tags, and where its payload starts.
fn ethernet(frame: &[u8], tags: Tags) -> Result<(EtherType, usize), DropReason> {
    let word = |at: usize| {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk::<2>());
        bytes
            .map(|bytes| u16::from_be_bytes(*bytes))
            .ok_or(DropReason::Truncated)
    };
    let mut at = ETHERNET_LEN - 2;
    let mut kind = word(at)?;
    for tag in tags.0.into_iter().filter(|tag| *tag != 0) {
        // The upper four bits are priority and drop eligibility.
        if !is_tag(kind) || word(at + 2)? & 0x0fff != tag {
            return Err(DropReason::OtherVlan);
        }
        at += 4;
        kind = word(at)?;
    }
    if is_tag(kind) {
        return Err(DropReason::OtherVlan);
    }
    Ok((EtherType(kind), at + 2))
}

/// IEEE 802.1Q and 802.1ad.
const fn is_tag(kind: u16) -> bool {
    matches!(kind, 0x8100 | 0x88a8)
}

fn parse_arp(frame: &[u8], start: usize) -> Result<Arp, DropReason> {
    let bytes = frame.get(start..).ok_or(DropReason::Truncated)?;
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
        start: start as u16,
    })
}

impl<A: Family> Packet<A> {
    /// TCP flags; none for other protocols.
    pub const fn flags(&self) -> TcpFlags {
        match self.signal {
            Signal::Tcp(segment) => segment.flags,
            Signal::Sctp(_) | Signal::Plain => TcpFlags(0),
        }
    }

    /// Whether it is anything that a host can mean; see [`TcpFlags::is_sound`].
    pub fn is_sound(&self) -> bool {
        match self.signal {
            Signal::Tcp(segment) => segment.flags.is_sound(),
            Signal::Sctp(_) | Signal::Plain => true,
        }
    }

    /// Whether the transport checksum is right, as far as one frame can tell: that of a fragmented
    /// packet is not checked, and a UDP checksum of 0 means that there is none (RFC 768). Reads the
    /// whole packet: for packets that make or change a connection only.
    pub fn has_right_checksum(&self, frame: &[u8]) -> bool {
        if self.place.piece.is_some() {
            return true;
        }
        let range = usize::from(self.place.transport)..usize::from(self.place.end);
        let Some(segment) = frame.get(range) else {
            return false;
        };
        let segment = match (self.tuple.protocol, segment) {
            (Protocol::Sctp, _) => return crc32c::is_right(segment),
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
        checksum::of_segment(
            source.address,
            destination.address,
            protocol.number(),
            segment,
        ) == 0
    }
}

impl<A: Family> Echo<A> {
    /// Whether the ICMP checksum is right.
    pub fn has_right_checksum(&self, frame: &[u8]) -> bool {
        icmp::is_right(frame, self.source, self.destination, &self.place)
    }
}

impl<A: Family> Complaint<A> {
    /// Whether the ICMP checksum is right.
    pub fn has_right_checksum(&self, frame: &[u8]) -> bool {
        icmp::is_right(frame, self.source, self.destination, &self.place)
    }

    /// Whether it says that the destination of the packet cannot be reached.
    pub fn is_unreachable(&self, frame: &[u8]) -> bool {
        let header = frame.get(usize::from(self.place.transport)..);
        matches!(header, Some([kind, code, ..]) if A::is_unreachable(*kind, *code))
    }

    /// The sequence number of the TCP segment complained of, which an error always quotes (RFC 792).
    pub fn quoted_sequence(&self, frame: &[u8]) -> Option<u32> {
        let quoted = frame.get(usize::from(self.quoted_transport)..)?;
        let bytes = quoted.get(4..)?.first_chunk()?;
        Some(u32::from_be_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests;
