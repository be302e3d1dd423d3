//! What can be answered: names and addresses of all Services, kept one Service at a time.
//!
//! Guarantees: a zone that was changed step by step equals one that was filled at once; a change
//! costs as much as what differs, and readers wait only while that is put in place. It does not know
//! what the zone is called, nor which of it is answered: that is for [`super::options`].

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::records::{Kind, Named};
use crate::object::NamespacedName;

/// Names and addresses.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    synced: bool,
    version: u64,
    namespaces: HashMap<Box<str>, Namespace>,
    /// Whose an address is.
    places: HashMap<IpAddr, Vec<Place>>,
    place_count: usize,
    /// Addresses of Pods, and the Pods by address.
    pods: BTreeMap<NamespacedName, Box<[IpAddr]>>,
    pods_at: HashMap<IpAddr, Vec<NamespacedName>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Namespace {
    /// Whether there is an object for it.
    declared: bool,
    services: HashMap<Box<str>, Arc<Named>>,
}

/// What an address is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of which Service.
    pub service: NamespacedName,
    /// What it is to it.
    pub role: Role,
}

/// What an address is to a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Its ClusterIP.
    ClusterIp,
    /// An endpoint, of this name if reverse names lead there.
    Endpoint(Option<Arc<str>>),
    /// An address outside the cluster.
    External,
}

/// What leads from what a Service contributed to what it contributes.
#[derive(Debug)]
struct Step {
    service: NamespacedName,
    after: Option<Arc<Named>>,
    come: Vec<(IpAddr, Place)>,
    go: Vec<(IpAddr, Place)>,
}

impl Step {
    fn between(
        service: &NamespacedName,
        before: Option<&Named>,
        after: Option<Arc<Named>>,
    ) -> Self {
        let old = before.map(places).unwrap_or_default();
        let new = after.as_deref().map(places).unwrap_or_default();
        let missing = |from: &[(IpAddr, Place)], of: &[(IpAddr, Place)]| {
            let gone = of.iter().filter(|place| from.binary_search(place).is_err());
            gone.cloned().collect()
        };
        Self {
            service: service.clone(),
            come: missing(&old, &new),
            go: missing(&new, &old),
            after,
        }
    }
}

/// The addresses of a Service, sorted, each once.
fn places(named: &Named) -> Vec<(IpAddr, Place)> {
    let place = |address: IpAddr, role: Role| {
        let service = named.service.clone();
        (address, Place { service, role })
    };
    let own = match &named.kind {
        Kind::ClusterIp(addresses) => addresses.as_slice(),
        _ => &[],
    };
    let own = own.iter().map(|a| place(*a, Role::ClusterIp));
    let external = named.external.iter().map(|a| place(*a, Role::External));
    // Clients of a headless Service see its endpoints: their addresses always have a name.
    let headless = named.kind == Kind::Headless;
    let endpoints = named.endpoints().iter().map(|endpoint| {
        let has_name = headless || endpoint.has_hostname;
        let host = has_name.then(|| Arc::clone(&endpoint.host));
        place(endpoint.address, Role::Endpoint(host))
    });
    let mut places: Vec<_> = own.chain(external).chain(endpoints).collect();
    places.sort_unstable();
    places.dedup();
    places
}

impl Zone {
    /// Puts what a Service contributes in the place of what it did; `None` when it is gone.
    pub fn set(&mut self, service: &NamespacedName, named: Option<Named>) {
        let before = self.named(service).cloned();
        let step = Step::between(service, before.as_deref(), named.map(Arc::new));
        self.take(step);
    }

    /// Takes a step. Returns what it replaces, so that it can be dropped when nobody waits.
    fn take(&mut self, step: Step) -> Option<Arc<Named>> {
        self.version += 1;
        self.place_count = (self.place_count + step.come.len()).saturating_sub(step.go.len());
        for (address, place) in step.go {
            remove(&mut self.places, address, &place);
        }
        for (address, place) in step.come {
            insert(&mut self.places, address, place);
        }
        let NamespacedName { namespace, name } = step.service;
        match step.after {
            Some(named) => {
                let namespace = self.namespaces.entry(namespace.into()).or_default();
                namespace.services.insert(name.into(), named)
            }
            None => {
                let of_space = self.namespaces.get_mut(namespace.as_str())?;
                let before = of_space.services.remove(name.as_str());
                self.tidy(&namespace);
                before
            }
        }
    }

