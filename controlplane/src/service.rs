//! A Kubernetes Service, checked and boiled down to what the gateway serves.
//!
//! Guarantees: a [`ServiceSpec`] holds only ports, names and addresses that can reach the service
//! table; everything else was named with its field. It looks at one Service alone: what two of
//! them may not share is for the compiler.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use sluice_conf::table::unusable;
use sluice_conf::{BackendGone, FrontendKind, Protocol, SourceNat};

use crate::annotations;
use crate::object::{Checked, Lines, Report, is_label};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Type.
    pub kind: ServiceType,
    /// Without a ClusterIP on purpose: clients use the endpoints themselves.
    pub headless: bool,
    /// Addresses that clients use, of both families, each once.
    pub vips: Vec<Vip>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Source address translation, when the Service asks for one.
    pub source_nat: Option<SourceNat>,
    /// What happens to connections of a backend that left, when the Service asks for something.
    pub backend_gone: Option<BackendGone>,
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
    /// Protocol as written.
    pub protocol: PortProtocol,
    /// Port that clients use.
    pub port: u16,
    /// Port on the gateway's own addresses.
    pub node_port: Option<u16>,
    /// The entry of `spec.ports`.
    pub place: Place,
}

/// Protocols that the Kubernetes API knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, which the gateway does not serve.
    Sctp,
}

impl PortProtocol {
    /// The protocol of a manifest; absent means TCP.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("" | "TCP") => Ok(PortProtocol::Tcp),
            Some("UDP") => Ok(PortProtocol::Udp),
            Some("SCTP") => Ok(PortProtocol::Sctp),
            Some(other) => Err(format!("{other:?} is not a protocol; use TCP, UDP or SCTP")),
        }
    }

    /// As written in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            PortProtocol::Tcp => "TCP",
            PortProtocol::Udp => "UDP",
            PortProtocol::Sctp => "SCTP",
        }
    }

    /// The protocol for the dataplane, when it serves it.
    pub const fn served(self) -> Option<Protocol> {
        match self {
            PortProtocol::Tcp => Some(Protocol::Tcp),
            PortProtocol::Udp => Some(Protocol::Udp),
            PortProtocol::Sctp => None,
        }
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
        let known = [
            annotations::SOURCE_NAT,
            annotations::BACKEND_GONE,
            annotations::LOAD_BALANCER_IPS,
        ];
        annotations::guard(notes, "Service", &known, &mut self.report);
        let kind = self.kind(&spec);
        let headless = is_headless(&spec);
        let vips = match kind {
            ServiceType::ExternalName => Vec::new(),
            _ => self.vips(kind, &spec, service),
        };
        let ports = match kind {
            ServiceType::ExternalName => Vec::new(),
            _ => self.ports(kind, headless, &spec),
        };
        gaps::features(kind, &spec, &mut self.report);
        gaps::address(kind, &spec, &vips, &mut self.report);
        ServiceSpec {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind,
            headless,
            vips,
            ports,
            source_nat: annotations::source_nat(notes, &mut self.report),
            backend_gone: annotations::backend_gone(notes, &mut self.report),
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

    // === Addresses ===

    fn vips(
        &mut self,
        kind: ServiceType,
        spec: &api::ServiceSpec,
        service: &api::Service,
    ) -> Vec<Vip> {
        let mut written = cluster_ips(spec);
        if kind == ServiceType::LoadBalancer {
            written.extend(load_balancer_ips(spec, service));
        } else {
            self.warn_of_lost_addresses(kind, spec, service);
        }
        let mut vips: Vec<Vip> = Vec::new();
        for (field, text, kind) in written {
            if let Some(address) = self.address(&field, &text)
                && !vips.iter().any(|vip| vip.address == address)
            {
                let place = self.place(field);
                vips.push(Vip {
                    address,
                    kind,
                    place,
                });
            }
        }
        let skipped: Vec<_> = vips.iter().filter(|vip| vip.address.is_ipv6()).collect();
        if !skipped.is_empty() {
            let list: Vec<_> = skipped.iter().map(|vip| vip.address.to_string()).collect();
            let note = format!("IPv6 is not served yet, skipping {}", list.join(", "));
            self.report.note(note);
        }
        vips
    }

    fn warn_of_lost_addresses(
        &mut self,
        kind: ServiceType,
        spec: &api::ServiceSpec,
        service: &api::Service,
    ) {
        let name = annotations::LOAD_BALANCER_IPS;
        let annotated = annotations::get(&service.metadata.annotations, name).is_some();
        let written = spec.load_balancer_ip.as_deref().unwrap_or_default();
        let lost = [
            (annotations::field(name), annotated),
            ("spec.loadBalancerIP".to_owned(), !written.is_empty()),
        ];
        for (field, _) in lost.into_iter().filter(|(_, lost)| *lost) {
            let kind = kind.as_str();
            let message = format!("has no effect for type {kind}; it needs type LoadBalancer");
            self.report.warn(field, message);
        }
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        match text.parse::<IpAddr>() {
            Ok(address) => match unusable(address) {
                None => Some(address),
                Some(why) => {
                    let message = format!("{address} is {why}; clients could never reach it");
                    self.report.refuse(field, message);
                    None
                }
            },
            Err(_) => {
                self.report
                    .refuse(field, format!("{text:?} is not an IP address"));
                None
            }
        }
    }

    fn place(&self, field: String) -> Place {
        Place {
            line: self.lines.line(&field),
            field,
        }
    }

    // === Ports ===

    fn ports(
        &mut self,
        kind: ServiceType,
        headless: bool,
        spec: &api::ServiceSpec,
    ) -> Vec<ServicePort> {
        let written = spec.ports.as_deref().unwrap_or_default();
        if written.is_empty() && !headless && !self.report.refuses() {
            self.report
                .refuse("spec.ports", "is empty; a Service needs a port");
        }
        let mut ports = Vec::with_capacity(written.len());
        for (index, port) in written.iter().enumerate() {
            let field = format!("spec.ports[{index}]");
            if port.name.as_deref().is_none_or(str::is_empty) && written.len() > 1 {
                let message = "is missing; every port needs a name when there are several";
                self.report.refuse(format!("{field}.name"), message);
            }
            if let Some(port) = self.port(kind, &field, port) {
                ports.push(port);
            }
        }
        self.unique(&ports);
        ports
    }

    fn port(
        &mut self,
        kind: ServiceType,
        field: &str,
        port: &api::ServicePort,
    ) -> Option<ServicePort> {
        let name = port.name.clone().unwrap_or_default();
        if !name.is_empty() && !is_label(&name) {
            let message = format!("{name:?} is not a name; use up to 63 of a-z, 0-9 and -");
            self.report.refuse(format!("{field}.name"), message);
        }
        let protocol = match PortProtocol::parse(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(message) => {
                self.report.refuse(format!("{field}.protocol"), message);
                return None;
            }
        };
        if protocol == PortProtocol::Sctp {
            let message = "SCTP is not served; this port is left out";
            self.report.warn(format!("{field}.protocol"), message);
        }
        let number = self.number(format!("{field}.port"), port.port)?;
        let node_port = match port.node_port {
            // The API server writes 0 for "none".
            None | Some(0) => {
                if kind == ServiceType::NodePort {
                    let message = "is missing; node ports are not allocated, so write one";
                    self.report.warn(format!("{field}.nodePort"), message);
                }
                None
            }
            Some(number) => Some(self.number(format!("{field}.nodePort"), number)?),
        };
        if node_port.is_some() && !kind.has_node_ports() {
            let message = format!("is not possible for type {}; use NodePort", kind.as_str());
            self.report.refuse(format!("{field}.nodePort"), message);
        }
        Some(ServicePort {
            name,
            protocol,
            port: number,
            node_port,
            place: self.place(field.to_owned()),
        })
    }

    fn number(&mut self, field: String, number: i32) -> Option<u16> {
        match u16::try_from(number) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                let message = match number {
                    // The API's types cannot tell a port of 0 from one that is not written.
                    0 => "is missing or 0; use 1 to 65535".to_owned(),
                    _ => format!("{number} is not a port; use 1 to 65535"),
                };
                self.report.refuse(field, message);
                None
            }
        }
    }

    fn unique(&mut self, ports: &[ServicePort]) {
        let mut names = HashMap::new();
        let mut numbers = HashMap::new();
        let mut node_ports = HashMap::new();
        for port in ports {
            let (place, protocol) = (&port.place.field, port.protocol);
            if let Some(first) = names.insert(&port.name, place).filter(|_| ports.len() > 1) {
                let message = format!("{:?} is the name of {first} already", port.name);
                self.report.refuse(format!("{place}.name"), message);
            }
            if let Some(first) = numbers.insert((port.port, protocol), place) {
                let text = format!("{}/{}", port.port, protocol.as_str());
                let message = format!("{text} is the port of {first} already");
                self.report.refuse(format!("{place}.port"), message);
            }
            let Some(node_port) = port.node_port else {
                continue;
            };
            if let Some(first) = node_ports.insert((node_port, protocol), place) {
                let text = format!("{node_port}/{}", protocol.as_str());
                let message = format!("{text} is the node port of {first} already");
                self.report.refuse(format!("{place}.nodePort"), message);
            }
        }
    }
}

