//! One Service to its part of the table.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sluice_conf::message::controlplane::Problem;
use sluice_conf::{Forwarding, Frontend, FrontendKind, Protocol, Service, ServiceName};
use tracing::error;

use super::claims::{Claim, Claims};
use super::{Endpoints, Outcome, access};
use crate::catalog::{Catalog, Owner as Holder};
use crate::endpoints::{self, Slice};
use crate::object::{self, Kind, NamespacedName, ObjectId, Origin};
use crate::rules::Rules;
use crate::service::{Place, ServiceSpec, ServiceType};

/// A Service that is being compiled.
pub(super) struct Job<'a> {
    pub(super) rules: &'a Rules,
    pub(super) catalog: &'a Catalog,
    pub(super) owner: Owner<'a>,
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
pub(super) struct Owner<'a> {
    pub(super) id: ObjectId,
    pub(super) origin: &'a Origin,
    pub(super) spec: &'a ServiceSpec,
    pub(super) slices: Vec<Cow<'a, Slice>>,
    pub(super) forwarding: Forwarding,
}

/// A port of a Service, or a range of them: one entry of the table.
pub(super) struct Listing<'a> {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) node_port: Option<u16>,
    /// Whether it is a range by annotation, even of one port.
    pub(super) range: bool,
    pub(super) place: &'a Place,
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
    pub(super) fn new(
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
    pub(super) fn claims(&self) -> Vec<Claim> {
        let wanted = self.wanted.iter().enumerate();
        wanted
            .filter(|(_, wanted)| self.refusal(wanted).is_none())
            .map(|(number, wanted)| self.claim(number, wanted))
            .collect()
    }

    fn claim(&self, number: usize, wanted: &Wanted<'_>) -> Claim {
        Claim::new(&wanted.frontend, wanted.protocol, (self.order, number))
    }

    pub(super) fn compile(mut self, claims: &Claims) -> Outcome {
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

    pub(super) fn problem(&mut self, place: &Place, message: String) {
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
