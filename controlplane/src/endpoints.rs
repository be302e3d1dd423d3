//! EndpointSlices, checked; which endpoints of them serve is for [`choice`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as api;
use sluice_conf::Protocol;
use sluice_conf::table::unusable;

use crate::object::{Checked, Report, is_label, is_subdomain};
use crate::service::protocol;
use crate::{address, annotations};

pub mod choice;

/// The label that joins a slice to its Service (the EndpointSlice API).
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Service that it belongs to.
    pub service: Option<String>,
    /// Ports that every endpoint listens on.
    pub ports: Vec<SlicePort>,
    /// Endpoints of both families.
    pub endpoints: Vec<Endpoint>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name; empty when it has none.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// Its conditions.
    pub conditions: Conditions,
    /// Node, when named.
    pub node: Option<String>,
    /// Zone, when named.
    pub zone: Option<String>,
    /// Pod that it stands for, when named, in the namespace of the slice.
    pub pod: Option<String>,
    /// Own host name, under which DNS knows it.
    pub hostname: Option<String>,
    /// Priority; 0 is first.
    pub tier: u16,
    /// Share of new connections.
    pub weight: u16,
    /// Whom it is meant for.
    pub hints: Hints,
}

/// Topology hints of an endpoint (discovery/v1 EndpointHints); an empty list is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Nodes.
    pub nodes: Vec<String>,
    /// Zones.
    pub zones: Vec<String>,
}

/// Conditions of an endpoint with the defaults filled in (discovery/v1 EndpointConditions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// New connections are welcome.
    pub ready: bool,
    /// Answers, ready or not.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
}

/// Checks a slice named `namespace/name`.
pub fn check(namespace: &str, name: &str, slice: &api::EndpointSlice) -> Checked<Slice> {
    let mut report = Report::default();
    if !is_label(namespace) {
        let message = format!("{namespace:?} is not a name; use up to 63 of a-z, 0-9 and -");
        report.refuse("metadata.namespace", message);
    }
    if !is_subdomain(name) {
        let message = format!("{name:?} is not a name; use a-z, 0-9, - and . (RFC 1123)");
        report.refuse("metadata.name", message);
    }
    let labels = slice.metadata.labels.as_ref();
    let service = labels.and_then(|labels| labels.get(SERVICE_LABEL)).cloned();
    if service.as_deref().is_none_or(str::is_empty) {
        report.note(format!(
            "has no label {SERVICE_LABEL} and serves no Service"
        ));
    }
    let annotations = &slice.metadata.annotations;
    annotations::guard(
        annotations,
        "EndpointSlice",
        &[annotations::WEIGHTS, annotations::TIER],
        &mut report,
    );
    let weights = annotations::weights(annotations, &mut report);
    let tier = annotations::tier(annotations, &mut report);
    let endpoints = endpoints(slice, tier, &weights, &mut report);
    let listed: BTreeSet<IpAddr> = endpoints.iter().map(|e| e.address).collect();
    for address in weights.keys().filter(|address| !listed.contains(address)) {
        let message = format!("{address} is not an endpoint of this slice");
        report.warn(annotations::field(annotations::WEIGHTS), message);
    }
    let ports = ports(slice, &mut report);
    report.finish(Slice {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        service,
        ports,
        endpoints,
    })
}

fn ports(slice: &api::EndpointSlice, report: &mut Report) -> Vec<SlicePort> {
    let mut ports: Vec<SlicePort> = Vec::new();
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        let field = format!("ports[{index}]");
        let protocol = match protocol(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(message) => {
                report.refuse(format!("{field}.protocol"), message);
                continue;
            }
        };
        // A slice may leave the port open; such a port is nobody's (as in kube-proxy).
        let Some(number) = port.port else { continue };
        let Some(number) = u16::try_from(number).ok().filter(|port| *port > 0) else {
            let message = match number {
                0 => "is 0; use 1 to 65535".to_owned(),
                _ => format!("{number} is not a port; use 1 to 65535"),
            };
            report.refuse(format!("{field}.port"), message);
            continue;
        };
        let name = port.name.clone().unwrap_or_default();
        let same = |p: &SlicePort| p.name == name && p.protocol == protocol;
        if ports.iter().any(same) {
            report.refuse(format!("{field}.name"), format!("{name:?} is listed twice"));
        }
        ports.push(SlicePort {
            name,
            protocol,
            port: number,
        });
    }
    ports
}

fn endpoints(
    slice: &api::EndpointSlice,
    tier: u16,
    weights: &BTreeMap<IpAddr, u16>,
    report: &mut Report,
) -> Vec<Endpoint> {
    match slice.address_type.as_str() {
        "IPv4" | "IPv6" => {}
        "FQDN" => {
            report.note("endpoints that are host names are not served");
            return Vec::new();
        }
        "" => {
            report.refuse("addressType", "is missing; use IPv4 or IPv6");
            return Vec::new();
        }
        other => {
            let message = format!("{other:?} is not possible; use IPv4 or IPv6");
            report.refuse("addressType", message);
            return Vec::new();
        }
    }
    let written = slice.endpoints.as_deref().unwrap_or_default();
    let mut endpoints = Vec::with_capacity(written.len());
    for (index, endpoint) in written.iter().enumerate() {
        // Of several addresses only the first is used (as in kube-proxy).
        let field = format!("endpoints[{index}].addresses[0]");
        let Some(address) = endpoint.addresses.first() else {
            report.refuse(field, "is missing; every endpoint needs an address");
            continue;
        };
        if let Some(address) = address_of(&field, address, &slice.address_type, report) {
            endpoints.push(Endpoint {
                address,
                conditions: Conditions::of(endpoint.conditions.as_ref()),
                node: endpoint.node_name.clone(),
                zone: endpoint.zone.clone(),
                pod: pod(endpoint),
                hostname: endpoint.hostname.clone(),
                tier,
                weight: weights.get(&address).copied().unwrap_or(1),
                hints: Hints::of(endpoint.hints.as_ref()),
            });
        }
    }
    endpoints
}

fn pod(endpoint: &api::Endpoint) -> Option<String> {
    let target = endpoint.target_ref.as_ref()?;
    (target.kind.as_deref() == Some("Pod")).then(|| target.name.clone())?
}

fn address_of(field: &str, text: &str, family: &str, report: &mut Report) -> Option<IpAddr> {
    let address = match address::address(text) {
        Some(address) if address.is_ipv4() == (family == "IPv4") => address,
        _ => {
            report.refuse(field, format!("{text:?} is not an {family} address"));
            return None;
        }
    };
    match unusable(address) {
        None => Some(address),
        Some(why) => {
            let message = format!("{address} is {why}; this endpoint is left out");
            report.warn(field, message);
            None
        }
    }
}

impl Hints {
    fn of(hints: Option<&api::EndpointHints>) -> Self {
        let nodes = hints.and_then(|hints| hints.for_nodes.as_deref());
        let zones = hints.and_then(|hints| hints.for_zones.as_deref());
        Self {
            nodes: nodes
                .into_iter()
                .flatten()
                .map(|n| n.name.clone())
                .collect(),
            zones: zones
                .into_iter()
                .flatten()
                .map(|z| z.name.clone())
                .collect(),
        }
    }
}

impl Conditions {
    fn of(conditions: Option<&api::EndpointConditions>) -> Self {
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        Self {
            ready,
            serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
            terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        }
    }

    /// How much may be sent there; decides between two slices that list the same endpoint.
    fn rank(self) -> (bool, bool, bool) {
        (self.ready, self.serving, !self.terminating)
    }
}

#[cfg(test)]
mod tests;
