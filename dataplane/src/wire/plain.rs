//! The packets that nearly all traffic is made of, read and translated in few instructions.
//!
//! Plain is a whole TCP or UDP packet in a frame without tags, its IP header without options or
//! extensions, its hop limit not used up, and nothing in it that makes or ends a connection.
//! Whatever is not plain is left to [`parse`](super::parse), which says the same of a plain packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_conf::Protocol;

use super::Family;
use super::checksum::{self, Delta, FoldedDelta};
use super::parse::{ETHERNET_LEN, TcpFlags};
use super::rewrite::{self, EthernetPair, write_ethernet};
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
    /// Reads the header behind the Ethernet header; `None` when the packet is not plain.
    fn header(frame: &[u8]) -> Option<(Header<Self>, &Transport)>;

    /// The transport header behind this one.
    fn transport(frame: &[u8]) -> Option<&Transport>;

    /// Gives a header other addresses and takes one from its hop limit. `delta` is the change of
    /// both addresses. The transport header comes back, to be changed as well.
    fn redirect(frame: &mut [u8], to: (Self, Self), delta: FoldedDelta) -> Option<&mut Transport>;
}

impl PlainFamily for Ipv4Addr {
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
    #[inline]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let (header, transport) = A::header(frame)?;
        let payload = usize::from(header.len).checked_sub(A::HEADER_LEN)?;
        let is_whole = usize::from(header.len) <= frame.len() - ETHERNET_LEN;
        let protocol = match header.protocol {
            6 if is_whole && is_plain_tcp(transport, payload) => Protocol::Tcp,
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

    /// What the TCP segment says that was read from this frame; `None` when none was.
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

/// Whether a segment of so many bytes neither opens nor ends anything.
#[inline]
fn is_plain_tcp(tcp: &Transport, len: usize) -> bool {
    const DECIDING: u8 = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
    let header_len = usize::from(tcp[12] >> 4) * 4;
    (20..=len).contains(&header_len) && tcp[13] & DECIDING == TcpFlags::ACK
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
        Self {
            header: A::change(delta, destination.0, destination.1).fold(),
            transport: rewrite::delta(from, to).fold(),
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

/// Does to a plain packet what [`translate`](rewrite::translate) and
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
    let addresses = (to.source.address, to.destination.address);
    write_ethernet(frame, ethernet)
        && A::redirect(frame, addresses, deltas.header)
            .map(|transport| redirect_ports(transport, to, deltas.transport))
            .is_some()
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
