//! The packets that nearly all traffic is made of, read and translated in few instructions.
//!
//! Plain is a whole TCP or UDP packet in a frame without tags, its IP header without options or
//! extensions, its hop limit not used up. Whatever is not plain is left to
//! [`parse`](super::parse), which says the same of a plain packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_conf::Protocol;

use super::Family;
use super::checksum::{self, Delta, FoldedDelta};
use super::parse::{ETHERNET_LEN, Packet, Place, Segment, Signal, TcpFlags, window_scale};
use super::rewrite::{EthernetPair, write_ethernet};
use crate::flow::{End, FiveTuple};

/// A plain packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<A> {
    /// Who talks to whom.
    pub tuple: FiveTuple<A>,
    /// Bytes of the IP packet.
    pub len: u16,
}

/// What a TCP segment says that acknowledges something and opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Behind its last byte, or its FIN.
    pub end: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Receive window as written.
    pub window: u16,
}

/// What an IP header without anything unusual says.
#[derive(Debug, Clone, Copy)]
pub struct Header<A> {
    source: A,
    destination: A,
    protocol: u8,
    /// Bytes of the IP packet.
    len: u16,
}

/// As much of the transport header as is looked at.
type Transport = [u8; 20];

/// The IP part of plain packets. A frame that is too short for all headers with TCP is left to
/// others, also with UDP: on a wire there are none.
pub trait PlainFamily: Family {
    /// Where the protocol number stands in a frame.
    const PROTOCOL_AT: usize;

    /// Reads the header behind the Ethernet header; `None` when the packet is not plain.
    fn header(frame: &[u8]) -> Option<(Header<Self>, &Transport)>;

    /// The transport header behind this one.
    fn transport(frame: &[u8]) -> Option<&Transport>;

    /// Hop limit of the header, and whether a router may cut the packet up.
    fn hops(frame: &[u8]) -> Option<(u8, bool)>;

    /// Gives a header other addresses and takes one from its hop limit. `delta` is the change of
    /// both addresses. The transport header comes back, to be changed as well.
    fn redirect(frame: &mut [u8], to: (Self, Self), delta: FoldedDelta) -> Option<&mut Transport>;
}

impl PlainFamily for Ipv4Addr {
    const PROTOCOL_AT: usize = ETHERNET_LEN + 9;

    #[inline]
    fn header(frame: &[u8]) -> Option<(Header<Self>, &Transport)> {
        /// No options, and no fragment; the length of the packet and whether it may be fragmented
        /// do not matter.
        const MASK: u64 = u64::from_be_bytes([0xff, 0, 0, 0, 0, 0, 0xbf, 0xff]);
        const PLAIN: u64 = u64::from_be_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
        let packet = frame.first_chunk::<54>()?.last_chunk::<40>()?;
        let (ip, transport) = (packet.first_chunk::<20>()?, packet.last_chunk::<20>()?);
        let first = u64::from_be_bytes(*ip.first_chunk()?);
        let is_plain = first & MASK == PLAIN && ip[8] > 1;
        if !is_plain || !checksum::is_header_right(ip) {
            return None;
        }
        let header = Header {
            source: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
            destination: Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]),
            protocol: ip[9],
            len: (first >> 32) as u16,
        };
        Some((header, transport))
    }

    #[inline]
    fn transport(frame: &[u8]) -> Option<&Transport> {
        frame.first_chunk::<54>()?.last_chunk()
    }

    fn hops(frame: &[u8]) -> Option<(u8, bool)> {
        const DONT_FRAGMENT: u8 = 0x40;
        let ip = frame.first_chunk::<34>()?.last_chunk::<20>()?;
        Some((ip[8], ip[6] & DONT_FRAGMENT == 0))
    }

    #[inline]
    fn redirect(frame: &mut [u8], to: (Self, Self), delta: FoldedDelta) -> Option<&mut Transport> {
        let packet = frame.first_chunk_mut::<54>()?.last_chunk_mut::<40>()?;
        let (ip, transport) = packet.split_first_chunk_mut::<20>()?;
        let sum = Delta::from(delta)
            .less(0x0100)
            .apply(u16::from_be_bytes([ip[10], ip[11]]));
        ip[8] = ip[8].wrapping_sub(1);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip[12..16].copy_from_slice(&to.0.octets());
        ip[16..].copy_from_slice(&to.1.octets());
        transport.first_chunk_mut()
    }
}

