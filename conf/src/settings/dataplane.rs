//! Settings of the dataplane; `conf/examples/dataplane.toml` explains each key to the operator.

mod checks;
mod ports;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::load::{self, SettingsError};
use super::{Log, Metrics};
pub use ports::PortRange;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataplane {
    /// Interfaces that carry Service traffic, at least one.
    pub interfaces: Vec<Interface>,
    /// Worker threads.
    #[serde(default)]
    pub workers: Workers,
    /// Frame memory.
    #[serde(default)]
    pub frames: Frames,
    /// Connection table.
    #[serde(default)]
    pub connections: Connections,
    /// Timeouts of idle connections.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Source address translation.
    #[serde(default)]
    pub source_nat: SourceNat,
    /// Session affinity.
    #[serde(default)]
    pub affinity: Affinity,
    /// Fragments.
    #[serde(default)]
    pub fragments: Fragments,
    /// Largest service table.
    #[serde(default)]
    pub limits: Limits,
    /// Answers that the dataplane makes itself.
    #[serde(default)]
    pub answers: Answers,
    /// What is set in the host's kernel.
    #[serde(default)]
    pub kernel: Kernel,
    /// Control socket.
    #[serde(default)]
    pub control: Control,
    /// Metrics.
    #[serde(default)]
    pub metrics: Metrics,
    /// Logging.
    #[serde(default)]
    pub log: Log,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Name, for example `eth1`.
    pub name: String,
    /// How the XDP program is attached.
    #[serde(default)]
    pub xdp: XdpMode,
    /// How frames get from the driver to the workers.
    #[serde(default)]
    pub copy: CopyMode,
    /// VLAN identifiers that its frames carry, outermost first; none, one or two. Frames with
    /// others are left to the kernel.
    #[serde(default)]
    pub vlan: Vec<u16>,
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, or where the driver cannot, in the generic hook.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic hook.
    Generic,
}

/// How frames get from the driver to the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyMode {
    /// Zero-copy where the driver has it, else copied.
    #[default]
    Auto,
    /// Zero-copy or not at all.
    ZeroCopy,
    /// Always copied.
    Copy,
}

/// What a worker does when it finds nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Looks on for 20 microseconds when frames come rarely, for up to 20 milliseconds after work for as
    /// long, then sleeps until a frame comes.
    #[default]
    Adaptive,
    /// Never sleeps: least delay, all of a core.
    Busy,
    /// Sleeps at once: least work, at the price of a wake-up for every burst.
    Interrupt,
}

/// `[workers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// Cores to pin workers to: worker `n` gets entry `n` modulo the length. Empty: not pinned.
    pub cores: Vec<u32>,
    /// Most frames that are taken from a ring at once, 2 to 64.
    pub burst: usize,
    /// Frames that may wait in the ring between two workers; a power of two.
    pub handover: usize,
    /// What a worker does when it finds nothing to do.
    pub polling: Polling,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            burst: 64,
            handover: 1024,
            polling: Polling::Adaptive,
        }
    }
}

/// `[frames]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frames {
    /// Bytes of one UMEM slot, 2048 or 4096; the longest frame is 256 bytes shorter.
    pub size: u32,
    /// Descriptors of each receive, fill, transmit and completion ring; a power of two.
    pub ring: u32,
    /// Whether the memory is asked for in huge pages.
    pub huge_pages: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            size: 2048,
            ring: 2048,
            huge_pages: false,
        }
    }
}

/// `[connections]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// Most connections of one worker; memory for them is reserved at the start.
    pub capacity: u32,
}

impl Default for Connections {
    fn default() -> Self {
        Self { capacity: 262_144 }
    }
}

