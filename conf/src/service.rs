//! What the dataplane knows of a Service: one entry per Service port, every decision that needs
//! cluster knowledge (readiness, topology, policies) already taken by the control plane.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA "Assigned Internet Protocol Numbers").
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
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

/// Address and port that the dataplane answers for; the protocol is the Service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Address that clients use.
    pub address: IpAddr,
    /// Port that clients use.
    pub port: u16,
    /// Who owns the address.
    pub kind: FrontendKind,
}

/// Whether a backend may be given new connections.
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
    /// Port of the endpoint (targetPort resolved).
    pub port: u16,
    /// Share of new connections relative to the other backends, 1 to [`Backend::MAX_WEIGHT`].
    pub weight: u16,
    /// Whether new connections may go here.
    pub state: BackendState,
}

impl Backend {
    /// Largest weight. Above it a table of 65,537 rows cannot honour the ratio any more.
    pub const MAX_WEIGHT: u16 = 1000;
}

/// What happens to the source address of a forwarded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
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
    /// At its next packet the connection ends: TCP is answered with a reset, UDP is forgotten
    /// and its packet is treated as the first of a new connection.
    #[default]
    Reset,
}

/// One Service port, compiled: where it listens, who may serve it, how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Identity; the key by which statistics and unchanged Services are carried over a change.
    pub name: ServiceName,
    /// Addresses and ports that clients use, sorted.
    pub frontends: Vec<Frontend>,
    /// Endpoints, sorted; empty means that every frontend refuses, as kube-proxy's do.
    pub backends: Vec<Backend>,
    /// Source address translation.
    pub source_nat: SourceNat,
    /// What happens to connections of a backend that is no longer listed.
    pub backend_gone: BackendGone,
}
