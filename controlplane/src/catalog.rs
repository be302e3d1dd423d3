//! The Services in use, the slices of each, and whom a change concerns.
//!
//! Guarantees: whoever is told of every change here and compiles the Services that
//! [`Catalog::take_concerned`] names has what compiling everything would give. No address is a
//! Service's and an endpoint's at once: what had it first keeps it, or a typing error in a new
//! Service would take the backends of others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::endpoints::Slice;
use crate::index::Known;
use crate::object::NamespacedName;
use crate::rules::Rules;
use crate::service::ServiceSpec;

/// The Services and slices in use.
#[derive(Debug, Clone)]
pub struct Catalog {
    rules: Arc<Rules>,
    services: BTreeMap<NamespacedName, Known<ServiceSpec>>,
    /// Slices by name, of each Service that they name.
    slices: BTreeMap<NamespacedName, BTreeMap<String, Known<Slice>>>,
    /// Services that the slices name.
    named: HashMap<NamespacedName, NamespacedName>,
    /// Names of the slices that were derived for each Service.
    derived: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
    vips: Holders,
    endpoints: Holders,
    concerned: BTreeSet<NamespacedName>,
}

/// Who has which address: Services those that clients use, slices those of endpoints.
type Holders = HashMap<IpAddr, Vec<Holder>>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    /// Lower was known earlier.
    order: u64,
    name: Arc<NamespacedName>,
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Neither a Vip nor an endpoint.
    Nobody,
    /// Clients use it.
    Vip,
    /// It is an endpoint of this slice, and no Vip.
    Endpoint(&'a NamespacedName),
}

