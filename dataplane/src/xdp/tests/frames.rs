//! Frames as bytes, built field by field: no checksums, the program reads none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::steer::Headers;

pub const TPID: u16 = 0x8100;
pub const SERVICE_TPID: u16 = 0x88a8;
pub const FRAGMENT: u8 = 44;
const UNICAST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GROUP: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 1];

/// How a packet is wrapped.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// TPID and VLAN of each tag.
    pub tags: Vec<(u16, u16)>,
    /// Options of IPv4 in units of 4 bytes; of IPv6, kind and length field of each extension header.
    pub extensions: Vec<(u8, u8)>,
    /// In units of 8 bytes; `Some(0)` is a first fragment.
    pub fragment: Option<u16>,
    /// To a group of stations.
    pub group: bool,
}

/// A frame around an IP packet.
pub fn ip(packet: &Headers, payload: &[u8], around: &Around) -> Vec<u8> {
    let kind = if packet.source.is_ipv4() {
        0x0800
    } else {
        0x86dd
    };
    ethernet(around, kind, &bare(packet, payload, around))
}

/// An IP packet without a frame around it.
pub fn bare(packet: &Headers, payload: &[u8], around: &Around) -> Vec<u8> {
    match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(packet, (from, to), payload, around),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(packet, (from, to), payload, around),
        _ => panic!("two families in {packet:?}"),
    }
}

/// The first bytes of a transport header; something else than ports for a later fragment.
pub fn transport(packet: &Headers) -> Vec<u8> {
    let (source, destination) = packet.ports.unwrap_or((80, 80));
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 16]);
    bytes
}

/// An ICMP error that quotes `quoted`, from anybody to `receiver`.
pub fn error(receiver: IpAddr, kind: u8, quoted: &[u8], around: &Around) -> Vec<u8> {
    let (source, protocol): (IpAddr, u8) = match receiver {
        IpAddr::V4(_) => (Ipv4Addr::new(172, 16, 0, 1).into(), 1),
        IpAddr::V6(_) => ("2001:db8:ffff::1".parse().unwrap(), 58),
    };
    let packet = Headers {
        source,
        destination: receiver,
        protocol,
        ports: None,
    };
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(quoted);
    ip(&packet, &payload, around)
}

pub fn arp(target: Ipv4Addr, around: &Around) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend(UNICAST);
    bytes.extend([10, 0, 0, 9]);
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    ethernet(around, 0x0806, &bytes)
}

/// An NDP message of this type about `target`, sent to its solicited-node group.
pub fn ndp(kind: u8, target: Ipv6Addr, around: &Around) -> Vec<u8> {
    let mut group: [u8; 16] = "ff02::1:ff00:0".parse::<Ipv6Addr>().unwrap().octets();
    group[13..].copy_from_slice(&target.octets()[13..]);
    let packet = Headers {
        source: "fe80::9".parse().unwrap(),
        destination: Ipv6Addr::from(group).into(),
        protocol: 58,
        ports: None,
    };
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(target.octets());
    payload.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    ip(&packet, &payload, around)
}

fn ethernet(around: &Around, kind: u16, packet: &[u8]) -> Vec<u8> {
    let mut bytes = if around.group { GROUP } else { UNICAST }.to_vec();
    bytes.extend([2, 0, 0, 0, 0, 9]);
    for (tpid, vlan) in &around.tags {
        bytes.extend(tpid.to_be_bytes());
        // Priority 5 and drop eligibility stand before the identifier.
        bytes.extend((0xb000 | vlan).to_be_bytes());
    }
    bytes.extend(kind.to_be_bytes());
    bytes.extend(packet);
    bytes
}

fn ipv4(
    packet: &Headers,
    (from, to): (Ipv4Addr, Ipv4Addr),
    payload: &[u8],
    around: &Around,
) -> Vec<u8> {
    let options = around.extensions.len().min(10);
    let length = (20 + 4 * options + payload.len()) as u16;
    let mut bytes = vec![0x45 + options as u8, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 7]);
    let fragment = around.fragment.map_or(0x4000, |offset| match offset {
        0 => 0x2000,
        later => later,
    });
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, packet.protocol, 0, 0]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(vec![1; 4 * options]);
    bytes.extend(payload);
    bytes
}

fn ipv6(
    packet: &Headers,
    (from, to): (Ipv6Addr, Ipv6Addr),
    payload: &[u8],
    around: &Around,
) -> Vec<u8> {
    let mut behind = payload.to_vec();
    let mut next = packet.protocol;
    if let Some(offset) = around.fragment {
        let mut header = vec![next, 0];
        header.extend((offset << 3 | 1).to_be_bytes());
        header.extend([0, 0, 0, 7]);
        behind.splice(0..0, header);
        next = FRAGMENT;
    }
    for &(kind, length) in around.extensions.iter().rev() {
        let mut header = vec![next, length];
        header.resize(8 * (usize::from(length) + 1), 0);
        behind.splice(0..0, header);
        next = kind;
    }
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((behind.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(behind);
    bytes
}
