//! The picture of [`crate::testutil::rig`] by names that hold in both families, and frames read by
//! other code than the one under test.

use super::*;
use crate::io::InterfaceId;
use crate::testutil::rig::RigSettings;
use crate::testutil::{CLIENT_MAC, GATEWAY_MAC};
use etherparse::PacketBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct World {
    pub(super) v6: bool,
}

pub(super) const WORLDS: [World; 2] = [World { v6: false }, World { v6: true }];

pub(super) const PROTOCOLS: [(&str, Protocol); 3] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("sctp", Protocol::Sctp),
];

impl World {
    pub(super) fn at(self, v4: &str, v6: &str, port: u16) -> String {
        match self.v6 {
            true => format!("[{v6}]:{port}"),
            false => format!("{v4}:{port}"),
        }
    }

    pub(super) fn client(self, port: u16) -> String {
        self.at("10.0.1.10", "2001:db8:1::10", port)
    }

    pub(super) fn vip(self, port: u16) -> String {
        self.at("203.0.113.10", "2001:db8:9::10", port)
    }

    pub(super) fn backend(self, last: u8, port: u16) -> String {
        let last = last.to_string();
        self.at(
            &format!("10.0.2.{last}"),
            &format!("2001:db8:2::{last}"),
            port,
        )
    }

    /// A router behind the gateway on the backends' side.
    pub(super) fn router(self) -> IpAddr {
        ip(&self.at("192.0.2.99", "2001:db8:ff::99", 1))
    }

    /// The gateway's address on the clients' link.
    pub(super) fn front(self) -> IpAddr {
        ip(&self.at("10.0.1.1", "2001:db8:1::1", 1))
    }

    /// The gateway's address on the backends' link.
    pub(super) fn gateway(self) -> IpAddr {
        ip(&self.at("10.0.2.1", "2001:db8:2::1", 1))
    }

    /// `web`, of this protocol on port 80, with these backends on port 8080 and this policy.
    pub(super) fn web(self, protocol: &str, backends: &[u8], policy: &str) -> String {
        let backends: Vec<String> = backends.iter().map(|n| self.backend(*n, 8080)).collect();
        let backends = backends.join(" ");
        format!("web {protocol} {} -> {backends};{policy}", self.vip(80))
    }

    /// An ICMP error of this family from the link of `macs`, with the packet that it quotes.
    pub(super) fn icmp(
        self,
        (source, destination): (IpAddr, IpAddr),
        (kind, code): (u8, u8),
        more: [u8; 4],
        quoted: &[u8],
        macs: (MacAddress, MacAddress),
    ) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
        let mut bytes = Vec::new();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet
                .ipv4(source.octets(), destination.octets(), 64)
                .icmpv4_raw(kind, code, more)
                .write(&mut bytes, quoted),
            (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet
                .ipv6(source.octets(), destination.octets(), 64)
                .icmpv6_raw(kind, code, more)
                .write(&mut bytes, quoted),
            mixed => panic!("{mixed:?}"),
        }
        .unwrap();
        bytes
    }

    pub(super) fn port_unreachable(self) -> (u8, u8) {
        if self.v6 { (1, 4) } else { (3, 3) }
    }

    pub(super) fn too_big(self) -> (u8, u8) {
        if self.v6 { (2, 0) } else { (3, 4) }
    }

    pub(super) fn time_exceeded(self) -> (u8, u8) {
        if self.v6 { (3, 0) } else { (11, 0) }
    }
}

/// The test in both families, with 1, 2 and 4 workers, masqueraded and preserved.
pub(super) fn everywhere(test: impl Fn(World, &RigSettings, &str)) {
    for world in WORLDS {
        for workers in [1, 2, 4] {
            for policy in ["", "preserve"] {
                let settings = RigSettings {
                    workers,
                    ..RigSettings::default()
                };
                test(world, &settings, policy);
            }
        }
    }
}

/// A frame arrives at a worker, by its number among all; what leaves.
pub(super) fn at(rig: &mut Rig, worker: usize, interface: InterfaceId, frame: &[u8]) -> Vec<Sent> {
    let workers = rig.workers();
    rig.arrive(worker % workers, interface, frame);
    rig.run()
}

/// As [`at`]; one frame leaves by `to`.
pub(super) fn through(
    rig: &mut Rig,
    worker: usize,
    (from, to): (InterfaceId, InterfaceId),
    frame: &[u8],
) -> Sent {
    let mut sent = at(rig, worker, from, frame);
    assert_eq!(sent.len(), 1, "one frame should leave: {:?}", rig.drops());
    let sent = sent.remove(0);
    assert_eq!(sent.0, to);
    assert!(seen(&sent.1).is_right(), "{:?}", seen(&sent.1));
    sent
}

pub(super) const IN: (InterfaceId, InterfaceId) = (CLIENTS, BACKENDS);
pub(super) const OUT: (InterfaceId, InterfaceId) = (BACKENDS, CLIENTS);
pub(super) const FROM_CLIENT: (MacAddress, MacAddress) = (CLIENT_MAC, GATEWAY_MAC);

pub(super) const fn from_backend(last: u8) -> (MacAddress, MacAddress) {
    (backend_mac(last), GATEWAY_BACKEND_MAC)
}

pub(super) fn ip(end: &str) -> IpAddr {
    end.parse::<SocketAddr>().unwrap().ip()
}

