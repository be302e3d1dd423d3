//! Objects to the Services of the table.
//!
//! Guarantees: pure and deterministic; the outcome depends on the objects, the settings and, only
//! where two objects claim one address, on which was known first. The outcome always passes
//! [`sluice_conf::ServiceTable::validate`]; what could not be served is a problem, never an error.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use sluice_conf::message::controlplane::Problem;
use sluice_conf::{
    Forwarding, Frontend, FrontendKind, Protocol, Service, ServiceName, ServiceTable,
};
use tracing::error;

use crate::catalog::{Catalog, Owner as Holder};
use crate::endpoints::{self, Slice};
use crate::index::Known;
use crate::object::{self, Kind, Lines, NamespacedName, ObjectId, Origin};
use crate::readiness::{Moment, Readiness};
use crate::rules::Rules;
use crate::service::{self, Place, ServiceSpec, ServiceType};

mod access;
mod backends;
mod claims;
mod counts;

use claims::{Claim, Claims};
pub use counts::{Sizes, WithoutLocal, count_without_local};

/// What is thought of endpoints, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints<'a> {
    /// Who thinks so.
    pub readiness: &'a Readiness,
    /// The moment.
    pub moment: Moment,
}

/// Keeps what every Service was compiled to, and compiles anew what a change concerns.
#[derive(Debug)]
pub struct Compiler {
    rules: Arc<Rules>,
    claims: Claims,
    outcomes: BTreeMap<NamespacedName, Outcome>,
    /// When which Service is compiled anew.
    due: BTreeSet<(Duration, NamespacedName)>,
    sizes: Sizes,
}

/// What one Service was compiled to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Outcome {
    /// One entry per port or range of ports, sorted by name.
    services: Vec<Arc<Service>>,
    /// What could not be served.
    problems: BTreeSet<Problem>,
    /// When it is compiled anew although nothing changes, on the clock of the process.
    due: Option<Duration>,
}

impl Compiler {
    /// A compiler that has not compiled anything.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            claims: Claims::default(),
            outcomes: BTreeMap::new(),
            due: BTreeSet::new(),
            sizes: Sizes::default(),
        }
    }

    /// Compiles these Services of the catalog, and those that may get more or less by it. Returns
    /// whether the problems are others than before.
    pub fn update(
        &mut self,
        catalog: &Catalog,
        endpoints: &Endpoints<'_>,
        mut concerned: BTreeSet<NamespacedName>,
    ) -> bool {
        let mut differ = false;
        while let Some(name) = concerned.pop_first() {
            let wanted = Job::new(catalog, endpoints, &self.rules, &name);
            let claims = wanted.as_ref().map(Job::claims).unwrap_or_default();
            concerned.extend(self.claims.replace(&name, claims));
            let outcome = match wanted {
                Some(job) => job.compile(&self.claims),
                None => strays(catalog, &name),
            };
            differ |= self.settle(name, outcome);
        }
        differ
    }

    /// Puts an outcome in place of the one before. Returns whether its problems are others.
    fn settle(&mut self, name: NamespacedName, mut outcome: Outcome) -> bool {
        let before = self.outcomes.remove(&name).unwrap_or_default();
        if let Some(due) = before.due {
            self.due.remove(&(due, name.clone()));
        }
        if let Some(due) = outcome.due {
            self.due.insert((due, name.clone()));
        }
        let known: HashMap<&ServiceName, &Arc<Service>> =
            before.services.iter().map(|s| (&s.name, s)).collect();
        for service in &mut outcome.services {
            // What is equal stays the same, so that nobody need compare it again.
            if let Some(same) = known.get(&service.name).filter(|known| **known == service) {
                *service = Arc::clone(same);
            }
        }
        self.sizes.replace(&before.services, &outcome.services);
        let differ = before.problems != outcome.problems;
        if outcome != Outcome::default() {
            self.outcomes.insert(name, outcome);
        }
        differ
    }

    /// The table of all Services, without a generation. It is valid.
    pub fn table(&self) -> ServiceTable {
        let services = self
            .outcomes
            .values()
            .flat_map(|o| o.services.iter().cloned());
        let mut all = Vec::with_capacity(self.sizes.ports);
        all.extend(services);
        ServiceTable {
            networks: self.rules.networks.clone(),
            services: all,
            ..ServiceTable::default()
        }
    }

    /// What could not be served.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.outcomes.values().flat_map(|outcome| &outcome.problems)
    }

    /// What the settings say about Services.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// Services that are due at `now`, and when the next is.
    pub fn due(&self, now: Duration) -> (BTreeSet<NamespacedName>, Option<Duration>) {
        let late = self.due.iter().take_while(|(due, _)| *due <= now);
        let late = late.map(|(_, name)| name.clone()).collect();
        let next = self.due.iter().map(|(due, _)| *due).find(|due| *due > now);
        (late, next)
    }

    /// How much there is in the table.
    pub const fn sizes(&self) -> &Sizes {
        &self.sizes
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The table, without a generation; one entry per Service port or range of ports, sorted by
    /// name.
    pub table: ServiceTable,
    /// What could not be served.
    pub problems: BTreeSet<Problem>,
}