impl Catalog {
    /// A catalog of nothing.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            named: HashMap::new(),
            derived: HashMap::new(),
            vips: HashMap::new(),
            endpoints: HashMap::new(),
            concerned: BTreeSet::new(),
        }
    }

    /// Takes in a Service, in place of the one of its name.
    pub fn put_service(&mut self, service: Known<ServiceSpec>) {
        let spec = &service.object;
        let name = NamespacedName::new(&spec.namespace, &spec.name);
        self.forget_service(&name);
        let holder = holder(service.order, &name);
        let rules = Arc::clone(&self.rules);
        for vip in service.object.vips.iter().filter(|v| rules.allows(v)) {
            hold(&mut self.vips, vip.address, &holder);
            self.concern_about(vip.address);
        }
        self.concerned.insert(name.clone());
        self.services.insert(name, service);
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, name: &NamespacedName) {
        if self.forget_service(name) {
            self.concerned.insert(name.clone());
        }
    }

    fn forget_service(&mut self, name: &NamespacedName) -> bool {
        let Some(service) = self.services.remove(name) else {
            return false;
        };
        for vip in &service.object.vips {
            self.concern_about(vip.address);
            release(&mut self.vips, vip.address, name);
        }
        true
    }

    /// Takes in a slice, in place of the one of its name.
    pub fn put_slice(&mut self, slice: Known<Slice>) {
        let name = NamespacedName::new(&slice.object.namespace, &slice.object.name);
        self.remove_slice(&name);
        let service = slice.object.service.as_deref().filter(|s| !s.is_empty());
        let Some(service) = service else { return };
        let service = NamespacedName::new(&name.namespace, service);
        let holder = holder(slice.order, &name);
        for endpoint in &slice.object.endpoints {
            hold(&mut self.endpoints, endpoint.address, &holder);
            self.concern_about(endpoint.address);
        }
        self.named.insert(name.clone(), service.clone());
        self.concerned.insert(service.clone());
        let of_service = self.slices.entry(service).or_default();
        of_service.insert(name.name, slice);
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, name: &NamespacedName) {
        let Some(service) = self.named.remove(name) else {
            return;
        };
        let Some(of_service) = self.slices.get_mut(&service) else {
            return;
        };
        let slice = of_service.remove(&name.name);
        if of_service.is_empty() {
            self.slices.remove(&service);
        }
        self.concerned.insert(service);
        for endpoint in slice.iter().flat_map(|slice| &slice.object.endpoints) {
            self.concern_about(endpoint.address);
            release(&mut self.endpoints, endpoint.address, name);
        }
    }

    /// Replaces the slices that were derived for a Service.
    pub fn put_derived(&mut self, service: &NamespacedName, slices: Vec<Known<Slice>>) {
        let name =
            |slice: &Known<Slice>| NamespacedName::new(&slice.object.namespace, &slice.object.name);
        let after: BTreeSet<NamespacedName> = slices.iter().map(name).collect();
        let before = self.derived.insert(service.clone(), after.clone());
        for gone in before.unwrap_or_default().difference(&after) {
            self.remove_slice(gone);
        }
        if after.is_empty() {
            self.derived.remove(service);
        }
        for slice in slices {
            let stays = self
                .slices
                .get(service)
                .and_then(|s| s.get(&slice.object.name));
            if stays.is_none_or(|known| *known != slice) {
                self.put_slice(slice);
            }
        }
    }

    /// Takes note that something about a Service changed that is not kept here.
    pub fn concern(&mut self, service: NamespacedName) {
        self.concerned.insert(service);
    }

    /// Names whom it concerns who has `address`, if that is a Vip and an endpoint at once.
    fn concern_about(&mut self, address: IpAddr) {
        let (Some(vips), Some(endpoints)) = (self.vips.get(&address), self.endpoints.get(&address))
        else {
            return;
        };
        self.concerned
            .extend(vips.iter().map(|h| (*h.name).clone()));
        let services = endpoints.iter().filter_map(|h| self.named.get(&*h.name));
        self.concerned.extend(services.cloned());
    }

    /// Services that must be compiled anew, those among them that are gone and those that only
    /// slices name; empty until something changes again.
    pub fn take_concerned(&mut self) -> BTreeSet<NamespacedName> {
        std::mem::take(&mut self.concerned)
    }

    /// Names of all Services that there are, or that slices name.
    pub fn names(&self) -> BTreeSet<&NamespacedName> {
        self.services.keys().chain(self.slices.keys()).collect()
    }

    /// A Service.
    pub fn service(&self, name: &NamespacedName) -> Option<&Known<ServiceSpec>> {
        self.services.get(name)
    }

    /// All Services, sorted by namespace and name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Known<ServiceSpec>> {
        self.services.values()
    }

    /// The slices that name a Service, sorted by name.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &Known<Slice>> {
        self.slices
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// All slices of Services, sorted by Service and name.
    pub fn slices(&self) -> impl Iterator<Item = &Known<Slice>> {
        self.slices.values().flat_map(BTreeMap::values)
    }

    /// Whether there is a slice of this name that names a Service.
    pub fn has_slice(&self, name: &NamespacedName) -> bool {
        self.named.contains_key(name)
    }

    /// How many slices there are.
    pub fn slice_count(&self) -> usize {
        self.named.len()
    }

    /// Whose an address is.
    pub fn owner(&self, address: IpAddr) -> Owner<'_> {
        let vip = self.vips.get(&address).and_then(|holders| holders.first());
        let endpoint = self.endpoints.get(&address);
        let endpoint = endpoint.and_then(|holders| holders.first());
        match (vip, endpoint) {
            (Some(vip), Some(endpoint)) if endpoint.order < vip.order => {
                Owner::Endpoint(&endpoint.name)
            }
            (Some(_), _) => Owner::Vip,
            (None, Some(endpoint)) => Owner::Endpoint(&endpoint.name),
            (None, None) => Owner::Nobody,
        }
    }
}

fn holder(order: u64, name: &NamespacedName) -> Holder {
    Holder {
        order,
        name: Arc::new(name.clone()),
    }
}

/// Adds a holder, each once, the one that was known first before the others.
fn hold(holders: &mut Holders, address: IpAddr, holder: &Holder) {
    let holders = holders.entry(address).or_default();
    if let Err(place) = holders.binary_search(holder) {
        holders.insert(place, holder.clone());
    }
}

fn release(holders: &mut Holders, address: IpAddr, name: &NamespacedName) {
    if let Some(of_address) = holders.get_mut(&address) {
        of_address.retain(|holder| *holder.name != *name);
        if of_address.is_empty() {
            holders.remove(&address);
        }
    }
}
