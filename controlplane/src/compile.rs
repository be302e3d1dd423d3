//! Objects to the Services of the table.
//!
//! Guarantees: pure and deterministic; the outcome depends on the objects, the settings and, only
//! where two objects claim one address, on which was known first. The outcome always passes
//! [`sluice_conf::ServiceTable::validate`]; what could not be served is a problem, never an error.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use sluice_conf::message::controlplane::Problem;
use sluice_conf::{
    Forwarding, Frontend, FrontendKind, Protocol, Service, ServiceName, ServiceTable,
};

use crate::endpoints::{self, Slice};
use crate::index::{Index, Known};
use crate::object::{self, Kind, Lines, Object, ObjectId, Origin};
use crate::service::{Place, ServiceSpec, ServiceType};

mod access;
mod backends;
mod claims;
mod counts;
mod rules;

use claims::Claims;
pub use counts::{WithoutLocal, count_without_local};
pub use rules::Rules;

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The table, without a generation; one entry per Service port or range of ports, sorted by
    /// name.
    pub table: ServiceTable,
    /// What could not be served.
    pub problems: BTreeSet<Problem>,
}

/// Checks and compiles these objects alone, known in this order. A namespace that is not written is
/// `default`. What is wrong with them is told as if they stood in files named `objects`.
pub fn table_of(
    services: impl IntoIterator<Item = core::Service>,
    slices: impl IntoIterator<Item = discovery::EndpointSlice>,
    rules: &Rules,
) -> (ServiceTable, Vec<Problem>) {
    let services = services.into_iter().map(|service| {
        let id = object::id(Kind::Service, &service.metadata);
        (id, Object::Service(Box::new(service)))
    });
    let slices = slices.into_iter().map(|slice| {
        let id = object::id(Kind::EndpointSlice, &slice.metadata);
        (id, Object::EndpointSlice(Box::new(slice)))
    });
    let mut index = Index::default();
    for (id, object) in services.chain(slices) {
        let origin = Origin {
            file: "objects".to_owned(),
            line: None,
        };
        let (lines, now) = (Lines::default(), Duration::ZERO);
        index.apply(id, origin, Some(&object), Vec::new(), &lines, now);
    }
    let compiled = compile(&index, rules);
    let mut problems = index.problems();
    problems.extend(compiled.problems);
    (compiled.table, problems.into_iter().collect())
}

/// Compiles everything that the index holds.
pub fn compile(index: &Index, rules: &Rules) -> Compiled {
    let mut compiler = Compiler {
        rules,
        claims: Claims::new(index, rules),
        services: Vec::new(),
        problems: BTreeSet::new(),
    };
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
        table: ServiceTable {
            networks: rules.networks.clone(),
            services: services.into_iter().map(Arc::new).collect(),
            ..ServiceTable::default()
        },
        problems: compiler.problems,
    }
}

struct Compiler<'a> {
    rules: &'a Rules,
    claims: Claims,
    services: Vec<Service>,
    problems: BTreeSet<Problem>,
}

/// The Service that is being compiled.
struct Owner<'a> {
    id: ObjectId,
    origin: &'a Origin,
    spec: &'a ServiceSpec,
    slices: Vec<&'a Slice>,
    forwarding: Forwarding,
}

/// A port of a Service, or a range of them: one entry of the table.
struct Listing<'a> {
    name: String,
    protocol: Protocol,
    first: u16,
    last: u16,
    node_port: Option<u16>,
    /// Whether it is a range by annotation, even of one port.
    range: bool,
    place: &'a Place,
}

fn listings(spec: &ServiceSpec) -> impl Iterator<Item = Listing<'_>> {
    let ports = spec.ports.iter().map(|port| Listing {
        name: port.name.clone(),
        protocol: port.protocol,
        first: port.port,
        last: port.port,
        node_port: port.node_port,
        range: false,
        place: &port.place,
    });
    let ranges = spec.port_ranges.iter().map(|range| Listing {
        name: range.to_string(),
        protocol: range.protocol,
        first: range.first,
        last: range.last,
        node_port: None,
        range: true,
        place: &spec.port_ranges_place,
    });
    ports.chain(ranges)
}

