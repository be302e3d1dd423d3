//! Settings of the dataplane; `conf/examples/dataplane.toml` explains each key to the operator.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::load::{self, Impossible, SettingsError};
use super::{Log, Metrics};
use crate::table::unusable;

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
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            cores: Vec::new(),
            burst: 64,
            handover: 1024,
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

/// Ports from `first` to `last`, both included; written `"16384-29999"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// All ports of the range.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// How many ports it has.
    pub fn count(self) -> usize {
        self.ports().count()
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a port range; write it as \"16384-29999\"");
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
        Ok(Self {
            first: port(first)?,
            last: port(last)?,
        })
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
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

    fn check(&self) -> Result<(), Impossible> {
        self.check_interfaces()?;
        power_of_two("workers.handover", self.workers.handover as u64, 2, 65_536)?;
        within("workers.burst", self.workers.burst as u64, 2, 64)?;
        if self.frames.size != 2048 && self.frames.size != 4096 {
            let message = format!(
                "{} is not possible; use 2048 or 4096 bytes",
                self.frames.size
            );
            return Err(Impossible::new("frames.size", message));
        }
        power_of_two("frames.ring", self.frames.ring.into(), 64, 32_768)?;
        within(
            "connections.capacity",
            self.connections.capacity.into(),
            1024,
            1 << 26,
        )?;
        within(
            "answers.per_second",
            self.answers.per_second.into(),
            1,
            10_000_000,
        )?;
        within(
            "affinity.clients",
            self.affinity.clients.into(),
            1024,
            1 << 24,
        )?;
        self.fragments.check()?;
        self.limits.check()?;
        self.timeouts.check()?;
        self.kernel.check(&self.interfaces)?;
        self.source_nat.check()
    }

    fn check_interfaces(&self) -> Result<(), Impossible> {
        if self.interfaces.is_empty() {
            return Err(Impossible::new(
                "interfaces",
                "is empty; name at least one interface",
            ));
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            let key = format!("interfaces[{index}].name");
            // IFNAMSIZ of linux/if.h is 16 with the final zero byte.
            if interface.name.is_empty() || interface.name.len() > 15 {
                let message = format!("{:?} is not 1 to 15 bytes long", interface.name);
                return Err(Impossible::new(key, message));
            }
            let vlan = format!("interfaces[{index}].vlan");
            if interface.vlan.len() > 2 {
                let message = format!("{:?} has more than two tags", interface.vlan);
                return Err(Impossible::new(vlan, message));
            }
            for tag in &interface.vlan {
                // 0 and 4095 are reserved (IEEE 802.1Q section 9.6).
                within(&vlan, u64::from(*tag), 1, 4094)?;
            }
            if self.interfaces[..index]
                .iter()
                .any(|other| other.name == interface.name)
            {
                let message = format!("{:?} is listed twice", interface.name);
                return Err(Impossible::new(key, message));
            }
        }
        Ok(())
    }
}

impl Timeouts {
    fn check(&self) -> Result<(), Impossible> {
        for (key, seconds) in [
            ("tcp_syn_sent", self.tcp_syn_sent),
            ("tcp_syn_received", self.tcp_syn_received),
            ("tcp_established", self.tcp_established),
            ("tcp_fin_wait", self.tcp_fin_wait),
            ("tcp_close_wait", self.tcp_close_wait),
            ("tcp_last_ack", self.tcp_last_ack),
            ("tcp_time_wait", self.tcp_time_wait),
            ("tcp_close", self.tcp_close),
            ("udp", self.udp),
            ("udp_stream", self.udp_stream),
            ("sctp_opening", self.sctp_opening),
            ("sctp_established", self.sctp_established),
        ] {
            within(&format!("timeouts.{key}"), seconds.into(), 1, 31_536_000)?;
        }
        Ok(())
    }
}

impl Fragments {
    fn check(&self) -> Result<(), Impossible> {
        within("fragments.packets", self.packets.into(), 1, 65_536)?;
        within("fragments.timeout", self.timeout.into(), 1, 120)?;
        within("fragments.waiting", self.waiting.into(), 0, 4096)
    }
}

impl Limits {
    fn check(&self) -> Result<(), Impossible> {
        for (key, value) in [
            ("services", self.services),
            ("frontends", self.frontends),
            ("backends", self.backends),
        ] {
            within(&format!("limits.{key}"), value.into(), 1, 1 << 24)?;
        }
        Ok(())
    }
}

impl Kernel {
    fn check(&self, interfaces: &[Interface]) -> Result<(), Impossible> {
        let tun = self.tun.as_str();
        // dev_valid_name of the kernel's net/core/dev.c; `%` asks it for a number.
        let is_odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace();
        if tun.len() > 15 || tun == "." || tun == ".." || tun.contains(is_odd) {
            let message = format!("{tun:?} cannot name a device; use 1 to 15 letters and digits");
            return Err(Impossible::new("kernel.tun", message));
        }
        if interfaces.iter().any(|interface| interface.name == tun) {
            let message = format!("{tun:?} is a served interface; use a name that is free");
            return Err(Impossible::new("kernel.tun", message));
        }
        Ok(())
    }
}

