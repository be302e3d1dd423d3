//! A parsed packet becomes the other packet: addresses, ports, hop limit, checksums and Ethernet
//! addresses, all in place.

use sluice_conf::Protocol;

use super::checksum::Delta;
use super::parse::{Packet, Signal, TcpFlags};
use super::{Family, crc32c, mss};
use crate::flow::FiveTuple;
use crate::neighbour::MacAddress;

/// Ethernet addresses of a frame that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EthernetPair {
    /// The interface's own address.
    pub source: MacAddress,
    /// The next hop's address.
    pub destination: MacAddress,
}

impl EthernetPair {
    /// What the frame begins with.
    #[inline]
    pub const fn bytes(self) -> [u8; 12] {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.destination.0, self.source.0);
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

/// Writes Ethernet addresses.
pub fn write_ethernet(frame: &mut [u8], pair: EthernetPair) -> bool {
    let Some(header) = frame.first_chunk_mut() else {
        return false;
    };
    *header = pair.bytes();
    true
}

/// Sends the frame back to where it came from.
pub fn swap_ethernet(frame: &mut [u8]) -> bool {
    let Some(header) = frame.first_chunk_mut::<12>() else {
        return false;
    };
    header.rotate_left(6);
    true
}

/// Gives the packet the tuple `to` and takes one from its hop limit. Checksums follow
/// incrementally, so that a damaged packet stays damaged; a UDP checksum of 0 stays 0 (RFC 768).
/// SCTP's cannot follow and is made anew when a port changes: whoever calls has checked it.
///
/// False, and nothing usable in the frame, when `packet` was not read from this frame.
pub fn translate<A: Family>(frame: &mut [u8], packet: &Packet<A>, to: &FiveTuple<A>) -> bool {
    let Some(bytes) = frame.get_mut(usize::from(packet.place.network)..) else {
        return false;
    };
    let addresses = (to.source.address, to.destination.address);
    if !A::readdress(bytes, addresses, 1) {
        return false;
    }
    if !packet.place.has_transport() {
        return true;
    }
    let range = usize::from(packet.place.transport)..usize::from(packet.place.end);
    let Some(segment) = frame.get_mut(range) else {
        return false;
    };
    if !write_transport(segment, &packet.tuple, to) {
        return false;
    }
    if to.protocol == Protocol::Sctp && has_other_ports(&packet.tuple, to) {
        crc32c::write(segment);
    }
    true
}

fn has_other_ports<A: Family>(from: &FiveTuple<A>, to: &FiveTuple<A>) -> bool {
    from.source.port != to.source.port || from.destination.port != to.destination.port
}

/// Writes ports into a transport header, whole or cut off behind them, and has its checksum follow
/// a change of the tuple if it is there; SCTP's stays as it is. False when the ports are not there.
pub(super) fn write_transport<A: Family>(
    segment: &mut [u8],
    from: &FiveTuple<A>,
    to: &FiveTuple<A>,
) -> bool {
    let Some(ports) = segment.first_chunk_mut::<4>() else {
        return false;
    };
    ports[..2].copy_from_slice(&to.source.port.to_be_bytes());
    ports[2..].copy_from_slice(&to.destination.port.to_be_bytes());
    let at = match to.protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
        Protocol::Sctp => return true,
    };
    let Some(field) = segment.get_mut(at..at + 2) else {
        return true;
    };
    let old = u16::from_be_bytes([field[0], field[1]]);
    if old == 0 && to.protocol == Protocol::Udp {
        return true;
    }
    let new = match (to.protocol, delta(from, to).apply(old)) {
        (Protocol::Udp, 0) => 0xffff,
        (_, sum) => sum,
    };
    field.copy_from_slice(&new.to_be_bytes());
    true
}

/// How the checksum of a transport header changes with its tuple.
fn delta<A: Family>(from: &FiveTuple<A>, to: &FiveTuple<A>) -> Delta {
    let mut delta = Delta::default();
    for (old, new) in [(from.source, to.source), (from.destination, to.destination)] {
        delta = A::change(delta, old.address, new.address).word(old.port, new.port);
    }
    delta
}

/// Limits the segment size that a TCP SYN or SYN-ACK announces. Whether it was larger.
pub fn clamp_mss<A: Family>(frame: &mut [u8], packet: &Packet<A>, limit: u16) -> bool {
    let Signal::Tcp(segment) = packet.signal else {
        return false;
    };
    let start = usize::from(packet.place.transport);
    let header = frame.get_mut(start..start + usize::from(segment.header_len));
    match header {
        Some(header) if segment.flags.any(TcpFlags::SYN) => mss::clamp(header, limit).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::End;
    use crate::neighbour::Tags;
    use crate::testutil::Build;
    use crate::wire::parse::{Datagram, Parsed, parse};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const PAIR: EthernetPair = EthernetPair {
        source: MacAddress([2; 6]),
        destination: MacAddress([4; 6]),
    };

    fn packet(frame: &[u8]) -> Packet<Ipv4Addr> {
        match parse(frame, Tags::default()) {
            Ok(Parsed::V4(Datagram::Packet(packet))) => packet,
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
        assert!(translate(frame, &packet, &to) && write_ethernet(frame, PAIR));
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
            prop_assert!(translate(&mut frame, &before, &to));
            let after = packet(&frame);
            prop_assert!(after.has_right_checksum(&frame));
            prop_assert_eq!(after.tuple, to);
            prop_assert!(translate(&mut frame, &after, &before.tuple));
            prop_assert_eq!(&frame[26..], &original[26..]);
        }
    }
}
