//! All Services that select Pods, with their slices, kept up to date.
//!
//! Guarantees: a change of a Pod costs what the Services that select it cost, once for all changes
//! between two calls of [`Deriver::refresh`]; slices that did not change stay the same `Arc`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::Settings;
use super::node::{Node, Nodes};
use super::pod::{Container, Label, Pod};
use super::reconcile::reconcile;
use super::selectors::{Selectors, matches};
use super::service::{self, HintMode};
use super::shared::Shared;
use super::slice::Slice;
use crate::object::NamespacedName;

/// Facts in, slices out.
#[derive(Debug, Clone, Default)]
pub struct Deriver {
    settings: Settings,
    services: BTreeMap<NamespacedName, Derived>,
    selectors: Selectors,
    pods: HashMap<Arc<str>, Namespace>,
    nodes: Nodes,
    dirty: BTreeSet<NamespacedName>,
    /// Nodes that came, went or moved to another zone since the last refresh.
    moved: HashSet<Arc<str>>,
    /// CPU of each zone at the last refresh.
    zones: Vec<(Arc<str>, u64)>,
    strings: Shared<str>,
    containers: Shared<[Container]>,
}

#[derive(Debug, Clone)]
struct Derived {
    service: Arc<Service>,
    slices: Vec<Arc<Slice>>,
}

/// Pods of a namespace.
#[derive(Debug, Clone, Default)]
struct Namespace {
    by_name: BTreeMap<Arc<str>, Arc<Pod>>,
    /// Sorted by name.
    by_label: HashMap<Label, Vec<Arc<Pod>>>,
}

/// The slices of a Service that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refreshed {
    /// Its name.
    pub service: NamespacedName,
    /// All its slices, sorted by name; none when it is gone or selects nothing any more.
    pub slices: Vec<Arc<Slice>>,
    /// Pods that were left out because nobody knows their Node, by name.
    pub left_out: Vec<Arc<str>>,
}

impl Deriver {
    /// Knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Puts a Service in, or its new version.
    pub fn set_service(&mut self, service: Arc<Service>) {
        let name = NamespacedName::of(&service.metadata);
        self.selectors.insert(&service);
        self.dirty.insert(name.clone());
        if let Some(derived) = self.services.get_mut(&name) {
            derived.service = service;
        } else if service::selector(&service).is_some() {
            let slices = Vec::new();
            self.services.insert(name, Derived { service, slices });
        }
    }

    /// Takes a Service out.
    pub fn remove_service(&mut self, name: &NamespacedName) {
        self.selectors.remove(name);
        self.dirty.insert(name.clone());
    }

    /// Puts a Pod in, or its new version. Returns the Services that select it, if something changed
    /// that their slices do not show: its labels or containers.
    pub fn set_pod(&mut self, mut pod: Pod) -> BTreeSet<NamespacedName> {
        pod.share(&mut self.strings, &mut self.containers);
        let namespace = self.pods.entry(Arc::clone(&pod.namespace)).or_default();
        let before = namespace.by_name.get(&pod.name).cloned();
        if before.as_deref() == Some(&pod) {
            return BTreeSet::new();
        }
        let affected = self.selectors.affected(before.as_deref(), Some(&pod));
        self.dirty.extend(affected);
        namespace.remove(&pod.name);
        let unseen = before.is_some_and(|before| {
            before.labels != pod.labels || before.containers != pod.containers
        });
        let pod = Arc::new(pod);
        namespace.insert(Arc::clone(&pod));
        match unseen {
            true => self.selectors.select(&pod),
            false => BTreeSet::new(),
        }
    }

    /// Takes a Pod out.
    pub fn remove_pod(&mut self, name: &NamespacedName) {
        let Some(namespace) = self.pods.get_mut(name.namespace.as_str()) else {
            return;
        };
        if let Some(pod) = namespace.remove(&name.name) {
            self.dirty.extend(self.selectors.affected(Some(&pod), None));
        }
        if namespace.by_name.is_empty() {
            self.pods.remove(name.namespace.as_str());
        }
    }

    /// Puts a Node in, or its new version.
    pub fn set_node(&mut self, node: Node) {
        let (name, zone) = (Arc::clone(&node.name), node.zone.clone());
        let before = self.nodes.insert(node);
        if before.is_none_or(|before| before.zone != zone) {
            self.moved.insert(name);
        }
    }

