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
use crate::flow::{Direction, Ends, Ends4, Ends6, FiveTuple, Key};

/// A plain packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<A: Family> {
    /// Who talks to whom.
    pub key: Key<A>,
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

/// Bytes of a transport header that are looked at.
const TRANSPORT_LEN: usize = 20;

/// So many bytes at the start of a frame.
pub trait Head: AsRef<[u8]> + AsMut<[u8]> {
    /// Those of a frame; `None` when it is too short.
    fn of(frame: &[u8]) -> Option<&Self>;

    /// The same, to change them.
    fn of_mut(frame: &mut [u8]) -> Option<&mut Self>;
}

impl<const N: usize> Head for [u8; N] {
    #[inline(always)]
    fn of(frame: &[u8]) -> Option<&Self> {
        frame.first_chunk()
    }

    #[inline(always)]
    fn of_mut(frame: &mut [u8]) -> Option<&mut Self> {
        frame.first_chunk_mut()
    }
}

/// The IP part of plain packets.
pub trait PlainFamily: Family {
    /// The headers of a plain packet: Ethernet, IP, and as much of the transport header as is looked
    /// at. A frame that is too short for TCP is left to others, also with UDP: on a wire there are
    /// none.
    type Head: Head;

    /// Where the transport header begins.
    const TRANSPORT: usize = ETHERNET_LEN + Self::HEADER_LEN;

    /// Protocol number of the packet and its bytes from the IP header on; `None` when it is not
    /// plain.
    fn header(head: &Self::Head) -> Option<(u8, u16)>;

    /// Addresses and ports.
    fn ends(head: &Self::Head) -> Self::Ends;

    /// Hop limit, and whether a router may cut the packet up.
    fn hops(head: &Self::Head) -> (u8, bool);

    /// Writes other addresses and ports and takes one from the hop limit. `addresses` is the change
    /// of both addresses.
    fn redirect(head: &mut Self::Head, ends: Self::Ends, addresses: Delta);
}

impl PlainFamily for Ipv4Addr {
    type Head = [u8; ETHERNET_LEN + 20 + TRANSPORT_LEN];

    #[inline(always)]
    fn header(head: &Self::Head) -> Option<(u8, u16)> {
        /// No options, and no fragment; the length of the packet and whether it may be fragmented
        /// do not matter.
        const MASK: u64 = u64::from_ne_bytes([0xff, 0, 0, 0, 0, 0, 0xbf, 0xff]);
        const PLAIN: u64 = u64::from_ne_bytes([0x45, 0, 0, 0, 0, 0, 0, 0]);
        let ip = head.first_chunk::<34>()?.last_chunk::<20>()?;
        let is_plain = u64::from_ne_bytes(*ip.first_chunk()?) & MASK == PLAIN && ip[8] > 1;
        let len = u16::from_be_bytes([ip[2], ip[3]]);
        (is_plain && checksum::is_header_right(ip)).then_some((ip[9], len))
    }

    #[inline(always)]
    fn ends(head: &Self::Head) -> Self::Ends {
        let (mut addresses, mut ports) = ([0; 8], [0; 4]);
        addresses.copy_from_slice(&head[26..34]);
        ports.copy_from_slice(&head[34..38]);
        Ends4::read(addresses, ports)
    }

    #[inline]
    fn hops(head: &Self::Head) -> (u8, bool) {
        const DONT_FRAGMENT: u8 = 0x40;
        (head[22], head[20] & DONT_FRAGMENT == 0)
    }

    #[inline(always)]
    fn redirect(head: &mut Self::Head, ends: Self::Ends, addresses: Delta) {
        const HOP: u16 = u16::from_ne_bytes([1, 0]);
        let sum = addresses
            .less(HOP)
            .apply(u16::from_ne_bytes([head[24], head[25]]));
        head[22] = head[22].wrapping_sub(1);
        head[24..26].copy_from_slice(&sum.to_ne_bytes());
        let (addresses, ports) = ends.bytes();
        head[26..34].copy_from_slice(&addresses);
        head[34..38].copy_from_slice(&ports);
    }
}

impl PlainFamily for Ipv6Addr {
    type Head = [u8; ETHERNET_LEN + 40 + TRANSPORT_LEN];

