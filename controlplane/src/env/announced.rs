//! What a Service says of itself in environment variables.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use sluice_conf::Protocol;

use super::{MASTER_NAME, MASTER_NAMESPACE, Variable};
use crate::object::NamespacedName;
use crate::service;

/// What workloads of some namespaces are told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcements {
    /// Services of these namespaces, and the one that everybody is told of.
    pub services: Vec<Announced>,
    /// Those of the namespaces that there are.
    pub namespaces: BTreeSet<String>,
}

/// A Service with a ClusterIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its first ClusterIP, as it is written.
    pub cluster_ip: String,
    /// Its ports in order, at least one.
    pub ports: Vec<AnnouncedPort>,
}

/// A port of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedPort {
    /// Name; empty when it has none.
    pub name: String,
    /// Port that clients use.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Announced {
    /// What is announced of a Service; `None` for one without a ClusterIP or without a port.
    pub fn of(service: &core::Service) -> Option<Self> {
        let name = NamespacedName::of(&service.metadata);
        let spec = service.spec.as_ref()?;
        let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
        if matches!(cluster_ip, "" | "None") {
            return None;
        }
        let ports = spec.ports.iter().flatten().filter_map(port);
        let ports: Vec<AnnouncedPort> = ports.collect();
        (!ports.is_empty()).then(|| Self {
            namespace: name.namespace,
            name: name.name,
            cluster_ip: cluster_ip.to_owned(),
            ports,
        })
    }

    /// Whether every workload is told of it.
    pub fn is_master(&self) -> bool {
        self.namespace == MASTER_NAMESPACE && self.name == MASTER_NAME
    }

    fn url(&self, port: &AnnouncedPort) -> String {
        let (address, number) = (&self.cluster_ip, port.port);
        let scheme = scheme(port.protocol);
        match address.contains(':') {
            true => format!("{scheme}://[{address}]:{number}"),
            false => format!("{scheme}://{address}:{number}"),
        }
    }
}

fn port(port: &core::ServicePort) -> Option<AnnouncedPort> {
    Some(AnnouncedPort {
        name: port.name.clone().unwrap_or_default(),
        port: u16::try_from(port.port).ok()?,
        protocol: service::protocol(port.protocol.as_deref()).ok()?,
    })
}

const fn scheme(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The variables of all of these Services, in their order.
pub fn variables(services: &[Announced]) -> Vec<Variable> {
    services.iter().flat_map(of_one).collect()
}

/// The variables of one Service: its address and ports, then what Docker's links were called.
pub(super) fn of_one(service: &Announced) -> Vec<Variable> {
    let name = in_upper_case(&service.name);
    let (address, first) = (&service.cluster_ip, service.ports.first());
    let mut all = vec![Variable::new(format!("{name}_SERVICE_HOST"), address)];
    let mut add = |name: String, value: String| all.push(Variable { name, value });
    if let Some(first) = first {
        add(format!("{name}_SERVICE_PORT"), first.port.to_string());
    }
    for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
        let of_port = in_upper_case(&port.name);
        let number = port.port.to_string();
        add(format!("{name}_SERVICE_PORT_{of_port}"), number);
    }
    if let Some(first) = first {
        add(format!("{name}_PORT"), service.url(first));
    }
    for port in &service.ports {
        let protocol = scheme(port.protocol);
        let link = format!("{name}_PORT_{}_{}", port.port, in_upper_case(protocol));
        add(link.clone(), service.url(port));
        add(format!("{link}_PROTO"), protocol.to_owned());
        add(format!("{link}_PORT"), port.port.to_string());
        add(format!("{link}_ADDR"), address.clone());
    }
    all
}

fn in_upper_case(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn announced(text: &str) -> Option<Announced> {
        let (services, _) = testing::objects(text);
        Announced::of(&services[0])
    }

    #[test]
    fn only_services_with_a_cluster_ip_are_announced() {
        let text = testing::service("web", "10.96.0.7");
        let service = announced(&text).unwrap();
        assert_eq!((&*service.namespace, &*service.name), ("default", "web"));
        assert_eq!(announced(&text.replace("10.96.0.7", "None")), None);
        assert_eq!(announced(&text.replace("10.96.0.7", "''")), None);
        let text = text.replace("  clusterIP: 10.96.0.7\n  ports:\n  - port: 80\n", "");
        assert_eq!(announced(&text.replace("spec:", "spec: {}")), None);
    }

    #[test]
    fn the_address_is_announced_as_it_is_written() {
        let text = testing::service("web", "'2001:DB8::7'");
        let all = variables(&[announced(&text).unwrap()]);
        assert_eq!(all[0], Variable::new("WEB_SERVICE_HOST", "2001:DB8::7"));
        assert_eq!(all[2], Variable::new("WEB_PORT", "tcp://[2001:DB8::7]:80"));
    }

    #[test]
    fn a_port_that_cannot_be_is_not_announced() {
        let text = testing::service("web", "10.96.0.7");
        assert_eq!(announced(&text.replace("port: 80", "port: 65536")), None);
    }
}
