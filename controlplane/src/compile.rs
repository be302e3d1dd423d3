//! Objects to the Services of the table.
//!
//! Guarantees: pure and deterministic; the outcome depends on the objects, the settings and, only
//! where two objects claim one address, on which was known first. The outcome always passes
//! [`sluice_conf::ServiceTable::validate`]; what could not be served is a problem, never an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use sluice_conf::message::controlplane::Problem;
use sluice_conf::settings::Controlplane;
use sluice_conf::{
    Access, Backend, BackendGone, Frontend, FrontendKind, Pool, Protocol, Service, ServiceName,
    ServiceTable, SourceNat,
};

use crate::endpoints::{self, Slice, SlicePort};
use crate::index::{Index, Known};
use crate::object::{self, Kind, ObjectId, Origin};
use crate::service::{Place, PortProtocol, ServicePort, ServiceSpec, ServiceType};

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
    let mut by_service: HashMap<(&str, &str), Vec<&Known<Slice>>> = HashMap::new();
    for slice in &slices {
        if let Some(service) = slice.object.service.as_deref().filter(|s| !s.is_empty()) {
            let key = (slice.object.namespace.as_str(), service);
            by_service.entry(key).or_default().push(slice);
        }
    }
    let mut known: Vec<Known<ServiceSpec>> = index.services().collect();
    // Who was known first keeps a disputed frontend.
    known.sort_by_key(|service| service.order);
    for service in &known {
        let spec = &service.object;
        let key = (spec.namespace.as_str(), spec.name.as_str());
        let slices = by_service.remove(&key).unwrap_or_default();
        compiler.service(service, &slices);
    }
    for (key, slices) in by_service {
        compiler.strays(key, &slices);
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
    /// Every Vip of every Service, and when the first of its Services was known: none of them can
    /// be a backend (the Endpoints API forbids it).
    vips: HashMap<IpAddr, u64>,
    /// Every endpoint that was known before a Service with the same address.
    endpoints: HashMap<IpAddr, ObjectId>,
    claims: HashMap<(IpAddr, u16, Protocol), ObjectId>,
    services: Vec<Service>,
    problems: BTreeSet<Problem>,
}

impl<'a> Compiler<'a> {
    fn new(index: &Index, rules: &'a Rules) -> Self {
        let mut vips: HashMap<IpAddr, u64> = HashMap::new();
        for service in index.services() {
            for vip in &service.object.vips {
                let first = vips.entry(vip.address).or_insert(service.order);
                *first = service.order.min(*first);
            }
        }
        let mut endpoints: HashMap<IpAddr, (u64, ObjectId)> = HashMap::new();
        for slice in index.slices() {
            for endpoint in &slice.object.endpoints {
                let address = endpoint.address;
                if vips.get(&address).is_none_or(|vip| *vip < slice.order) {
                    continue;
                }
                let first = endpoints.get(&address);
                if first.is_none_or(|(order, _)| slice.order < *order) {
                    endpoints.insert(address, (slice.order, id_of_slice(&slice.object)));
                }
            }
        }
        // What was an endpoint first stays one, or a typing error in a new Service would take the
        // backends of others.
        vips.retain(|address, _| !endpoints.contains_key(address));
        let endpoints = endpoints
            .into_iter()
            .map(|(address, (_, id))| (address, id));
        Self {
            rules,
            vips,
            endpoints: endpoints.collect(),
            claims: HashMap::new(),
            services: Vec::new(),
            problems: BTreeSet::new(),
        }
    }

