//! What the dataplane knows of a Service: one entry per Service port, every decision that needs
//! cluster knowledge (readiness, topology, policies) already taken by the control plane.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Transport protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132; associations of one address each side (KEP-614).
    Sctp,
}

impl Protocol {
    /// The IP protocol number (IANA "Assigned Internet Protocol Numbers").
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// Identity of one Service port: namespace and name of the Service, name of the port, protocol
/// (what kube-proxy calls ServicePortName). Stable over every change of addresses, backends and policies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port; empty for the only port of a Service.
    pub port: String,
    /// Protocol of the port.
    pub protocol: Protocol,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        write!(f, "/{}", self.protocol)
    }
}

/// Which kind of address a frontend is; decides who owns the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FrontendKind {
    /// A ClusterIP: a Vip, wholly the gateway's.
    ClusterIp,
    /// A LoadBalancer address: a Vip, wholly the gateway's.
    LoadBalancer,
    /// An external IP of the Service: a Vip, wholly the gateway's.
    ExternalIp,
    /// A node port on an address of the gateway's host: only this port is ours, the host keeps
    /// the address (its ARP, its other ports).
    NodePort,
}

impl FrontendKind {
    /// Whether the address is a Vip: answered for (ARP, echo, every port) by the dataplane.
    pub const fn is_vip(self) -> bool {
        !matches!(self, FrontendKind::NodePort)
    }
}

/// Whose endpoints may be chosen (traffic policies of the Service API).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub enum Pool {
    /// Every endpoint that may serve.
    #[default]
    Cluster,
    /// Endpoints on the nodes that the gateway stands in front of.
    Local,
}

/// What a class of clients gets at a frontend.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Access {
    /// Who may serve them.
    pub pool: Pool,
    /// What happens to their source address.
    pub source_nat: SourceNat,
}

/// Address and port that the dataplane answers for; the protocol is the Service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Address that clients use.
    pub address: IpAddr,
    /// Port that clients use; the first of a range.
    pub port: u16,
    /// Last port of the range; `port` again when it is one port only. A single port wins over a
    /// range that holds it.
    pub last_port: u16,
    /// Who owns the address.
    pub kind: FrontendKind,
    /// What pods get: clients in [`Networks::pods`](crate::table::Networks::pods).
    pub pods: Access,
    /// What nodes get: clients in [`Networks::nodes`](crate::table::Networks::nodes).
    pub nodes: Access,
    /// What everybody else gets.
    pub others: Access,
    /// Whether only clients in [`Service::source_ranges`] may use it.
    pub guarded: bool,
}

impl Frontend {
    /// A frontend of one port where everybody gets the same.
    pub const fn new(address: IpAddr, port: u16, kind: FrontendKind, access: Access) -> Self {
        Self {
            address,
            port,
            last_port: port,
            kind,
            pods: access,
            nodes: access,
            others: access,
            guarded: false,
        }
    }

    /// Whether it has more than one port.
    pub const fn is_range(&self) -> bool {
        self.port != self.last_port
    }

    /// What each class of clients gets.
    pub const fn accesses(&self) -> [Access; 3] {
        [self.pods, self.nodes, self.others]
    }
}

/// Whether a backend may be given new connections of [`Pool::Cluster`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BackendState {
    /// New connections may go here.
    Active,
    /// No new connections; those it has stay (KEP-1669).
    Draining,
}

/// One endpoint that a Service may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// Address of the endpoint.
    pub address: IpAddr,
    /// Port of the endpoint (targetPort resolved); 0: the port that the client used, for frontends
    /// of many ports.
    pub port: u16,
    /// Share of new connections relative to the other backends, 1 to [`Backend::MAX_WEIGHT`].
    pub weight: u16,
    /// Whether new connections of [`Pool::Cluster`] may go here.
    pub state: BackendState,
    /// Whether new connections of [`Pool::Local`] may go here.
    pub local: bool,
}

impl Backend {
    /// Largest weight. Above it a table of 65,537 rows cannot honour the ratio any more.
    pub const MAX_WEIGHT: u16 = 1000;
}

/// What happens to the source address of a forwarded connection.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum SourceNat {
    /// The gateway's own address and a port of its own range: works on every network.
    #[default]
    Masquerade,
    /// The client's address and port are kept; backends must route back through the gateway.
    Preserve,
}

/// What happens to a connection whose backend left the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendGone {
    /// A TCP connection goes on until it ends by itself. UDP is forgotten all the same: there is
    /// no end to wait for (kubernetes/kubernetes pkg/proxy/conntrack does so too).
    Keep,
    /// The connection ends at once: with TCP both sides get a reset, UDP is forgotten and its next
    /// packet is treated as the first of a new connection.
    #[default]
    Reset,
    /// A TCP connection goes on for a time, then it ends as with [`BackendGone::Reset`]. UDP is
    /// forgotten at once.
    Drain {
        /// How long, counted from when its backend left, in seconds; at most
        /// [`BackendGone::MAX_DRAIN`].
        seconds: u32,
    },
}

