//! A derived EndpointSlice in a light form, and what it is to others.
//!
//! The API's type holds an endpoint in some 500 bytes and ten allocations; here it has about 150
//! and shares its strings with the Pod. Slices hold one address of an endpoint: more than one is
//! never used (discovery/v1 Endpoint.addresses).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sluice_conf::Protocol;

use crate::endpoints;

/// Kind of the addresses of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// `IPv4`.
    Ipv4,
    /// `IPv6`.
    Ipv6,
    /// What no Service is served by: `FQDN`, and `IP` of the beta API.
    Other,
}

impl AddressType {
    /// Reads the API's word.
    pub fn of(text: &str) -> Self {
        match text {
            "IPv4" => AddressType::Ipv4,
            "IPv6" => AddressType::Ipv6,
            _ => AddressType::Other,
        }
    }

    /// The API's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            AddressType::Ipv4 => "IPv4",
            AddressType::Ipv6 => "IPv6",
            AddressType::Other => "FQDN",
        }
    }

    /// Whether `address` is of this type.
    pub fn holds(self, address: IpAddr) -> bool {
        match self {
            AddressType::Ipv4 => address.is_ipv4(),
            AddressType::Ipv6 => address.is_ipv6(),
            AddressType::Other => false,
        }
    }
}

/// Labels of a slice.
pub type SliceLabels = BTreeMap<String, String>;

/// A slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Name; empty while it is only planned.
    pub name: String,
    /// Kind of its addresses; never changes.
    pub address_type: AddressType,
    /// Unique id of the Service that it was made for.
    pub owner: Option<Arc<str>>,
    /// Labels.
    pub labels: Arc<SliceLabels>,
    /// Ports that every endpoint listens on, sorted.
    pub ports: Arc<[Port]>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Name; empty for the only port of a Service.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub number: u16,
    /// What is spoken there.
    pub app_protocol: Option<String>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Conditions; absent ones mean what the API says.
    pub conditions: Conditions,
    /// Own host name.
    pub hostname: Option<Arc<str>>,
    /// Node.
    pub node: Option<Arc<str>>,
    /// Zone.
    pub zone: Option<Arc<str>>,
    /// The Pod that it stands for.
    pub target: Option<Target>,
    /// Whom it is meant for.
    pub hints: Hints,
}

/// Conditions of an endpoint (discovery/v1 EndpointConditions).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions {
    /// New connections are welcome; absent means yes.
    pub ready: Option<bool>,
    /// Answers, ready or not.
    pub serving: Option<bool>,
    /// Is going away.
    pub terminating: Option<bool>,
}

/// A Pod by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Unique id.
    pub uid: Option<Arc<str>>,
}

/// Topology hints; empty lists are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Zones.
    pub zones: Vec<Arc<str>>,
    /// Nodes.
    pub nodes: Vec<Arc<str>>,
}

impl Endpoint {
    /// Whether it takes new connections.
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// Whether both say the same of the same endpoint but for hints (EndpointsEqualBeyondHash).
    pub fn same(&self, other: &Endpoint) -> bool {
        self.conditions == other.conditions
            && self.node == other.node
            && self.zone == other.zone
            && self.target == other.target
    }

    fn api(&self) -> api::Endpoint {
        let zones = self.hints.zones.iter();
        let zones: Vec<_> = zones
            .map(|z| api::ForZone {
                name: z.to_string(),
            })
            .collect();
        let nodes = self.hints.nodes.iter();
        let nodes: Vec<_> = nodes
            .map(|n| api::ForNode {
                name: n.to_string(),
            })
            .collect();
        let hinted = !zones.is_empty() || !nodes.is_empty();
        api::Endpoint {
            addresses: vec![self.address.to_string()],
            conditions: Some(api::EndpointConditions {
                ready: self.conditions.ready,
                serving: self.conditions.serving,
                terminating: self.conditions.terminating,
            }),
            hints: hinted.then(|| api::EndpointHints {
                for_nodes: (!nodes.is_empty()).then_some(nodes),
                for_zones: (!zones.is_empty()).then_some(zones),
            }),
            hostname: self.hostname.as_deref().map(str::to_owned),
            node_name: self.node.as_deref().map(str::to_owned),
            target_ref: self.target.as_ref().map(|target| ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(target.namespace.to_string()),
                name: Some(target.name.to_string()),
                uid: target.uid.as_deref().map(str::to_owned),
                ..ObjectReference::default()
            }),
            zone: self.zone.as_deref().map(str::to_owned),
            ..api::Endpoint::default()
        }
    }

    fn checked(&self) -> endpoints::Endpoint {
        let text = |list: &[Arc<str>]| list.iter().map(|text| text.to_string()).collect();
        let ready = self.is_ready();
        endpoints::Endpoint {
            address: self.address,
            conditions: endpoints::Conditions {
                ready,
                serving: self.conditions.serving.unwrap_or(ready),
                terminating: self.conditions.terminating.unwrap_or(false),
            },
            node: self.node.as_deref().map(str::to_owned),
            zone: self.zone.as_deref().map(str::to_owned),
            pod: self.target.as_ref().map(|pod| pod.name.to_string()),
            hostname: self.hostname.as_deref().map(str::to_owned),
            tier: 0,
            weight: 1,
            hints: endpoints::Hints {
                nodes: text(&self.hints.nodes),
                zones: text(&self.hints.zones),
            },
        }
    }
}

impl Slice {
    /// As the Kubernetes API shows it, in the namespace of its Service.
    pub fn api(&self, namespace: &str, service: &str) -> api::EndpointSlice {
        let owner = self.owner.as_ref().map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            block_owner_deletion: Some(true),
            controller: Some(true),
            kind: "Service".to_owned(),
            name: service.to_owned(),
            uid: uid.to_string(),
        });
        let port = |port: &Port| api::EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone()),
            port: Some(i32::from(port.number)),
            protocol: Some(port.protocol.to_string()),
        };
        api::EndpointSlice {
            address_type: self.address_type.as_str().to_owned(),
            endpoints: Some(self.endpoints.iter().map(Endpoint::api).collect()),
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(self.name.clone()),
                labels: Some((*self.labels).clone()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            ports: Some(self.ports.iter().map(port).collect()),
        }
    }

    /// As the compiler reads it; nothing in it has to be checked again but addresses that nobody
    /// may serve on, which are left out.
    pub fn checked(&self, namespace: &str, service: &str) -> endpoints::Slice {
        let usable = |e: &&Endpoint| sluice_conf::table::unusable(e.address).is_none();
        endpoints::Slice {
            namespace: namespace.to_owned(),
            name: self.name.clone(),
            service: Some(service.to_owned()),
            ports: self
                .ports
                .iter()
                .map(|port| endpoints::SlicePort {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    port: port.number,
                })
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .filter(usable)
                .map(Endpoint::checked)
                .collect(),
        }
    }
}
