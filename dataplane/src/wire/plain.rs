//! The packets that nearly all traffic is made of, read and translated in few instructions.
//!
//! Plain is a whole TCP or UDP packet in a frame without tags, its IP header without options or
//! extensions, its hop limit not used up, and nothing in it that makes or ends a connection.
//! Whatever is not plain is left to [`parse`](super::parse), which says the same of a plain packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_conf::Protocol;

use super::Family;
use super::checksum::{self, Delta, FoldedDelta};
use super::parse::{ETHERNET_LEN, Segment, TcpFlags};
use super::rewrite::{self, EthernetPair, write_ethernet};
use crate::flow::{End, FiveTuple};

/// A plain packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<A> {
    /// Who talks to whom.
    pub tuple: FiveTuple<A>,
    /// Bytes of the IP packet.
    pub len: u16,
    /// What TCP says; means nothing for UDP.
    pub segment: Segment,
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

/// The IP part of plain packets.
pub trait PlainFamily: Family {
    /// Reads the header behind the Ethernet header; `None` when the packet is not plain.
    fn header(frame: &[u8]) -> Option<Header<Self>>;

    /// Gives a header other addresses and takes one from its hop limit. `delta` is the change of
    /// both addresses.
    fn redirect(packet: &mut [u8], to: (Self, Self), delta: FoldedDelta) -> bool;
}

impl PlainFamily for Ipv4Addr {
    fn header(frame: &[u8]) -> Option<Header<Self>> {
        let ip = frame.get(ETHERNET_LEN..)?.first_chunk::<20>()?;
        let is_whole = u16::from_be_bytes([ip[6], ip[7]]) & 0xbfff == 0;
        let is_plain = ip[0] == 0x45 && is_whole && ip[8] > 1;
        if !is_plain || !checksum::is_header_right(ip) {
            return None;
        }
        Some(Header {
            source: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
            destination: Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]),
            protocol: ip[9],
            len: u16::from_be_bytes([ip[2], ip[3]]),
        })
    }

    fn redirect(packet: &mut [u8], to: (Self, Self), delta: FoldedDelta) -> bool {
        let Some(ip) = packet.first_chunk_mut::<20>() else {
            return false;
        };
        let before = u16::from_be_bytes([ip[8], ip[9]]);
        let after = before.wrapping_sub(0x0100);
        let sum = Delta::from(delta)
            .word(before, after)
            .apply(u16::from_be_bytes([ip[10], ip[11]]));
        ip[8] = ip[8].wrapping_sub(1);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip[12..16].copy_from_slice(&to.0.octets());
        ip[16..].copy_from_slice(&to.1.octets());
        true
    }
}

impl PlainFamily for Ipv6Addr {
    fn header(frame: &[u8]) -> Option<Header<Self>> {
        let ip = frame.get(ETHERNET_LEN..)?.first_chunk::<40>()?;
        if ip[0] >> 4 != 6 || ip[7] <= 1 {
            return None;
        }
        let (_, addresses) = ip.split_first_chunk::<8>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        Some(Header {
            source: Ipv6Addr::from(*source),
            destination: Ipv6Addr::from(*destination.first_chunk::<16>()?),
            protocol: ip[6],
            len: u16::from_be_bytes([ip[4], ip[5]]).checked_add(40)?,
        })
    }

    fn redirect(packet: &mut [u8], to: (Self, Self), _: FoldedDelta) -> bool {
        Self::readdress(packet, to, 1)
    }
}

impl<A: PlainFamily> Plain<A> {
    /// Reads a frame that carries this family and no tags; `None` when the packet is not plain.
    #[inline]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let header = A::header(frame)?;
        let packet = frame.get(ETHERNET_LEN..)?.get(..usize::from(header.len))?;
        let transport = packet.get(A::HEADER_LEN..)?;
        let (protocol, segment) = match header.protocol {
            6 => (Protocol::Tcp, tcp(transport)?),
            17 => (Protocol::Udp, udp(transport)?),
            _ => return None,
        };
        let [s0, s1, d0, d1] = *transport.first_chunk::<4>()?;
        let (from, to) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        (from != 0 && to != 0).then_some(Self {
            tuple: FiveTuple {
                source: End::new(header.source, from),
                destination: End::new(header.destination, to),
                protocol,
            },
            len: header.len,
            segment,
        })
    }
}

/// A segment that neither opens nor ends anything.
fn tcp(bytes: &[u8]) -> Option<Segment> {
    const DECIDING: u8 = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
    let tcp = bytes.first_chunk::<20>()?;
    let header_len = (tcp[12] >> 4) * 4;
    let data_len = bytes.len().checked_sub(usize::from(header_len))?;
    (header_len >= 20 && tcp[13] & DECIDING == TcpFlags::ACK).then(|| Segment {
        flags: TcpFlags(tcp[13]),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
        window: u16::from_be_bytes([tcp[14], tcp[15]]),
        header_len,
        data_len: data_len as u16,
        scale: None,
    })
}

fn udp(bytes: &[u8]) -> Option<Segment> {
    let udp = bytes.first_chunk::<8>()?;
    let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    (8..=bytes.len()).contains(&len).then(Segment::default)
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
pub fn translate<A: PlainFamily>(
    frame: &mut [u8],
    to: &FiveTuple<A>,
    deltas: Deltas,
    ethernet: EthernetPair,
) -> bool {
    if !write_ethernet(frame, ethernet) {
        return false;
    }
    let Some((ip, transport)) = frame
        .get_mut(ETHERNET_LEN..)
        .and_then(|packet| packet.split_at_mut_checked(A::HEADER_LEN))
    else {
        return false;
    };
    let addresses = (to.source.address, to.destination.address);
    A::redirect(ip, addresses, deltas.header) && redirect_ports(transport, to, deltas.transport)
}

fn redirect_ports<A: Family>(transport: &mut [u8], to: &FiveTuple<A>, delta: FoldedDelta) -> bool {
    let is_udp = to.protocol == Protocol::Udp;
    let at = if is_udp { 6 } else { 16 };
    let Some((ports, rest)) = transport.split_first_chunk_mut::<4>() else {
        return false;
    };
    let [s0, s1] = to.source.port.to_be_bytes();
    let [d0, d1] = to.destination.port.to_be_bytes();
    *ports = [s0, s1, d0, d1];
    let Some(field) = rest
        .get_mut(at - 4..)
        .and_then(|rest| rest.first_chunk_mut::<2>())
    else {
        return false;
    };
    let old = u16::from_be_bytes(*field);
    if is_udp && old == 0 {
        return true;
    }
    let new = match Delta::from(delta).apply(old) {
        0 if is_udp => 0xffff,
        sum => sum,
    };
    *field = new.to_be_bytes();
    true
}

#[cfg(test)]
mod tests;