impl SourceNat {
    fn check(&self) -> Result<(), Impossible> {
        let PortRange { first, last } = self.ports;
        if first < 1024 || last < first {
            let message =
                format!("\"{first}-{last}\" is not possible; use 1024 to 65535, low-high");
            return Err(Impossible::new("source_nat.ports", message));
        }
        let v4 = self.address.map(IpAddr::V4);
        let v6 = self.address6.map(IpAddr::V6);
        for (key, address) in [("address", v4), ("address6", v6)] {
            if let Some(address) = address.filter(|address| unusable(*address).is_some()) {
                let message = format!("{address} cannot be a source address on a network");
                return Err(Impossible::new(format!("source_nat.{key}"), message));
            }
        }
        Ok(())
    }
}

fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), Impossible> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Impossible::new(
        key,
        format!("{value} is not possible; use {low} to {high}"),
    ))
}

fn power_of_two(key: &str, value: u64, low: u64, high: u64) -> Result<(), Impossible> {
    within(key, value, low, high)?;
    if value.is_power_of_two() {
        return Ok(());
    }
    let near = value.next_power_of_two();
    Err(Impossible::new(
        key,
        format!("{value} is not a power of two; {near} would be"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[[interfaces]]\nname = \"eth1\"\n";

    fn refused(text: &str) -> String {
        Dataplane::parse(text, "dp.toml").unwrap_err().to_string()
    }

    #[test]
    fn everything_but_an_interface_has_a_default() {
        let settings = Dataplane::parse(MINIMAL, "dp.toml").unwrap();
        assert_eq!(settings.timeouts.tcp_established, 432_000);
        assert_eq!(settings.source_nat.ports.count(), 13_616);
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let text = include_str!("../../examples/dataplane.toml");
        let example = Dataplane::parse(text, "dataplane.toml").unwrap();
        let minimal = Dataplane::parse(MINIMAL, "dp.toml").unwrap();
        assert_eq!(example.workers.burst, minimal.workers.burst);
        assert_eq!(example.workers.handover, minimal.workers.handover);
        assert_eq!(example.frames, minimal.frames);
        assert_eq!(example.connections, minimal.connections);
        assert_eq!(example.timeouts, minimal.timeouts);
        assert_eq!(example.source_nat, minimal.source_nat);
        assert_eq!(example.answers, minimal.answers);
        assert_eq!(example.affinity, minimal.affinity);
        assert_eq!(example.fragments, minimal.fragments);
        assert_eq!(example.limits, minimal.limits);
        assert_eq!(example.kernel, minimal.kernel);
        assert_eq!(example.control, minimal.control);
        assert_eq!(example.log, minimal.log);
    }

    #[test]
    fn a_mistake_is_named_with_file_line_and_key() {
        let unknown = refused(&format!("{MINIMAL}\n[frames]\nsizes = 2048\n"));
        assert!(
            unknown.starts_with("dp.toml:5: frames.sizes: unknown field `sizes`"),
            "{unknown}"
        );
        let wrong_type = refused(&format!("{MINIMAL}\n[frames]\n\nsize = \"big\"\n"));
        assert!(
            wrong_type.starts_with("dp.toml:6: frames.size: invalid type"),
            "{wrong_type}"
        );
        assert_eq!(
            refused(&format!("{MINIMAL}\n[frames]\nring = 100\n")),
            "dp.toml:5: frames.ring: 100 is not a power of two; 128 would be"
        );
        assert_eq!(
            refused(&format!("{MINIMAL}\n[[interfaces]]\nname = \"eth1\"\n")),
            "dp.toml:5: interfaces[1].name: \"eth1\" is listed twice"
        );
        assert_eq!(
            refused(&format!("{MINIMAL}[source_nat]\nports = \"9-5\"\n")),
            "dp.toml:4: source_nat.ports: \"9-5\" is not possible; use 1024 to 65535, low-high"
        );
    }

    #[test]
    fn a_tun_device_needs_a_name_that_is_possible_and_free() {
        let tun = |name| format!("{MINIMAL}[kernel]\ntun = \"{name}\"\n");
        assert!(Dataplane::parse(&tun(""), "dp.toml").is_ok());
        assert_eq!(
            refused(&tun("a/b")),
            "dp.toml:4: kernel.tun: \"a/b\" cannot name a device; use 1 to 15 letters and digits"
        );
        assert_eq!(
            refused(&tun("eth1")),
            "dp.toml:4: kernel.tun: \"eth1\" is a served interface; use a name that is free"
        );
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_with_its_line() {
        let error = refused("\n[[interfaces]\n");
        assert!(error.starts_with("dp.toml:2: "), "{error}");
    }

    #[test]
    fn no_interface_is_refused() {
        assert!(refused("interfaces = []\n").contains("name at least one interface"));
        assert!(refused("").contains("interfaces"));
    }
}