/// `[timeouts]`: seconds without a packet after which a connection is forgotten. Defaults are
/// Linux's (Documentation/networking/nf_conntrack-sysctl.rst).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP: SYN seen from the client.
    pub tcp_syn_sent: u32,
    /// TCP: SYN and SYN-ACK seen.
    pub tcp_syn_received: u32,
    /// TCP: handshake complete.
    pub tcp_established: u32,
    /// TCP: one side has sent FIN.
    pub tcp_fin_wait: u32,
    /// TCP: the FIN was acknowledged, the other side still sends.
    pub tcp_close_wait: u32,
    /// TCP: both sides have sent FIN.
    pub tcp_last_ack: u32,
    /// TCP: both FINs were acknowledged.
    pub tcp_time_wait: u32,
    /// TCP: a reset was seen.
    pub tcp_close: u32,
    /// UDP: packets in one direction only.
    pub udp: u32,
    /// UDP: packets in both directions.
    pub udp_stream: u32,
    /// SCTP: the association is not complete yet, or ends.
    pub sctp_opening: u32,
    /// SCTP: the association is complete.
    pub sctp_established: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_syn_sent: 120,
            tcp_syn_received: 60,
            tcp_established: 432_000,
            tcp_fin_wait: 120,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_time_wait: 120,
            tcp_close: 10,
            udp: 30,
            udp_stream: 120,
            sctp_opening: 30,
            sctp_established: 432_000,
        }
    }
}

/// `[source_nat]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceNat {
    /// Source ports of masqueraded connections, shared out evenly among the workers.
    pub ports: PortRange,
    /// Source address of masqueraded connections; absent: the address that the host itself would
    /// use towards the backend.
    pub address: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub address6: Option<Ipv6Addr>,
}

impl Default for SourceNat {
    fn default() -> Self {
        Self {
            ports: PortRange {
                first: 16_384,
                last: 29_999,
            },
            address: None,
            address6: None,
        }
    }
}

/// `[affinity]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Affinity {
    /// Most clients whose backend is remembered, of all Services and workers together; memory for
    /// them is reserved at the start.
    pub clients: u32,
}

impl Default for Affinity {
    fn default() -> Self {
        Self { clients: 65_536 }
    }
}

/// `[fragments]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fragments {
    /// Most fragmented packets that one worker follows at a time.
    pub packets: u32,
    /// Seconds after which a packet whose fragments have not all come is given up.
    pub timeout: u32,
    /// Most fragments that wait at one worker for the first one of their packet.
    pub waiting: u32,
}

impl Default for Fragments {
    fn default() -> Self {
        Self {
            packets: 1024,
            timeout: 30,
            waiting: 256,
        }
    }
}

/// `[limits]`: a table that exceeds one of them is refused whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most Services, counted by port.
    pub services: u32,
    /// Most frontends of all Services together.
    pub frontends: u32,
    /// Most backends of all Services together.
    pub backends: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: 65_536,
            frontends: 262_144,
            backends: 262_144,
        }
    }
}

/// `[answers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answers {
    /// Most ICMP errors, echo replies and resets that one worker sends in a second.
    pub per_second: u32,
}

impl Default for Answers {
    fn default() -> Self {
        Self { per_second: 1000 }
    }
}

/// `[kernel]`: what the dataplane sets in the network namespace that it runs in, and takes back when
/// it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kernel {
    /// Whether Vips and networks of Services get blackhole routes.
    pub vip_routes: bool,
    /// Whether [`SourceNat::ports`] are kept from the host's own connections.
    pub reserve_ports: bool,
    /// Name of the TUN device by which packets go back to the kernel; empty: none.
    pub tun: String,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            vip_routes: true,
            reserve_ports: true,
            tun: "sluice0".into(),
        }
    }
}

/// `[control]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Path of the Unix socket.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/sluice/dataplane.sock".into(),
        }
    }
}

impl Dataplane {
    /// Parses the text of a settings file; `file` is only used in errors.
    ///
    /// # Errors
    /// The first mistake, with its line and key.
    pub fn parse(text: &str, file: &str) -> Result<Self, SettingsError> {
        load::parse(text, file, Self::check)
    }
}

#[cfg(test)]
mod tests;