    /// Tells whether there is an object for a namespace. One with Services exists without.
    pub fn set_namespace(&mut self, namespace: &str, declared: bool) {
        self.version += 1;
        let entry = self.namespaces.entry(namespace.into()).or_default();
        entry.declared = declared;
        self.tidy(namespace);
    }

    fn tidy(&mut self, namespace: &str) {
        let unused = |n: &Namespace| !n.declared && n.services.is_empty();
        if self.namespaces.get(namespace).is_some_and(unused) {
            self.namespaces.remove(namespace);
        }
    }

    /// Tells the addresses of a Pod; none when it is gone.
    pub fn set_pod(&mut self, pod: &NamespacedName, addresses: &[IpAddr]) {
        self.version += 1;
        for address in self.pods.remove(pod).unwrap_or_default() {
            remove(&mut self.pods_at, address, pod);
        }
        if addresses.is_empty() {
            return;
        }
        for address in addresses {
            insert(&mut self.pods_at, *address, pod.clone());
        }
        self.pods.insert(pod.clone(), addresses.into());
    }

    /// From now on what is not here is nowhere.
    pub fn set_synced(&mut self) {
        self.version += 1;
        self.synced = true;
    }

    /// Whether every source has told all.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Changes with every change, and never comes again.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version as the SOA record tells it (RFC 1982).
    pub fn serial(&self) -> u32 {
        self.version as u32
    }

    /// What a Service contributes.
    pub fn named(&self, service: &NamespacedName) -> Option<&Arc<Named>> {
        self.service(&service.namespace, &service.name)
    }

    /// What a Service contributes; names in lower case.
    pub fn service(&self, namespace: &str, service: &str) -> Option<&Arc<Named>> {
        self.namespaces.get(namespace)?.services.get(service)
    }

    /// Whether there is a namespace; its name in lower case.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// Whose an address is, sorted.
    pub fn places(&self, address: IpAddr) -> &[Place] {
        self.places.get(&address).map_or(&[], Vec::as_slice)
    }

    /// Whether a Pod of a namespace has an address.
    pub fn has_pod(&self, namespace: &str, address: IpAddr) -> bool {
        let pods = self.pods_at.get(&address);
        pods.is_some_and(|pods| pods.iter().any(|pod| pod.namespace == namespace))
    }

    /// Its size: Services, and addresses of Services.
    pub fn size(&self) -> (usize, usize) {
        let services = self.namespaces.values().map(|n| n.services.len());
        (services.sum(), self.place_count)
    }
}

impl PartialEq for Zone {
    /// Whether they answer the same; how they came to it does not count.
    fn eq(&self, other: &Self) -> bool {
        (self.synced, &self.namespaces) == (other.synced, &other.namespaces)
            && (&self.places, self.place_count) == (&other.places, other.place_count)
            && (&self.pods, &self.pods_at) == (&other.pods, &other.pods_at)
    }
}

/// Adds a value, each once, in order.
fn insert<T: Ord>(map: &mut HashMap<IpAddr, Vec<T>>, address: IpAddr, value: T) {
    let values = map.entry(address).or_insert_with(|| Vec::with_capacity(1));
    if let Err(place) = values.binary_search(&value) {
        values.insert(place, value);
    }
}

fn remove<T: Ord>(map: &mut HashMap<IpAddr, Vec<T>>, address: IpAddr, value: &T) {
    if let Some(values) = map.get_mut(&address) {
        values.retain(|other| other != value);
        if values.is_empty() {
            map.remove(&address);
        }
    }
}

/// A zone that one side changes and others read.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<RwLock<Zone>>);

