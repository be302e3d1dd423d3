//! The service table compiled for lookup.
//!
//! A [`ServiceMap`] never changes; a new table makes a new map. A Service whose entry is equal
//! keeps its compiled form, and a backend that stays keeps its counters, whatever else changes.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluice_conf::settings::dataplane::PortRange;
use sluice_conf::{
    Backend, BackendState, Generation, Networks, Protocol, ServiceName, ServiceTable, TableError,
};

use crate::flow::End;
use crate::maglev::{Candidate, Maglev};
use crate::stats::{BackendCounters, PerWorker, Totals};

/// Why a table cannot be used; the old one stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The table contradicts itself.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An IPv6 address.
    #[error("service {service}: address {address} is IPv6; this release serves IPv4 only")]
    NotIpv4 {
        /// Service concerned.
        service: Box<ServiceName>,
        /// The address.
        address: IpAddr,
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

/// A backend of a compiled Service.
#[derive(Debug)]
pub struct CompiledBackend {
    /// Where it is.
    pub end: End<Ipv4Addr>,
    /// As the table has it.
    pub entry: Backend,
    /// What the workers count of it.
    pub counters: Arc<PerWorker<BackendCounters>>,
}

/// A Service, ready for new connections.
#[derive(Debug)]
pub struct CompiledService {
    /// As the table has it.
    pub entry: sluice_conf::Service,
    /// In the order of the table; a place in it is what a binding and a Maglev row hold.
    pub backends: Vec<CompiledBackend>,
    places: HashMap<End<Ipv4Addr>, u16>,
    maglev: Option<Arc<Maglev>>,
    /// What was counted of backends that have left since.
    departed: Totals,
}

impl CompiledService {
    /// The backend for a new connection; `None` when there is none to choose.
    pub fn pick(&self, hash: u64) -> Option<(u16, &CompiledBackend)> {
        let place = self.maglev.as_ref()?.pick(hash);
        Some((place, self.backends.get(usize::from(place))?))
    }

    /// The place of a backend that is still listed.
    pub fn place_of(&self, end: End<Ipv4Addr>) -> Option<u16> {
        self.places.get(&end).copied()
    }

    /// What was counted of the Service since it was first listed, whoever served it.
    pub fn totals(&self) -> Totals {
        let backends = self
            .backends
            .iter()
            .map(|backend| Totals::of(&backend.counters));
        backends.chain([self.departed]).sum()
    }

    /// Whether new connections can be served.
    pub fn is_ready(&self) -> bool {
        self.maglev.is_some()
    }
}

/// All Services of one generation.
#[derive(Debug, Default)]
pub struct ServiceMap {
    version: u32,
    generation: Option<Generation>,
    networks: Networks,
    services: Vec<Arc<CompiledService>>,
    frontends: HashMap<(End<Ipv4Addr>, Protocol), u32>,
    vips: HashMap<Ipv4Addr, bool>,
    node_addresses: HashSet<Ipv4Addr>,
}

impl ServiceMap {
    /// Compiles a table, taking over from `previous` whatever has not changed.
    ///
    /// # Errors
    /// The first reason why the table cannot be used.
    pub fn build(
        table: ServiceTable,
        previous: &ServiceMap,
        workers: u16,
        reserved: PortRange,
    ) -> Result<Self, MapError> {
        table.validate()?;
        let known: HashMap<&ServiceName, &Arc<CompiledService>> = previous
            .services
            .iter()
            .map(|service| (&service.entry.name, service))
            .collect();
        let mut map = ServiceMap {
            version: previous.version.wrapping_add(1),
            generation: Some(table.generation),
            networks: table.networks,
            services: Vec::with_capacity(table.services.len()),
            ..ServiceMap::default()
        };
        for entry in table.services {
            let old = known.get(&entry.name).copied();
            let service = match old {
                Some(same) if same.entry == entry => Arc::clone(same),
                old => Arc::new(compile(entry, old.map(|arc| &**arc), workers)?),
            };
            map.add(service, reserved)?;
        }
        Ok(map)
    }

    fn add(&mut self, service: Arc<CompiledService>, reserved: PortRange) -> Result<(), MapError> {
        let place = self.services.len() as u32;
        let name = &service.entry.name;
        for frontend in &service.entry.frontends {
            let address = ipv4(name, frontend.address)?;
            if frontend.kind.is_vip() {
                *self.vips.entry(address).or_default() |= service.is_ready();
            } else if reserved.ports().contains(&frontend.port) {
                let (service, port) = (Box::new(name.clone()), frontend.port);
                return Err(MapError::NodePortInRange {
                    service,
                    port,
                    range: reserved.to_string(),
                });
            } else {
                self.node_addresses.insert(address);
            }
            self.frontends
                .insert((End::new(address, frontend.port), name.protocol), place);
        }
        self.services.push(service);
        Ok(())
    }

    /// Changes with every map; what a binding was made under.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The table's generation; `None` before the first table.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The Service of a frontend, and its place.
    pub fn frontend(
        &self,
        end: End<Ipv4Addr>,
        protocol: Protocol,
    ) -> Option<(u32, &CompiledService)> {
        let place = *self.frontends.get(&(end, protocol))?;
        Some((place, self.service(place)?))
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
        self.frontends.len()
    }

    /// Whether the address is a Vip, and if so whether some backend behind it is ready.
    pub fn vip(&self, address: Ipv4Addr) -> Option<bool> {
        self.vips.get(&address).copied()
    }

    /// Whether clients send to this address: a Vip, or an address that serves node ports.
    pub fn is_used_by_clients(&self, address: Ipv4Addr) -> bool {
        self.vips.contains_key(&address) || self.node_addresses.contains(&address)
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

fn compile(
    entry: sluice_conf::Service,
    old: Option<&CompiledService>,
    workers: u16,
) -> Result<CompiledService, MapError> {
    let mut backends = Vec::with_capacity(entry.backends.len());
    for backend in &entry.backends {
        let end = End::new(ipv4(&entry.name, backend.address)?, backend.port);
        let counters = old
            .and_then(|service| service.backends.get(usize::from(service.place_of(end)?)))
            .map_or_else(
                || PerWorker::new(workers),
                |same| Arc::clone(&same.counters),
            );
        backends.push(CompiledBackend {
            end,
            entry: *backend,
            counters,
        });
    }
    let places = backends
        .iter()
        .zip(0..)
        .map(|(backend, place)| (backend.end, place))
        .collect();
    let candidates = candidates(&backends);
    let maglev = match old {
        Some(service) if self::candidates(&service.backends) == candidates => {
            service.maglev.clone()
        }
        _ => Maglev::build(&candidates).map(Arc::new),
    };
    let mut service = CompiledService {
        entry,
        backends,
        places,
        maglev,
        departed: Totals::default(),
    };
    service.departed = old.map_or_else(Totals::default, |old| departed(old, &service));
    Ok(service)
}

/// What was counted of backends of `old` that are not in `new`, and before.
fn departed(old: &CompiledService, new: &CompiledService) -> Totals {
    let gone = old
        .backends
        .iter()
        .filter(|backend| new.place_of(backend.end).is_none());
    gone.map(|backend| Totals::of(&backend.counters))
        .chain([old.departed])
        .sum()
}

fn candidates(backends: &[CompiledBackend]) -> Vec<Candidate> {
    let active = backends
        .iter()
        .zip(0..)
        .filter(|(b, _)| b.entry.state == BackendState::Active);
    let candidate = |(backend, index): (&CompiledBackend, u16)| Candidate {
        index,
        address: backend.entry.address,
        port: backend.entry.port,
        weight: backend.entry.weight,
    };
    active.map(candidate).collect()
}

fn ipv4(service: &ServiceName, address: IpAddr) -> Result<Ipv4Addr, MapError> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(_) => Err(MapError::NotIpv4 {
            service: Box::new(service.clone()),
            address,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::{RESERVED, table};

    fn map(text: &[&str], previous: &ServiceMap) -> ServiceMap {
        ServiceMap::build(table(text), previous, 1, RESERVED).unwrap()
    }

    #[test]
    fn a_frontend_leads_to_its_service_for_its_protocol_only() {
        let map = map(
            &["web tcp 203.0.113.10:80 -> 10.0.2.11:8080"],
            &ServiceMap::default(),
        );
        let end = End::new(Ipv4Addr::new(203, 0, 113, 10), 80);
        assert_eq!(
            map.frontend(end, Protocol::Tcp).unwrap().1.entry.name.name,
            "web"
        );
        assert!(map.frontend(end, Protocol::Udp).is_none());
        assert_eq!(map.vip(end.address), Some(true));
        assert_eq!(map.vip(Ipv4Addr::new(10, 0, 2, 11)), None);
    }

    #[test]
    fn what_does_not_change_keeps_its_compiled_form() {
        let first = map(
            &[
                "a tcp 203.0.113.1:80 -> 10.0.2.11:80",
                "b tcp 203.0.113.2:80 -> 10.0.2.11:80",
            ],
            &ServiceMap::default(),
        );
        let second = map(
            &[
                "a tcp 203.0.113.1:80 -> 10.0.2.11:80",
                "b tcp 203.0.113.2:80 -> 10.0.2.11:80 10.0.2.12:80",
            ],
            &first,
        );
        assert!(Arc::ptr_eq(&first.services[0], &second.services[0]));
        assert!(!Arc::ptr_eq(&first.services[1], &second.services[1]));
        let counters = |map: &ServiceMap| Arc::clone(&map.services[1].backends[0].counters);
        assert!(Arc::ptr_eq(&counters(&first), &counters(&second)));
        assert_ne!(first.version(), second.version());
    }

    #[test]
    fn a_draining_backend_is_listed_and_never_picked() {
        let map = map(
            &["a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80/draining"],
            &ServiceMap::default(),
        );
        let service = map.service(0).unwrap();
        let drained = End::new(Ipv4Addr::new(10, 0, 2, 12), 80);
        assert!(service.place_of(drained).is_some());
        for hash in 0..1000u64 {
            let (_, backend) = service
                .pick(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                .unwrap();
            assert_ne!(backend.end, drained);
        }
    }

    #[test]
    fn a_service_without_active_backend_is_not_ready() {
        let map = map(&["a tcp 203.0.113.1:80 ->"], &ServiceMap::default());
        assert_eq!(map.vip(Ipv4Addr::new(203, 0, 113, 1)), Some(false));
        assert!(map.service(0).unwrap().pick(1).is_none());
    }

    #[test]
    fn a_node_port_in_the_masquerade_range_is_refused() {
        let bad = table(&["a tcp node:10.0.1.1:20000 -> 10.0.2.11:80"]);
        let error = ServiceMap::build(bad, &ServiceMap::default(), 1, RESERVED).unwrap_err();
        assert_eq!(
            error.to_string(),
            "service default/a/TCP: node port 20000 lies in source_nat.ports 16384-29999; move one of them"
        );
    }
}
