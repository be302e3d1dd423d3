//! EndpointSlices, checked; and which endpoints of them serve a port of a Service.
//!
//! Guarantees: choice and order depend on the slices alone, not on their arrival; an endpoint in
//! two slices counts once. Weights come from the slices, health checks may narrow the choice
//! later: this module only reads conditions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1 as api;
use sluice_conf::table::unusable;
use sluice_conf::{Backend, BackendState};

use crate::annotations;
use crate::object::{Checked, Report, is_label, is_subdomain};
use crate::service::PortProtocol;

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
    pub protocol: PortProtocol,
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
    /// Share of new connections.
    pub weight: u16,
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
        &[annotations::WEIGHTS],
        &mut report,
    );
    let weights = annotations::weights(annotations, &mut report);
    let endpoints = endpoints(slice, &weights, &mut report);
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
        let protocol = PortProtocol::parse(port.protocol.as_deref());
        let protocol = match protocol {
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
    weights: &BTreeMap<IpAddr, u16>,
    report: &mut Report,
) -> Vec<Endpoint> {
    match slice.address_type.as_str() {
        "IPv4" => {}
        "IPv6" => report.note("IPv6 is not served yet, skipping its endpoints"),
        "FQDN" => {
            report.note("endpoints that are host names are not served");
            return Vec::new();
        }
        "" => {
            report.refuse("addressType", "is missing; use IPv4");
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
                weight: weights.get(&address).copied().unwrap_or(1),
            });
        }
    }
    endpoints
}

fn address_of(field: &str, text: &str, family: &str, report: &mut Report) -> Option<IpAddr> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) if address.is_ipv4() == (family == "IPv4") => address,
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

/// Backends of one port of a Service, sorted; `slices` are the Service's, sorted by name.
///
/// New connections go to what is ready; when nothing is, to what still serves while it
/// terminates (KEP-1669). What serves otherwise keeps its connections.
pub fn backends(slices: &[&Slice], name: &str, protocol: PortProtocol) -> Vec<Backend> {
    let found = candidates(slices, name, protocol);
    let any_ready = found.values().any(|endpoint| endpoint.conditions.ready);
    found
        .into_iter()
        .filter_map(|(address, endpoint)| {
            let Conditions {
                ready,
                serving,
                terminating,
            } = endpoint.conditions;
            let state = match (ready, serving) {
                (true, _) => BackendState::Active,
                (false, true) if terminating && !any_ready => BackendState::Active,
                (false, true) => BackendState::Draining,
                (false, false) => return None,
            };
            Some(Backend {
                address: address.ip(),
                port: address.port(),
                weight: endpoint.weight,
                state,
                local: false,
            })
        })
        .collect()
}

fn candidates<'a>(
    slices: &[&'a Slice],
    name: &str,
    protocol: PortProtocol,
) -> BTreeMap<SocketAddr, &'a Endpoint> {
    let mut found: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for slice in slices {
        let matching = |port: &&SlicePort| port.name == name && port.protocol == protocol;
        for port in slice.ports.iter().filter(matching) {
            for endpoint in slice.endpoints.iter().filter(|e| e.address.is_ipv4()) {
                let address = SocketAddr::new(endpoint.address, port.port);
                let best = found.entry(address).or_insert(endpoint);
                if endpoint.conditions.rank() > best.conditions.rank() {
                    *best = endpoint;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
