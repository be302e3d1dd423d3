//! An independent judge of packets on a wire: lengths and checksums, straight from the RFCs.
//!
//! It shares no code with the dataplane on purpose, not even a parsing library: what the one gets
//! wrong the other must not get wrong alike. It judges IPv4 and IPv6 with TCP, UDP, SCTP and ICMP,
//! behind VLAN tags too; other frames (ARP) are only recognised. Fragments are judged by their IP
//! header alone.

use std::net::IpAddr;

use crate::checksums::{crc32c, sum};

/// Length of an Ethernet II header without its type, in bytes.
const ETHERNET_ADDRESSES: usize = 12;
#[cfg(test)]
const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q and 802.1ad.
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];
/// Protocol numbers of IANA's "Assigned Internet Protocol Numbers".
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
/// Hop-by-hop options, routing, destination options (RFC 8200, section 4).
const EXTENSIONS: [u8; 3] = [0, 43, 60];

/// What a frame turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Neither IPv4 nor IPv6.
    Other,
    /// IP whose lengths and checksums are right.
    Good(Packet),
    /// IP with a mistake; the sentence names it.
    Bad(String),
}

/// The parts of an IP packet that tests ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// VLAN tags of its frame, outermost first.
    pub tags: Vec<u16>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Bytes of the packet.
    pub length: usize,
    /// Whether it is a piece of a larger one.
    pub fragment: bool,
    /// Protocol number, behind IPv6 extension headers.
    pub protocol: u8,
    /// Source and destination port; `None` for ICMP, others and later fragments.
    pub ports: Option<(u16, u16)>,
    /// Type and code, of ICMP.
    pub icmp: Option<(u8, u8)>,
    /// Verification tag and type of the first chunk, of SCTP.
    pub sctp: Option<(u32, u8)>,
}

impl Packet {
    /// Whether it is TCP from `port` of `address`.
    pub fn is_tcp_from(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let from = self.ports.is_some_and(|(source, _)| source == port);
        self.protocol == TCP && self.source == address.into() && from
    }
}

/// Judges one Ethernet frame.
pub fn judge(frame: &[u8]) -> Judged {
    let mut tags = Vec::new();
    let mut at = ETHERNET_ADDRESSES;
    while word(frame, at).is_some_and(|kind| ETHERTYPES_VLAN.contains(&kind)) {
        tags.extend(word(frame, at + 2).map(|control| control & 0x0fff));
        at += 4;
    }
    let packet = frame.get(at + 2..).unwrap_or_default();
    let judged = match word(frame, at) {
        Some(ETHERTYPE_IPV4) => judge_ipv4(packet),
        Some(ETHERTYPE_IPV6) => judge_ipv6(packet),
        _ => return Judged::Other,
    };
    match judged {
        Ok(packet) => Judged::Good(Packet { tags, ..packet }),
        Err(mistake) => Judged::Bad(mistake),
    }
}

fn judge_ipv4(bytes: &[u8]) -> Result<Packet, String> {
    let first = *bytes.first().ok_or("no IPv4 header")?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 {
        return Err(format!("version and header length byte {first:#04x}"));
    }
    let total = usize::from(word(bytes, 2).ok_or("truncated IPv4 header")?);
    if total < header || total > bytes.len() {
        return Err(format!("total length {total} in {} bytes", bytes.len()));
    }
    // What follows the total length is Ethernet padding.
    let (head, payload) = bytes[..total].split_at(header);
    if sum(&[head]) != 0xffff {
        return Err("IPv4 header checksum".to_owned());
    }
    let flags = word(head, 6).unwrap_or_default();
    let mut packet = Packet {
        tags: Vec::new(),
        source: ipv4(head, 12),
        destination: ipv4(head, 16),
        ttl: head[8],
        length: total,
        fragment: flags & 0x3fff != 0,
        protocol: head[9],
        ports: None,
        icmp: None,
        sctp: None,
    };
    judge_payload(&head[12..20], payload, &mut packet)
        .map_err(|mistake| format!("{mistake} of {packet:?}"))?;
    Ok(packet)
}

