//! The ports that a Service writes.

use std::collections::HashMap;

use k8s_openapi::api::core::v1 as api;

use sluice_conf::Pool;

use super::{Checker, ServicePort, ServiceType, protocol};
use crate::object::is_label;

impl Checker<'_> {
    pub(super) fn ports(
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
        let protocol = match protocol(port.protocol.as_deref()) {
            Ok(protocol) => protocol,
            Err(message) => {
                self.report.refuse(format!("{field}.protocol"), message);
                return None;
            }
        };
        let number = self.number(format!("{field}.port"), port.port)?;
        let node_port = match port.node_port {
            // The API server writes 0 for "none".
            None | Some(0) => None,
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

    /// `healthCheckNodePort`; 0 is none. It exists where clients would be lost at a gateway without
    /// local endpoints and nowhere else (core/v1 ServiceSpec).
    pub(super) fn health_check_node_port(
        &mut self,
        kind: ServiceType,
        external: Pool,
        spec: &api::ServiceSpec,
    ) -> Option<u16> {
        let field = "spec.healthCheckNodePort";
        let written = spec.health_check_node_port.filter(|port| *port != 0)?;
        let port = self.number(field.to_owned(), written)?;
        if kind == ServiceType::LoadBalancer && external == Pool::Local {
            return Some(port);
        }
        let message = "has no effect: it needs type LoadBalancer and externalTrafficPolicy Local";
        self.report.warn(field, message);
        None
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
                let text = format!("{}/{}", port.port, protocol);
                let message = format!("{text} is the port of {first} already");
                self.report.refuse(format!("{place}.port"), message);
            }
            let Some(node_port) = port.node_port else {
                continue;
            };
            if let Some(first) = node_ports.insert((node_port, protocol), place) {
                let text = format!("{node_port}/{}", protocol);
                let message = format!("{text} is the node port of {first} already");
                self.report.refuse(format!("{place}.nodePort"), message);
            }
        }
    }
}
