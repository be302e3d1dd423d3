//! From what a packet says to the place of its Service.

use std::collections::hash_map::Entry;
use std::net::IpAddr;

use foldhash::{HashMap as FastMap, HashMapExt};
use sluice_conf::{Forwarding, Frontend, Protocol};

use super::{CompiledService, Target};

/// Place of a Service, and of a frontend in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrontendPlace {
    pub service: u32,
    pub frontend: u32,
}

/// Frontends of many ports of one address: first port, last port, place.
type Ranges = Vec<(u16, u16, FrontendPlace)>;

/// The frontends of all Services.
#[derive(Debug, Default)]
pub(super) struct Frontends {
    ports: FastMap<Target, FrontendPlace>,
    ranges: FastMap<(IpAddr, Protocol), Ranges>,
    count: usize,
}

impl Frontends {
    /// Room for so many frontends of one port.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            ports: FastMap::with_capacity(count),
            ..Self::default()
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn add(&mut self, place: u32, service: &CompiledService) {
        let protocol = service.entry.name.protocol;
        for (frontend, number) in service.entry.frontends.iter().zip(0..) {
            self.count += 1;
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
                self.ports.insert(target, place);
            }
        }
    }

    /// The frontend that a packet is for; one port wins over a range that holds it.
    pub fn find(&self, target: &Target) -> Option<FrontendPlace> {
        match self.ports.get(target) {
            Some(place) => Some(*place),
            None if self.ranges.is_empty() => None,
            None => self.in_range(target),
        }
    }

    fn in_range(&self, target: &Target) -> Option<FrontendPlace> {
        let ranges = self.ranges.get(&(target.address, target.protocol))?;
        let mut ranges = ranges.iter();
        ranges
            .find(|(first, last, _)| (*first..=*last).contains(&target.port))
            .map(|(_, _, place)| *place)
    }
}

/// Backends that may answer clients by their own name, each with the number of Services that list
/// it; port 0 is every port.
#[derive(Debug, Clone, Default)]
pub(super) struct Preserving(FastMap<Target, u32>);

impl Preserving {
    pub fn add(&mut self, service: &CompiledService) {
        for target in answering(service) {
            *self.0.entry(target).or_default() += 1;
        }
    }

    /// Takes back what [`Preserving::add`] has added.
    pub fn remove(&mut self, service: &CompiledService) {
        for target in answering(service) {
            if let Entry::Occupied(mut entry) = self.0.entry(target) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }

    pub fn contains(&self, target: &Target) -> bool {
        !self.0.is_empty()
            && (self.0.contains_key(target) || self.0.contains_key(&Target { port: 0, ..*target }))
    }
}

/// Whether two forms of one Service have other backends that answer by their own name, or answer
/// another way.
pub(super) fn answers_differ(old: &CompiledService, new: &CompiledService) -> bool {
    let direct = |service: &CompiledService| service.entry.forwarding == Forwarding::DirectReturn;
    let preserves = old.entry.preserves() || new.entry.preserves();
    preserves && (direct(old) != direct(new) || answering(old).ne(answering(new)))
}

fn answering(service: &CompiledService) -> impl Iterator<Item = Target> {
    let protocol = service.entry.name.protocol;
    let backends = service.entry.backends.iter();
    let preserves = service.entry.preserves();
    backends
        .filter(move |_| preserves)
        .map(move |backend| Target {
            address: backend.address,
            port: backend.port,
            protocol,
        })
}
