//! Kubernetes manifests as an operator writes them.

mod folder;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use sluice_conf::Protocol;

use crate::family::Family;
use crate::topology::Host;

pub use folder::Folder;

/// One port of a Service.
#[derive(Debug, Clone)]
pub struct Port {
    /// Name; empty for the only port.
    pub name: &'static str,
    /// Port that clients use.
    pub port: u16,
    /// Port of the endpoints.
    pub backend_port: u16,
    /// Port on the gateway's own addresses.
    pub node_port: Option<u16>,
    /// Protocol.
    pub protocol: Protocol,
}

/// One endpoint of a Service.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Node that it runs on.
    pub node: Option<&'static str>,
    /// Takes new connections.
    pub ready: bool,
    /// Still serves those it has.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
}

impl Endpoint {
    /// An endpoint that takes connections.
    pub fn ready(address: impl Into<IpAddr>) -> Self {
        Self {
            address: address.into(),
            node: None,
            ready: true,
            serving: true,
            terminating: false,
        }
    }

    /// An endpoint that only serves what it has.
    pub fn draining(address: impl Into<IpAddr>) -> Self {
        Self {
            address: address.into(),
            node: None,
            ready: false,
            serving: true,
            terminating: true,
        }
    }

    fn is_of(&self, family: Family) -> bool {
        Family::of(self.address) == family
    }
}

/// A Service in namespace `default` with an EndpointSlice for each family, in one file.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, and the file's.
    pub name: &'static str,
    /// Addresses inside the cluster, at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses outside; one makes it a LoadBalancer.
    pub load_balancers: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Weights of endpoints that differ from 1.
    pub weights: BTreeMap<IpAddr, u16>,
    /// Annotations of the Service.
    pub annotations: BTreeMap<&'static str, &'static str>,
    /// More lines of its `spec`.
    pub spec: Vec<&'static str>,
}

impl Service {
    /// A TCP Service on `load_balancer`, port 80, that every host serves on `backend_port` of its
    /// address of the same family.
    pub fn on(
        name: &'static str,
        load_balancer: impl Into<IpAddr>,
        backend_port: u16,
        hosts: &[Host],
    ) -> Self {
        let load_balancer = load_balancer.into();
        let family = Family::of(load_balancer);
        Self {
            name,
            cluster_ips: Vec::new(),
            load_balancers: vec![load_balancer],
            ports: vec![Port {
                name: "",
                port: 80,
                backend_port,
                node_port: None,
                protocol: Protocol::Tcp,
            }],
            endpoints: hosts
                .iter()
                .map(|host| Endpoint::ready(host.at(family)))
                .collect(),
            weights: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: Vec::new(),
        }
    }

    /// A TCP Service on the LoadBalancer addresses of both families, port 80, that every host serves
    /// on `backend_port` of both.
    pub fn dual(name: &'static str, backend_port: u16, hosts: &[Host]) -> Self {
        let mut service = Self::on(name, Family::V4.vip(), backend_port, hosts);
        let six = Self::on(name, Family::V6.vip(), backend_port, hosts);
        service.load_balancers.extend(six.load_balancers);
        service.endpoints.extend(six.endpoints);
        service
    }

    /// With another port and protocol for clients.
    pub fn port(mut self, port: u16, protocol: Protocol) -> Self {
        for each in &mut self.ports {
            (each.port, each.protocol) = (port, protocol);
        }
        self
    }

