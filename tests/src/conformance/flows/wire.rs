//! Packets of conversations, and what frames say to a parser that is not the dataplane's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::checksum::u32_16bit_word;
use etherparse::{NetSlice, SlicedPacket};
use sluice_conf::Protocol;
use sluice_dataplane::neighbour::MacAddress;
use sluice_dataplane::testutil::Build;
use sluice_dataplane::wire::parse::TcpFlags;

/// Length of an Ethernet II header, in bytes.
const ETHERNET: usize = 14;

/// Where in a conversation a packet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The client's first: SYN, datagram, INIT.
    First,
    /// The endpoint's answer to it: SYN-ACK, datagram, INIT ACK.
    Answer,
    /// The client goes on: data, datagram, COOKIE ECHO.
    Next,
    /// The endpoint goes on: data, datagram, COOKIE ACK.
    Reply,
}

/// A packet to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Protocol.
    pub protocol: Protocol,
    /// Its sender.
    pub from: SocketAddr,
    /// Its receiver.
    pub to: SocketAddr,
    /// Where it stands.
    pub stage: Stage,
}

impl Packet {
    /// What it carries behind the transport header. SCTP chunks are those of RFC 9260 section 3.3.
    pub fn payload(&self) -> Vec<u8> {
        let initiation = |kind| {
            let mut chunk = vec![kind, 0, 0, 20];
            chunk.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
            chunk
        };
        match (self.protocol, self.stage) {
            (Protocol::Sctp, Stage::First) => initiation(1),
            (Protocol::Sctp, Stage::Answer) => initiation(2),
            (Protocol::Sctp, Stage::Next) => vec![10, 0, 0, 8, 1, 2, 3, 4],
            (Protocol::Sctp, Stage::Reply) => vec![11, 0, 0, 4],
            (Protocol::Tcp, Stage::First | Stage::Answer) => Vec::new(),
            (_, Stage::First | Stage::Next) => b"question".to_vec(),
            (_, Stage::Answer | Stage::Reply) => b"an answer".to_vec(),
        }
    }

    /// The frame, between these Ethernet addresses.
    pub fn frame(&self, from: MacAddress, to: MacAddress) -> Vec<u8> {
        let (source, destination) = (self.from.to_string(), self.to.to_string());
        let (flags, sequence, acknowledgement) = match self.stage {
            Stage::First => (TcpFlags::SYN, 1000, 0),
            Stage::Answer => (TcpFlags::SYN | TcpFlags::ACK, 5000, 1001),
            Stage::Next => (TcpFlags::ACK, 1001, 5001),
            Stage::Reply => (TcpFlags::ACK, 5001, 1009),
        };
        Build::packet(self.protocol, &source, &destination)
            .macs(from, to)
            .flags(flags)
            .numbers(sequence, acknowledgement)
            .payload(&self.payload())
            .frame()
    }
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A packet of a conversation.
    Segment {
        /// Protocol.
        protocol: Protocol,
        /// Its sender.
        from: SocketAddr,
        /// Its receiver.
        to: SocketAddr,
        /// Whether it is a TCP reset.
        is_reset: bool,
        /// What it carries.
        payload: Vec<u8>,
    },
    /// ICMP or ICMPv6 port unreachable.
    PortUnreachable {
        /// Who says so.
        from: IpAddr,
        /// To whom.
        to: IpAddr,
        /// The packet that it is about, as far as it is quoted.
        quote: Vec<u8>,
    },
}

impl Seen {
    /// Where it goes.
    pub fn receiver(&self) -> IpAddr {
        match self {
            Seen::Segment { to, .. } => to.ip(),
            Seen::PortUnreachable { to, .. } => *to,
        }
    }

    /// Whether it is a TCP reset from one end to the other.
    pub fn is_reset_of(&self, sender: SocketAddr, receiver: SocketAddr) -> bool {
        matches!(self, Seen::Segment { is_reset: true, from, to, .. }
            if (*from, *to) == (sender, receiver))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Segment {
                protocol,
                from,
                to,
                is_reset,
                ..
            } => {
                let what = if *is_reset { "reset" } else { "packet" };
                write!(f, "{protocol} {what} from {from} to {to}")
            }
            Seen::PortUnreachable { from, to, .. } => {
                write!(f, "port unreachable from {from} to {to}")
            }
        }
    }
}