/// An IP packet, read with plain indexing.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hops: u8,
    pub(super) protocol: u8,
    /// Identification, offset and whether more follow.
    pub(super) piece: Option<(u32, u16, bool)>,
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1071.
fn sum(bytes: &[u8], start: u64) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The IP packet in a frame, whatever its tags.
pub(super) fn seen(frame: &[u8]) -> Seen {
    let mut at = 12;
    while [0x8100, 0x88a8].contains(&word(frame, at)) {
        at += 4;
    }
    seen_ip(&frame[at + 2..])
}

/// An IP packet that may be cut off.
pub(super) fn seen_ip(bytes: &[u8]) -> Seen {
    if bytes[0] >> 4 == 4 {
        let header = usize::from(bytes[0] & 15) * 4;
        let end = usize::from(word(bytes, 2)).min(bytes.len());
        let place = word(bytes, 6);
        let is_piece = place & 0x3fff != 0;
        return Seen {
            source: Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[12..16]).unwrap()).into(),
            destination: Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[16..20]).unwrap()).into(),
            hops: bytes[8],
            protocol: bytes[9],
            piece: is_piece.then(|| {
                let identification = word(bytes, 4).into();
                (identification, (place & 0x1fff) * 8, place & 0x2000 != 0)
            }),
            header: bytes[..header].to_vec(),
            payload: bytes[header..end].to_vec(),
        };
    }
    let end = (40 + usize::from(word(bytes, 4))).min(bytes.len());
    let (mut next, mut at, mut piece) = (bytes[6], 40, None);
    while [0, 43, 44, 60].contains(&next) && piece.is_none_or(|(_, offset, _)| offset == 0) {
        let mut len = (usize::from(bytes[at + 1]) + 1) * 8;
        if next == 44 {
            let place = word(bytes, at + 2);
            let low = u32::from(word(bytes, at + 6));
            let identification = u32::from(word(bytes, at + 4)) << 16 | low;
            piece = Some((identification, place & 0xfff8, place & 1 == 1));
            len = 8;
        }
        next = bytes[at];
        at += len;
    }
    Seen {
        source: Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[8..24]).unwrap()).into(),
        destination: Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[24..40]).unwrap()).into(),
        hops: bytes[7],
        protocol: next,
        piece,
        header: bytes[..at].to_vec(),
        payload: bytes[at..end].to_vec(),
    }
}

impl Seen {
    pub(super) fn ends(&self) -> (String, String) {
        let end = |ip, at| SocketAddr::new(ip, word(&self.payload, at)).to_string();
        (end(self.source, 0), end(self.destination, 2))
    }

    /// Sum of the payload with its pseudo header, 0xffff when its checksum is right.
    fn segment_sum(&self) -> u16 {
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut pseudo = address(self.source);
        pseudo.extend(address(self.destination));
        let start = u64::from(self.protocol) + self.payload.len() as u64;
        let start = u64::from(sum(&pseudo, start));
        sum(&self.payload, start)
    }

    /// Whether all checksums are right, as far as one packet shows.
    pub(super) fn is_right(&self) -> bool {
        let is_v4 = self.source.is_ipv4();
        if is_v4 && sum(&self.header, 0) != 0xffff {
            return false;
        }
        self.piece.is_some() || self.is_whole_right()
    }

    /// The same of a payload that is whole.
    pub(super) fn is_whole_right(&self) -> bool {
        match self.protocol {
            1 => sum(&self.payload, 0) == 0xffff,
            17 if self.source.is_ipv4() && word(&self.payload, 6) == 0 => true,
            132 => {
                let mut bytes = self.payload.clone();
                bytes[8..12].fill(0);
                self.payload[8..12] == crc32c::crc32c(&bytes).to_le_bytes()
            }
            _ => self.segment_sum() == 0xffff,
        }
    }

    /// The packet that this ICMP error quotes.
    pub(super) fn quoted(&self) -> Seen {
        seen_ip(&self.payload[8..])
    }
}

/// The packet of these fragments, put together as their receiver would.
pub(super) fn reassemble(frames: &[Sent]) -> Seen {
    let mut pieces: Vec<Seen> = frames.iter().map(|(_, frame)| seen(frame)).collect();
    pieces.sort_by_key(|piece| piece.piece.unwrap().1);
    let mut whole = pieces[0].clone();
    for piece in &pieces[1..] {
        let (identification, offset, _) = piece.piece.unwrap();
        assert_eq!(identification, whole.piece.unwrap().0);
        assert_eq!(usize::from(offset), whole.payload.len(), "a gap");
        assert_eq!(
            (piece.source, piece.destination),
            (whole.source, whole.destination)
        );
        whole.payload.extend(&piece.payload);
    }
    assert!(
        !pieces.last().unwrap().piece.unwrap().2,
        "the end is missing"
    );
    whole.piece = None;
    whole
}

/// The frame with these VLAN tags, outermost first.
pub(super) fn tag(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for (n, tag) in tags.iter().enumerate() {
        let is_outer = n + 1 < tags.len();
        tagged.extend(if is_outer { [0x88, 0xa8] } else { [0x81, 0] });
        tagged.extend(tag.to_be_bytes());
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// The frame without VLAN tags.
pub(super) fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    while [0x8100, 0x88a8].contains(&word(&frame, 12)) {
        frame.drain(12..16);
    }
    frame
}