    fn service(&mut self, known: &Known<ServiceSpec>, slices: &[&Known<Slice>]) {
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
            origin: &known.origin,
        };
        if slices.is_empty() {
            let label = endpoints::SERVICE_LABEL;
            let message = format!(
                "has no EndpointSlice, so clients are refused; a slice belongs to it by the label \
                 {label}: {}",
                spec.name
            );
            let problem = object::problem(&owner.id, owner.origin, None, message);
            self.problems.insert(problem);
        }
        let slices: Vec<&Slice> = slices.iter().map(|slice| slice.object.as_ref()).collect();
        for port in &spec.ports {
            let Some(protocol) = port.protocol.served() else {
                continue;
            };
            let frontends = self.frontends(&owner, spec, port, protocol);
            let backends = self.backends(&owner, port, &slices);
            let name = ServiceName {
                namespace: spec.namespace.clone(),
                name: spec.name.clone(),
                port: port.name.clone(),
                protocol,
            };
            self.services.push(Service {
                frontends,
                backends,
                backend_gone: spec.backend_gone.unwrap_or(self.rules.backend_gone),
                ..Service::new(name)
            });
        }
    }

    /// Slices whose Service is not there.
    fn strays(&mut self, (namespace, service): (&str, &str), slices: &[&Known<Slice>]) {
        for slice in slices {
            let id = id_of_slice(&slice.object);
            let message = format!("its Service {namespace}/{service} does not exist");
            let problem = object::problem(&id, &slice.origin, None, message);
            self.problems.insert(problem);
        }
    }

    fn frontends(
        &mut self,
        owner: &Owner<'_>,
        spec: &ServiceSpec,
        port: &ServicePort,
        protocol: Protocol,
    ) -> Vec<Frontend> {
        let access = Access {
            pool: Pool::Cluster,
            source_nat: spec.source_nat.unwrap_or(self.rules.source_nat),
        };
        let mut wanted: Vec<(Frontend, &Place)> = Vec::new();
        for vip in spec.vips.iter().filter(|vip| vip.address.is_ipv4()) {
            let frontend = Frontend::new(vip.address, port.port, vip.kind, access);
            wanted.push((frontend, &vip.place));
        }
        if let Some(node_port) = port.node_port {
            let addresses: BTreeSet<_> = self.rules.node_addresses.iter().collect();
            if addresses.is_empty() && spec.kind == ServiceType::NodePort {
                let message = format!(
                    "node port {node_port} is not served: node_ports.addresses of the settings is \
                     empty"
                );
                self.problem(owner, &port.place, message);
            }
            wanted.extend(addresses.into_iter().map(|address| {
                let address = (*address).into();
                let frontend = Frontend::new(address, node_port, FrontendKind::NodePort, access);
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
        if let Some(slice) = self
            .endpoints
            .get(&address)
            .filter(|_| frontend.kind.is_vip())
        {
            let message = format!(
                "{address} is an endpoint of {slice} already and cannot be a Service's; {} does \
                 not get it",
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
        self.unmatched(owner, port, slices);
        let mut backends = endpoints::backends(slices, &port.name, port.protocol);
        let vips = &self.vips;
        let looping: BTreeSet<IpAddr> = backends
            .iter()
            .map(|backend| backend.address)
            .filter(|address| vips.contains_key(address))
            .collect();
        if !looping.is_empty() {
            backends.retain(|backend| !looping.contains(&backend.address));
            for address in looping.into_iter().take(object::MAX_ISSUES) {
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

    /// Names a port that no slice has although there are endpoints: most likely the names differ.
    fn unmatched(&mut self, owner: &Owner<'_>, port: &ServicePort, slices: &[&Slice]) {
        let filled = || slices.iter().filter(|slice| !slice.endpoints.is_empty());
        let ports = || filled().flat_map(|slice| &slice.ports);
        let matching = |p: &SlicePort| p.name == port.name && p.protocol == port.protocol;
        if filled().next().is_none() || ports().any(matching) {
            return;
        }
        let quoted = |name: &str, protocol: PortProtocol| match name {
            "" => format!("without a name, {}", protocol.as_str()),
            name => format!("{name:?}, {}", protocol.as_str()),
        };
        let have: BTreeSet<String> = ports().map(|p| quoted(&p.name, p.protocol)).collect();
        let have = match have.is_empty() {
            true => "no port".to_owned(),
            false => have.into_iter().collect::<Vec<_>>().join("; "),
        };
        let wanted = quoted(&port.name, port.protocol);
        let message = format!(
            "no EndpointSlice of this Service has this port ({wanted}), so clients are refused; \
             they have: {have}"
        );
        self.problem(owner, &port.place, message);
    }

    fn problem(&mut self, owner: &Owner<'_>, place: &Place, message: String) {
        let origin = Origin {
            file: owner.origin.file.clone(),
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
    origin: &'a Origin,
}

fn id_of_slice(slice: &Slice) -> ObjectId {
    ObjectId {
        kind: Kind::EndpointSlice,
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
    }
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