    /// Takes a Node out.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.moved.insert(node.name);
        }
    }

    /// The Pod of that name.
    pub fn pod(&self, name: &NamespacedName) -> Option<&Arc<Pod>> {
        let namespace = self.pods.get(name.namespace.as_str())?;
        namespace.by_name.get(name.name.as_str())
    }

    /// All Pods, sorted by name within a namespace.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods
            .values()
            .flat_map(|namespace| namespace.by_name.values())
    }

    /// All Nodes.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Slices of a Service as of the last refresh.
    pub fn slices(&self, service: &NamespacedName) -> &[Arc<Slice>] {
        let derived = self.services.get(service);
        derived.map_or(&[], |derived| &derived.slices)
    }

    /// Works off what changed; gives back the Services whose slices are different now, by name.
    pub fn refresh(&mut self) -> Vec<Refreshed> {
        self.mark_by_nodes();
        let dirty = std::mem::take(&mut self.dirty);
        let refreshed = dirty.into_iter().filter_map(|name| self.derive(name));
        refreshed.collect()
    }

    fn derive(&mut self, service: NamespacedName) -> Option<Refreshed> {
        let labels = self.selectors.labels(&service);
        if labels.is_empty() {
            let gone = self.services.remove(&service)?;
            return (!gone.slices.is_empty()).then_some(Refreshed {
                service,
                slices: Vec::new(),
                left_out: Vec::new(),
            });
        }
        let namespace = self.pods.get(service.namespace.as_str());
        let pods = namespace.map(|namespace| namespace.select(labels));
        let derived = self.services.get_mut(&service)?;
        let outcome = reconcile(
            &derived.service,
            &pods.unwrap_or_default(),
            &self.nodes,
            &derived.slices,
            &self.settings,
        );
        let slices = outcome.writes.slices();
        let same = slices.len() == derived.slices.len()
            && slices
                .iter()
                .zip(&derived.slices)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        derived.slices.clone_from(&slices);
        (!same).then_some(Refreshed {
            service,
            slices,
            left_out: outcome.left_out,
        })
    }

    /// One pass over the Pods for all Nodes that moved.
    fn mark_by_nodes(&mut self) {
        let moved = std::mem::take(&mut self.moved);
        let stands_on = |pod: &&Arc<Pod>| pod.node.as_ref().is_some_and(|n| moved.contains(n));
        if !moved.is_empty() {
            let pods = self
                .pods
                .values()
                .flat_map(|namespace| namespace.by_name.values());
            for pod in pods.filter(stands_on) {
                self.dirty.extend(self.selectors.select(pod));
            }
        }
        let zones = self.nodes.cpu_by_zone();
        let zones: Vec<_> = zones.map(|(zone, cpu)| (Arc::clone(zone), cpu)).collect();
        if zones != self.zones {
            self.zones = zones;
            let proportional = self.services.iter().filter(|(_, derived)| {
                service::hint_mode(&derived.service) == HintMode::Proportional
            });
            self.dirty
                .extend(proportional.map(|(name, _)| name.clone()));
        }
    }
}

impl Namespace {
    fn insert(&mut self, pod: Arc<Pod>) {
        for label in &pod.labels {
            let pods = self.by_label.entry(label.clone()).or_default();
            let place = pods.partition_point(|other| other.name < pod.name);
            pods.insert(place, Arc::clone(&pod));
        }
        self.by_name.insert(Arc::clone(&pod.name), pod);
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Pod>> {
        let pod = self.by_name.remove(name)?;
        for label in &pod.labels {
            let Some(pods) = self.by_label.get_mut(label) else {
                continue;
            };
            if let Ok(place) = pods.binary_search_by(|other| (*other.name).cmp(name)) {
                pods.remove(place);
            }
            if pods.is_empty() {
                self.by_label.remove(label);
            }
        }
        Some(pod)
    }

    /// Pods with all the labels, sorted by name: those with the rarest label, sifted.
    fn select(&self, labels: &[Label]) -> Vec<Arc<Pod>> {
        let with = |label: &Label| self.by_label.get(label).map_or(&[][..], Vec::as_slice);
        let rarest = labels.iter().map(with).min_by_key(|pods| pods.len());
        let pods = rarest.unwrap_or_default().iter();
        pods.filter(|pod| matches(labels, pod)).cloned().collect()
    }
}
