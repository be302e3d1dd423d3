//! `spec.ports` of a Service (core validation `validateServicePort`).

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::cluster_ips::is_headless;
use super::mistakes::{Mistakes, quoted};
use super::names::{LABEL, PORT_NAME, QUALIFIED};

/// Protocols of ports.
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn check(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let kind = spec.type_.as_deref();
    if ports.is_empty() && !is_headless(spec) && kind != Some("ExternalName") {
        let advice = "a Service needs a port, unless it is headless or an ExternalName";
        mistakes.missing("spec.ports", advice);
    }
    for (index, port) in ports.iter().enumerate() {
        one(mistakes, index, port);
        let node_port = port.node_port.unwrap_or_default();
        if node_port != 0 && kind == Some("ClusterIP") {
            let field = format_args!("spec.ports[{index}].nodePort");
            let message = "is not possible for type ClusterIP; use type NodePort";
            mistakes.forbidden(field, message);
        }
    }
    unique(mistakes, ports);
}

fn one(mistakes: &mut Mistakes, index: usize, port: &ServicePort) {
    let path = format!("spec.ports[{index}]");
    mistakes.port(format_args!("{path}.port"), port.port);
    let protocol = port.protocol.as_deref();
    mistakes.given(format_args!("{path}.protocol"), protocol, &PROTOCOLS);
    let field = format_args!("{path}.targetPort");
    match &port.target_port {
        None => mistakes.port(field, 0),
        Some(IntOrString::Int(number)) => mistakes.port(field, *number),
        Some(IntOrString::String(name)) => mistakes.form(field, name, &PORT_NAME),
    }
    if let Some(protocol) = &port.app_protocol {
        mistakes.form(format_args!("{path}.appProtocol"), protocol, &QUALIFIED);
    }
}

/// What no two ports may share, and what tells them apart.
fn unique(mistakes: &mut Mistakes, ports: &[ServicePort]) {
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let protocol = port.protocol.as_deref().unwrap_or_default();
        match port.name.as_deref().filter(|name| !name.is_empty()) {
            None if ports.len() > 1 => {
                let advice = "every port needs a name when there are several";
                mistakes.missing(format_args!("{path}.name"), advice);
            }
            None => {}
            Some(name) => {
                mistakes.form(format_args!("{path}.name"), name, &LABEL);
                if !names.insert(name) {
                    mistakes.repeated(format_args!("{path}.name"), quoted(name));
                }
            }
        }
        if !numbers.insert((protocol, port.port)) {
            mistakes.repeated(&path, format_args!("{}/{}", port.port, quoted(protocol)));
        }
        let node_port = port.node_port.unwrap_or_default();
        if node_port != 0 && !node_ports.insert((protocol, node_port)) {
            let value = format_args!("{node_port}/{}", quoted(protocol));
            mistakes.repeated(format_args!("{path}.nodePort"), value);
        }
    }
}
