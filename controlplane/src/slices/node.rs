//! What is kept of Nodes: where they are, what they are worth, whether they are there.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use super::pod::text;
use crate::address;
use crate::field::{FieldError, Reason};
use crate::object::is_subdomain;

/// Label of a Node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Label of a Node's region.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// Taint of a Node that is about to be removed (kubernetes/autoscaler).
pub const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// Labels of Nodes that carry no load of their own (topologycache hasExcludedLabels).
const EXCLUDED: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// Facts of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Zone.
    pub zone: Option<Arc<str>>,
    /// Region.
    pub region: Option<Arc<str>>,
    /// Internal and external addresses, in order.
    pub addresses: Box<[IpAddr]>,
    /// Allocatable CPU in thousandths of a core; 0 when it is not known.
    pub cpu_millis: u64,
    /// The condition `Ready`.
    pub ready: bool,
    /// Is about to be removed by the autoscaler.
    pub leaving: bool,
    /// Is being deleted.
    pub deleted: bool,
    /// Runs the control plane, and so counts for no zone.
    pub excluded: bool,
}

impl From<&api::Node> for Node {
    fn from(node: &api::Node) -> Self {
        let labels = node.metadata.labels.as_ref();
        let label = |key: &str| text(labels.and_then(|labels| labels.get(key)));
        let has = |key: &&str| labels.is_some_and(|labels| labels.contains_key(*key));
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_ref());
        let addresses = addresses.into_iter().flatten();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let cpu = status.and_then(|status| status.allocatable.as_ref()?.get("cpu"));
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            zone: label(ZONE_LABEL),
            region: label(REGION_LABEL),
            addresses: addresses
                .filter(|a| matches!(a.type_.as_str(), "InternalIP" | "ExternalIP"))
                .filter_map(|a| address::address(&a.address))
                .collect(),
            cpu_millis: cpu.and_then(|cpu| millis(&cpu.0)).unwrap_or(0),
            ready: conditions.any(|c| c.type_ == "Ready" && c.status == "True"),
            leaving: taints.into_iter().flatten().any(|t| t.key == LEAVING_TAINT),
            deleted: node.metadata.deletion_timestamp.is_some(),
            excluded: EXCLUDED.iter().any(has),
        }
    }
}

/// Mistakes of `node` at their fields, as far as the gateway reads it.
pub fn check(node: &api::Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut invalid = |field: String, message: String| {
        errors.push(FieldError::new(field, Reason::Invalid, message));
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if !is_subdomain(name) {
        let message = format!("{name:?} is not a name; use a-z, 0-9, - and . (RFC 1123)");
        invalid("metadata.name".into(), message);
    }
    let status = node.status.as_ref();
    let listed = status.and_then(|status| status.addresses.as_ref());
    for (index, entry) in listed.into_iter().flatten().enumerate() {
        let text = &entry.address;
        let is_address = matches!(entry.type_.as_str(), "InternalIP" | "ExternalIP");
        if is_address && address::address(text).is_none() {
            let field = format!("status.addresses[{index}].address");
            invalid(field, format!("{text:?} is not an address"));
        }
    }
    let cpu = status.and_then(|status| status.allocatable.as_ref()?.get("cpu"));
    if let Some(cpu) = cpu.filter(|cpu| millis(&cpu.0).is_none()) {
        let message = format!("{:?} is not an amount of CPU; write 4 or 3920m", cpu.0);
        invalid("status.allocatable.cpu".into(), message);
    }
    errors
}

/// An amount of CPU in thousandths, rounded up; cores may be written `2`, `0.5` or `1500m`
/// (apimachinery pkg/api/resource, Quantity; its larger suffixes make no sense of CPUs).
fn millis(text: &str) -> Option<u64> {
    let (number, scale) = match text.strip_suffix('m') {
        Some(number) => (number, 1.0),
        None => (text, 1000.0),
    };
    let plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| plain)?;
    let millis = (number * scale).ceil();
    (millis <= 1e12).then_some(millis as u64)
}

/// All Nodes, and the share of each zone in their CPUs.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    by_name: HashMap<Arc<str>, Node>,
    cpu_by_zone: BTreeMap<Arc<str>, u64>,
    /// Nodes that count for a zone and do not say for which, or with how much.
    without_facts: usize,
}

impl Nodes {
    /// The Node of that name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.by_name.get(name)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.by_name.values()
    }

    /// Puts a Node in; gives back the one that it replaces.
    pub fn insert(&mut self, node: Node) -> Option<Node> {
        let before = self.remove(&node.name.clone());
        match share(&node) {
            Some((zone, cpu)) => *self.cpu_by_zone.entry(Arc::clone(zone)).or_default() += cpu,
            None => self.without_facts += usize::from(counts(&node)),
        }
        self.by_name.insert(Arc::clone(&node.name), node);
        before
    }

    /// Takes a Node out.
    pub fn remove(&mut self, name: &str) -> Option<Node> {
        let node = self.by_name.remove(name)?;
        match share(&node) {
            Some((zone, cpu)) => {
                if let Some(sum) = self.cpu_by_zone.get_mut(zone) {
                    *sum -= cpu;
                }
                self.cpu_by_zone.retain(|_, sum| *sum > 0);
            }
            None => self.without_facts -= usize::from(counts(&node)),
        }
        Some(node)
    }

    /// CPU of each zone; empty if one of the Nodes leaves its part open, or if there are not two
    /// zones to choose between (topologycache SetNodes).
    pub fn cpu_by_zone(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let usable = self.without_facts == 0 && self.cpu_by_zone.len() > 1;
        let zones = self.cpu_by_zone.iter().filter(move |_| usable);
        zones.map(|(zone, cpu)| (zone, *cpu))
    }
}

fn counts(node: &Node) -> bool {
    node.ready && !node.excluded
}

/// Zone and CPU, when the Node counts and says both.
fn share(node: &Node) -> Option<(&Arc<str>, u64)> {
    let zone = node.zone.as_ref().filter(|_| counts(node))?;
    (node.cpu_millis > 0).then_some((zone, node.cpu_millis))
}
