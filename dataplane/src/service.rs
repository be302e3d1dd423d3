//! The service table compiled for lookup.
//!
//! A [`ServiceMap`] never changes; a new table makes a new map. A Service whose entry is equal
//! keeps its compiled form, and a backend that stays keeps its counters, whatever else changes.
//!
//! ```text
//!   ServiceTable --Draft::of--> Draft --ServiceMap::compile--> ServiceMap
//!   TableChange ---Draft::by--'   what goes, what is new
//! ```
//!
//! A map shares with the one before whatever did not change: while Services stay where they are and
//! clients use them as before, that is everything but what belongs to the changed ones. By a change
//! it is then made in a time that hardly depends on how many others there are.

mod chunked;
mod compiled;
mod draft;
mod lookup;
mod moves;
mod vips;

use std::net::IpAddr;
use std::sync::Arc;

use crate::flow::{Address, End};
use ipnet::IpNet;
use sluice_conf::message::dataplane::explain::Class;
use sluice_conf::settings::dataplane::{Limits, PortRange};
use sluice_conf::{
    Access, ChangeError, Claims, Frontend, Generation, Networks, Protocol, ServiceName,
    ServiceTable, TableError,
};

use chunked::Chunked;
pub use compiled::{Choice, CompiledBackend, CompiledService};
use draft::Added;
pub use draft::Draft;
use lookup::{Frontends, Preserving};
use moves::Moves;
pub use vips::{Vip, Vips};

/// Why a table cannot be used; the old one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The change was made from another table.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The table contradicts itself.
    #[error(transparent)]
    Table(#[from] TableError),
    /// More than the settings allow.
    #[error("the table has {count} {what}, limits.{what} of the settings is {limit}")]
    TooMany {
        /// What there is too much of, as the setting is called.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        limit: u32,
    },
    /// A node port that replies to masqueraded connections could arrive at.
    #[error(
        "service {service}: node port {port} lies in source_nat.ports {range}; move one of them"
    )]
    NodePortInRange {
        /// Service concerned.
        service: Box<ServiceName>,
        /// The node port.
        port: u16,
        /// The range of the settings.
        range: String,
    },
}

/// What the settings say about tables.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How many workers count.
    pub workers: u16,
    /// Ports that no node port may take.
    pub reserved: PortRange,
    /// Largest table.
    pub limits: Limits,
}

/// Where a packet is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl Target {
    /// Where a packet goes that has this end as its destination.
    pub fn from_end<A: Address>(end: End<A>, protocol: Protocol) -> Self {
        Self {
            address: end.address.into(),
            port: end.port,
            protocol,
        }
    }
}

/// A frontend that was found, with its Service.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Place of the Service.
    pub place: u32,
    /// The Service.
    pub service: &'a CompiledService,
    /// The frontend.
    pub frontend: &'a Frontend,
}

/// All Services of one generation.
#[derive(Debug, Default)]
pub struct ServiceMap {
    version: u32,
    /// Where the Services of the map before are that are still the same.
    moves: Moves,
    /// Places of the Services that are not.
    fresh: Vec<u32>,
    generation: Option<Generation>,
    networks: Networks,
    services: Chunked<CompiledService>,
    frontends: Arc<Frontends>,
    vips: Arc<Vips>,
    preserving: Arc<Preserving>,
    backend_count: usize,
}

impl ServiceMap {
    /// Compiles a table, taking over from `previous` whatever has not changed.
    ///
    /// # Errors
    /// The first reason why the table cannot be used.
    pub fn build(
        table: ServiceTable,
        previous: &ServiceMap,
        terms: &Terms,
    ) -> Result<Self, MapError> {
        Self::compile(Draft::of(table, previous), previous, terms)
    }

