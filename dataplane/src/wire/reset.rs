//! TCP resets in answer to a segment (RFC 9293 section 3.10.7.1), built in the frame that asked.

use std::net::Ipv4Addr;

use sluice_conf::Protocol;

use super::checksum;
use super::icmp::{swap_ethernet, write_ip_header};
use super::parse::{ETHERNET_LEN, Packet, TcpFlags};
use crate::flow::FiveTuple;

const IP_LEN: usize = 20;
const TCP_LEN: usize = 20;

/// Length of the frame that [`answer`] makes.
pub const RESET_LEN: usize = ETHERNET_LEN + IP_LEN + TCP_LEN;

/// What the reset must say to be believed by the sender of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Reset {
    /// Reads sequence numbers and length of the segment. With ACK, the reset takes its sequence
    /// number from the acknowledgement; without, it acknowledges what was sent.
    pub fn to(frame: &[u8], packet: &Packet) -> Option<Self> {
        let start = usize::from(packet.transport);
        let header = frame.get(start..)?.first_chunk::<TCP_LEN>()?;
        let long = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if packet.flags.any(TcpFlags::ACK) {
            return Some(Self {
                sequence: long(8),
                acknowledgement: 0,
                flags: TcpFlags::RST,
            });
        }
        let data_at = start + usize::from(header[12] >> 4) * 4;
        let data = usize::from(packet.end).saturating_sub(data_at) as u32;
        let control =
            u32::from(packet.flags.any(TcpFlags::SYN)) + u32::from(packet.flags.any(TcpFlags::FIN));
        let acknowledgement = long(4).wrapping_add(data).wrapping_add(control);
        Some(Self {
            sequence: 0,
            acknowledgement,
            flags: TcpFlags::RST | TcpFlags::ACK,
        })
    }
}

/// Turns the frame, resized to [`RESET_LEN`] before, into the reset that answers `from`.
///
/// False when the frame is too short for that.
pub fn answer(frame: &mut [u8], from: &FiveTuple<Ipv4Addr>, reset: Reset) -> bool {
    if frame.len() < RESET_LEN || !swap_ethernet(frame) {
        return false;
    }
    let FiveTuple {
        source,
        destination,
        ..
    } = from.invert();
    let ip = &mut frame[ETHERNET_LEN..ETHERNET_LEN + IP_LEN];
    let number = Protocol::Tcp.number();
    write_ip_header(
        ip,
        (IP_LEN + TCP_LEN) as u16,
        number,
        source.address,
        destination.address,
    );
    let tcp = &mut frame[ETHERNET_LEN + IP_LEN..RESET_LEN];
    tcp[..2].copy_from_slice(&source.port.to_be_bytes());
    tcp[2..4].copy_from_slice(&destination.port.to_be_bytes());
    tcp[4..8].copy_from_slice(&reset.sequence.to_be_bytes());
    tcp[8..12].copy_from_slice(&reset.acknowledgement.to_be_bytes());
    tcp[12..].copy_from_slice(&[0x50, reset.flags, 0, 0, 0, 0, 0, 0]);
    let (from, to) = (source.address.octets(), destination.address.octets());
    let sum = checksum::of_segment(from, to, number, tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::{Build, CLIENT_MAC, GATEWAY_MAC};
    use crate::wire::parse::{Parsed, parse};

    fn reset(mut frame: Vec<u8>) -> Vec<u8> {
        let Ok(Parsed::Packet(packet)) = parse(&frame) else {
            panic!("not a packet")
        };
        let reset = Reset::to(&frame, &packet).unwrap();
        frame.resize(RESET_LEN, 0xee);
        assert!(answer(&mut frame, &packet.tuple, reset));
        frame
    }

    fn expected(flags: u8, sequence: u32, acknowledgement: u32) -> Vec<u8> {
        let mut frame = Build::tcp("203.0.113.10:80", "10.0.1.10:40000")
            .macs(GATEWAY_MAC, CLIENT_MAC)
            .flags(flags)
            .numbers(sequence, acknowledgement)
            .frame();
        // Our own packets announce no window.
        frame[48..50].fill(0);
        frame[50..52].fill(0);
        let sum = checksum::of_segment([203, 0, 113, 10], [10, 0, 1, 10], 6, &frame[34..]);
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
