//! A parsed packet becomes the other packet: addresses, ports, time to live, checksums and
//! Ethernet addresses, all in place.

use std::net::Ipv4Addr;

use sluice_conf::Protocol;

use super::checksum::Delta;
use super::parse::{ETHERNET_LEN, Packet};
use crate::flow::FiveTuple;
use crate::neighbour::MacAddress;

/// Ethernet addresses of a frame that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EthernetPair {
    /// The interface's own address.
    pub source: MacAddress,
    /// The next hop's address.
    pub destination: MacAddress,
}

const TTL: usize = ETHERNET_LEN + 8;
const IP_CHECKSUM: usize = ETHERNET_LEN + 10;
const ADDRESSES: usize = ETHERNET_LEN + 12;

/// Writes Ethernet addresses.
pub fn write_ethernet(frame: &mut [u8], pair: EthernetPair) -> bool {
    let Some(header) = frame.first_chunk_mut::<12>() else {
        return false;
    };
    header[..6].copy_from_slice(&pair.destination.0);
    header[6..].copy_from_slice(&pair.source.0);
    true
}

/// Gives the packet the tuple `to`, takes one from its time to live and addresses it to the next
/// hop. Both checksums follow incrementally; a UDP checksum of 0 stays 0 (RFC 768).
///
/// False, and nothing usable in the frame, when `packet` was not read from this frame.
pub fn translate(
    frame: &mut [u8],
    packet: &Packet,
    to: &FiveTuple<Ipv4Addr>,
    pair: EthernetPair,
) -> bool {
    let from = &packet.tuple;
    let addresses = Delta::default()
        .long(from.source.address.to_bits(), to.source.address.to_bits())
        .long(
            from.destination.address.to_bits(),
            to.destination.address.to_bits(),
        );
    let ports = addresses
        .word(from.source.port, to.source.port)
        .word(from.destination.port, to.destination.port);
    write_ethernet(frame, pair)
        && write_ip(frame, to, addresses)
        && write_transport(frame, packet, to, ports)
}

fn write_ip(frame: &mut [u8], to: &FiveTuple<Ipv4Addr>, addresses: Delta) -> bool {
    let Some(header) = frame.get_mut(TTL..ADDRESSES + 8) else {
        return false;
    };
    let word = u16::from_be_bytes([header[0], header[1]]);
    let lower = word.wrapping_sub(0x0100);
    header[..2].copy_from_slice(&lower.to_be_bytes());
    let at = IP_CHECKSUM - TTL;
    let checksum = u16::from_be_bytes([header[at], header[at + 1]]);
    let checksum = addresses.word(word, lower).apply(checksum);
    header[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    let at = ADDRESSES - TTL;
    header[at..at + 4].copy_from_slice(&to.source.address.octets());
    header[at + 4..at + 8].copy_from_slice(&to.destination.address.octets());
    true
}

fn write_transport(
    frame: &mut [u8],
    packet: &Packet,
    to: &FiveTuple<Ipv4Addr>,
    delta: Delta,
) -> bool {
    let at = match to.protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
    };
    let start = usize::from(packet.transport);
    let Some(header) = frame.get_mut(start..start + at + 2) else {
        return false;
    };
    header[..2].copy_from_slice(&to.source.port.to_be_bytes());
    header[2..4].copy_from_slice(&to.destination.port.to_be_bytes());
    let checksum = u16::from_be_bytes([header[at], header[at + 1]]);
    let checksum = match (to.protocol, checksum) {
        (Protocol::Udp, 0) => 0,
        (Protocol::Udp, some) => match delta.apply(some) {
            0 => 0xffff,
            sum => sum,
        },
        (Protocol::Tcp, some) => delta.apply(some),
    };
    header[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::End;
    use crate::testutil::Build;
    use crate::wire::parse::{Parsed, parse};
    use proptest::prelude::*;

    const PAIR: EthernetPair = EthernetPair {
        source: MacAddress([2; 6]),
        destination: MacAddress([4; 6]),
    };

    fn packet(frame: &[u8]) -> Packet {
        match parse(frame) {
            Ok(Parsed::Packet(packet)) => packet,
            other => panic!("not a packet: {other:?}"),
        }
    }

    fn end(text: &str) -> End<Ipv4Addr> {
        let (address, port) = text.split_once(':').unwrap();
        End::new(address.parse().unwrap(), port.parse().unwrap())
    }

    fn translated(frame: &mut [u8], source: &str, destination: &str) {
        let packet = packet(frame);
        let protocol = packet.tuple.protocol;
        let to = FiveTuple {
            source: end(source),
            destination: end(destination),
            protocol,
        };
        assert!(translate(frame, &packet, &to, PAIR));
    }

    #[test]
    fn the_frame_is_what_its_new_sender_would_have_built() {
        for build in [Build::tcp, Build::udp] {
            let mut frame = build("10.0.1.10:40000", "203.0.113.10:80")
                .payload(b"hello!!")
                .frame();
            translated(&mut frame, "10.0.2.1:20000", "10.0.2.11:8080");
            let expected = build("10.0.2.1:20000", "10.0.2.11:8080")
                .payload(b"hello!!")
                .ttl(63)
                .macs(PAIR.source, PAIR.destination)
                .frame();
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn udp_without_checksum_stays_without() {
        let mut frame = Build::udp("10.0.1.10:40000", "203.0.113.10:53")
            .payload(b"q")
            .frame();
        frame[40..42].fill(0);
        translated(&mut frame, "10.0.2.1:20000", "10.0.2.11:53");
        assert_eq!(frame[40..42], [0, 0]);
    }

    proptest! {
        #[test]
        fn any_translation_leaves_right_checksums_and_the_way_back_restores_the_frame(
            udp in any::<bool>(),
            source in any::<u32>(), destination in any::<u32>(),
            ports in (1u16.., 1u16..),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let build = if udp { Build::udp } else { Build::tcp };
            let original = build("10.0.1.10:40000", "203.0.113.10:80").payload(&payload).frame();
            let mut frame = original.clone();
            let before = packet(&frame);
            let to = FiveTuple {
                source: End::new(source.into(), ports.0),
                destination: End::new(destination.into(), ports.1),
                protocol: before.tuple.protocol,
            };
            prop_assert!(translate(&mut frame, &before, &to, PAIR));
            let after = packet(&frame);
            prop_assert!(after.has_right_checksum(&frame));
            prop_assert_eq!(after.tuple, to);
            prop_assert!(translate(&mut frame, &after, &before.tuple, PAIR));
            prop_assert_eq!(&frame[26..], &original[26..]);
        }
    }
}