    #[inline(always)]
    fn header(head: &Self::Head) -> Option<(u8, u16)> {
        let is_plain = head[14] >> 4 == 6 && head[21] > 1;
        let len = u16::from_be_bytes([head[18], head[19]]).checked_add(40)?;
        is_plain.then_some((head[20], len))
    }

    #[inline(always)]
    fn ends(head: &Self::Head) -> Self::Ends {
        let (mut addresses, mut ports) = ([[0; 8]; 4], [0; 4]);
        addresses.as_flattened_mut().copy_from_slice(&head[22..54]);
        ports.copy_from_slice(&head[54..58]);
        Ends6::read(&addresses, ports)
    }

    #[inline]
    fn hops(head: &Self::Head) -> (u8, bool) {
        (head[21], false)
    }

    #[inline(always)]
    fn redirect(head: &mut Self::Head, ends: Self::Ends, _: Delta) {
        head[21] = head[21].wrapping_sub(1);
        let (addresses, ports) = ends.bytes();
        head[22..54].copy_from_slice(addresses.as_flattened());
        head[54..58].copy_from_slice(&ports);
    }
}

/// The 16 bits at a place of the transport header, as they stand in memory.
#[inline(always)]
fn word<A: PlainFamily>(head: &A::Head, at: usize) -> [u8; 2] {
    let head = head.as_ref();
    [head[A::TRANSPORT + at], head[A::TRANSPORT + at + 1]]
}

/// The number of 32 bits at a place of the transport header.
#[inline(always)]
fn long<A: PlainFamily>(head: &A::Head, at: usize) -> u32 {
    let ([a, b], [c, d]) = (word::<A>(head, at), word::<A>(head, at + 2));
    u32::from_be_bytes([a, b, c, d])
}

/// Length and flags of a TCP header.
#[inline(always)]
fn tcp<A: PlainFamily>(head: &A::Head) -> (usize, TcpFlags) {
    let [offset, flags] = word::<A>(head, 12);
    (usize::from(offset >> 4) * 4, TcpFlags(flags))
}

impl<A: PlainFamily> Plain<A> {
    /// Reads a frame that carries this family and no tags, and tells whether the packet does more to
    /// its connection than to acknowledge; `None` when it is not plain.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<(Self, bool)> {
        let head = A::Head::of(frame)?;
        let (protocol, len) = A::header(head)?;
        let payload = usize::from(len).checked_sub(A::HEADER_LEN)?;
        if usize::from(len) > frame.len() - ETHERNET_LEN {
            return None;
        }
        let (protocol, decides) = match protocol {
            6 => (Protocol::Tcp, tcp_decides::<A>(head, payload)?),
            17 if is_whole_udp::<A>(head, payload) => (Protocol::Udp, false),
            _ => return None,
        };
        let ends = A::ends(head);
        let ports = ends.ports();
        let has_ports = ports & 0xffff != 0 && ports >> 16 != 0;
        let key = Key { ends, protocol };
        has_ports.then_some((Self { key, len }, decides))
    }

    /// All that [`parse`](super::parse) says of it; `None` when it was not read from this frame.
    #[inline]
    pub fn packet(&self, frame: &[u8]) -> Option<Packet<A>> {
        let (hop_limit, may_fragment) = A::hops(A::Head::of(frame)?);
        // No frame is as long as 16 bits could say.
        let end = ETHERNET_LEN + usize::from(self.len);
        let signal = match self.key.protocol {
            Protocol::Tcp => Signal::Tcp(segment(frame.get(A::TRANSPORT..end)?)?),
            _ => Signal::Plain,
        };
        Some(Packet {
            tuple: self.key.tuple(),
            place: Place {
                network: ETHERNET_LEN as u16,
                transport: A::TRANSPORT as u16,
                end: end as u16,
                hop_limit,
                may_fragment,
                piece: None,
            },
            signal,
        })
    }

    /// What it says if it is a TCP segment. The headers are its own.
    #[inline(always)]
    pub fn said(&self, head: &A::Head) -> Said {
        let headers = A::HEADER_LEN + tcp::<A>(head).0;
        let data_len = u32::from(self.len).wrapping_sub(headers as u32);
        Said {
            end: long::<A>(head, 4).wrapping_add(data_len),
            acknowledgement: long::<A>(head, 8),
            window: u16::from_be_bytes(word::<A>(head, 14)),
        }
    }
}

