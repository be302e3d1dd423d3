//! What is kept of a Pod: what selection, readiness, slices and probes ask for.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use sluice_conf::Protocol;

use super::shared::Shared;
use crate::address;
use crate::health::readiness::{self, Readiness};
use crate::service::protocol;

mod check;

pub use check::{check, probes};

/// One label: key and value.
pub type Label = (Arc<str>, Arc<str>);

/// Facts of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Unique id; a Pod of a file has none.
    pub uid: Option<Arc<str>>,
    /// Labels, sorted by key.
    pub labels: Box<[Label]>,
    /// Addresses, in the order of `status.podIPs`.
    pub addresses: Box<[IpAddr]>,
    /// The condition `Ready`.
    pub ready: bool,
    /// Whether there is that condition, whatever it says.
    pub reported: bool,
    /// A deletion has been asked for.
    pub terminating: bool,
    /// All containers have ended and none will start (phase `Succeeded` or `Failed`).
    pub finished: bool,
    /// Node that it runs on.
    pub node: Option<Arc<str>>,
    /// Own host name, when written.
    pub hostname: Option<Arc<str>>,
    /// Headless Service under which the host name is found, when written.
    pub subdomain: Option<Arc<str>>,
    /// Containers, then sidecars.
    pub containers: Arc<[Container]>,
}

/// A container, or a sidecar: an init container that restarts always.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Container {
    /// Name.
    pub name: Arc<str>,
    /// Ports that have a name; others cannot be asked for.
    pub ports: Box<[NamedPort]>,
    /// Readiness probe, when there is one that a gateway can carry out.
    pub readiness: Option<Readiness>,
}

/// A port of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedPort {
    /// Name.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub number: u16,
}

impl From<&api::Pod> for Pod {
    fn from(pod: &api::Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let condition = conditions.find(|condition| condition.type_ == "Ready");
        let labels = meta.labels.iter().flatten();
        let namespace = text(meta.namespace.as_ref());
        Self {
            namespace: namespace.unwrap_or_else(|| "default".into()),
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: text(meta.uid.as_ref()),
            labels: labels
                .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
                .collect(),
            addresses: status.map(addresses).unwrap_or_default(),
            ready: condition.is_some_and(|condition| condition.status == "True"),
            reported: condition.is_some(),
            terminating: meta.deletion_timestamp.is_some(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            node: text(spec.and_then(|spec| spec.node_name.as_ref())),
            hostname: text(spec.and_then(|spec| spec.hostname.as_ref())),
            subdomain: text(spec.and_then(|spec| spec.subdomain.as_ref())),
            containers: spec.map(containers).unwrap_or_default(),
        }
    }
}

impl Pod {
    /// Whether it can be an endpoint: it has an address and has not finished
    /// (ShouldPodBeInEndpoints); a terminating one only if those are wanted.
    pub fn can_serve(&self, with_terminating: bool) -> bool {
        !self.finished && !self.addresses.is_empty() && (with_terminating || !self.terminating)
    }

    /// Whether its readiness probes are carried out by the gateway: no kubelet has said whether it
    /// is ready, as in a file that was written by hand.
    pub fn is_probed(&self) -> bool {
        !self.reported && self.probes().next().is_some()
    }

    /// The readiness probes of its containers. The Pod is ready when all of them pass.
    pub fn probes(&self) -> impl Iterator<Item = &Readiness> {
        self.containers.iter().filter_map(|c| c.readiness.as_ref())
    }

    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let found = self
            .labels
            .binary_search_by(|(known, _)| (**known).cmp(key));
        found.ok().map(|index| &*self.labels[index].1)
    }

    /// Number of the port `name`: of the containers first, then of the sidecars (findPort).
    pub fn named_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self.containers.iter().flat_map(|c| c.ports.iter());
        let port = ports.find(|port| *port.name == *name && port.protocol == protocol);
        port.map(|port| port.number)
    }

    /// What a Service has to look at again when this Pod becomes `after` (podEndpointsChanged).
    pub fn change(&self, after: &Pod) -> Change {
        let named = self.hostname == after.hostname && self.subdomain == after.subdomain;
        let shown = self.ready == after.ready
            && self.reported == after.reported
            && self.terminating == after.terminating
            && self.finished == after.finished
            && self.uid == after.uid
            && self.addresses == after.addresses;
        // What a cluster never changes after the address is known, and a file may.
        let placed = named && self.node == after.node && self.containers == after.containers;
        let unaddressed = self.addresses.is_empty() && after.addresses.is_empty();
        Change {
            endpoint: !shown || !(placed || unaddressed),
            labels: self.labels != after.labels || !named,
        }
    }

    /// Has what many Pods have in common be kept once.
    pub(super) fn share(&mut self, strings: &mut Shared<str>, lists: &mut Shared<[Container]>) {
        strings.share(&mut self.namespace);
        for (key, value) in &mut self.labels {
            strings.share(key);
            strings.share(value);
        }
        for text in [&mut self.node, &mut self.subdomain].into_iter().flatten() {
            strings.share(text);
        }
        lists.share(&mut self.containers);
    }
}

/// What is different between two versions of a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its endpoints.
    pub endpoint: bool,
    /// By what it is selected or named.
    pub labels: bool,
}

/// Text that says something.
pub(super) fn text(text: Option<&String>) -> Option<Arc<str>> {
    text.filter(|text| !text.is_empty())
        .map(|text| text.as_str().into())
}

fn addresses(status: &api::PodStatus) -> Box<[IpAddr]> {
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = listed.filter_map(address::address).collect();
    if addresses.is_empty() {
        addresses.extend(status.pod_ip.as_deref().and_then(address::address));
    }
    addresses.into()
}

fn containers(spec: &api::PodSpec) -> Arc<[Container]> {
    let started = spec.init_containers.iter().flatten();
    let sidecars = started.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    containers.map(Container::from).collect()
}

impl From<&api::Container> for Container {
    fn from(container: &api::Container) -> Self {
        let ports = container.ports.iter().flatten();
        let ports: Box<[NamedPort]> = ports.filter_map(named).collect();
        // What cannot be asked is told by `check`.
        let probe = container.readiness_probe.as_ref();
        let probe = probe.and_then(|probe| readiness::of_probe(probe, container, "").ok());
        Self {
            name: container.name.as_str().into(),
            readiness: probe,
            ports,
        }
    }
}

fn named(port: &api::ContainerPort) -> Option<NamedPort> {
    let number = u16::try_from(port.container_port).ok()?;
    Some(NamedPort {
        name: text(port.name.as_ref())?,
        protocol: protocol(port.protocol.as_deref()).ok()?,
        number: Some(number).filter(|number| *number > 0)?,
    })
}
