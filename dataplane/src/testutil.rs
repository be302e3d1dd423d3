//! Builders of frames for tests, in this crate and beside it. Frames come from etherparse's own
//! builder, checksums included, so that what they prove does not rest on the code under test.

pub mod rig;
mod tables;

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, PacketBuilder,
    PacketBuilderStep,
};
use sluice_conf::Protocol;
use sluice_conf::settings::dataplane::PortRange;

pub use tables::table;

use crate::neighbour::MacAddress;
use crate::wire::parse::TcpFlags;

/// Ethernet address of the client, or of its router, in built frames.
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0c]);
/// Ethernet address of the gateway in built frames.
pub const GATEWAY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x01]);

/// A frame to be, of either family.
#[derive(Debug, Clone)]
pub struct Build {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
    macs: (MacAddress, MacAddress),
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    window: u16,
    ttl: u8,
    dont_fragment: bool,
    options: Vec<u8>,
    tcp_options: Vec<u8>,
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
            window: 65_535,
            ttl: 64,
            dont_fragment: true,
            options: Vec::new(),
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A packet of any protocol; SCTP begins with an INIT chunk.
    pub fn packet(protocol: Protocol, source: &str, destination: &str) -> Self {
        let build = Self::new(protocol, source, destination);
        match protocol {
            Protocol::Sctp => build.payload(&[1, 0, 0, 4]),
            Protocol::Tcp | Protocol::Udp => build,
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

    /// An SCTP packet of one empty chunk of this type, from and to `address:port`.
    pub fn sctp(source: &str, destination: &str, chunk: u8) -> Self {
        Self::new(Protocol::Sctp, source, destination).payload(&[chunk, 0, 0, 4])
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

    /// Sets the receive window.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// Sets the Ethernet addresses, from and to.
    #[must_use]
    pub fn macs(mut self, source: MacAddress, destination: MacAddress) -> Self {
        self.macs = (source, destination);
        self
    }

    /// Sets the time to live, or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Lets routers cut it up (IPv4).
    #[must_use]
    pub fn may_fragment(mut self) -> Self {
        self.dont_fragment = false;
        self
    }

    /// Adds IPv4 options; a multiple of 4 bytes.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Adds TCP options; a multiple of 4 bytes.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    fn ip(&self) -> PacketBuilderStep<IpHeaders> {
        let number = IpNumber(self.protocol.number());
        let headers = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let mut ip = Ipv4Header::new(0, self.ttl, number, source, destination).unwrap();
                ip.dont_fragment = self.dont_fragment;
                ip.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
                IpHeaders::Ipv4(ip, Default::default())
            }
            (source, destination) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: number,
                    hop_limit: self.ttl,
                    source: octets(source),
                    destination: octets(destination),
                };
                IpHeaders::Ipv6(ip, Default::default())
            }
        };
        PacketBuilder::ethernet2(self.macs.0.0, self.macs.1.0).ip(headers)
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
                    etherparse::TcpHeader::new(source, destination, self.sequence, self.window);
                tcp.acknowledgment_number = self.acknowledgement;
                tcp.fin = self.flags & TcpFlags::FIN != 0;
                tcp.syn = self.flags & TcpFlags::SYN != 0;
                tcp.rst = self.flags & TcpFlags::RST != 0;
                tcp.ack = self.flags & TcpFlags::ACK != 0;
                tcp.set_options_raw(&self.tcp_options).unwrap();
                self.ip()
                    .tcp_header(tcp)
                    .write(&mut bytes, &self.payload)
                    .unwrap();
            }
            Protocol::Sctp => {
                let mut packet = Vec::new();
                packet.extend(source.to_be_bytes());
                packet.extend(destination.to_be_bytes());
                packet.extend([0; 8]);
                packet.extend(&self.payload);
                let sum = crc32c::crc32c(&packet);
                packet[8..12].copy_from_slice(&sum.to_le_bytes());
                self.ip()
                    .write(&mut bytes, IpNumber(self.protocol.number()), &packet)
                    .unwrap();
            }
        }
        bytes
    }

    /// The frames of the packet cut into fragments of at most `size` bytes of payload, a multiple
    /// of 8, with this identification.
    pub fn fragments(&self, size: usize, identification: u32) -> Vec<Vec<u8>> {
        let whole = self.frame();
        match self.source.ip() {
            IpAddr::V4(_) => fragment::v4(&whole, size, identification as u16),
            IpAddr::V6(_) => fragment::v6(&whole, size, identification),
        }
    }
}

mod fragment {
    //! Cutting packets up, byte by byte.

    use super::corrupt;

    pub(super) fn v4(whole: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
        let header = 14 + usize::from(whole[14] & 0xf) * 4;
        let payload = &whole[header..];
        let chunks = payload.chunks(size).enumerate();
        chunks
            .map(|(number, chunk)| {
                let mut frame = whole[..header].to_vec();
                frame.extend(chunk);
                let total = (header - 14 + chunk.len()) as u16;
                let more = (number + 1) * size < payload.len();
                let offset = (number * size / 8) as u16 | if more { 0x2000 } else { 0 };
                corrupt::total_len(&mut frame, total);
                corrupt::identification(&mut frame, identification);
                corrupt::fragment(&mut frame, offset);
                frame
            })
            .collect()
    }

    pub(super) fn v6(whole: &[u8], size: usize, identification: u32) -> Vec<Vec<u8>> {
        const HEADER: usize = 14 + 40;
        let payload = &whole[HEADER..];
        let chunks = payload.chunks(size).enumerate();
        chunks
            .map(|(number, chunk)| {
                let mut frame = whole[..HEADER].to_vec();
                let next = std::mem::replace(&mut frame[20], 44);
                frame[18..20].copy_from_slice(&((8 + chunk.len()) as u16).to_be_bytes());
                let more = (number + 1) * size < payload.len();
                let offset = (number * size) as u16 | u16::from(more);
                frame.extend([next, 0]);
                frame.extend(offset.to_be_bytes());
                frame.extend(identification.to_be_bytes());
                frame.extend(chunk);
                frame
            })
            .collect()
    }
}

/// An echo request of either family.
#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
pub fn echo_request(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC.0, GATEWAY_MAC.0);
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ethernet
            .ipv4(source.octets(), destination.octets(), 64)
            .icmpv4_echo_request(7, 1)
            .write(&mut bytes, payload)
            .unwrap(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ethernet
            .ipv6(source.octets(), destination.octets(), 64)
            .icmpv6_echo_request(7, 1)
            .write(&mut bytes, payload)
            .unwrap(),
        mixed => unreachable!("{mixed:?} are of two families"),
    }
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

    /// Sets the length of the packet.
    pub fn total_len(frame: &mut [u8], value: u16) {
        edit(frame, 16, value);
    }

    /// Sets the identification.
    pub fn identification(frame: &mut [u8], value: u16) {
        edit(frame, 18, value);
    }

    /// Sets the protocol number.
    pub fn protocol(frame: &mut [u8], number: u8) {
        let ttl = frame[22];
        edit(frame, 22, u16::from_be_bytes([ttl, number]));
    }
}