impl Compiler<'_> {
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
            spec,
            slices: slices.iter().map(|slice| slice.object.as_ref()).collect(),
            forwarding: access::forwarding(spec, self.rules),
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
        self.refuse_external_ips(&owner);
        for listing in listings(spec) {
            let service = self.listed(&owner, &listing);
            self.services.push(service);
        }
    }

    fn listed(&mut self, owner: &Owner<'_>, listing: &Listing<'_>) -> Service {
        let (spec, defaults) = (owner.spec, &self.rules.defaults);
        let policies = &spec.policies;
        let name = ServiceName {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            port: listing.name.clone(),
            protocol: listing.protocol,
        };
        let service = Service {
            affinity_seconds: spec.affinity_seconds,
            source_ranges: source_ranges(spec, &self.rules.networks.nodes),
            backend_gone: policies.backend_gone.unwrap_or(defaults.backend_gone),
            refusal: policies.refusal.unwrap_or(defaults.refusal),
            ping: policies.ping.unwrap_or(defaults.ping),
            mss_clamp: policies.mss_clamp.or(defaults.mss_clamp),
            forwarding: owner.forwarding,
            ..Service::new(name)
        };
        Service {
            frontends: self.frontends(owner, listing),
            backends: self.backends(owner, listing),
            ..service
        }
    }

    /// Names the external IPs that the settings do not allow.
    fn refuse_external_ips(&mut self, owner: &Owner<'_>) {
        let refused = owner.spec.vips.iter().filter(|vip| !self.rules.allows(vip));
        for vip in refused.collect::<Vec<_>>() {
            let message = format!(
                "{} is not served: anybody who may write a Service could claim any address \
                 (CVE-2020-8554); cluster.external_ips of the settings lists what is allowed",
                vip.address
            );
            self.problem(owner, &vip.place, message);
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

    fn frontends(&mut self, owner: &Owner<'_>, listing: &Listing<'_>) -> Vec<Frontend> {
        let (rules, spec) = (self.rules, owner.spec);
        let frontend = |address, port, kind| access::frontend(address, port, kind, spec, rules);
        let mut wanted: Vec<(Frontend, &Place)> = Vec::new();
        for vip in spec.vips.iter().filter(|vip| rules.allows(vip)) {
            let frontend = Frontend {
                last_port: listing.last,
                ..frontend(vip.address, listing.first, vip.kind)
            };
            wanted.push((frontend, &vip.place));
        }
        if let Some(node_port) = listing.node_port {
            let addresses = self.node_addresses(owner, listing, node_port);
            wanted.extend(addresses.into_iter().map(|address| {
                let frontend = frontend(address, node_port, FrontendKind::NodePort);
                (frontend, listing.place)
            }));
        }
        let mut frontends = Vec::with_capacity(wanted.len());
        for (frontend, place) in wanted {
            match self.claims.claim(&owner.id, &frontend, listing.protocol) {
                Ok(()) => frontends.push(frontend),
                Err(message) => self.problem(owner, place, message),
            }
        }
        frontends.sort_unstable();
        frontends
    }

    /// Where the node port is served.
    fn node_addresses(
        &mut self,
        owner: &Owner<'_>,
        listing: &Listing<'_>,
        node_port: u16,
    ) -> BTreeSet<IpAddr> {
        let mut addresses: BTreeSet<_> = self.rules.node_addresses.iter().copied().collect();
        let why = if owner.forwarding == Forwarding::DirectReturn && !addresses.is_empty() {
            addresses.clear();
            "direct return needs an address that backends can have"
        } else if addresses.is_empty() && owner.spec.kind == ServiceType::NodePort {
            "node_ports.addresses of the settings is empty"
        } else {
            return addresses;
        };
        let message = format!("node port {node_port} is not served: {why}");
        self.problem(owner, listing.place, message);
        addresses
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

/// Who may use guarded frontends. A network that holds a node lets it in by every way, also from
/// the Vip itself, where the node's own packets may come from (kube-proxy
/// pkg/proxy/nftables/proxier.go, allowFromNode).
fn source_ranges(spec: &ServiceSpec, nodes: &[IpNet]) -> Vec<IpNet> {
    let mut ranges = spec.source_ranges.clone();
    if ranges
        .iter()
        .any(|range| nodes.iter().any(|node| range.contains(node)))
    {
        let balanced = spec
            .vips
            .iter()
            .filter(|vip| vip.kind == FrontendKind::LoadBalancer);
        ranges.extend(balanced.map(|vip| IpNet::from(vip.address)));
        ranges.sort_unstable();
        ranges.dedup();
    }
    ranges
}

fn id_of_slice(slice: &Slice) -> ObjectId {
    ObjectId {
        kind: Kind::EndpointSlice,
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
    }
}

#[cfg(test)]
mod tests;