/// Whether a TCP segment does more than to acknowledge; `None` when its header is not whole.
#[inline(always)]
fn tcp_decides<A: PlainFamily>(head: &A::Head, len: usize) -> Option<bool> {
    const DECIDING: u8 = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK;
    let (header_len, TcpFlags(flags)) = tcp::<A>(head);
    let is_whole = (TRANSPORT_LEN..=len).contains(&header_len);
    is_whole.then_some(flags & DECIDING != TcpFlags::ACK)
}

#[inline(always)]
fn is_whole_udp<A: PlainFamily>(head: &A::Head, len: usize) -> bool {
    (8..=len).contains(&usize::from(u16::from_be_bytes(word::<A>(head, 4))))
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

/// How the checksums of a connection's packets change in the original direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deltas {
    addresses: FoldedDelta,
    all: FoldedDelta,
}

impl Deltas {
    /// Of packets that stay as they are.
    pub const NONE: Self = Self {
        addresses: FoldedDelta::NONE,
        all: FoldedDelta::NONE,
    };

    /// Of packets that get other ends.
    pub fn between<A: Family>(from: &A::Ends, to: &A::Ends) -> Self {
        let ((from, old_ports), (to, ports)) = (from.words(), to.words());
        let addresses = from
            .zip(to)
            .fold(Delta::default(), |delta, (old, new)| delta.long(old, new));
        let all = addresses.long(old_ports, ports);
        Self {
            addresses: addresses.fold(),
            all: all.fold(),
        }
    }
}

/// What becomes of a plain packet.
#[derive(Debug, Clone, Copy)]
pub struct Change<A: Family> {
    /// What it leaves with.
    pub ends: A::Ends,
    /// Those of its connection.
    pub deltas: Deltas,
    /// Its own.
    pub direction: Direction,
    /// What it is and stays.
    pub protocol: Protocol,
}

impl<A: PlainFamily> Change<A> {
    /// Does to the headers of a plain packet what [`translate`](super::rewrite::translate) does to
    /// any.
    #[inline(always)]
    pub fn apply(&self, head: &mut A::Head) {
        let Deltas { addresses, all } = self.deltas;
        A::redirect(head, self.ends, addresses.in_direction(self.direction));
        let is_udp = self.protocol == Protocol::Udp;
        let at = A::TRANSPORT + if is_udp { 6 } else { 16 };
        let field = &mut head.as_mut()[at..at + 2];
        let old = u16::from_ne_bytes([field[0], field[1]]);
        let new = match all.in_direction(self.direction).apply(old) {
            _ if is_udp && old == 0 => 0,
            0 if is_udp => 0xffff,
            sum => sum,
        };
        field.copy_from_slice(&new.to_ne_bytes());
    }
}

/// Does to a packet that can be treated as plain what [`translate`](super::rewrite::translate) does.
///
/// False, and nothing changed, when it was not read from this frame.
#[inline]
pub fn translate<A: PlainFamily>(frame: &mut [u8], from: &FiveTuple<A>, to: &FiveTuple<A>) -> bool {
    let (from, to) = (Key::from(from), Key::from(to));
    let change = Change::<A> {
        ends: to.ends,
        deltas: Deltas::between::<A>(&from.ends, &to.ends),
        direction: Direction::Original,
        protocol: to.protocol,
    };
    A::Head::of_mut(frame)
        .map(|head| change.apply(head))
        .is_some()
}

/// Whether a packet that was read from a frame of so many bytes can be treated as plain.
#[inline]
pub fn is_plain<A: PlainFamily>(packet: &Packet<A>, frame_len: usize) -> bool {
    let place = &packet.place;
    usize::from(place.network) == ETHERNET_LEN
        && usize::from(place.transport) == A::TRANSPORT
        && place.piece.is_none()
        && place.hop_limit > 1
        && packet.tuple.protocol != Protocol::Sctp
        && frame_len >= A::TRANSPORT + TRANSPORT_LEN
}

#[cfg(test)]
mod tests;