impl PlainFamily for Ipv6Addr {
    const PROTOCOL_AT: usize = ETHERNET_LEN + 6;

    #[inline]
    fn header(frame: &[u8]) -> Option<(Header<Self>, &Transport)> {
        let packet = frame.first_chunk::<74>()?.last_chunk::<60>()?;
        let (ip, transport) = (packet.first_chunk::<40>()?, packet.last_chunk::<20>()?);
        if ip[0] >> 4 != 6 || ip[7] <= 1 {
            return None;
        }
        let (_, addresses) = ip.split_first_chunk::<8>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let header = Header {
            source: Ipv6Addr::from(*source),
            destination: Ipv6Addr::from(*destination.first_chunk::<16>()?),
            protocol: ip[6],
            len: u16::from_be_bytes([ip[4], ip[5]]).checked_add(40)?,
        };
        Some((header, transport))
    }

    #[inline]
    fn transport(frame: &[u8]) -> Option<&Transport> {
        frame.first_chunk::<74>()?.last_chunk()
    }

    fn hops(frame: &[u8]) -> Option<(u8, bool)> {
        let ip = frame.first_chunk::<54>()?.last_chunk::<40>()?;
        Some((ip[7], false))
    }

    #[inline]
    fn redirect(frame: &mut [u8], to: (Self, Self), _: FoldedDelta) -> Option<&mut Transport> {
        let packet = frame.first_chunk_mut::<74>()?.last_chunk_mut::<60>()?;
        let (ip, transport) = packet.split_first_chunk_mut::<40>()?;
        ip[7] = ip[7].wrapping_sub(1);
        ip[8..24].copy_from_slice(&to.0.octets());
        ip[24..].copy_from_slice(&to.1.octets());
        transport.first_chunk_mut()
    }
}

impl<A: PlainFamily> Plain<A> {
    /// Reads a frame that carries this family and no tags; `None` when the packet is not plain.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let (header, transport) = A::header(frame)?;
        let payload = usize::from(header.len).checked_sub(A::HEADER_LEN)?;
        let is_whole = usize::from(header.len) <= frame.len() - ETHERNET_LEN;
        let protocol = match header.protocol {
            6 if is_whole && is_whole_tcp(transport, payload) => Protocol::Tcp,
            17 if is_whole && is_whole_udp(transport, payload) => Protocol::Udp,
            _ => return None,
        };
        let ports = u32::from_be_bytes(*transport.first_chunk()?);
        let (from, to) = ((ports >> 16) as u16, ports as u16);
        (from != 0 && to != 0).then_some(Self {
            tuple: FiveTuple {
                source: End::new(header.source, from),
                destination: End::new(header.destination, to),
                protocol,
            },
            len: header.len,
        })
    }

    /// All that [`parse`](super::parse) says of it; `None` when it was not read from this frame.
    #[inline]
    pub fn packet(&self, frame: &[u8]) -> Option<Packet<A>> {
        let (hop_limit, may_fragment) = A::hops(frame)?;
        let transport = ETHERNET_LEN + A::HEADER_LEN;
        // No frame is as long as 16 bits could say.
        let end = ETHERNET_LEN + usize::from(self.len);
        let signal = match self.tuple.protocol {
            Protocol::Tcp => Signal::Tcp(segment(frame.get(transport..end)?)?),
            _ => Signal::Plain,
        };
        Some(Packet {
            tuple: self.tuple,
            place: Place {
                network: ETHERNET_LEN as u16,
                transport: transport as u16,
                end: end as u16,
                hop_limit,
                may_fragment,
                piece: None,
            },
            signal,
        })
    }

    /// What the TCP segment says that was read from this frame and decides nothing; `None` when
    /// none was.
    #[inline]
    pub fn said(&self, frame: &[u8]) -> Option<Said> {
        let tcp = A::transport(frame)?;
        let header_len = u32::from(tcp[12] >> 4) * 4;
        let data_len = u32::from(self.len).wrapping_sub(A::HEADER_LEN as u32 + header_len);
        Some(Said {
            end: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(data_len),
            acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
        })
    }
}

#[inline]
fn is_whole_tcp(tcp: &Transport, len: usize) -> bool {
    let header_len = usize::from(tcp[12] >> 4) * 4;
    (20..=len).contains(&header_len)
}