impl BackendGone {
    /// Longest time of [`BackendGone::Drain`], in seconds: a day.
    pub const MAX_DRAIN: u32 = 86_400;
}

impl fmt::Display for BackendGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendGone::Keep => f.write_str("keep"),
            BackendGone::Reset => f.write_str("reset"),
            BackendGone::Drain { seconds } => write!(f, "drain={seconds}"),
        }
    }
}

impl FromStr for BackendGone {
    type Err = String;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let max = Self::MAX_DRAIN;
        match text {
            "keep" => return Ok(BackendGone::Keep),
            "reset" => return Ok(BackendGone::Reset),
            _ => {}
        }
        let Some(written) = text.strip_prefix("drain=") else {
            return Err(format!(
                "{text:?} is not possible; use keep, reset or drain=SECONDS"
            ));
        };
        match written.parse() {
            Ok(seconds) if (1..=max).contains(&seconds) => Ok(BackendGone::Drain { seconds }),
            _ => Err(format!(
                "{written:?} is not a time to drain; use 1 to {max} seconds"
            )),
        }
    }
}

/// What a client gets when no backend may serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// ICMP port unreachable, for every protocol (as kube-proxy in nftables mode).
    #[default]
    Icmp,
    /// A reset for TCP; ICMP port unreachable for the rest.
    TcpReset,
    /// Nothing.
    Drop,
}

/// When a ping of a Vip is answered. Of several Services on one Vip the most generous decides.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Ping {
    /// Never.
    Never,
    /// While some backend may be chosen.
    #[default]
    Ready,
    /// Always.
    Always,
}

/// How packets get to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarding {
    /// By translating addresses and ports.
    #[default]
    Nat,
    /// By Ethernet address alone, on the link of the backend: it has the Vip itself and answers
    /// the client without the gateway. The port cannot change.
    DirectReturn,
}

/// One Service port, compiled: where it listens, who may serve it, how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Identity; the key by which statistics and unchanged Services are carried over a change.
    pub name: ServiceName,
    /// Addresses and ports that clients use, of both families, sorted.
    pub frontends: Vec<Frontend>,
    /// Endpoints of both families, sorted; a frontend uses those of its own family. Empty means
    /// that every frontend refuses, as kube-proxy's do.
    pub backends: Vec<Backend>,
    /// Seconds for which a client stays with its backend, counted from its last new connection
    /// (`sessionAffinity: ClientIP`); `None` without affinity.
    pub affinity_seconds: Option<u32>,
    /// Who may use the frontends that are [`Frontend::guarded`].
    pub source_ranges: Vec<IpNet>,
    /// What happens to connections of a backend that is no longer listed.
    pub backend_gone: BackendGone,
    /// What clients get when nobody may serve them.
    pub refusal: Refusal,
    /// When pings are answered.
    pub ping: Ping,
    /// Largest TCP segment that either side may announce, in bytes; `None` leaves it to them.
    pub mss_clamp: Option<u16>,
    /// How packets get to the backend.
    pub forwarding: Forwarding,
}

impl Service {
    /// A Service that only has its name: no frontends, no backends, every policy the default.
    pub const fn new(name: ServiceName) -> Self {
        Self {
            name,
            frontends: Vec::new(),
            backends: Vec::new(),
            affinity_seconds: None,
            source_ranges: Vec::new(),
            backend_gone: BackendGone::Reset,
            refusal: Refusal::Icmp,
            ping: Ping::Ready,
            mss_clamp: None,
            forwarding: Forwarding::Nat,
        }
    }

    /// What [`Service::mss_clamp`] can be, in bytes: from what every host takes (RFC 9293,
    /// section 3.7.1) to what an IPv4 packet holds.
    pub const MSS_CLAMP: RangeInclusive<u16> = 536..=65_495;

    /// Whether some client keeps its address, so that backends answer it by its own name.
    pub fn preserves(&self) -> bool {
        let keeps = |access: Access| access.source_nat == SourceNat::Preserve;
        let mut frontends = self.frontends.iter();
        frontends.any(|frontend| frontend.accesses().into_iter().any(keeps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_connections_is_written_as_it_is_read() {
        for text in ["keep", "reset", "drain=1", "drain=86400"] {
            let policy: BackendGone = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        for (text, message) in [
            (
                "drain",
                "\"drain\" is not possible; use keep, reset or drain=SECONDS",
            ),
            (
                "drain=0",
                "\"0\" is not a time to drain; use 1 to 86400 seconds",
            ),
            (
                "drain=86401",
                "\"86401\" is not a time to drain; use 1 to 86400 seconds",
            ),
        ] {
            assert_eq!(text.parse::<BackendGone>().unwrap_err(), message);
        }
    }
}