    /// Compiles what a draft says is new; `previous` is the map that it was drawn up beside.
    ///
    /// # Errors
    /// The first reason why the table cannot be used.
    pub fn compile(draft: Draft, previous: &ServiceMap, terms: &Terms) -> Result<Self, MapError> {
        let before = (
            previous.services.len(),
            previous.frontend_count(),
            previous.backend_count,
        );
        let services = draft.count(previous, before.0, |_| 1);
        let frontends = draft.count(previous, before.1, |entry| entry.frontends.len());
        let backends = draft.count(previous, before.2, |entry| entry.backends.len());
        for (what, count, limit) in [
            ("services", services, terms.limits.services),
            ("frontends", frontends, terms.limits.frontends),
            ("backends", backends, terms.limits.backends),
        ] {
            if count > limit as usize {
                return Err(MapError::TooMany { what, count, limit });
            }
        }
        let map = ServiceMap {
            version: previous.version.wrapping_add(1),
            moves: Moves::of(before.0, &draft.steps),
            generation: Some(draft.generation),
            backend_count: backends,
            ..ServiceMap::default()
        };
        match draft.only_changes_backends(previous) {
            true => map.patched(draft, previous, terms),
            false => map.rebuilt(draft, previous, terms),
        }
    }

    /// With the Services of `previous`, but for some that have changed where they are.
    fn patched(
        mut self,
        draft: Draft,
        previous: &ServiceMap,
        terms: &Terms,
    ) -> Result<Self, MapError> {
        for entry in draft.added() {
            entry.validate()?;
        }
        self.networks = draft.networks;
        self.services = previous.services.clone();
        self.frontends = Arc::clone(&previous.frontends);
        self.vips = Arc::clone(&previous.vips);
        self.preserving = Arc::clone(&previous.preserving);
        for step in draft.steps {
            for (place, added) in step.gone.zip(step.added) {
                self.replace(place, added, previous, terms);
            }
        }
        Ok(self)
    }

    fn replace(&mut self, place: usize, added: Added, previous: &ServiceMap, terms: &Terms) {
        let Some(old) = previous.services.get(place) else {
            return;
        };
        let new = added.compile(previous, terms.workers);
        if old.pings() != new.pings() {
            Arc::make_mut(&mut self.vips).replace(old, &new);
        }
        if lookup::answers_differ(old, &new) {
            let preserving = Arc::make_mut(&mut self.preserving);
            preserving.remove(old);
            preserving.add(&new);
        }
        self.fresh.push(place as u32);
        self.services.set(place, new);
    }

    /// With every index made anew.
    fn rebuilt(
        mut self,
        draft: Draft,
        previous: &ServiceMap,
        terms: &Terms,
    ) -> Result<Self, MapError> {
        check(&draft, previous, terms.reserved)?;
        self.networks = draft.networks;
        let (mut services, mut place) = (Vec::new(), 0);
        let mut old = previous.services.iter();
        for step in draft.steps {
            services.extend(old.by_ref().take(step.gone.start - place).cloned());
            place = step.gone.end;
            old.by_ref().take(step.gone.len()).for_each(drop);
            for added in step.added {
                self.fresh.push(services.len() as u32);
                services.push(added.compile(previous, terms.workers));
            }
        }
        services.extend(old.cloned());
        let mut frontends = Frontends::with_capacity(services.len());
        let (mut vips, mut preserving) = (Vips::default(), Preserving::default());
        for (service, place) in services.iter().zip(0..) {
            frontends.add(place, service);
            vips.add(service);
            preserving.add(service);
        }
        self.services = Chunked::of(&services);
        self.frontends = Arc::new(frontends);
        (self.vips, self.preserving) = (Arc::new(vips), Arc::new(preserving));
        Ok(self)
    }

    /// Whether the same packets are the Services' business as in `other`. True only for maps of
    /// which one was made from the other.
    pub fn reaches_as(&self, other: &ServiceMap) -> bool {
        Arc::ptr_eq(&self.frontends, &other.frontends)
            && Arc::ptr_eq(&self.preserving, &other.preserving)
            && self.networks.services == other.networks.services
    }

