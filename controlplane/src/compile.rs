//! Objects to the Services of the table.
//!
//! Guarantees: pure and deterministic; the outcome depends on the objects, the settings and, only
//! where two Services claim one frontend, on which was known first. The outcome always passes
//! [`sluice_conf::ServiceTable::validate`]; what could not be served is a problem, never an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use sluice_conf::message::controlplane::Problem;
use sluice_conf::settings::Controlplane;
use sluice_conf::{
    Backend, BackendGone, Frontend, FrontendKind, Protocol, Service, ServiceName, ServiceTable,
    SourceNat,
};

use crate::endpoints::{self, Slice};
use crate::index::{Index, Known};
use crate::object::{self, Kind, ObjectId, Origin};
use crate::service::{Place, ServicePort, ServiceSpec, ServiceType};

/// What the settings say about Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Addresses of the gateway that serve node ports.
    pub node_addresses: Vec<Ipv4Addr>,
    /// For Services that say nothing else.
    pub source_nat: SourceNat,
    /// For Services that say nothing else.
    pub backend_gone: BackendGone,
}

impl From<&Controlplane> for Rules {
    fn from(settings: &Controlplane) -> Self {
        Self {
            node_addresses: settings.node_ports.addresses.clone(),
            source_nat: settings.defaults.source_nat,
            backend_gone: settings.defaults.backend_gone,
        }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// One entry per Service port, sorted by name.
    pub services: Vec<Service>,
    /// What could not be served.
    pub problems: BTreeSet<Problem>,
}

/// Compiles everything that the index holds.
pub fn compile(index: &Index, rules: &Rules) -> Compiled {
    let mut compiler = Compiler::new(index, rules);
    let slices: Vec<Known<Slice>> = index.slices().collect();
    let mut by_service: HashMap<(&str, &str), Vec<&Slice>> = HashMap::new();
    for Known { object: slice, .. } in &slices {
        if let Some(service) = &slice.service {
            let key = (slice.namespace.as_str(), service.as_str());
            by_service.entry(key).or_default().push(slice);
        }
    }
    let mut known: Vec<Known<ServiceSpec>> = index.services().collect();
    // Who was known first keeps a disputed frontend.
    known.sort_by_key(|service| service.order);
    for service in &known {
        let spec = &service.object;
        let key = (spec.namespace.as_str(), spec.name.as_str());
        let slices = by_service.get(&key).map_or(&[][..], Vec::as_slice);
        compiler.service(service, slices);
    }
    let mut services = compiler.services;
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Compiled {
        services,
        problems: compiler.problems,
    }
}

struct Compiler<'a> {
    rules: &'a Rules,
    /// Every Vip of every Service: none of them can be a backend (semantics S11).
    vips: BTreeSet<IpAddr>,
    claims: HashMap<(IpAddr, u16, Protocol), ObjectId>,
    services: Vec<Service>,
    problems: BTreeSet<Problem>,
}

impl<'a> Compiler<'a> {
    fn new(index: &Index, rules: &'a Rules) -> Self {
        let vips = index.services().flat_map(|service| {
            let vips: Vec<_> = service.object.vips.iter().map(|vip| vip.address).collect();
            vips
        });
        Self {
            rules,
            vips: vips.collect(),
            claims: HashMap::new(),
            services: Vec::new(),
            problems: BTreeSet::new(),
        }
    }

    fn service(&mut self, known: &Known<ServiceSpec>, slices: &[&Slice]) {
        let spec = &known.object;
        if spec.headless || spec.kind == ServiceType::ExternalName {
            return;
        }
        let owner = Owner {
            id: ObjectId {
                kind: Kind::Service,
                namespace: spec.namespace.clone(),
                name: spec.name.clone(),
            },
            file: &known.origin.file,
        };
        for port in &spec.ports {
            let Some(protocol) = port.protocol.served() else {
                continue;
            };
            let frontends = self.frontends(&owner, spec, port, protocol);
            let backends = self.backends(&owner, port, slices);
            self.services.push(Service {
                name: ServiceName {
                    namespace: spec.namespace.clone(),
                    name: spec.name.clone(),
                    port: port.name.clone(),
                    protocol,
                },
                frontends,
                backends,
                source_nat: spec.source_nat.unwrap_or(self.rules.source_nat),
                backend_gone: spec.backend_gone.unwrap_or(self.rules.backend_gone),
            });
        }
    }