/// Compiles everything that the catalog holds.
pub fn compile(catalog: &Catalog, endpoints: &Endpoints<'_>, rules: Arc<Rules>) -> Compiled {
    let mut compiler = Compiler::new(rules);
    let all = catalog.names().into_iter().cloned().collect();
    compiler.update(catalog, endpoints, all);
    Compiled {
        table: compiler.table(),
        problems: compiler.problems().cloned().collect(),
    }
}

/// Checks and compiles these objects alone, as an API server has admitted them, known in this
/// order. A namespace that is not written is `default`. What is wrong with them is told as if they
/// stood in files named `objects`.
pub fn table_of(
    services: impl IntoIterator<Item = core::Service>,
    slices: impl IntoIterator<Item = discovery::EndpointSlice>,
    rules: &Rules,
) -> (ServiceTable, Vec<Problem>) {
    let rules = Arc::new(rules.clone());
    let mut catalog = Catalog::new(Arc::clone(&rules));
    let mut problems = BTreeSet::new();
    let origin = Origin {
        file: "objects".to_owned(),
        line: None,
    };
    let known = |order| Known::at(origin.clone(), order);
    let mut order = 0;
    for service in services {
        let id = object::id(Kind::Service, &service.metadata);
        let checked = service::check(&id.namespace, &id.name, &service, &Lines::default());
        problems.extend(object::problems(&id, &origin, checked.issues));
        if let Some(spec) = checked.good {
            order += 1;
            catalog.put_service(known(order).with(spec));
        }
    }
    for slice in slices {
        let id = object::id(Kind::EndpointSlice, &slice.metadata);
        let checked = endpoints::check(&id.namespace, &id.name, &slice);
        problems.extend(object::problems(&id, &origin, checked.issues));
        if let Some(slice) = checked.good {
            order += 1;
            catalog.put_slice(known(order).with(slice));
        }
    }
    let readiness = Readiness::default();
    let endpoints = Endpoints {
        readiness: &readiness,
        moment: Moment::default(),
    };
    let compiled = compile(&catalog, &endpoints, rules);
    problems.extend(compiled.problems);
    (compiled.table, problems.into_iter().collect())
}

/// Slices whose Service is not there.
fn strays(catalog: &Catalog, service: &NamespacedName) -> Outcome {
    let problems = catalog.slices_of(service).map(|slice| {
        let message = format!("its Service {service} does not exist");
        object::problem(&id_of_slice(&slice.object), &slice.origin, None, message)
    });
    Outcome {
        problems: problems.collect(),
        ..Outcome::default()
    }
}

/// A Service that is being compiled.
struct Job<'a> {
    rules: &'a Rules,
    catalog: &'a Catalog,
    owner: Owner<'a>,
    order: u64,
    /// Every frontend that is wanted, with the listing that it is for and the field that asks.
    wanted: Vec<Wanted<'a>>,
    problems: BTreeSet<Problem>,
    due: Option<Duration>,
}

