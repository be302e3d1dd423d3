//! TCP resets (RFC 9293 section 3.10.7): in answer to a segment, built in the frame that asked, and
//! of the gateway's own accord, built from nothing.

use sluice_conf::Protocol;

use super::checksum;
use super::parse::{Packet, Segment, TcpFlags};
use super::rewrite::swap_ethernet;
use super::{Family, OWN_HOP_LIMIT};
use crate::flow::FiveTuple;

const TCP_LEN: usize = 20;

/// What the reset must say to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Reset {
    /// In answer to a segment. With ACK, the reset takes its sequence number from the
    /// acknowledgement; without, it acknowledges what was sent.
    pub fn to(segment: &Segment) -> Self {
        if segment.flags.any(TcpFlags::ACK) {
            return Self::at(segment.acknowledgement);
        }
        Self::acknowledging(segment.sequence_end())
    }

    /// For an end that expects `sequence` next.
    pub const fn at(sequence: u32) -> Self {
        Self {
            sequence,
            acknowledgement: 0,
            flags: TcpFlags::RST,
        }
    }

    /// For an end that has not acknowledged anything: its SYN, which ends before
    /// `acknowledgement`, is all that it can be told by.
    pub const fn acknowledging(acknowledgement: u32) -> Self {
        Self {
            sequence: 0,
            acknowledgement,
            flags: TcpFlags::RST | TcpFlags::ACK,
        }
    }
}

/// Length of the frame that holds a reset behind an Ethernet header of `network` bytes.
pub const fn frame_len<A: Family>(network: usize) -> usize {
    network + A::HEADER_LEN + TCP_LEN
}

/// Turns the frame, resized to [`frame_len`] before, into the reset that answers `packet`.
///
/// False when the frame is too short for that.
pub fn answer<A: Family>(frame: &mut [u8], packet: &Packet<A>, reset: Reset) -> bool {
    let network = usize::from(packet.place.network);
    swap_ethernet(frame) && write(frame, network, &packet.tuple.invert(), reset)
}

/// Writes a reset with this tuple behind the Ethernet header, which ends at `network`.
///
/// False when the frame is too short for that.
pub fn write<A: Family>(
    frame: &mut [u8],
    network: usize,
    tuple: &FiveTuple<A>,
    reset: Reset,
) -> bool {
    let Some(packet) = frame.get_mut(network..frame_len::<A>(network)) else {
        return false;
    };
    let FiveTuple {
        source,
        destination,
        ..
    } = *tuple;
    let (header, tcp) = packet.split_at_mut(A::HEADER_LEN);
    let number = Protocol::Tcp.number();
    let ends = (source.address, destination.address);
    A::write_header(header, TCP_LEN, number, 0, OWN_HOP_LIMIT, ends.0, ends.1);
    tcp[..2].copy_from_slice(&source.port.to_be_bytes());
    tcp[2..4].copy_from_slice(&destination.port.to_be_bytes());
    tcp[4..8].copy_from_slice(&reset.sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&reset.acknowledgement.to_be_bytes());
    tcp[12..].copy_from_slice(&[0x50, reset.flags, 0, 0, 0, 0, 0, 0]);
    let sum = checksum::of_segment(ends.0, ends.1, number, tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbour::Tags;
    use crate::testutil::{Build, CLIENT_MAC, GATEWAY_MAC};
    use crate::wire::parse::{Datagram, Parsed, Signal, parse};
    use std::net::Ipv4Addr;

    fn reset(mut frame: Vec<u8>) -> Vec<u8> {
        let Ok(Parsed::V4(Datagram::Packet(packet))) = parse(&frame, Tags::default()) else {
            panic!("not a packet")
        };
        let Signal::Tcp(segment) = packet.signal else {
            panic!("not TCP")
        };
        frame.resize(frame_len::<Ipv4Addr>(14), 0xee);
        assert!(answer(&mut frame, &packet, Reset::to(&segment)));
        frame
    }

    fn expected(flags: u8, sequence: u32, acknowledgement: u32) -> Vec<u8> {
        let mut frame = Build::tcp("203.0.113.10:80", "10.0.1.10:40000")
            .macs(GATEWAY_MAC, CLIENT_MAC)
            .flags(flags)
            .numbers(sequence, acknowledgement)
            .frame();
        let (vip, client) = (Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(10, 0, 1, 10));
        // Our own packets announce no window, and are made for every path.
        frame[48..50].fill(0);
        frame[50..52].fill(0);
        let sum = checksum::of_segment(vip, client, 6, &frame[34..]);
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn an_acknowledging_segment_is_reset_at_the_number_that_it_expects() {
        let segment = Build::tcp("10.0.1.10:40000", "203.0.113.10:80").numbers(1000, 2000);
        assert_eq!(
            reset(segment.payload(b"data").frame()),
            expected(TcpFlags::RST, 2000, 0)
        );
    }

    #[test]
    fn a_syn_is_acknowledged_by_its_reset() {
        let segment = Build::tcp("10.0.1.10:40000", "203.0.113.10:80").flags(TcpFlags::SYN);
        let answer = reset(segment.numbers(1000, 0).frame());
        assert_eq!(answer, expected(TcpFlags::RST | TcpFlags::ACK, 0, 1001));
    }
}