    fn frontends(
        &mut self,
        owner: &Owner<'_>,
        spec: &ServiceSpec,
        port: &ServicePort,
        protocol: Protocol,
    ) -> Vec<Frontend> {
        let mut wanted: Vec<(Frontend, &Place)> = Vec::new();
        for vip in spec.vips.iter().filter(|vip| vip.address.is_ipv4()) {
            let frontend = Frontend {
                address: vip.address,
                port: port.port,
                kind: vip.kind,
            };
            wanted.push((frontend, &vip.place));
        }
        if let Some(node_port) = port.node_port {
            let addresses: BTreeSet<_> = self.rules.node_addresses.iter().collect();
            wanted.extend(addresses.into_iter().map(|address| {
                let frontend = Frontend {
                    address: (*address).into(),
                    port: node_port,
                    kind: FrontendKind::NodePort,
                };
                (frontend, &port.place)
            }));
        }
        let mut frontends: Vec<Frontend> = wanted
            .into_iter()
            .filter(|(frontend, place)| self.claim(owner, frontend, protocol, place))
            .map(|(frontend, _)| frontend)
            .collect();
        frontends.sort_unstable();
        frontends
    }

    /// Whether the frontend is this Service's to have.
    fn claim(
        &mut self,
        owner: &Owner<'_>,
        frontend: &Frontend,
        protocol: Protocol,
        place: &Place,
    ) -> bool {
        let Frontend { address, port, .. } = *frontend;
        let of_host = |own: &Ipv4Addr| IpAddr::from(*own) == address;
        if frontend.kind.is_vip() && self.rules.node_addresses.iter().any(of_host) {
            let message = format!(
                "{address} is the gateway's own address (node_ports.addresses) and cannot be \
                 a Service's; {} does not get it",
                owner.id
            );
            self.problem(owner, place, message);
            return false;
        }
        let key = (address, port, protocol);
        match self.claims.get(&key) {
            None => {
                self.claims.insert(key, owner.id.clone());
                true
            }
            Some(first) => {
                let message = format!(
                    "{address} port {port}/{protocol} is served by {first} already; {} does \
                     not get it",
                    owner.id
                );
                self.problem(owner, place, message);
                false
            }
        }
    }

    fn backends(
        &mut self,
        owner: &Owner<'_>,
        port: &ServicePort,
        slices: &[&Slice],
    ) -> Vec<Backend> {
        let mut backends = endpoints::backends(slices, &port.name, port.protocol);
        let vips = &self.vips;
        let looping: BTreeSet<IpAddr> = backends
            .iter()
            .map(|backend| backend.address)
            .filter(|address| vips.contains(address))
            .collect();
        if !looping.is_empty() {
            backends.retain(|backend| !looping.contains(&backend.address));
            for address in looping {
                let message =
                    format!("endpoint {address} is an address of a Service and is left out");
                self.problem(owner, &port.place, message);
            }
        }
        let limit = ServiceTable::MAX_BACKENDS;
        if backends.len() > limit {
            let message = format!(
                "has {} endpoints; only the first {limit} are used",
                backends.len()
            );
            self.problem(owner, &port.place, message);
            backends.truncate(limit);
        }
        backends
    }

    fn problem(&mut self, owner: &Owner<'_>, place: &Place, message: String) {
        let origin = Origin {
            file: owner.file.to_owned(),
            line: place.line,
        };
        let field = Some(place.field.as_str());
        let problem = object::problem(&owner.id, &origin, field, message);
        self.problems.insert(problem);
    }
}

/// The Service that is being compiled.
struct Owner<'a> {
    id: ObjectId,
    file: &'a str,
}

/// Counts of a table, for status and metrics.
pub fn count_frontends(services: &[Service]) -> BTreeMap<FrontendKind, usize> {
    let mut counts = BTreeMap::new();
    for frontend in services.iter().flat_map(|service| &service.frontends) {
        *counts.entry(frontend.kind).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests;