    /// With a ClusterIP too.
    pub fn cluster_ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.cluster_ips.push(address.into());
        self
    }

    /// With a node port too.
    pub fn node_port(mut self, port: u16) -> Self {
        for each in &mut self.ports {
            each.node_port = Some(port);
        }
        self
    }

    /// Whether backends see the client's address (`preserve`) or the gateway's (`masquerade`).
    pub fn source_nat(mut self, mode: &'static str) -> Self {
        self.annotations.insert("sluice.dev/source-nat", mode);
        self
    }

    /// What happens to connections of a backend that left: `keep`, `reset` or `drain=SECONDS`.
    pub fn backend_gone(mut self, policy: &'static str) -> Self {
        self.annotations.insert("sluice.dev/backend-gone", policy);
        self
    }

    /// With another weight for an endpoint.
    pub fn weight(mut self, address: impl Into<IpAddr>, weight: u16) -> Self {
        self.weights.insert(address.into(), weight);
        self
    }

    /// Without the endpoint of this address.
    pub fn without(mut self, address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        self.endpoints
            .retain(|endpoint| endpoint.address != address);
        self
    }

    /// With another annotation.
    pub fn annotated(mut self, name: &'static str, value: &'static str) -> Self {
        self.annotations.insert(name, value);
        self
    }

    /// With another line of `spec`.
    pub fn with(mut self, line: &'static str) -> Self {
        self.spec.push(line);
        self
    }

    /// All objects as YAML.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_service(&mut text);
        let families = Family::BOTH.into_iter().enumerate();
        for (number, family) in families.filter(|(index, family)| {
            // A Service without endpoints has an empty slice all the same.
            *index == 0 || self.endpoints.iter().any(|each| each.is_of(*family))
        }) {
            text.push_str("---\n");
            let _ = self.write_slice(&mut text, number + 1, family);
        }
        text
    }

    fn kind(&self) -> &'static str {
        if !self.load_balancers.is_empty() {
            "LoadBalancer"
        } else if self.ports.iter().any(|port| port.node_port.is_some()) {
            "NodePort"
        } else {
            "ClusterIP"
        }
    }

    fn write_service(&self, out: &mut String) -> std::fmt::Result {
        let name = self.name;
        writeln!(out, "apiVersion: v1\nkind: Service\nmetadata:")?;
        writeln!(out, "  name: {name}\n  namespace: default")?;
        write_annotations(
            out,
            self.annotations
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned())),
        )?;
        writeln!(out, "spec:\n  type: {}", self.kind())?;
        if let [first, ..] = self.cluster_ips.as_slice() {
            let all: Vec<_> = self
                .cluster_ips
                .iter()
                .map(|ip| format!("\"{ip}\""))
                .collect();
            writeln!(
                out,
                "  clusterIP: \"{first}\"\n  clusterIPs: [{}]",
                all.join(", ")
            )?;
            if all.len() > 1 {
                writeln!(out, "  ipFamilyPolicy: RequireDualStack")?;
            }
        }
        for line in &self.spec {
            writeln!(out, "  {line}")?;
        }
        writeln!(out, "  ports:")?;
        for port in &self.ports {
            writeln!(out, "  - port: {}", port.port)?;
            writeln!(out, "    targetPort: {}", port.backend_port)?;
            writeln!(out, "    protocol: {}", port.protocol)?;
            if !port.name.is_empty() {
                writeln!(out, "    name: {}", port.name)?;
            }
            if let Some(node_port) = port.node_port {
                writeln!(out, "    nodePort: {node_port}")?;
            }
        }
        if !self.load_balancers.is_empty() {
            writeln!(out, "status:\n  loadBalancer:\n    ingress:")?;
        }
        self.load_balancers
            .iter()
            .try_for_each(|address| writeln!(out, "    - ip: \"{address}\""))
    }

    fn write_slice(&self, out: &mut String, number: usize, family: Family) -> std::fmt::Result {
        let name = self.name;
        writeln!(
            out,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:"
        )?;
        writeln!(out, "  name: {name}-{number}\n  namespace: default")?;
        writeln!(out, "  labels:\n    kubernetes.io/service-name: {name}")?;
        let weights: Vec<String> = self
            .weights
            .iter()
            .filter(|(address, _)| Family::of(**address) == family)
            .map(|(address, weight)| format!("{address}={weight}"))
            .collect();
        if !weights.is_empty() {
            let weights = std::iter::once(("sluice.dev/weights", weights.join(",")));
            write_annotations(out, weights)?;
        }
        writeln!(out, "addressType: {family}\nports:")?;
        for port in &self.ports {
            writeln!(
                out,
                "- port: {}\n  protocol: {}",
                port.backend_port, port.protocol
            )?;
            writeln!(out, "  name: \"{}\"", port.name)?;
        }
        let mut endpoints = self
            .endpoints
            .iter()
            .filter(|each| each.is_of(family))
            .peekable();
        if endpoints.peek().is_none() {
            return writeln!(out, "endpoints: []");
        }
        writeln!(out, "endpoints:")?;
        for endpoint in endpoints {
            writeln!(out, "- addresses: [\"{}\"]", endpoint.address)?;
            if let Some(node) = endpoint.node {
                writeln!(out, "  nodeName: {node}")?;
            }
            writeln!(out, "  conditions:")?;
            writeln!(out, "    ready: {}", endpoint.ready)?;
            writeln!(out, "    serving: {}", endpoint.serving)?;
            writeln!(out, "    terminating: {}", endpoint.terminating)?;
        }
        Ok(())
    }
}

fn write_annotations<'a>(
    out: &mut String,
    annotations: impl Iterator<Item = (&'a str, String)>,
) -> std::fmt::Result {
    let mut annotations = annotations.peekable();
    if annotations.peek().is_some() {
        writeln!(out, "  annotations:")?;
    }
    annotations.try_for_each(|(key, value)| writeln!(out, "    {key}: \"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_written_as_kubernetes_writes_it() {
        let address = Family::V4.address(2, 11);
        let mut service = Service::on("web", Family::V4.vip(), 8080, &[])
            .node_port(30080)
            .source_nat("preserve")
            .weight(address, 3);
        service.endpoints.push(Endpoint::draining(address));
        let yaml = service.yaml();
        for part in [
            "  annotations:\n    sluice.dev/source-nat: \"preserve\"\nspec:\n  type: LoadBalancer\n",
            "  - port: 80\n    targetPort: 8080\n    protocol: TCP\n    nodePort: 30080\n",
            "    - ip: \"203.0.113.10\"\n---\napiVersion: discovery.k8s.io/v1\n",
            "    kubernetes.io/service-name: web\n  annotations:\n    sluice.dev/weights: \"10.0.2.11=3\"\n",
            "- addresses: [\"10.0.2.11\"]\n  conditions:\n    ready: false\n    serving: true\n",
        ] {
            assert!(yaml.contains(part), "{part:?} is not in:\n{yaml}");
        }
    }
}