struct Wanted<'a> {
    listing: usize,
    frontend: Frontend,
    protocol: Protocol,
    place: &'a Place,
}

/// The Service that is being compiled.
struct Owner<'a> {
    id: ObjectId,
    origin: &'a Origin,
    spec: &'a ServiceSpec,
    slices: Vec<Cow<'a, Slice>>,
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

impl<'a> Job<'a> {
    /// The job of a Service; `None` when it is not there.
    fn new(
        catalog: &'a Catalog,
        endpoints: &Endpoints<'_>,
        rules: &'a Rules,
        name: &NamespacedName,
    ) -> Option<Self> {
        let known = catalog.service(name)?;
        let spec = &*known.object;
        let slices = catalog.slices_of(name).map(|slice| &*slice.object);
        let moment = endpoints.moment;
        let look = endpoints.readiness.look(spec, slices, moment);
        let owner = Owner {
            id: ObjectId {
                kind: Kind::Service,
                namespace: spec.namespace.clone(),
                name: spec.name.clone(),
            },
            origin: &known.origin,
            spec,
            slices: look.slices,
            forwarding: access::forwarding(spec, rules),
        };
        let mut job = Self {
            rules,
            catalog,
            owner,
            order: known.order,
            wanted: Vec::new(),
            problems: BTreeSet::new(),
            due: look.next.map(|next| moment.now.saturating_add(next)),
        };
        if let Some(ignored) = look.ignored {
            let problem = object::problem(&job.owner.id, job.owner.origin, None, ignored);
            job.problems.insert(problem);
        }
        if job.is_served() {
            for (number, listing) in listings(spec).enumerate() {
                job.want(number, &listing);
            }
        }
        Some(job)
    }

    fn is_served(&self) -> bool {
        !self.owner.spec.headless && self.owner.spec.kind != ServiceType::ExternalName
    }

    /// What it needs that only one may have.
    fn claims(&self) -> Vec<Claim> {
        let wanted = self.wanted.iter().enumerate();
        wanted
            .filter(|(_, wanted)| self.refusal(wanted).is_none())
            .map(|(number, wanted)| self.claim(number, wanted))
            .collect()
    }

    fn claim(&self, number: usize, wanted: &Wanted<'_>) -> Claim {
        Claim::new(&wanted.frontend, wanted.protocol, (self.order, number))
    }

    fn compile(mut self, claims: &Claims) -> Outcome {
        if !self.is_served() {
            return Outcome::default();
        }
        if self.owner.slices.is_empty() {
            let label = endpoints::SERVICE_LABEL;
            let message = format!(
                "has no EndpointSlice, so clients are refused; a slice belongs to it by the label \
                 {label}: {}",
                self.owner.spec.name
            );
            let problem = object::problem(&self.owner.id, self.owner.origin, None, message);
            self.problems.insert(problem);
        }
        self.refuse_external_ips();
        let mut granted = self.granted(claims);
        let mut services = Vec::new();
        for (number, listing) in listings(self.owner.spec).enumerate() {
            let frontends = granted.remove(&number).unwrap_or_default();
            let service = self.listed(&listing, frontends);
            match service.validate() {
                Ok(()) => services.push(Arc::new(service)),
                // Nothing that an object can say leads here; if it does, the others are served.
                Err(fault) => error!("compiled what is not valid and left it out: {fault}"),
            }
        }
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Outcome {
            services,
            problems: self.problems,
            due: self.due,
        }
    }

