//! Rows that sluicectl prints.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::service::{FrontendKind, Pool, Protocol};

/// One Service as `kubectl get svc` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub kind: String,
    /// What an ExternalName stands for (`spec.externalName`).
    pub external_name: Option<String>,
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
    /// Zone, if named.
    pub zone: Option<String>,
    /// Pod that it stands for, if named.
    pub pod: Option<String>,
    /// Weight for new connections that is in force; 0 when it gets none.
    pub weight: u16,
    /// Verdict on its health, if it is judged.
    pub verdict: Option<VerdictRow>,
    /// How far it is drained, if it is.
    pub drain: Option<DrainStage>,
}

/// A verdict on an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRow {
    /// Whether it is fit to be used.
    pub healthy: bool,
    /// What led to this.
    pub reason: String,
    /// Seconds since it became what it is.
    pub since_seconds: u64,
}

/// How far an endpoint is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainStage {
    /// In no answer of DNS any more, otherwise in use.
    Noticed,
    /// New connections go elsewhere.
    Draining,
    /// Out of use.
    Gone,
}

/// A drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRow {
    /// What is drained, with its kind: `node/NAME`, `pod/NAMESPACE/NAME`, `address/ADDRESS`.
    pub target: String,
    /// Endpoints that are meant now.
    pub endpoints: usize,
    /// How far it is.
    pub stage: DrainStage,
    /// How long existing connections may go on after new ones stopped; without, until they end.
    pub timeout_seconds: Option<u32>,
    /// Seconds since it began.
    pub age_seconds: u64,
}

/// Everything about one Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// The Service, with everything that it was given, as JSON of the Kubernetes API.
    pub manifest: String,
    /// What serves it.
    pub endpoints: Vec<EndpointRow>,
    /// Why it has no load-balancer address, or not the one that it should have.
    pub pending: Option<String>,
    /// What is wrong with it and its ServicePolicy.
    pub problems: Vec<Problem>,
    /// What happened to it, oldest first.
    pub events: Vec<EventRow>,
}

/// The addresses of one family in an AddressPool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Name of the pool.
    pub name: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Addresses that can be given; [`u128::MAX`] stands for more.
    pub total: u128,
    /// Addresses that Services have, each once.
    pub used: u64,
    /// Whether a Service gets one without asking for it.
    pub auto_assign: bool,
    /// The ranges.
    pub ranges: Vec<String>,
}

/// A ServicePolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Services that it names.
    pub targets: Vec<String>,
    /// Those of them for which it is in force.
    pub in_force: Vec<String>,
    /// How health is found out: `tcp`, `http`, `https` or `grpc`.
    pub probe: Option<String>,
    /// Below so many percent of healthy endpoints health is ignored.
    pub fail_open_percent: Option<u32>,
}

/// A Node, as far as topology needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether the gateway stands in front of it.
    pub local: bool,
    /// Zone, if labelled.
    pub zone: Option<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

/// A Pod, as far as selection and readiness need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Condition `Ready`.
    pub ready: bool,
    /// Whether it is going away.
    pub terminating: bool,
    /// Whether all its containers have ended.
    pub finished: bool,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Node that it runs on.
    pub node: Option<String>,
    /// Labels, as `key=value`, sorted.
    pub labels: Vec<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Seconds since it happened last.
    pub age_seconds: u64,
    /// How often it happened in a row.
    pub count: u32,
    /// Whether something is wrong.
    pub warning: bool,
    /// One word for machines, for example `Unhealthy`.
    pub reason: String,
    /// Kind, namespace and name, for example `Service default/web`.
    pub object: String,
    /// The sentence.
    pub message: String,
}
