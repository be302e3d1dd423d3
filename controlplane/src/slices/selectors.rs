//! Which Services select a Pod.
//!
//! Each Service is filed under one label of its selector, the one that the fewest others are filed
//! under, so that a Pod is compared with the few Services that share one of its labels: the work
//! for a Pod does not grow with the number of Services.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::pod::{Label, Pod};
use super::service;
use crate::object::NamespacedName;

/// The selectors of all Services.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    services: HashMap<NamespacedName, Selector>,
    by_label: HashMap<Arc<str>, HashMap<Label, BTreeSet<Arc<str>>>>,
}

#[derive(Debug, Clone)]
struct Selector {
    labels: Box<[Label]>,
    filed: Label,
}

impl Selectors {
    /// Puts a Service in, in the place of its older version. One that selects nothing is only
    /// taken out.
    pub fn insert(&mut self, service: &Service) {
        let name = NamespacedName::of(&service.metadata);
        self.remove(&name);
        let pairs = service::selector(service).into_iter().flatten();
        let labels: Box<[Label]> = pairs
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        let namespace = self.by_label.get(name.namespace.as_str());
        let others = |label: &&Label| {
            namespace
                .and_then(|n| n.get(*label))
                .map_or(0, BTreeSet::len)
        };
        let Some(filed) = labels.iter().min_by_key(others).cloned() else {
            return;
        };
        let namespace = self.by_label.entry(name.namespace.as_str().into());
        let services = namespace.or_default().entry(filed.clone()).or_default();
        services.insert(name.name.as_str().into());
        self.services.insert(name, Selector { labels, filed });
    }

    /// Takes a Service out.
    pub fn remove(&mut self, name: &NamespacedName) {
        let Some(selector) = self.services.remove(name) else {
            return;
        };
        let Some(namespace) = self.by_label.get_mut(name.namespace.as_str()) else {
            return;
        };
        if let Some(services) = namespace.get_mut(&selector.filed) {
            services.remove(name.name.as_str());
            if services.is_empty() {
                namespace.remove(&selector.filed);
            }
        }
        if namespace.is_empty() {
            self.by_label.remove(name.namespace.as_str());
        }
    }

    /// What a Service selects by; nothing when it selects nothing.
    pub fn labels(&self, name: &NamespacedName) -> &[Label] {
        let selector = self.services.get(name);
        selector.map_or(&[], |selector| &selector.labels)
    }

    /// Services that select the Pod (GetPodServicesToUpdate).
    pub fn select(&self, pod: &Pod) -> BTreeSet<NamespacedName> {
        let Some(namespace) = self.by_label.get(&pod.namespace) else {
            return BTreeSet::new();
        };
        let filed = pod.labels.iter().filter_map(|label| namespace.get(label));
        let names = filed.flatten();
        let names = names.map(|name| NamespacedName::new(&*pod.namespace, &**name));
        names
            .filter(|name| matches(self.labels(name), pod))
            .collect()
    }

    /// Services whose slices a change of a Pod can alter; `None` stands for a Pod that is not
    /// there.
    pub fn affected(&self, before: Option<&Pod>, after: Option<&Pod>) -> BTreeSet<NamespacedName> {
        let select = |pod: Option<&Pod>| pod.map(|pod| self.select(pod)).unwrap_or_default();
        let (Some(old), Some(new)) = (before, after) else {
            return select(before.or(after));
        };
        let change = old.change(new);
        match (change.endpoint, change.labels) {
            (false, false) => BTreeSet::new(),
            (endpoint, _) => needed(select(before), select(after), endpoint),
        }
    }
}

/// Whether the Pod has all the labels.
pub(super) fn matches(labels: &[Label], pod: &Pod) -> bool {
    let mut labels = labels.iter();
    labels.all(|(key, value)| pod.label(key) == Some(value))
}

/// Services to look at again, of those that selected a Pod before and those that do now: all when
/// its endpoints changed, else those that it came to or left (determineNeededServiceUpdates).
pub fn needed<T: Ord + Clone>(
    before: BTreeSet<T>,
    after: BTreeSet<T>,
    endpoint_changed: bool,
) -> BTreeSet<T> {
    match endpoint_changed {
        true => before.union(&after).cloned().collect(),
        false => before.symmetric_difference(&after).cloned().collect(),
    }
}
