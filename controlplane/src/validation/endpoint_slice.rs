//! An EndpointSlice (discovery validation `ValidateEndpointSliceCreate`,
//! `ValidateEndpointSliceUpdate`).

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use super::addresses::{self, FAMILIES};
use super::metadata;
use super::mistakes::{Mistakes, quoted};
use super::names::{Form, HOST, LABEL, LABEL_VALUE, QUALIFIED, SUBDOMAIN};
use super::ports::PROTOCOLS;
use crate::field::FieldError;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;

const TYPES: [&str; 3] = ["FQDN", FAMILIES[0], FAMILIES[1]];

/// The zone has a field of its own.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What is wrong with an EndpointSlice that is new; nothing when it is valid.
pub fn endpoint_slice_create(slice: &EndpointSlice) -> Vec<FieldError> {
    let mut mistakes = Mistakes::default();
    whole(&mut mistakes, slice);
    mistakes.into_errors()
}

/// What is wrong with an EndpointSlice that replaces `old`, which was valid; nothing when it may.
pub fn endpoint_slice_update(slice: &EndpointSlice, old: &EndpointSlice) -> Vec<FieldError> {
    let mut mistakes = Mistakes::default();
    whole(&mut mistakes, slice);
    if slice.address_type != old.address_type {
        let (new, old) = (quoted(&slice.address_type), quoted(&old.address_type));
        let message = format!("is {new} and was {old}; it may not change, create another slice");
        mistakes.invalid("addressType", message);
    }
    mistakes.into_errors()
}

fn whole(mistakes: &mut Mistakes, slice: &EndpointSlice) {
    metadata::check(mistakes, &slice.metadata, &SUBDOMAIN);
    mistakes.given("addressType", Some(&slice.address_type), &TYPES);
    ports(mistakes, slice.ports.as_deref().unwrap_or_default());
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        return mistakes.too_many("endpoints", endpoints.len(), MAX_ENDPOINTS);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = format!("endpoints[{index}]");
        of(mistakes, &path, endpoint, &slice.address_type);
    }
}

fn ports(mistakes: &mut Mistakes, ports: &[EndpointPort]) {
    if ports.len() > MAX_PORTS {
        return mistakes.too_many("ports", ports.len(), MAX_PORTS);
    }
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("ports[{index}]");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            mistakes.form(format_args!("{path}.name"), name, &LABEL);
        }
        if !names.insert(name) {
            mistakes.repeated(format_args!("{path}.name"), quoted(name));
        }
        // An empty protocol is one that does not exist, not one that is missing.
        let protocol = format_args!("{path}.protocol");
        match &port.protocol {
            None => mistakes.given(protocol, None, &PROTOCOLS),
            Some(value) => mistakes.one_of(protocol, value, &PROTOCOLS),
        }
        if let Some(protocol) = &port.app_protocol {
            mistakes.form(format_args!("{path}.appProtocol"), protocol, &QUALIFIED);
        }
    }
}

fn of(mistakes: &mut Mistakes, path: &str, endpoint: &Endpoint, kind: &str) {
    each_address(mistakes, path, &endpoint.addresses, kind);
    if let Some(node) = &endpoint.node_name {
        mistakes.form(format_args!("{path}.nodeName"), node, &SUBDOMAIN);
    }
    if let Some(hostname) = &endpoint.hostname {
        mistakes.form(format_args!("{path}.hostname"), hostname, &LABEL);
    }
    if let Some(topology) = &endpoint.deprecated_topology {
        let field = format!("{path}.deprecatedTopology");
        if topology.len() > MAX_TOPOLOGY {
            mistakes.too_many(&field, topology.len(), MAX_TOPOLOGY);
        }
        metadata::labels(mistakes, &field, Some(topology));
        if topology.contains_key(ZONE) {
            let message = "is not possible; write the zone to the field zone";
            mistakes.internal(format_args!("{field}[{ZONE}]"), message);
        }
    }
    if let Some(hints) = &endpoint.hints {
        self::hints(mistakes, path, hints);
    }
}

fn each_address(mistakes: &mut Mistakes, path: &str, addresses: &[String], kind: &str) {
    let field = format!("{path}.addresses");
    match addresses.len() {
        0 => mistakes.missing(&field, "an endpoint needs an address"),
        number if number > MAX_ADDRESSES => {
            return mistakes.too_many(&field, number, MAX_ADDRESSES);
        }
        _ => {}
    }
    for (index, text) in addresses.iter().enumerate() {
        let field = format_args!("{field}[{index}]");
        match kind {
            "FQDN" => mistakes.named(field, Some(text), &HOST),
            family if FAMILIES.contains(&family) => {
                addresses::of_family(mistakes, field, text, family);
            }
            // The type is wrong already.
            _ => {}
        }
    }
}

fn hints(mistakes: &mut Mistakes, path: &str, hints: &EndpointHints) {
    let zones = hints
        .for_zones
        .iter()
        .flatten()
        .map(|zone| zone.name.as_str());
    let zones: Vec<&str> = zones.collect();
    names(
        mistakes,
        &format!("{path}.hints.forZones"),
        &zones,
        &LABEL_VALUE,
    );
    let nodes = hints
        .for_nodes
        .iter()
        .flatten()
        .map(|node| node.name.as_str());
    let nodes: Vec<&str> = nodes.collect();
    names(
        mistakes,
        &format!("{path}.hints.forNodes"),
        &nodes,
        &SUBDOMAIN,
    );
}

fn names(mistakes: &mut Mistakes, field: &str, names: &[&str], form: &Form) {
    if names.len() > MAX_HINTS {
        return mistakes.too_many(field, names.len(), MAX_HINTS);
    }
    let mut seen = HashSet::new();
    for (index, name) in names.iter().copied().enumerate() {
        let field = format_args!("{field}[{index}].name");
        mistakes.form(field, name, form);
        if !seen.insert(name) {
            mistakes.repeated(field, quoted(name));
        }
    }
}
