//! What to send: checked settings, and the bytes that the BPF program reads them as.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::flow::{self, Clients, Key};
use crate::rate::Rate;

/// Ethernet header.
pub const ETHERNET: usize = 14;
/// The generator's mark at the start of every payload: run, flow, sequence number, time.
pub const STAMP: usize = 20;
/// Sizes of frames repeat after this many.
pub const SIZES: usize = 12;
/// Largest frame: an Ethernet frame of 1,500 bytes of payload.
pub const MAX_SIZE: u16 = 1514;
/// The Internet mix: seven small frames, four middle ones, one large one.
pub const IMIX: [u16; SIZES] = [1514, 60, 590, 60, 60, 590, 60, 60, 590, 60, 60, 590];
/// Packets of a client's side of a short connection.
pub const CONNECTION_STEPS: u64 = 4;
/// A flood's share is counted in 2^-16; `FLOOD_SHIFT` of generate.bpf.c.
const FLOOD_SHIFT: u32 = 16;
/// What tells the frames of a flood from those of its run; as in frame.h.
const FLOOD_MARK: u32 = 2;
/// `struct config` of generate.h.
const CONFIG_BYTES: usize = 144;
/// Most drawn flows that are kept; a power of two.
pub const MOST_DRAWS: usize = 1 << 20;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What the packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// TCP segments.
    Tcp,
    /// UDP datagrams.
    Udp,
    /// ICMP or ICMPv6 echo requests.
    Icmp,
}

impl Protocol {
    /// IANA's number.
    pub fn number(self, of: IpAddr) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Icmp if of.is_ipv4() => 1,
            Protocol::Icmp => 58,
        }
    }

    /// Bytes of the transport header.
    pub(super) fn header(self) -> usize {
        match self {
            Protocol::Tcp => 20,
            Protocol::Udp | Protocol::Icmp => 8,
        }
    }
}

/// What a flow consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Script {
    /// Packets that go on and on.
    Data,
    /// TCP's SYN alone, again and again.
    Syn,
    /// A client's side of a short TCP connection: SYN, ACK, FIN, ACK.
    Connection,
}

/// What a generator sends.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Protocol.
    pub protocol: Protocol,
    /// Script.
    pub script: Script,
    /// Ethernet address of the sending interface.
    pub source_mac: Mac,
    /// Ethernet address of whom it is sent to.
    pub target_mac: Mac,
    /// Whom it comes from.
    pub clients: Clients,
    /// Addresses and ports that it goes to, flow after flow; for ICMP the ports mean nothing.
    pub targets: Vec<SocketAddr>,
    /// Flows.
    pub flows: u64,
    /// Flows in the order of an uneven distribution; empty: all in turn.
    pub draws: Vec<u32>,
    /// Bytes of frames in turn, without checksum.
    pub sizes: [u16; SIZES],
    /// Rate of all generators together.
    pub rate: Rate,
    /// Of 2^16 frames so many are SYNs of ever new connections, beside the flows.
    pub flood: u32,
    /// For how long.
    pub duration: Duration,
    /// How late frames may be sent before they are left out.
    pub burst: Duration,
    /// Time between two packets of a connection's script.
    pub pause: Duration,
    /// Tells runs apart.
    pub run: u32,
    /// Which clients the flows are.
    pub key: Key,
}

/// One of several generators that share a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which one.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Share {
    /// The only generator.
    pub const WHOLE: Share = Share { index: 0, of: 1 };
}

impl Plan {
    /// Small UDP datagrams of 1,000 flows, as fast as possible for a second.
    pub fn new(
        source_mac: Mac,
        target_mac: Mac,
        clients: Clients,
        targets: Vec<SocketAddr>,
    ) -> Self {
        let mut plan = Self {
            protocol: Protocol::Udp,
            script: Script::Data,
            source_mac,
            target_mac,
            clients,
            targets,
            flows: 1000,
            draws: Vec::new(),
            sizes: [60; SIZES],
            rate: Rate::MAX,
            flood: 0,
            duration: Duration::from_secs(1),
            burst: Duration::from_micros(100),
            pause: Duration::from_millis(2),
            run: 1,
            key: flow::key(1),
        };
        plan.fit();
        plan
    }

    /// Bytes before the stamp.
    pub fn headers(&self) -> usize {
        let network = if self.clients.first().is_ipv4() {
            20
        } else {
            40
        };
        ETHERNET + network + self.protocol.header()
    }

    /// Smallest frame that has room for headers and stamp.
    pub fn smallest(&self) -> u16 {
        (self.headers() + STAMP) as u16
    }

    /// Raises frames to what their headers need; the largest comes first.
    pub fn fit(&mut self) {
        let smallest = self.smallest();
        for size in &mut self.sizes {
            *size = (*size).max(smallest);
        }
        let largest = (0..SIZES).max_by_key(|place| self.sizes[*place]);
        self.sizes.rotate_left(largest.unwrap_or(0));
    }

    /// Largest frame.
    pub fn largest(&self) -> u16 {
        self.sizes[0]
    }

    /// Bytes of an average frame.
    pub fn average(&self) -> f64 {
        self.sizes.iter().map(|size| f64::from(*size)).sum::<f64>() / SIZES as f64
    }