/// Reads a frame; an error names a wrong checksum or length, or what it is instead.
pub fn read(frame: &[u8]) -> Result<Seen, String> {
    let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| format!("{error}"))?;
    let (source, destination): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            if header.calc_header_checksum() != header.header_checksum {
                return Err("a wrong IPv4 header checksum".to_owned());
            }
            (header.source.into(), header.destination.into())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (header.source().into(), header.destination().into())
        }
        _ => return Err("a frame without an IP packet".to_owned()),
    };
    let Some(payload) = sliced.ip_payload() else {
        return Err("a packet without a payload".to_owned());
    };
    transport(source, destination, payload.ip_number.0, payload.payload)
}

fn transport(
    source: IpAddr,
    destination: IpAddr,
    number: u8,
    bytes: &[u8],
) -> Result<Seen, String> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let Some(protocol) = all.into_iter().find(|known| known.number() == number) else {
        return icmp(source, destination, number, bytes);
    };
    let port = |at: usize| word(bytes, at).ok_or("a packet without ports");
    let (from, to) = (port(0)?, port(2)?);
    let header = match protocol {
        Protocol::Tcp => usize::from(*bytes.get(12).ok_or("half a TCP header")? >> 4) * 4,
        Protocol::Udp => 8,
        Protocol::Sctp => 12,
    };
    let payload = bytes.get(header..).ok_or("half a transport header")?;
    let is_right = match protocol {
        Protocol::Sctp => has_right_crc(bytes),
        Protocol::Tcp | Protocol::Udp => sum(source, destination, number, bytes) == 0,
    };
    if !is_right {
        return Err(format!("a wrong {protocol} checksum"));
    }
    let flags = bytes.get(13).filter(|_| protocol == Protocol::Tcp);
    Ok(Seen::Segment {
        protocol,
        from: SocketAddr::new(source, from),
        to: SocketAddr::new(destination, to),
        is_reset: flags.is_some_and(|flags| flags & TcpFlags::RST != 0),
        payload: payload.to_vec(),
    })
}

/// Port unreachable: type 3 code 3 (RFC 792), of ICMPv6 type 1 code 4 (RFC 4443 section 3.1).
fn icmp(source: IpAddr, destination: IpAddr, number: u8, bytes: &[u8]) -> Result<Seen, String> {
    const ICMP: u8 = 1;
    const ICMPV6: u8 = 58;
    let is_right = match number {
        ICMP => u32_16bit_word::ones_complement(u32_16bit_word::add_slice(0, bytes)) == 0,
        ICMPV6 => sum(source, destination, number, bytes) == 0,
        other => return Err(format!("a packet of protocol {other}")),
    };
    if !is_right {
        return Err("a wrong ICMP checksum".to_owned());
    }
    match (number, bytes) {
        (ICMP, [3, 3, _, _, _, _, _, _, quote @ ..])
        | (ICMPV6, [1, 4, _, _, _, _, _, _, quote @ ..]) => Ok(Seen::PortUnreachable {
            from: source,
            to: destination,
            quote: quote.to_vec(),
        }),
        (_, [kind, code, ..]) => Err(format!("ICMP type {kind} code {code}")),
        _ => Err("half an ICMP header".to_owned()),
    }
}

/// The Internet checksum over pseudo header and packet; 0 when the packet's own is right.
fn sum(source: IpAddr, destination: IpAddr, number: u8, bytes: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut pseudo = octets(source);
    pseudo.extend(octets(destination));
    pseudo.extend([0, number]);
    pseudo.extend((bytes.len() as u16).to_be_bytes());
    let sum = u32_16bit_word::add_slice(0, &pseudo);
    u32_16bit_word::ones_complement(u32_16bit_word::add_slice(sum, bytes))
}

fn has_right_crc(bytes: &[u8]) -> bool {
    let (Some(before), Some(written), Some(after)) =
        (bytes.get(..8), bytes.get(8..12), bytes.get(12..))
    else {
        return false;
    };
    let zeroed = [before, &[0; 4], after].concat();
    crc32c::crc32c(&zeroed).to_le_bytes() == written
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Whether an ICMP error quotes this frame: its IP header and 8 bytes more at least (RFC 792).
pub fn is_quoted(frame: &[u8], quote: &[u8]) -> bool {
    let packet = frame.get(ETHERNET..).unwrap_or_default();
    let header = match packet.first().map(|byte| byte >> 4) {
        Some(4) => usize::from(packet[0] & 0xf) * 4,
        _ => 40,
    };
    quote.len() >= header + 8 && packet.starts_with(quote)
}

/// The packet in a frame, without Ethernet header.
pub fn packet_of(frame: &[u8]) -> &[u8] {
    frame.get(ETHERNET..).unwrap_or_default()
}
