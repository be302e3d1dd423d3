//! Requests to the control plane and its replies.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Hello;
use crate::service::{FrontendKind, Pool, Protocol};
use crate::table::Generation;

/// What a client may ask of the control plane. The first request of a connection is `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Introduces the client. Answered by [`Reply::Hello`].
    Hello(Hello),
    /// Answered by [`Reply::Status`].
    Status,
    /// Services of one namespace, or of all. Answered by [`Reply::Services`].
    Services {
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// Endpoints of the Services of one namespace, or of all. Answered by [`Reply::Endpoints`].
    Endpoints {
        /// Only of this namespace.
        namespace: Option<String>,
    },
}

/// The control plane's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to a hello.
    Hello {
        /// Release of the control plane.
        release: String,
    },
    /// How the control plane is.
    Status(Status),
    /// The Services, sorted by namespace and name.
    Services(Vec<ServiceRow>),
    /// The endpoints, sorted by namespace, Service and address.
    Endpoints(Vec<EndpointsRow>),
    /// The request could not be served.
    Refused(String),
}

/// How the control plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Release.
    pub release: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Generation compiled last.
    pub generation: Generation,
    /// Services known.
    pub services: usize,
    /// EndpointSlices known.
    pub endpoint_slices: usize,
    /// Where objects come from, for example the manifest folder.
    pub source: String,
    /// How the dataplane is doing, as seen from here.
    pub dataplane: DataplaneLink,
    /// What is wrong with the objects, oldest first.
    pub problems: Vec<Problem>,
}

/// State of the link to the dataplane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataplaneLink {
    /// Not reachable; the control plane goes on trying.
    Disconnected {
        /// The socket tried.
        socket: String,
        /// Why, as of the last attempt.
        reason: String,
    },
    /// Connected.
    Connected {
        /// Generation that every worker uses.
        applied: Option<Generation>,
        /// Why the last table was refused, if it was.
        rejected: Option<String>,
    },
}

/// Something wrong with an object; what was good before it stays in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// File that holds the object.
    pub file: String,
    /// Line in the file, counted from 1, when known.
    pub line: Option<u32>,
    /// Kind, namespace and name of the object, when known, for example `Service default/web`.
    pub object: Option<String>,
    /// Path of the field, for example `spec.ports[0].port`, when known.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// One Service as `kubectl get svc` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`, `NodePort` or `LoadBalancer`.
    pub kind: String,
    /// ClusterIPs; empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether it has no ClusterIP on purpose (`clusterIP: None`).
    pub headless: bool,
    /// LoadBalancer addresses and external IPs.
    pub external_ips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<PortRow>,
    /// Seconds since this control plane first saw the Service.
    pub age_seconds: u64,
    /// Seconds of `sessionAffinity: ClientIP`, if any.
    pub affinity_seconds: Option<u32>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<IpNet>,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: Pool,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: Pool,
    /// Frontends that were compiled, for wide output.
    pub frontends: Vec<FrontendRow>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Name; empty when it has none.
    pub name: String,
    /// Port.
    pub port: u16,
    /// Node port, if any.
    pub node_port: Option<u16>,
    /// Protocol as written in the manifest.
    pub protocol: String,
}

/// One compiled frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendRow {
    /// Address.
    pub address: IpAddr,
    /// Port; the first of a range.
    pub port: u16,
    /// Last port of the range; `port` again when it is one port only.
    pub last_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// What kind of address.
    pub kind: FrontendKind,
    /// Whose endpoints serve clients that are neither pods nor nodes.
    pub pool: Pool,
}

/// The endpoints of one Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointsRow {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Every endpoint of its slices.
    pub endpoints: Vec<EndpointRow>,
    /// Seconds since this control plane first saw a slice of the Service.
    pub age_seconds: u64,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Name of the port; empty when it has none.
    pub port_name: String,
    /// Protocol as written in the manifest.
    pub protocol: String,
    /// Condition `ready`, absent read as true (discovery/v1 EndpointConditions).
    pub ready: bool,
    /// Condition `serving`, absent read as `ready`.
    pub serving: bool,
    /// Condition `terminating`, absent read as false.
    pub terminating: bool,
    /// Node, if named.
    pub node: Option<String>,
    /// Weight for new connections.
    pub weight: u16,
}