    /// Connections that start between two packets of one connection.
    pub fn window(&self) -> u32 {
        let rate = if self.rate == Rate::MAX {
            20e6
        } else {
            self.rate.0
        };
        let connections = rate / CONNECTION_STEPS as f64 * self.pause.as_secs_f64();
        (connections.ceil() as u32).max(1)
    }

    /// Sends frames of its flows at one rate and SYNs of ever new connections at another.
    pub fn send_beside(&mut self, flows: Rate, flood: Rate) {
        self.rate = Rate(flows.0 + flood.0);
        let share = flood.0 / self.rate.0.max(1.0);
        self.flood = (share * f64::from(1u32 << FLOOD_SHIFT)).round() as u32;
    }

    /// How many of the frames before `number` are SYNs of the flood.
    pub fn floods_before(&self, number: u64) -> u64 {
        number.wrapping_mul(u64::from(self.flood)) >> FLOOD_SHIFT
    }

    /// Whether frame `number` is a SYN of the flood.
    pub fn floods(&self, number: u64) -> bool {
        self.floods_before(number) != self.floods_before(number + 1)
    }

    /// The run that frames of the flood carry.
    pub fn flood_run(&self) -> u32 {
        self.run ^ FLOOD_MARK
    }

    /// Complains of what does not fit together.
    ///
    /// # Errors
    /// The first thing that does not, and what would.
    pub fn check(&self) -> Result<()> {
        let first = self.clients.first();
        if self.targets.is_empty() {
            bail!("no destination");
        }
        if let Some(odd) = self
            .targets
            .iter()
            .find(|target| target.is_ipv4() != first.is_ipv4())
        {
            bail!("destination {odd} and clients {first} are of two families");
        }
        if self.flows == 0 || self.flows > self.clients.most_flows() {
            bail!(
                "{} flows: from 1 to {} are possible with these clients",
                self.flows,
                self.clients.most_flows()
            );
        }
        if self.script != Script::Data && self.protocol != Protocol::Tcp {
            bail!("scripts other than data are of TCP");
        }
        if self.flood > 0 && (self.script != Script::Data || self.protocol != Protocol::Tcp) {
            bail!("a flood goes beside data of TCP");
        }
        if self.script == Script::Connection && !self.draws.is_empty() {
            bail!("connections are made in turn, not by an uneven distribution");
        }
        if self.script == Script::Connection && self.sizes.iter().any(|size| *size != self.sizes[0])
        {
            bail!("all packets of a connection have one size");
        }
        let open = u64::from(self.window()) * CONNECTION_STEPS;
        if self.script == Script::Connection && self.flows < open {
            bail!(
                "{open} connections are open at a time at this rate, so as many flows are needed"
            );
        }
        if !self.draws.is_empty() && !self.draws.len().is_power_of_two() {
            bail!("{} drawn flows are no power of two", self.draws.len());
        }
        let (smallest, largest) = (self.smallest(), self.largest());
        if largest > MAX_SIZE || self.sizes.iter().any(|size| *size < smallest) {
            bail!("frames of {smallest} to {MAX_SIZE} bytes are possible");
        }
        Ok(())
    }

    /// Rate of one of `share.of` generators as a step of time, see [`Rate::step`].
    pub fn step(&self, share: Share) -> u64 {
        self.rate.times(1.0 / f64::from(share.of)).step()
    }

    /// `struct config` of generate.h.
    pub fn bytes(&self, share: Share) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CONFIG_BYTES);
        bytes.extend(self.target_mac);
        bytes.extend(self.source_mac);
        let first = self.clients.first();
        bytes.push(if first.is_ipv4() { 4 } else { 6 });
        bytes.push(self.protocol.number(first));
        bytes.push(match self.script {
            Script::Data => 0,
            Script::Syn => 1,
            Script::Connection => 2,
        });
        bytes.push(u8::from(!self.draws.is_empty()));
        bytes.extend(self.sizes.iter().flat_map(|size| size.to_ne_bytes()));
        let mut words = vec![self.run];
        words.extend(self.key);
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(address_bytes(first));
        let words = [
            self.clients.bits(),
            self.targets.len() as u32,
            self.draws.len().saturating_sub(1) as u32,
            self.window(),
            self.flood,
        ];
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        let longs = [
            self.flows,
            self.step(share),
            self.duration.as_nanos() as u64,
            self.burst.as_nanos() as u64,
            u64::from(share.index),
            u64::from(share.of),
        ];
        bytes.extend(longs.iter().flat_map(|long| long.to_ne_bytes()));
        debug_assert_eq!(bytes.len(), CONFIG_BYTES);
        bytes
    }

    /// `struct target` of generate.h, one for each target.
    pub fn target_bytes(&self) -> Vec<[u8; 20]> {
        let target = |target: &SocketAddr| {
            let mut bytes = [0; 20];
            bytes[..16].copy_from_slice(&address_bytes(target.ip()));
            bytes[16..18].copy_from_slice(&target.port().to_be_bytes());
            bytes
        };
        self.targets.iter().map(target).collect()
    }
}

/// 16 bytes; IPv4 in the last four, behind zeros.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[12..].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}
