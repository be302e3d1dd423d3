//! A Kubernetes Service, checked and boiled down to what the gateway serves.
//!
//! Guarantees: a [`ServiceSpec`] holds only ports, names and addresses that can reach the service
//! table; everything else was named with its field. It looks at one Service alone: what two of
//! them may not share is for the compiler.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use sluice_conf::{FrontendKind, Pool, Protocol};

use crate::annotations::policies::Policies;
use crate::annotations::ranges::PortRange;
use crate::annotations::{self, policies, ranges};
use crate::kinds::policy::PolicySpec;
use crate::object::{Checked, Lines, Report, is_label};

mod gaps;
mod ports;
mod traffic;
mod vips;

/// The class of Services that are this gateway's when classes are told apart
/// (`spec.loadBalancerClass`).
pub const LOAD_BALANCER_CLASS: &str = "sluice.dev/gateway";

/// `spec.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceType {
    /// Addresses inside the cluster.
    ClusterIp,
    /// Also a port on every node.
    NodePort,
    /// Also addresses of a load balancer.
    LoadBalancer,
    /// Only a DNS name.
    ExternalName,
}

impl ServiceType {
    /// As written in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIp => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
            ServiceType::ExternalName => "ExternalName",
        }
    }

    const fn has_node_ports(self) -> bool {
        matches!(self, ServiceType::NodePort | ServiceType::LoadBalancer)
    }
}

/// A Service that can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Type.
    pub kind: ServiceType,
    /// Without a ClusterIP on purpose: clients use the endpoints themselves.
    pub headless: bool,
    /// Name that it stands for; only of type ExternalName.
    pub external_name: Option<String>,
    /// Addresses that clients use, of both families, each once.
    pub vips: Vec<Vip>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Ranges of ports on every Vip.
    pub port_ranges: Vec<PortRange>,
    /// The field that names the ranges.
    pub port_ranges_place: Place,
    /// Whose endpoints serve at ClusterIPs (`internalTrafficPolicy`).
    pub internal: Pool,
    /// Whose endpoints serve elsewhere (`externalTrafficPolicy`).
    pub external: Pool,
    /// How long a client stays with its endpoint, in seconds (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// Who may use the LoadBalancer addresses, sorted; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Where load balancers ask for local endpoints (`healthCheckNodePort`); only of a LoadBalancer
    /// whose external traffic goes to local endpoints.
    pub health_check_node_port: Option<u16>,
    /// Which load balancer it is for (`loadBalancerClass`).
    pub load_balancer_class: Option<String>,
    /// Labels of its pods; empty: somebody else writes its EndpointSlices.
    pub selector: BTreeMap<String, String>,
    /// Whether endpoints count as ready whatever their pods say.
    pub publish_not_ready_addresses: bool,
    /// What the annotations ask for, and where they say nothing, the policy.
    pub policies: Policies,
    /// The ServicePolicy in force.
    pub policy: Option<Arc<PolicySpec>>,
}

impl ServiceSpec {
    /// Takes over what a policy says and the annotations leave open.
    pub fn follow(&mut self, policy: Arc<PolicySpec>) {
        self.policies = std::mem::take(&mut self.policies).or(&policy.policies);
        if self.port_ranges.is_empty() {
            self.port_ranges.clone_from(&policy.port_ranges);
        }
        self.policy = Some(policy);
    }

    /// Its load-balancer addresses.
    pub fn balancer_addresses(&self) -> Vec<IpAddr> {
        let vips = self.vips.iter();
        let balancer = vips.filter(|vip| vip.kind == FrontendKind::LoadBalancer);
        balancer.map(|vip| vip.address).collect()
    }
}

/// An address that clients use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Which kind of address.
    pub kind: FrontendKind,
    /// The field that names it.
    pub place: Place,
}

/// A field and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path of the field.
    pub field: String,
    /// Line in the file, when known.
    pub line: Option<u32>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port that clients use.
    pub port: u16,
    /// Port on the gateway's own addresses.
    pub node_port: Option<u16>,
    /// The entry of `spec.ports`.
    pub place: Place,
}