impl Shared {
    /// The zone as it is.
    pub fn read(&self) -> RwLockReadGuard<'_, Zone> {
        // Nothing panics under the lock; if it did, answers would still be some state's.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Zone> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what a Service contributes in the place of what it did; `None` when it is gone. Only one
    /// task may call this. What takes long is done before and after readers have to wait.
    pub fn set(&self, service: &NamespacedName, named: Option<Named>) {
        let before = self.read().named(service).cloned();
        if before.as_deref() == named.as_ref() {
            return;
        }
        let step = Step::between(service, before.as_deref(), named.map(Arc::new));
        let replaced = self.write().take(step);
        drop((before, replaced));
    }

    /// Changes something else.
    pub fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.write());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dns::records::Published;
    use crate::endpoints::{Conditions, Endpoint, Hints, Slice};
    use crate::testing::check_service;

    fn endpoint(last: u8, hostname: bool) -> Endpoint {
        Endpoint {
            address: [10, 0, 0, last].into(),
            conditions: Conditions {
                ready: true,
                serving: true,
                terminating: false,
            },
            node: None,
            zone: None,
            pod: None,
            hostname: hostname.then(|| format!("h{}", last % 3)),
            tier: 0,
            weight: 1,
            hints: Hints::default(),
        }
    }

    fn named(service: &NamespacedName, headless: bool, endpoints: &[(u8, bool)]) -> Named {
        let ip = if headless { "None" } else { "10.96.0.1" };
        let NamespacedName { namespace, name } = service;
        let spec = check_service(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
        ));
        let slice = Slice {
            namespace: namespace.clone(),
            name: name.clone(),
            service: Some(name.clone()),
            ports: Vec::new(),
            endpoints: endpoints.iter().map(|(n, h)| endpoint(*n, *h)).collect(),
        };
        let published = Published {
            slices: &[&slice],
            left_out: &|_, _| None,
            zone: None,
        };
        Named::of(&spec.good.unwrap(), &published, |_| true)
    }

    type Wish = (usize, Option<(bool, Vec<(u8, bool)>)>);

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let endpoints = prop::collection::vec((0..8u8, any::<bool>()), 0..5);
        let named = prop::option::of((any::<bool>(), endpoints));
        prop::collection::vec((0..5usize, named), 0..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_zone_that_was_changed_equals_one_that_was_filled_at_once(wishes in wishes()) {
            let name = |n: usize| NamespacedName::new(["a", "b"][n % 2], format!("s{n}"));
            let shared = Shared::default();
            let mut last = BTreeMap::new();
            for (number, wish) in &wishes {
                let service = name(*number);
                let made = wish.as_ref().map(|(headless, e)| named(&service, *headless, e));
                shared.set(&service, made.clone());
                last.insert(service, made);
            }
            let mut filled = Zone::default();
            for (service, named) in last {
                filled.set(&service, named);
            }
            prop_assert!(*shared.read() == filled);
            let count: usize = filled.places.values().map(Vec::len).sum();
            prop_assert_eq!(filled.size().1, count);
        }
    }

    #[test]
    fn a_namespace_is_there_with_an_object_or_with_a_service() {
        let mut zone = Zone::default();
        let service = NamespacedName::new("shop", "web");
        zone.set(&service, Some(named(&service, false, &[])));
        zone.set_namespace("empty", true);
        assert!(zone.has_namespace("shop") && zone.has_namespace("empty"));
        zone.set(&service, None);
        zone.set_namespace("empty", false);
        assert!(!zone.has_namespace("shop") && !zone.has_namespace("empty"));
        let untouched = Zone::default();
        assert!(zone == untouched);
    }

    #[test]
    fn a_pod_is_found_by_its_address_and_namespace_while_it_is_there() {
        let mut zone = Zone::default();
        let (pod, address) = (NamespacedName::new("shop", "web-0"), [10, 0, 0, 1].into());
        zone.set_pod(&pod, &[address]);
        assert!(zone.has_pod("shop", address) && !zone.has_pod("other", address));
        zone.set_pod(&pod, &[]);
        assert!(!zone.has_pod("shop", address));
    }
}
