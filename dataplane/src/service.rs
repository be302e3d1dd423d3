//! The service table compiled for lookup.
//!
//! A [`ServiceMap`] never changes; a new table makes a new map. A Service whose entry is equal
//! keeps its compiled form, and a backend that stays keeps its counters, whatever else changes.

mod compiled;
mod vips;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::flow::{Address, End};
use foldhash::{HashMap as FastMap, HashSet as FastSet};
use ipnet::IpNet;
use sluice_conf::message::dataplane::explain::Class;
use sluice_conf::settings::dataplane::{Limits, PortRange};
use sluice_conf::{
    Access, Frontend, Generation, Networks, Protocol, ServiceName, ServiceTable, TableError,
};

pub use compiled::{Choice, CompiledBackend, CompiledService};
pub use vips::{Vip, Vips};

/// Why a table cannot be used; the old one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
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

/// Place of a Service, and of a frontend in it.
#[derive(Debug, Clone, Copy)]
struct FrontendPlace {
    service: u32,
    frontend: u32,
}

/// Frontends of many ports of one address: first port, last port, place.
type Ranges = Vec<(u16, u16, FrontendPlace)>;

/// All Services of one generation.
#[derive(Debug, Default)]
pub struct ServiceMap {
    version: u32,
    /// Place of each Service of the map before that is still the same.
    carried: Vec<Option<u32>>,
    generation: Option<Generation>,
    networks: Networks,
    services: Vec<Arc<CompiledService>>,
    frontends: FastMap<Target, FrontendPlace>,
    ranges: FastMap<(IpAddr, Protocol), Ranges>,
    frontend_count: usize,
    vips: Vips,
    /// Backends that may answer clients by their own name; port 0 is every port.
    preserving: FastSet<Target>,
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
        check_limits(&table, &terms.limits)?;
        table.validate()?;
        let known: HashMap<&ServiceName, (usize, &Arc<CompiledService>)> = previous
            .services
            .iter()
            .enumerate()
            .map(|(place, service)| (&service.entry.name, (place, service)))
            .collect();
        let mut map = ServiceMap {
            version: previous.version.wrapping_add(1),
            carried: vec![None; previous.services.len()],
            generation: Some(table.generation),
            networks: table.networks,
            services: Vec::with_capacity(table.services.len()),
            ..ServiceMap::default()
        };
        for entry in table.services {
            let old = known.get(&entry.name).copied();
            let service = match old {
                Some((place, same)) if same.entry == entry => {
                    map.carried[place] = Some(map.services.len() as u32);
                    Arc::clone(same)
                }
                old => {
                    let old = old.map(|(_, arc)| &**arc);
                    Arc::new(CompiledService::new(entry, old, terms.workers))
                }
            };
            map.add(service, terms.reserved)?;
        }
        Ok(map)
    }

    fn add(&mut self, service: Arc<CompiledService>, reserved: PortRange) -> Result<(), MapError> {
        let place = self.services.len() as u32;
        let protocol = service.entry.name.protocol;
        for (frontend, number) in service.entry.frontends.iter().zip(0..) {
            check_reserved(&service.entry.name, frontend, reserved)?;
            self.vips.add(frontend, &service);
            self.frontend_count += 1;
            let place = FrontendPlace {
                service: place,
                frontend: number,
            };
            let Frontend {
                address,
                port,
                last_port,
                ..
            } = *frontend;
            if frontend.is_range() {
                let ranges = self.ranges.entry((address, protocol)).or_default();
                ranges.push((port, last_port, place));
            } else {
                let target = Target {
                    address,
                    port,
                    protocol,
                };
                self.frontends.insert(target, place);
            }
        }
        if service.entry.preserves() {
            let backends = service.entry.backends.iter();
            self.preserving.extend(backends.map(|backend| Target {
                address: backend.address,
                port: backend.port,
                protocol,
            }));
        }
        self.services.push(service);
        Ok(())
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
        *self.carried.get(place as usize)?
    }

    /// The table's generation; `None` before the first table.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The Service of a frontend; one port wins over a range that holds it.
    pub fn frontend(&self, target: &Target) -> Option<Served<'_>> {
        let place = match self.frontends.get(target) {
            Some(place) => *place,
            None if self.ranges.is_empty() => return None,
            None => self.in_range(target)?,
        };
        let service = self.service(place.service)?;
        Some(Served {
            place: place.service,
            service,
            frontend: service.entry.frontends.get(place.frontend as usize)?,
        })
    }

    fn in_range(&self, target: &Target) -> Option<FrontendPlace> {
        let ranges = self.ranges.get(&(target.address, target.protocol))?;
        let mut ranges = ranges.iter();
        ranges
            .find(|(first, last, _)| (*first..=*last).contains(&target.port))
            .map(|(_, _, place)| *place)
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

    /// Whether Services get their addresses from a network that holds this one.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        holds(&self.networks.services, address)
    }

    /// Whether this is where a backend answers clients that keep their address.
    pub fn is_preserving_backend(&self, target: &Target) -> bool {
        !self.preserving.is_empty()
            && (self.preserving.contains(target)
                || self.preserving.contains(&Target { port: 0, ..*target }))
    }

    /// The Service at a place.
    pub fn service(&self, place: u32) -> Option<&CompiledService> {
        self.services.get(place as usize).map(|arc| &**arc)
    }

    /// All Services, in the order of the table.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &CompiledService> {
        self.services.iter().map(|arc| &**arc)
    }

    /// Frontends of all Services.
    pub fn frontend_count(&self) -> usize {
        self.frontend_count
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
                .map(|service| service.entry.clone())
                .collect(),
        }
    }
}

fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

fn check_limits(table: &ServiceTable, limits: &Limits) -> Result<(), MapError> {
    let services = || table.services.iter();
    for (what, count, limit) in [
        ("services", services().count(), limits.services),
        (
            "frontends",
            services().map(|service| service.frontends.len()).sum(),
            limits.frontends,
        ),
        (
            "backends",
            services().map(|service| service.backends.len()).sum(),
            limits.backends,
        ),
    ] {
        if count > limit as usize {
            return Err(MapError::TooMany { what, count, limit });
        }
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
