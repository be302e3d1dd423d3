//! Builders of frames for tests, in this crate and beside it. Frames come from etherparse's own
//! builder, checksums included, so that what they prove does not rest on the code under test.

pub mod rig;

use std::net::SocketAddrV4;

use etherparse::{IpNumber, Ipv4Header, Ipv4Options, PacketBuilder, PacketBuilderStep};
use sluice_conf::settings::dataplane::PortRange;
use sluice_conf::{
    Backend, BackendGone, BackendState, Frontend, FrontendKind, Generation, Protocol, Service,
    ServiceName, ServiceTable, SourceNat,
};

use crate::neighbour::MacAddress;
use crate::wire::parse::TcpFlags;

/// Ethernet address of the client, or of its router, in built frames.
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0c]);
/// Ethernet address of the gateway in built frames.
pub const GATEWAY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x01]);

/// A frame to be.
#[derive(Debug, Clone)]
pub struct Build {
    protocol: Protocol,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    macs: (MacAddress, MacAddress),
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    ttl: u8,
    options: Vec<u8>,
    payload: Vec<u8>,
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
impl Build {
    fn new(protocol: Protocol, source: &str, destination: &str) -> Self {
        Self {
            protocol,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            macs: (CLIENT_MAC, GATEWAY_MAC),
            flags: TcpFlags::ACK,
            sequence: 1000,
            acknowledgement: 2000,
            ttl: 64,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A TCP segment with ACK set, from and to `address:port`.
    pub fn tcp(source: &str, destination: &str) -> Self {
        Self::new(Protocol::Tcp, source, destination)
    }

    /// A UDP datagram, from and to `address:port`.
    pub fn udp(source: &str, destination: &str) -> Self {
        Self::new(Protocol::Udp, source, destination)
    }

    /// Sets exactly these TCP flags.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// Sets sequence and acknowledgement number.
    #[must_use]
    pub fn numbers(mut self, sequence: u32, acknowledgement: u32) -> Self {
        (self.sequence, self.acknowledgement) = (sequence, acknowledgement);
        self
    }

    /// Sets the Ethernet addresses, from and to.
    #[must_use]
    pub fn macs(mut self, source: MacAddress, destination: MacAddress) -> Self {
        self.macs = (source, destination);
        self
    }

    /// Sets the time to live.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Adds IPv4 options; a multiple of 4 bytes.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    fn ip(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let number = match self.protocol {
            Protocol::Tcp => IpNumber::TCP,
            Protocol::Udp => IpNumber::UDP,
        };
        let (source, destination) = (self.source.ip().octets(), self.destination.ip().octets());
        let mut ip = Ipv4Header::new(0, self.ttl, number, source, destination).unwrap();
        ip.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
        PacketBuilder::ethernet2(self.macs.0.0, self.macs.1.0)
            .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (source, destination) = (self.source.port(), self.destination.port());
        match self.protocol {
            Protocol::Udp => {
                self.ip()
                    .udp(source, destination)
                    .write(&mut bytes, &self.payload)
                    .unwrap();
            }
            Protocol::Tcp => {
                let mut tcp =
                    etherparse::TcpHeader::new(source, destination, self.sequence, 65_535);
                tcp.acknowledgment_number = self.acknowledgement;
                tcp.fin = self.flags & TcpFlags::FIN != 0;
                tcp.syn = self.flags & TcpFlags::SYN != 0;
                tcp.rst = self.flags & TcpFlags::RST != 0;
                tcp.ack = self.flags & TcpFlags::ACK != 0;
                self.ip()
                    .tcp_header(tcp)
                    .write(&mut bytes, &self.payload)
                    .unwrap();
            }
        }
        bytes
    }
}

/// An ICMP echo request.
#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
pub fn echo_request(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let octets = |a: &str| a.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC.0, GATEWAY_MAC.0)
        .ipv4(octets(source), octets(destination), 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

/// An ARP request, padded to the shortest Ethernet frame.
#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
pub fn arp_request(sender: &str, wanted: &str) -> Vec<u8> {
    let octets = |a: &str| a.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut frame = Vec::from(MacAddress::BROADCAST.0);
    frame.extend(CLIENT_MAC.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(CLIENT_MAC.0);
    frame.extend(octets(sender));
    frame.extend([0; 6]);
    frame.extend(octets(wanted));
    frame.resize(60, 0);
    frame
}

/// The masquerade range of tests: the default of the settings.
pub const RESERVED: PortRange = PortRange {
    first: 16_384,
    last: 29_999,
};

/// A table of one Service a line, sorted, of generation 1. A line names the Service, its protocol,
/// its frontends (`node:` before node ports) and, behind `->`, its backends with weight and state:
/// `web tcp 203.0.113.10:80 node:10.0.1.1:30080 -> 10.0.2.11:8080*3 10.0.2.12:8080/draining`.
/// Words behind `;` set policies: `preserve`, `keep`.
#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
pub fn table(lines: &[&str]) -> ServiceTable {
    let services = lines.iter().map(|line| service(line)).collect();
    ServiceTable {
        generation: Generation(1),
        services,
        ..ServiceTable::default()
    }
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
fn service(line: &str) -> Service {
    let (line, policies) = line.split_once(';').unwrap_or((line, ""));
    let (front, back) = line.split_once("->").unwrap();
    let mut words = front.split_whitespace();
    let name = words.next().unwrap().to_owned();
    let protocol = match words.next().unwrap() {
        "udp" => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let frontend = |word: &str| {
        let (kind, end) = match word.strip_prefix("node:") {
            Some(end) => (FrontendKind::NodePort, end),
            None => (FrontendKind::LoadBalancer, word),
        };
        let end: SocketAddrV4 = end.parse().unwrap();
        Frontend::new((*end.ip()).into(), end.port(), kind, access)
    };
    let backend = |word: &str| {
        let (word, state) = match word.strip_suffix("/draining") {
            Some(word) => (word, BackendState::Draining),
            None => (word, BackendState::Active),
        };
        let (end, weight) = word.split_once('*').unwrap_or((word, "1"));
        let end: SocketAddrV4 = end.parse().unwrap();
        let weight = weight.parse().unwrap();
        Backend {
            address: (*end.ip()).into(),
            port: end.port(),
            weight,
            state,
            local: false,
        }
    };
    let has = |policy: &str| policies.split_whitespace().any(|word| word == policy);
    Service {
        name: ServiceName {
            namespace: "default".into(),
            name,
            port: String::new(),
            protocol,
        },
        frontends: words.map(frontend).collect(),
        backends: back.split_whitespace().map(backend).collect(),
        source_nat: if has("preserve") {
            SourceNat::Preserve
        } else {
            SourceNat::Masquerade
        },
        backend_gone: if has("keep") {
            BackendGone::Keep
        } else {
            BackendGone::Reset
        },
    }
}

/// Edits of IPv4 header fields that keep the header checksum right.
pub mod corrupt {
    use crate::wire::checksum;

    fn edit(frame: &mut [u8], at: usize, value: u16) {
        frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
        frame[24..26].fill(0);
        let header = 14 + usize::from(frame[14] & 0xf) * 4;
        let sum = checksum::of(&frame[14..header]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    /// Sets fragment flags and offset.
    pub fn fragment(frame: &mut [u8], value: u16) {
        edit(frame, 20, value);
    }

    /// Sets the protocol number.
    pub fn protocol(frame: &mut [u8], number: u8) {
        let ttl = frame[22];
        edit(frame, 22, u16::from_be_bytes([ttl, number]));
    }
}
