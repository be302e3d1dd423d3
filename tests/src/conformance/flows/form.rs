//! How the file writes things down; see its header for what they mean.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sluice_conf::Protocol;

/// A set-up with flows.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// Of whom it is expected.
    #[serde(default)]
    pub profile: Profile,
    /// The cluster.
    #[serde(default)]
    pub config: Config,
    /// Services in short form.
    #[serde(default, deserialize_with = "nullable")]
    pub services: Vec<Value>,
    /// Slices in short form.
    #[serde(default, deserialize_with = "nullable")]
    pub endpoint_slices: Vec<Slice>,
    /// Flows, each read by itself.
    #[serde(default, deserialize_with = "nullable")]
    pub flows: Vec<Value>,
}

/// Of whom a scenario is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Of everybody.
    #[default]
    Common,
    /// Of kube-proxy in nftables mode.
    Nftables,
    /// Of kube-proxy in iptables mode.
    Iptables,
}

/// The cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The node that is local.
    pub node_name: String,
    /// Its addresses.
    #[serde(rename = "nodeIPs", deserialize_with = "nullable")]
    pub node_ips: Vec<IpAddr>,
    /// The family under test.
    #[serde(rename = "family")]
    pub _family: Family,
    /// Where pods live.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Listed<IpNet>,
    /// Where ClusterIPs come from.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Listed<IpNet>,
    /// Which of the node's addresses serve node ports.
    pub node_port_addresses: Listed<String>,
    /// Whether pods can be told from others.
    pub local_detector: bool,
    /// Whether every client of a ClusterIP is masqueraded.
    pub masquerade_all: bool,
    /// Whether node ports are served on loopback addresses.
    pub localhost_node_ports: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // The name that sections without a config use for it.
            node_name: "test-node".to_owned(),
            node_ips: Vec::new(),
            _family: Family::default(),
            pod_cidr: Listed::default(),
            service_cidr: Listed::default(),
            node_port_addresses: Listed::default(),
            local_detector: true,
            masquerade_all: false,
            localhost_node_ports: false,
        }
    }
}

/// An address family, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Family {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
    /// Both.
    #[default]
    #[serde(alias = "dual", alias = "both", alias = "DualStack")]
    Dual,
}

/// Nothing, one, or a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(
    untagged,
    expecting = "is neither a value of the right form nor a list of such"
)]
pub enum Listed<T> {
    /// Nothing.
    #[default]
    None,
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> Listed<T> {
    /// All of them.
    pub fn all(&self) -> &[T] {
        match self {
            Listed::None => &[],
            Listed::One(one) => std::slice::from_ref(one),
            Listed::Many(all) => all,
        }
    }
}

/// A slice of endpoints.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slice {
    /// `namespace/name` of the Service.
    pub service: String,
    /// Which of its slices it is.
    #[serde(rename = "slice")]
    pub _number: Option<u32>,
    /// IPv4, IPv6 or FQDN; the family of the first endpoint when it is not written.
    pub address_type: Option<String>,
    /// Ports.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Debug, Clone, Deserialize)]
pub struct SlicePort {
    /// Name.
    pub name: Option<String>,
    /// Number.
    pub port: Option<i32>,
    /// Protocol.
    pub protocol: Option<String>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses.
    #[serde(default, deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    /// Node.
    pub node_name: Option<String>,
    /// Condition.
    pub ready: Option<bool>,
    /// Condition.
    pub serving: Option<bool>,
    /// Condition.
    pub terminating: Option<bool>,
    /// Zones that it is meant for.
    #[serde(default, deserialize_with = "nullable")]
    pub zone_hints: Vec<String>,
    /// Nodes that it is meant for.
    #[serde(default, deserialize_with = "nullable")]
    pub node_hints: Vec<String>,
}

/// New connections of one client to one front.
#[derive(Debug, Clone, Deserialize)]
pub struct Flow {
    /// The client.
    pub src: IpAddr,
    /// Protocol.
    #[serde(deserialize_with = "protocol")]
    pub proto: Protocol,
    /// The front's address.
    pub dst: IpAddr,
    /// The front's port.
    pub port: u16,
    /// What becomes of them.
    pub expect: Expect,
}

/// What becomes of new connections.
#[derive(Debug, Clone, Deserialize)]
pub struct Expect {
    /// What is done.
    pub action: Action,
    /// Where they go; the set is exact.
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Vec<SocketAddr>,
    /// Whether the source address is rewritten; not judged when it is not written.
    pub masquerade: Option<bool>,
}

/// What is done with new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// They go to an endpoint.
    Dnat,
    /// Nobody answers.
    Drop,
    /// They are refused.
    Reject,
    /// The node itself gets them.
    Accept,
    /// They are left alone.
    NotHandled,
}

/// A protocol as Kubernetes writes it.
pub fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Protocol, D::Error> {
    let text = String::deserialize(deserializer)?;
    protocol_of(&text).map_err(serde::de::Error::custom)
}

/// A protocol as Kubernetes writes it.
pub fn protocol_of(text: &str) -> Result<Protocol, String> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let found = all.into_iter().find(|known| known.to_string() == text);
    found.ok_or_else(|| format!("{text:?} is not a protocol; use TCP, UDP or SCTP"))
}

/// A value that may be written as null.
pub fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