fn judge_ipv6(bytes: &[u8]) -> Result<Packet, String> {
    let head = bytes.get(..40).ok_or("truncated IPv6 header")?;
    if head[0] >> 4 != 6 {
        return Err(format!("version byte {:#04x}", head[0]));
    }
    let length = usize::from(word(head, 4).unwrap_or_default());
    let Some(mut payload) = bytes.get(40..40 + length) else {
        return Err(format!("payload length {length} in {} bytes", bytes.len()));
    };
    let mut packet = Packet {
        tags: Vec::new(),
        source: ipv6(head, 8),
        destination: ipv6(head, 24),
        ttl: head[7],
        length: 40 + length,
        fragment: false,
        protocol: head[6],
        ports: None,
        icmp: None,
        sctp: None,
    };
    while packet.protocol == FRAGMENT || EXTENSIONS.contains(&packet.protocol) {
        let extension = payload.get(..8).ok_or("truncated extension header")?;
        let long = match packet.protocol {
            FRAGMENT => 8,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        packet.fragment |= packet.protocol == FRAGMENT;
        packet.protocol = extension[0];
        payload = payload.get(long..).ok_or("truncated extension header")?;
    }
    judge_payload(&head[8..40], payload, &mut packet)
        .map_err(|mistake| format!("{mistake} of {packet:?}"))?;
    Ok(packet)
}

/// `addresses` are source and destination as they stand in the IP header.
fn judge_payload(addresses: &[u8], payload: &[u8], packet: &mut Packet) -> Result<(), String> {
    if packet.fragment {
        return Ok(());
    }
    let length = u16::try_from(payload.len()).map_err(|_| "length")?;
    // RFC 9293, section 3.1, RFC 768 and RFC 8200, section 8.1: addresses, protocol and length, in
    // fields of another order and width that sum up to the same.
    let pseudo = [
        addresses,
        &[0, packet.protocol],
        &length.to_be_bytes(),
        payload,
    ];
    match packet.protocol {
        ICMP | ICMPV6 => {
            let covered: &[&[u8]] = match packet.protocol {
                ICMP => &[payload],
                _ => &pseudo,
            };
            if payload.len() < 4 || sum(covered) != 0xffff {
                return Err("ICMP checksum or length".to_owned());
            }
            packet.icmp = Some((payload[0], payload[1]));
        }
        TCP => {
            packet.ports = Some(ports(payload).ok_or("no TCP ports")?);
            let offset = usize::from(*payload.get(12).ok_or("short TCP header")? >> 4) * 4;
            if offset < 20 || offset > payload.len() {
                return Err(format!("TCP data offset {offset}"));
            }
            if sum(&pseudo) != 0xffff {
                return Err("TCP checksum".to_owned());
            }
        }
        UDP => {
            packet.ports = Some(ports(payload).ok_or("no UDP ports")?);
            if word(payload, 4) != Some(length) {
                return Err("UDP length".to_owned());
            }
            // RFC 768: zero means that the sender made none, which IPv6 forbids.
            let made = word(payload, 6).ok_or("short UDP header")? != 0;
            if (made || packet.source.is_ipv6()) && sum(&pseudo) != 0xffff {
                return Err("UDP checksum".to_owned());
            }
        }
        SCTP => judge_sctp(payload, packet)?,
        _ => {}
    }
    Ok(())
}

/// RFC 9260, section 3.1 and appendix A.
fn judge_sctp(payload: &[u8], packet: &mut Packet) -> Result<(), String> {
    packet.ports = Some(ports(payload).ok_or("no SCTP ports")?);
    let (Some(tag), Some(given), Some(chunk)) =
        (number(payload, 4), payload.get(8..12), payload.get(12))
    else {
        return Err("short SCTP header".to_owned());
    };
    let mut covered = payload.to_vec();
    covered[8..12].fill(0);
    if crc32c(&covered).to_le_bytes() != given {
        return Err("SCTP checksum".to_owned());
    }
    packet.sctp = Some((tag, *chunk));
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    Some((word(payload, 0)?, word(payload, 2)?))
}

fn ipv4(head: &[u8], at: usize) -> IpAddr {
    IpAddr::from([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn ipv6(head: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&head[at..at + 16]);
    IpAddr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by hand from the RFCs: a UDP datagram 10.0.0.1:1 -> 10.0.0.2:2 with the bytes "abc".
    const DATAGRAM: [u8; 45] = [
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, // Ethernet
        0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0x66, 0xcc, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
        0, 1, 0, 2, 0, 11, 0x27, 0x70, b'a', b'b', b'c', // UDP
    ];

    /// By hand too: a TCP SYN 10.0.0.1:1024 -> 10.0.0.2:80, sequence number 1, window 512.
    fn syn() -> Vec<u8> {
        let mut frame = DATAGRAM[..ETHERNET].to_vec();
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0x66, 0xce]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([
            4, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 2, 0, 0, 0, 0, 0,
        ]);
        // Pseudo header (0x141d) and header (0x5653) sum up to 0x6a70.
        let checksum: u16 = !0x6a70;
        frame[50..52].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    fn echo() -> Vec<u8> {
        let mut frame = DATAGRAM[..ETHERNET].to_vec();
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0x66, 0xdf]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
        frame
    }

    #[test]
    fn right_packets_are_good() {
        for (frame, protocol) in [(DATAGRAM.to_vec(), UDP), (syn(), TCP), (echo(), ICMP)] {
            match judge(&frame) {
                Judged::Good(packet) => assert_eq!(packet.protocol, protocol),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn padding_after_the_packet_is_not_judged() {
        let mut frame = echo();
        frame.extend([0xff; 18]);
        assert!(matches!(judge(&frame), Judged::Good(_)));
    }

    #[test]
    fn a_change_of_any_byte_behind_ethernet_is_noticed() {
        for frame in [DATAGRAM.to_vec(), syn(), echo()] {
            for at in ETHERNET..frame.len() {
                let mut bad = frame.clone();
                bad[at] ^= 0x10;
                assert!(
                    matches!(judge(&bad), Judged::Bad(_)),
                    "byte {at} of {frame:?}"
                );
            }
        }
    }

    #[test]
    fn a_udp_checksum_may_be_left_out() {
        let mut frame = DATAGRAM.to_vec();
        frame[40..42].fill(0);
        assert!(matches!(judge(&frame), Judged::Good(_)));
    }

    #[test]
    fn a_truncated_packet_is_bad_and_arp_is_other() {
        for length in ETHERNET..DATAGRAM.len() {
            assert!(
                matches!(judge(&DATAGRAM[..length]), Judged::Bad(_)),
                "{length} bytes"
            );
        }
        let mut arp = DATAGRAM.to_vec();
        arp[13] = 6;
        assert_eq!(judge(&arp), Judged::Other);
        assert_eq!(judge(&[]), Judged::Other);
    }
}