/// The protocol of a manifest; absent means TCP.
pub(crate) fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is not a protocol; use TCP, UDP or SCTP")),
    }
}

/// Checks a Service named `namespace/name`.
pub fn check(
    namespace: &str,
    name: &str,
    service: &api::Service,
    lines: &Lines,
) -> Checked<ServiceSpec> {
    let mut checker = Checker {
        report: Report::default(),
        lines,
    };
    let spec = checker.check(namespace, name, service);
    checker.report.finish(spec)
}

struct Checker<'a> {
    report: Report,
    lines: &'a Lines,
}

impl Checker<'_> {
    fn check(&mut self, namespace: &str, name: &str, service: &api::Service) -> ServiceSpec {
        for (field, text) in [("metadata.namespace", namespace), ("metadata.name", name)] {
            if !is_label(text) {
                let message =
                    format!("{text:?} is not a name; use up to 63 of a-z, 0-9 and - (RFC 1123)");
                self.report.refuse(field, message);
            }
        }
        let spec = service.spec.clone().unwrap_or_default();
        if service.spec.is_none() {
            self.report.refuse("spec", "is missing");
        }
        let notes = &service.metadata.annotations;
        let known: Vec<&str> = policies::NAMES
            .into_iter()
            .chain([ranges::PORT_RANGES, annotations::LOAD_BALANCER_IPS])
            .chain([annotations::ADDRESS_POOL, annotations::ALLOW_SHARED_IP])
            .collect();
        annotations::guard(notes, "Service", &known, &mut self.report);
        let kind = self.kind(&spec);
        let headless = is_headless(&spec);
        let (vips, ports) = match kind {
            ServiceType::ExternalName => (Vec::new(), Vec::new()),
            _ => (
                self.vips(kind, &spec, service),
                self.ports(kind, headless, &spec),
            ),
        };
        let internal = self.pool("internalTrafficPolicy", &spec.internal_traffic_policy);
        let external = self.pool("externalTrafficPolicy", &spec.external_traffic_policy);
        let source_ranges = self.source_ranges(kind, &spec);
        let affinity_seconds = self.affinity(&spec);
        self.distribution(&spec);
        gaps::class(kind, &spec, &mut self.report);
        gaps::address(kind, &spec, &vips, &mut self.report);
        ServiceSpec {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind,
            headless,
            external_name: match kind {
                ServiceType::ExternalName => spec.external_name.clone(),
                _ => None,
            },
            vips,
            ports,
            port_ranges: ranges::port_ranges(notes, &mut self.report),
            port_ranges_place: self.place(annotations::field(ranges::PORT_RANGES)),
            internal,
            external,
            affinity_seconds,
            source_ranges,
            health_check_node_port: self.health_check_node_port(kind, external, &spec),
            load_balancer_class: spec.load_balancer_class.clone(),
            selector: spec.selector.clone().unwrap_or_default(),
            publish_not_ready_addresses: spec.publish_not_ready_addresses.unwrap_or_default(),
            policies: Policies::read(notes, &mut self.report),
            policy: None,
        }
    }

    fn kind(&mut self, spec: &api::ServiceSpec) -> ServiceType {
        match spec.type_.as_deref() {
            None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some("ExternalName") => {
                let note = "type ExternalName is only a DNS name; there is nothing to serve";
                self.report.note(note);
                ServiceType::ExternalName
            }
            Some(other) => {
                let message =
                    format!("{other:?} is not a type; use ClusterIP, NodePort or LoadBalancer");
                self.report.refuse("spec.type", message);
                ServiceType::ClusterIp
            }
        }
    }

    fn place(&self, field: String) -> Place {
        Place {
            line: self.lines.line(&field),
            field,
        }
    }
}

/// Whether it has no ClusterIP on purpose.
fn is_headless(spec: &api::ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

#[cfg(test)]
mod tests;