/// Whether it has no ClusterIP on purpose.
fn is_headless(spec: &api::ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

type Written = (String, String, FrontendKind);

fn cluster_ips(spec: &api::ServiceSpec) -> Vec<Written> {
    let first = spec
        .cluster_ip
        .iter()
        .map(|ip| ("spec.clusterIP".to_owned(), ip));
    let all = spec.cluster_ips.iter().flatten().enumerate();
    first
        .chain(all.map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip)))
        .filter(|(_, ip)| !ip.is_empty() && *ip != "None")
        .map(|(field, ip)| (field, ip.clone(), FrontendKind::ClusterIp))
        .collect()
}

fn load_balancer_ips(spec: &api::ServiceSpec, service: &api::Service) -> Vec<Written> {
    let mut written = Vec::new();
    let mut add = |field: String, ip: &str| {
        if !ip.is_empty() {
            written.push((field, ip.to_owned(), FrontendKind::LoadBalancer));
        }
    };
    if let Some(ip) = &spec.load_balancer_ip {
        add("spec.loadBalancerIP".to_owned(), ip);
    }
    let name = annotations::LOAD_BALANCER_IPS;
    let annotated = annotations::get(&service.metadata.annotations, name);
    for ip in annotated.into_iter().flat_map(|list| list.split(',')) {
        add(annotations::field(name), ip.trim());
    }
    let status = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_deref());
    for (index, entry) in ingress.unwrap_or_default().iter().enumerate() {
        // Proxy: the address belongs to a load balancer that must stay in the path (KEP-1860).
        let proxied = entry.ip_mode.as_deref() == Some("Proxy");
        if let Some(ip) = entry.ip.as_ref().filter(|_| !proxied) {
            add(format!("status.loadBalancer.ingress[{index}].ip"), ip);
        }
    }
    written
}

mod gaps;

#[cfg(test)]
mod tests;