/// Whether a plain packet that this frame may hold does more to its connection than to acknowledge.
#[inline]
pub fn decides<A: PlainFamily>(frame: &[u8]) -> bool {
    const DECIDING: u8 = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
    A::transport(frame).is_some_and(|transport| {
        frame.get(A::PROTOCOL_AT) == Some(&Protocol::Tcp.number())
            && transport[13] & DECIDING != TcpFlags::ACK
    })
}

/// A whole segment with its data.
#[inline]
fn segment(bytes: &[u8]) -> Option<Segment> {
    let (tcp, rest) = bytes.split_first_chunk::<20>()?;
    let header_len = tcp[12] >> 4 << 2;
    let (options, data) = rest.split_at_checked(usize::from(header_len).checked_sub(20)?)?;
    let long = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let flags = TcpFlags(tcp[13]);
    Some(Segment {
        flags,
        sequence: long(4),
        acknowledgement: long(8),
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        header_len,
        data_len: data.len() as u16,
        scale: window_scale(flags, options),
    })
}

#[inline]
fn is_whole_udp(udp: &Transport, len: usize) -> bool {
    (8..=len).contains(&usize::from(u16::from_be_bytes([udp[4], udp[5]])))
}

/// How the checksums of a connection's packets change in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deltas {
    header: FoldedDelta,
    transport: FoldedDelta,
}

impl Deltas {
    /// Of packets that stay as they are.
    pub const NONE: Self = Self {
        header: FoldedDelta::NONE,
        transport: FoldedDelta::NONE,
    };

    /// Of packets that get another tuple.
    pub fn between<A: Family>(from: &FiveTuple<A>, to: &FiveTuple<A>) -> Self {
        let source = (from.source.address, to.source.address);
        let destination = (from.destination.address, to.destination.address);
        let delta = A::change(Delta::default(), source.0, source.1);
        let addresses = A::change(delta, destination.0, destination.1);
        let ports = addresses
            .word(from.source.port, to.source.port)
            .word(from.destination.port, to.destination.port);
        Self {
            header: addresses.fold(),
            transport: ports.fold(),
        }
    }

    /// Of the packets of the other direction.
    #[inline]
    #[must_use]
    pub fn reverse(self) -> Self {
        Self {
            header: self.header.reverse(),
            transport: self.transport.reverse(),
        }
    }
}

/// Does to a plain packet what [`translate`](super::rewrite::translate) and
/// [`write_ethernet`] do. `deltas` are those of its tuple and `to`.
///
/// False, and nothing usable in the frame, when it was not read as plain.
#[inline]
pub fn translate<A: PlainFamily>(
    frame: &mut [u8],
    to: &FiveTuple<A>,
    deltas: Deltas,
    ethernet: EthernetPair,
) -> bool {
    write_ethernet(frame, ethernet) && readdress(frame, to, deltas)
}

/// Does to a plain packet what [`translate`](super::rewrite::translate) does, as [`translate`] otherwise.
#[inline]
pub fn readdress<A: PlainFamily>(frame: &mut [u8], to: &FiveTuple<A>, deltas: Deltas) -> bool {
    let addresses = (to.source.address, to.destination.address);
    A::redirect(frame, addresses, deltas.header)
        .map(|transport| redirect_ports(transport, to, deltas.transport))
        .is_some()
}

/// Whether a packet that was read from a frame of so many bytes can be treated as plain.
#[inline]
pub fn is_plain<A: PlainFamily>(packet: &Packet<A>, frame_len: usize) -> bool {
    let place = &packet.place;
    let transport = ETHERNET_LEN + A::HEADER_LEN;
    usize::from(place.network) == ETHERNET_LEN
        && usize::from(place.transport) == transport
        && place.piece.is_none()
        && place.hop_limit > 1
        && packet.tuple.protocol != Protocol::Sctp
        && frame_len >= transport + size_of::<Transport>()
}

/// Gives the transport header other ports.
#[inline]
fn redirect_ports<A: Family>(transport: &mut Transport, to: &FiveTuple<A>, delta: FoldedDelta) {
    let is_udp = to.protocol == Protocol::Udp;
    let at = if is_udp { 6 } else { 16 };
    let both = u32::from(to.source.port) << 16 | u32::from(to.destination.port);
    transport[..4].copy_from_slice(&both.to_be_bytes());
    let old = u16::from_be_bytes([transport[at], transport[at + 1]]);
    let new = match Delta::from(delta).apply(old) {
        _ if is_udp && old == 0 => 0,
        0 if is_udp => 0xffff,
        sum => sum,
    };
    transport[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

#[cfg(test)]
mod tests;