    fn listed(&mut self, listing: &Listing<'_>, frontends: Vec<Frontend>) -> Service {
        let (spec, defaults) = (self.owner.spec, &self.rules.defaults);
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
            forwarding: self.owner.forwarding,
            ..Service::new(name)
        };
        Service {
            frontends,
            backends: self.backends(listing),
            ..service
        }
    }

    /// Names the external IPs that the settings do not allow.
    fn refuse_external_ips(&mut self) {
        let spec = self.owner.spec;
        for vip in spec.vips.iter().filter(|vip| !self.rules.allows(vip)) {
            let message = format!(
                "{} is not served: anybody who may write a Service could claim any address \
                 (CVE-2020-8554); cluster.external_ips of the settings lists what is allowed",
                vip.address
            );
            self.problem(&vip.place, message);
        }
    }

    /// Collects the frontends that a port of the Service is to have.
    fn want(&mut self, number: usize, listing: &Listing<'a>) {
        let (rules, spec) = (self.rules, self.owner.spec);
        let frontend = |address, port, kind| access::frontend(address, port, kind, spec, rules);
        let wanted = |frontend, place| Wanted {
            listing: number,
            frontend,
            protocol: listing.protocol,
            place,
        };
        for vip in spec.vips.iter().filter(|vip| rules.allows(vip)) {
            let frontend = Frontend {
                last_port: listing.last,
                ..frontend(vip.address, listing.first, vip.kind)
            };
            self.wanted.push(wanted(frontend, &vip.place));
        }
        let Some(node_port) = listing.node_port else {
            return;
        };
        if let Some(why) = self.without_node_ports() {
            let message = format!("node port {node_port} is not served: {why}");
            return self.problem(listing.place, message);
        }
        let addresses: BTreeSet<_> = rules.node_addresses.iter().collect();
        self.wanted.extend(addresses.into_iter().map(|address| {
            let frontend = frontend(*address, node_port, FrontendKind::NodePort);
            wanted(frontend, listing.place)
        }));
    }

    /// Why its node ports are not served, when it counts on them.
    fn without_node_ports(&self) -> Option<&'static str> {
        let addresses = &self.rules.node_addresses;
        if self.owner.forwarding == Forwarding::DirectReturn && !addresses.is_empty() {
            Some("direct return needs an address that backends can have")
        } else if addresses.is_empty() && self.owner.spec.kind == ServiceType::NodePort {
            Some("node_ports.addresses of the settings is empty")
        } else {
            None
        }
    }

    /// The frontends that it gets, sorted, by listing.
    fn granted(&mut self, claims: &Claims) -> HashMap<usize, Vec<Frontend>> {
        let mut granted: HashMap<usize, Vec<Frontend>> = HashMap::new();
        for (number, wanted) in std::mem::take(&mut self.wanted).into_iter().enumerate() {
            let refusal = self.refusal(&wanted).or_else(|| {
                let (claim, first) = claims.winner(&self.claim(number, &wanted))?;
                let taken = match claim.first == claim.last {
                    true => format!("port {}", claim.first),
                    false => format!("ports {}-{}", claim.first, claim.last),
                };
                Some(format!(
                    "{} {taken}/{} is served by Service {first} already; {} does not get it",
                    claim.address, claim.protocol, self.owner.id
                ))
            });
            match refusal {
                Some(message) => self.problem(wanted.place, message),
                None => granted
                    .entry(wanted.listing)
                    .or_default()
                    .push(wanted.frontend),
            }
        }
        granted
            .values_mut()
            .for_each(|frontends| frontends.sort_unstable());
        granted
    }

    /// Why no Service can have this frontend.
    fn refusal(&self, wanted: &Wanted<'_>) -> Option<String> {
        let (frontend, owner) = (&wanted.frontend, &self.owner.id);
        let address = frontend.address;
        if !frontend.kind.is_vip() {
            return None;
        }
        if self.rules.node_addresses.contains(&address) {
            return Some(format!(
                "{address} is the gateway's own address (node_ports.addresses) and cannot be \
                 a Service's; {owner} does not get it"
            ));
        }
        match self.catalog.owner(address) {
            Holder::Endpoint(slice) => Some(format!(
                "{address} is an endpoint of EndpointSlice {slice} already and cannot be a \
                 Service's; {owner} does not get it"
            )),
            Holder::Vip | Holder::Nobody => None,
        }
    }

    fn problem(&mut self, place: &Place, message: String) {
        let origin = Origin {
            file: self.owner.origin.file.clone(),
            line: place.line,
        };
        let field = Some(place.field.as_str());
        let problem = object::problem(&self.owner.id, &origin, field, message);
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
