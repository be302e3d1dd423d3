//! Who talks to whom, and the frames of it, in both families.
//!
//! Clients are numbered, and a keyed permutation makes address and port of the number: sequential
//! ports would make every hash table look perfect. Frames are the shortest that TCP has, with right
//! checksums.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use sluice_conf::Protocol;
use sluice_dataplane::flow::{End, FiveTuple};
use sluice_dataplane::pipeline::Tracked;
use sluice_dataplane::wire::checksum;

use crate::topology::{CLIENT_SIDE, FRONTEND_PORT, SERVICES, gateway_mac};

/// Bytes of the shortest Ethernet frame, without frame check sequence.
const SHORTEST: usize = 60;

const ETHERNET: usize = 14;
const IPV6: usize = 40;

/// Bytes of a TCP header without options.
const TCP: usize = 20;

const KEY: u32 = 0x5106_1ce5;

/// A keyed permutation of all 32-bit numbers (Wellons, "Prospecting for Hash Functions": lowbias32).
pub const fn permute(number: u32) -> u32 {
    let mut x = number ^ KEY;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// A family in which everybody has a number.
pub trait Numbered: Tracked {
    /// Name for reports.
    const NAME: &'static str;

    /// Address of a client, of 2^17.
    fn client(number: u32) -> Self;

    /// Vip of a Service.
    fn vip(service: u16) -> Self;

    /// Address of a node, of 200.
    fn node(number: u16) -> Self;
}

impl Numbered for Ipv4Addr {
    const NAME: &'static str = "IPv4";

    fn client(number: u32) -> Self {
        Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() | number)
    }

    fn vip(service: u16) -> Self {
        Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 0).to_bits() + u32::from(service))
    }

    fn node(number: u16) -> Self {
        Ipv4Addr::new(10, 0, 2, 10 + number as u8)
    }
}

impl Numbered for Ipv6Addr {
    const NAME: &'static str = "IPv6";

    fn client(number: u32) -> Self {
        let bits = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0).to_bits();
        // Prefix and interface identifier both differ, as clients of many networks do.
        Ipv6Addr::from_bits(bits | u128::from(number) << 64 | u128::from(number))
    }

    fn vip(service: u16) -> Self {
        Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, service)
    }

    fn node(number: u16) -> Self {
        Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 10 + number)
    }
}

/// First packet of connection `number`: another client port for each number, any of the Vips.
pub fn connection<A: Numbered>(number: u32) -> FiveTuple<A> {
    let bits = permute(number);
    // 2^17 addresses of 2^15 ports each.
    let service = bits % u32::from(SERVICES);
    FiveTuple {
        source: End::new(A::client(bits >> 15), 0x8000 | (bits & 0x7fff) as u16),
        destination: End::new(A::vip(service as u16), FRONTEND_PORT),
        protocol: Protocol::Tcp,
    }
}

/// Brings items into an order that is fixed and that nobody would call sequential.
pub fn shuffle<T>(items: &mut [T]) {
    for place in (1..items.len()).rev() {
        let other = (u64::from(permute(place as u32)) * (place as u64 + 1)) >> 32;
        items.swap(place, other as usize);
    }
}

/// A frame of either family.
#[derive(Debug, Clone, Copy)]
pub struct Bytes {
    memory: [u8; ETHERNET + IPV6 + TCP],
    len: usize,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

/// A TCP segment without data from one end to the other, flags as in the header's 14th byte.
pub fn tcp<A: Numbered>(tuple: &FiveTuple<A>, flags: u8) -> Bytes {
    let mut frame = [0; ETHERNET + IPV6 + TCP];
    let transport = ETHERNET + A::HEADER_LEN;
    frame[..6].copy_from_slice(&gateway_mac(CLIENT_SIDE).0);
    frame[6..12].copy_from_slice(&[2, 0, 0, 1, 0, 254]);
    frame[12..14].copy_from_slice(&A::ETHERTYPE);
    let (from, to) = (tuple.source.address, tuple.destination.address);
    A::write_header(&mut frame[ETHERNET..transport], TCP, 6, 0, 64, from, to);
    let segment = &mut frame[transport..transport + TCP];
    segment[..2].copy_from_slice(&tuple.source.port.to_be_bytes());
    segment[2..4].copy_from_slice(&tuple.destination.port.to_be_bytes());
    segment[4..12].copy_from_slice(&[0, 0, 3, 232, 0, 0, 7, 208]);
    segment[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    let sum = checksum::of_segment(from, to, 6, segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Bytes {
        memory: frame,
        len: (transport + TCP).max(SHORTEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_dataplane::neighbour::Tags;
    use sluice_dataplane::wire::parse::{Datagram, Parsed, TcpFlags, parse};
    use std::collections::HashSet;

    #[test]
    fn a_frame_of_ipv4_says_what_it_was_made_of() {
        let tuple = connection::<Ipv4Addr>(7);
        let frame = tcp(&tuple, TcpFlags::SYN);
        assert_eq!(frame.len(), 60);
        let Ok(Parsed::V4(Datagram::Packet(packet))) = parse(&frame, Tags::default()) else {
            unreachable!("a TCP packet");
        };
        assert_eq!(packet.tuple, tuple);
        assert_eq!(packet.flags(), TcpFlags(TcpFlags::SYN));
        assert!(packet.has_right_checksum(&frame));
    }

    #[test]
    fn a_frame_of_ipv6_says_what_it_was_made_of() {
        let tuple = connection::<Ipv6Addr>(7);
        let frame = tcp(&tuple, TcpFlags::ACK);
        assert_eq!(frame.len(), 74);
        let Ok(Parsed::V6(Datagram::Packet(packet))) = parse(&frame, Tags::default()) else {
            unreachable!("a TCP packet");
        };
        assert_eq!(packet.tuple, tuple);
        assert_eq!(packet.flags(), TcpFlags(TcpFlags::ACK));
        assert!(packet.has_right_checksum(&frame));
    }

    #[test]
    fn no_two_connections_have_one_client_port() {
        let v4: HashSet<_> = (0..200_000)
            .map(|n| connection::<Ipv4Addr>(n).source)
            .collect();
        let v6: HashSet<_> = (0..200_000)
            .map(|n| connection::<Ipv6Addr>(n).source)
            .collect();
        assert_eq!((v4.len(), v6.len()), (200_000, 200_000));
    }

    #[test]
    fn shuffling_loses_nobody() {
        let mut items: Vec<u32> = (0..1000).collect();
        shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert!(items.into_iter().eq(0..1000));
    }
}
