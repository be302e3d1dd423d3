//! Who talks to whom, and the frames of it.
//!
//! Clients are numbered, and a keyed permutation makes address and port of the number: sequential
//! ports would make every hash table look perfect. Frames are the shortest Ethernet has, with right
//! checksums.

use std::net::Ipv4Addr;

use sluice_conf::Protocol;
use sluice_dataplane::flow::{End, FiveTuple};
use sluice_dataplane::wire::checksum;

use crate::topology::{CLIENT_SIDE, FRONTEND_PORT, SERVICES, gateway_mac, vip};

/// Both ends of a packet, as the engine has it.
pub type Tuple = FiveTuple<Ipv4Addr>;

/// Bytes of the shortest Ethernet frame, without frame check sequence.
pub const FRAME: usize = 60;

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

/// First packet of connection `number`: another client port for each number, any of the Vips.
pub fn connection(number: u32) -> Tuple {
    let bits = permute(number);
    // 2^17 addresses of 2^15 ports each.
    let client = Ipv4Addr::new(100, 64, 0, 0).to_bits() | (bits >> 15);
    let service = bits % u32::from(SERVICES);
    FiveTuple {
        source: End::new(Ipv4Addr::from_bits(client), 0x8000 | (bits & 0x7fff) as u16),
        destination: End::new(vip(service as u16), FRONTEND_PORT),
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

/// A TCP segment without data from one end to the other, flags as in the header's 14th byte.
pub fn tcp(tuple: &Tuple, flags: u8) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (source, destination) = (
        tuple.source.address.octets(),
        tuple.destination.address.octets(),
    );
    frame[..6].copy_from_slice(&gateway_mac(CLIENT_SIDE).0);
    frame[6..12].copy_from_slice(&[2, 0, 0, 1, 0, 254]);
    frame[12..14].copy_from_slice(&[8, 0]);
    // Version 4, five words; 40 bytes in all; may not be fragmented; time to live 64; TCP.
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    let header = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let segment = &mut frame[34..34 + TCP];
    segment[..2].copy_from_slice(&tuple.source.port.to_be_bytes());
    segment[2..4].copy_from_slice(&tuple.destination.port.to_be_bytes());
    segment[4..12].copy_from_slice(&[0, 0, 3, 232, 0, 0, 7, 208]);
    segment[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    let sum = checksum::of_segment(
        Ipv4Addr::from(source),
        Ipv4Addr::from(destination),
        6,
        segment,
    );
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_dataplane::neighbour::Tags;
    use sluice_dataplane::wire::parse::{Datagram, Parsed, TcpFlags, parse};
    use std::collections::HashSet;

    #[test]
    fn a_frame_says_what_it_was_made_of() {
        let tuple = connection(7);
        let frame = tcp(&tuple, TcpFlags::SYN);
        let Ok(Parsed::V4(Datagram::Packet(packet))) = parse(&frame, Tags::default()) else {
            unreachable!("a TCP packet");
        };
        assert_eq!(packet.tuple, tuple);
        assert_eq!(packet.flags(), TcpFlags(TcpFlags::SYN));
        assert!(packet.has_right_checksum(&frame));
    }

    #[test]
    fn no_two_connections_have_one_client_port() {
        let sources: HashSet<_> = (0..200_000).map(|n| connection(n).source).collect();
        assert_eq!(sources.len(), 200_000);
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
