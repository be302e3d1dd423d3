//! Frames made by hand: what no well-behaved sender sends, and protocols that a kernel may lack.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::checksums::{crc32c, sum};
use crate::netns::{CONFIGURE, Netns};

/// Protocol numbers of IANA's "Assigned Internet Protocol Numbers".
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// The IPv6 fragment header (RFC 8200, section 4.5).
pub const FRAGMENT: u8 = 44;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;
/// Flags of TCP (RFC 9293, section 3.1).
pub const SYN: u8 = 2;
/// An answer.
pub const SYN_ACK: u8 = 0x12;
/// An acknowledgement.
pub const ACK: u8 = 0x10;

/// xorshift64 (Marsaglia, 2003): enough to spread garbage, and the same every time.
#[derive(Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % bound
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: u32) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// The Ethernet address of an interface.
///
/// # Errors
/// There is no such interface.
pub fn link_address(namespace: &Netns, interface: &str) -> Result<[u8; 6]> {
    let path = format!("/sys/class/net/{interface}/address");
    let text = namespace.run(&["cat", &path], CONFIGURE)?;
    let bytes: Result<Vec<u8>, _> = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    bytes?
        .try_into()
        .ok()
        .with_context(|| format!("{text} is no Ethernet address"))
}

/// Makes frames from one address to another, over one link.
#[derive(Debug, Clone, Copy)]
pub struct Maker {
    /// Ethernet address of who gets them.
    pub to: [u8; 6],
    /// Ethernet address of who sends them.
    pub from: [u8; 6],
    /// Source and its port.
    pub source: SocketAddr,
    /// Destination, of the same family, and its port.
    pub destination: SocketAddr,
}

impl Maker {
    /// The same towards another port.
    pub fn port(mut self, port: u16) -> Self {
        self.destination.set_port(port);
        self
    }

    /// The same from another address and port.
    pub fn by(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }

    /// A packet with any payload; a checksum within it is the caller's.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let ip = ip_packet(
            self.source.ip(),
            self.destination.ip(),
            protocol,
            [0; 4],
            payload,
        );
        self.frame(&ip)
    }

    /// A piece of a packet: its identification, its place in units of 8 bytes, whether more follow.
    pub fn fragment(
        &self,
        protocol: u8,
        id: u16,
        offset: u16,
        more: bool,
        piece: &[u8],
    ) -> Vec<u8> {
        let source = self.source.ip();
        let ip = if source.is_ipv4() {
            let flags = (offset & 0x1fff) | (u16::from(more) << 13);
            let [a, b] = id.to_be_bytes();
            let [c, d] = flags.to_be_bytes();
            ip_packet(source, self.destination.ip(), protocol, [a, b, c, d], piece)
        } else {
            let place = ((offset << 3) | u16::from(more)).to_be_bytes();
            let [a, b] = id.to_be_bytes();
            let mut payload = vec![protocol, 0, place[0], place[1], 0, 0, a, b];
            payload.extend(piece);
            ip_packet(source, self.destination.ip(), FRAGMENT, [0; 4], &payload)
        };
        self.frame(&ip)
    }

    /// A TCP segment without options.
    pub fn tcp(&self, flags: u8, sequence: u32) -> Vec<u8> {
        let mut segment = self.ports();
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0x50, flags, 2, 0, 0, 0, 0, 0]);
        self.checked(TCP, 16, &mut segment);
        self.packet(TCP, &segment)
    }

    /// A datagram with its checksum, not yet in a packet.
    pub fn datagram(&self, data: &[u8]) -> Vec<u8> {
        let mut datagram = self.ports();
        let length = (data.len() + 8) as u16;
        datagram.extend(length.to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(data);
        self.checked(UDP, 6, &mut datagram);
        datagram
    }

    /// A datagram in a packet.
    pub fn udp(&self, data: &[u8]) -> Vec<u8> {
        self.packet(UDP, &self.datagram(data))
    }

    /// An SCTP packet with one chunk (RFC 9260, section 3).
    pub fn sctp(&self, tag: u32, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut packet = self.ports();
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend([kind, 0]);
        packet.extend((value.len() as u16 + 4).to_be_bytes());
        packet.extend(value);
        packet.resize(packet.len().next_multiple_of(4), 0);
        let crc = crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&crc);
        self.packet(SCTP, &packet)
    }

    /// An ICMP message of the family: type, code, and all behind the checksum.
    pub fn icmp(&self, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, code, 0, 0];
        message.extend(rest);
        let protocol = match self.source.ip() {
            IpAddr::V4(_) => {
                let checksum = !sum(&[&message]);
                message[2..4].copy_from_slice(&checksum.to_be_bytes());
                ICMP
            }
            IpAddr::V6(_) => {
                self.checked(ICMPV6, 2, &mut message);
                ICMPV6
            }
        };
        self.packet(protocol, &message)
    }

    fn ports(&self) -> Vec<u8> {
        let ports = [self.source.port(), self.destination.port()];
        ports.map(u16::to_be_bytes).concat()
    }

    /// Puts the checksum over `payload` and its pseudo header at `at`, where zeroes stand.
    fn checked(&self, protocol: u8, at: usize, payload: &mut [u8]) {
        let length = (payload.len() as u16).to_be_bytes();
        let (source, destination) = (octets(self.source.ip()), octets(self.destination.ip()));
        let parts = [&source, &destination, &[0, protocol][..], &length, payload];
        let checksum = !sum(&parts);
        payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] = match self.source.ip() {
            IpAddr::V4(_) => [0x08, 0x00],
            IpAddr::V6(_) => [0x86, 0xdd],
        };
        [&self.to, &self.from, &kind[..], packet].concat()
    }
}

/// An IP packet without Ethernet; `pieces` is the second word of an IPv4 header.
pub fn ip_packet(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    pieces: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let addresses = [octets(source), octets(destination)].concat();
    let mut packet = match source {
        IpAddr::V4(_) => {
            let mut head = vec![0x45, 0];
            head.extend((payload.len() as u16 + 20).to_be_bytes());
            head.extend(pieces);
            head.extend([64, protocol, 0, 0]);
            let checksum = !sum(&[&head, &addresses]);
            head[10..12].copy_from_slice(&checksum.to_be_bytes());
            head
        }
        IpAddr::V6(_) => {
            let mut head = vec![0x60, 0, 0, 0];
            head.extend((payload.len() as u16).to_be_bytes());
            head.extend([protocol, 64]);
            head
        }
    };
    packet.extend(addresses);
    packet.extend(payload);
    packet
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;
    use crate::packets::{Judged, judge};

    fn maker(family: Family) -> Maker {
        Maker {
            to: [2, 0, 0, 0, 0, 1],
            from: [2, 0, 0, 0, 0, 2],
            source: SocketAddr::new(family.address(1, 10), 20_000),
            destination: family.frontend(80),
        }
    }

    #[test]
    fn what_is_made_by_hand_is_right() {
        for family in Family::BOTH {
            let maker = maker(family);
            let frames = [
                maker.tcp(SYN, 7),
                maker.udp(b"abc"),
                maker.sctp(0, 1, &[0; 16]),
                maker.icmp(3, 3, b"12345678"),
                maker.fragment(UDP, 9, 0, true, &maker.datagram(b"abcd")),
            ];
            for frame in frames {
                let Judged::Good(packet) = judge(&frame) else {
                    panic!("{:?}", judge(&frame));
                };
                assert_eq!((packet.source, packet.ttl), (maker.source.ip(), 64));
            }
        }
    }
}