    /// Changes with every map; what a binding was made under.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Where a Service is that was at `place` in the map of `version`; `None` when it has changed
    /// since, or that map was not the one before this.
    pub fn carried(&self, version: u32, place: u32) -> Option<u32> {
        if version.wrapping_add(1) != self.version {
            return None;
        }
        self.moves.find(place)
    }

    /// The table's generation; `None` before the first table.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The Service of a frontend; one port wins over a range that holds it.
    pub fn frontend(&self, target: &Target) -> Option<Served<'_>> {
        let place = self.frontends.find(target)?;
        let service = self.service(place.service)?;
        Some(Served {
            place: place.service,
            service,
            frontend: service.entry.frontends.get(place.frontend as usize)?,
        })
    }

    /// What a client counts as.
    pub fn class(&self, client: IpAddr) -> Class {
        if holds(&self.networks.pods, client) {
            Class::Pod
        } else if holds(&self.networks.nodes, client) {
            Class::Node
        } else {
            Class::Other
        }
    }

    /// What a client gets at a frontend.
    pub fn access(&self, frontend: &Frontend, client: IpAddr) -> Access {
        match self.class(client) {
            Class::Pod => frontend.pods,
            Class::Node => frontend.nodes,
            Class::Other => frontend.others,
        }
    }

    /// Networks of the cluster.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Whether Services get their addresses from a network that holds this one.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        holds(&self.networks.services, address)
    }

    /// Whether this is where a backend answers clients that keep their address.
    pub fn is_preserving_backend(&self, target: &Target) -> bool {
        self.preserving.contains(target)
    }

    /// The name of the Service at a place.
    fn name(&self, place: usize) -> Option<&ServiceName> {
        self.services.get(place).map(|service| &service.entry.name)
    }

    /// The Service at a place.
    pub fn service(&self, place: u32) -> Option<&CompiledService> {
        self.services.get(place as usize).map(|service| &**service)
    }

    /// All Services, in the order of the table.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &CompiledService> {
        self.services.iter().map(|service| &**service)
    }

    /// Services that are new, or other than in the map before.
    pub fn fresh(&self) -> impl Iterator<Item = &CompiledService> {
        self.fresh.iter().filter_map(|place| self.service(*place))
    }

    /// Frontends of all Services.
    pub fn frontend_count(&self) -> usize {
        self.frontends.count()
    }

    /// Backends of all Services.
    pub fn backend_count(&self) -> usize {
        self.backend_count
    }

    /// Addresses that clients use.
    pub fn vips(&self) -> &Vips {
        &self.vips
    }

    /// The table that this map was built from.
    pub fn to_table(&self) -> ServiceTable {
        ServiceTable {
            generation: self.generation.unwrap_or_default(),
            networks: self.networks.clone(),
            services: self
                .services
                .iter()
                .map(|service| Arc::new(service.entry.clone()))
                .collect(),
        }
    }
}

fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Checks a table of which more than backends has changed.
fn check(draft: &Draft, previous: &ServiceMap, reserved: PortRange) -> Result<(), MapError> {
    for entry in draft.added() {
        entry.validate()?;
        for frontend in &entry.frontends {
            check_reserved(&entry.name, frontend, reserved)?;
        }
    }
    let entries = draft.entries(previous);
    let mut claims = Claims::with_capacity(entries.len());
    for entry in entries {
        claims.add(entry)?;
    }
    Ok(())
}

fn check_reserved(
    service: &ServiceName,
    frontend: &Frontend,
    reserved: PortRange,
) -> Result<(), MapError> {
    let overlaps = frontend.port <= reserved.last && reserved.first <= frontend.last_port;
    if frontend.kind.is_vip() || !overlaps {
        return Ok(());
    }
    Err(MapError::NodePortInRange {
        service: Box::new(service.clone()),
        port: frontend.port.max(reserved.first),
        range: reserved.to_string(),
    })
}

#[cfg(test)]
mod tests;
