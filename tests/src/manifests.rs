//! Kubernetes manifests as an operator writes them.

mod folder;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use sluice_conf::Protocol;

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
    pub address: Ipv4Addr,
    /// Takes new connections.
    pub ready: bool,
    /// Still serves those it has.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
}

impl Endpoint {
    /// An endpoint that takes connections.
    pub fn ready(address: Ipv4Addr) -> Self {
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
        }
    }

    /// An endpoint that only serves what it has.
    pub fn draining(address: Ipv4Addr) -> Self {
        Self {
            address,
            ready: false,
            serving: true,
            terminating: true,
        }
    }
}

/// A Service in namespace `default` with one EndpointSlice, in one file.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, and the file's.
    pub name: &'static str,
    /// Address inside the cluster.
    pub cluster_ip: Option<Ipv4Addr>,
    /// Address outside; makes it a LoadBalancer.
    pub load_balancer: Option<Ipv4Addr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Weights of endpoints that differ from 1.
    pub weights: BTreeMap<Ipv4Addr, u16>,
    /// Annotations of the Service.
    pub annotations: BTreeMap<&'static str, &'static str>,
}

impl Service {
    /// A TCP Service on `load_balancer`, port 80, that every host serves on `backend_port`.
    pub fn on(
        name: &'static str,
        load_balancer: Ipv4Addr,
        backend_port: u16,
        hosts: &[Host],
    ) -> Self {
        Self {
            name,
            cluster_ip: None,
            load_balancer: Some(load_balancer),
            ports: vec![Port {
                name: "",
                port: 80,
                backend_port,
                node_port: None,
                protocol: Protocol::Tcp,
            }],
            endpoints: hosts
                .iter()
                .map(|host| Endpoint::ready(host.address))
                .collect(),
            weights: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// With another port and protocol for clients.
    pub fn port(mut self, port: u16, protocol: Protocol) -> Self {
        for each in &mut self.ports {
            (each.port, each.protocol) = (port, protocol);
        }
        self
    }

    /// With a ClusterIP too.
    pub fn cluster_ip(mut self, address: Ipv4Addr) -> Self {
        self.cluster_ip = Some(address);
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

    /// What happens to connections of a backend that left: `keep` or `reset`.
    pub fn backend_gone(mut self, policy: &'static str) -> Self {
        self.annotations.insert("sluice.dev/backend-gone", policy);
        self
    }

    /// With another weight for an endpoint.
    pub fn weight(mut self, address: Ipv4Addr, weight: u16) -> Self {
        self.weights.insert(address, weight);
        self
    }

    /// Without the endpoint of this address.
    pub fn without(mut self, address: Ipv4Addr) -> Self {
        self.endpoints
            .retain(|endpoint| endpoint.address != address);
        self
    }

    /// Both objects as YAML.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_service(&mut text);
        text.push_str("---\n");
        let _ = self.write_slice(&mut text);
        text
    }

    fn kind(&self) -> &'static str {
        if self.load_balancer.is_some() {
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
        if let Some(address) = self.cluster_ip {
            writeln!(out, "  clusterIP: {address}\n  clusterIPs: [{address}]")?;
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
        if let Some(address) = self.load_balancer {
            writeln!(
                out,
                "status:\n  loadBalancer:\n    ingress:\n    - ip: {address}"
            )?;
        }
        Ok(())
    }

    fn write_slice(&self, out: &mut String) -> std::fmt::Result {
        let name = self.name;
        writeln!(
            out,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:"
        )?;
        writeln!(out, "  name: {name}-1\n  namespace: default")?;
        writeln!(out, "  labels:\n    kubernetes.io/service-name: {name}")?;
        let weights: Vec<String> = self
            .weights
            .iter()
            .map(|(address, weight)| format!("{address}={weight}"))
            .collect();
        if !weights.is_empty() {
            let weights = std::iter::once(("sluice.dev/weights", weights.join(",")));
            write_annotations(out, weights)?;
        }
        writeln!(out, "addressType: IPv4\nports:")?;
        for port in &self.ports {
            writeln!(
                out,
                "- port: {}\n  protocol: {}",
                port.backend_port, port.protocol
            )?;
            writeln!(out, "  name: \"{}\"", port.name)?;
        }
        if self.endpoints.is_empty() {
            return writeln!(out, "endpoints: []");
        }
        writeln!(out, "endpoints:")?;
        for endpoint in &self.endpoints {
            writeln!(out, "- addresses: [{}]\n  conditions:", endpoint.address)?;
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
        let address = Ipv4Addr::new(10, 0, 2, 11);
        let mut service = Service::on("web", Ipv4Addr::new(203, 0, 113, 10), 8080, &[])
            .node_port(30080)
            .source_nat("preserve")
            .weight(address, 3);
        service.endpoints.push(Endpoint::draining(address));
        let yaml = service.yaml();
        for part in [
            "  annotations:\n    sluice.dev/source-nat: \"preserve\"\nspec:\n  type: LoadBalancer\n",
            "  - port: 80\n    targetPort: 8080\n    protocol: TCP\n    nodePort: 30080\n",
            "    - ip: 203.0.113.10\n---\napiVersion: discovery.k8s.io/v1\n",
            "    kubernetes.io/service-name: web\n  annotations:\n    sluice.dev/weights: \"10.0.2.11=3\"\n",
            "- addresses: [10.0.2.11]\n  conditions:\n    ready: false\n    serving: true\n",
        ] {
            assert!(yaml.contains(part), "{part:?} is not in:\n{yaml}");
        }
    }
}
