//! An independent judge of packets on a wire: lengths and checksums, straight from the RFCs.
//!
//! It shares no code with the dataplane on purpose, not even a parsing library: what the one gets
//! wrong the other must not get wrong alike. It judges IPv4 with TCP, UDP and ICMP; other frames
//! (ARP) are only recognised. Fragments are judged by their IP header alone.

use std::net::Ipv4Addr;

/// Length of an Ethernet II header, in bytes.
const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
/// Protocol numbers of IANA's "Assigned Internet Protocol Numbers".
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a frame turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Not IPv4.
    Other,
    /// IPv4 whose lengths and checksums are right.
    Good(Packet),
    /// IPv4 with a mistake; the sentence names it.
    Bad(String),
}

/// The parts of an IPv4 packet that tests ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol number.
    pub protocol: u8,
    /// Source and destination port; `None` for ICMP, others and later fragments.
    pub ports: Option<(u16, u16)>,
    /// Type and code, of ICMP.
    pub icmp: Option<(u8, u8)>,
}

impl Packet {
    /// Whether it is TCP from `port` of `address`.
    pub fn is_tcp_from(&self, address: Ipv4Addr, port: u16) -> bool {
        let from = self.ports.is_some_and(|(source, _)| source == port);
        self.protocol == TCP && self.source == address && from
    }
}

/// Judges one Ethernet frame.
pub fn judge(frame: &[u8]) -> Judged {
    if word(frame, 12) != Some(ETHERTYPE_IPV4) {
        return Judged::Other;
    }
    match judge_ipv4(frame.get(ETHERNET..).unwrap_or_default()) {
        Ok(packet) => Judged::Good(packet),
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
    let fragment = flags & 0x3fff != 0;
    let mut packet = Packet {
        source: address(head, 12),
        destination: address(head, 16),
        protocol: head[9],
        ports: None,
        icmp: None,
    };
    if !fragment {
        judge_payload(head, payload, &mut packet)
            .map_err(|mistake| format!("{mistake} of {packet:?}"))?;
    }
    Ok(packet)
}

fn judge_payload(head: &[u8], payload: &[u8], packet: &mut Packet) -> Result<(), String> {
    let length = u16::try_from(payload.len()).map_err(|_| "length")?;
    // RFC 9293, section 3.1, and RFC 768: addresses, zero, protocol, length.
    let pseudo = [
        &head[12..20],
        &[0, packet.protocol],
        &length.to_be_bytes(),
        payload,
    ];
    match packet.protocol {
        ICMP => {
            if payload.len() < 8 || sum(&[payload]) != 0xffff {
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
            // RFC 768: zero means that the sender made none.
            let made = word(payload, 6).ok_or("short UDP header")? != 0;
            if made && sum(&pseudo) != 0xffff {
                return Err("UDP checksum".to_owned());
            }
        }
        _ => {}
    }
    Ok(())
}

/// The ones' complement sum of RFC 1071; over data with its checksum it is `0xffff`.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            total += u32::from(u16::from_be_bytes([pair[0], low]));
            total = (total & 0xffff) + (total >> 16);
        }
    }
    (total & 0xffff) as u16
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    Some((word(payload, 0)?, word(payload, 2)?))
}

fn address(head: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3])
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
