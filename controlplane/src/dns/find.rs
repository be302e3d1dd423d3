//! From a path to what stands there.
//!
//! The rules are those of CoreDNS's kubernetes plugin and of the Kubernetes DNS specification, but
//! that a name with names below it exists (RFC 8020).

use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::options::{Options, Pods, View};
use super::path::{Part, Path, ZONE_LABEL};
use super::records::{Endpoint, Kind, Named, Port, undashed};
use super::zone::Zone;

/// What stands at a name.
#[derive(Debug)]
pub enum Found<'z, 'p> {
    /// The zone's own records.
    Apex,
    /// The version of the specification.
    Version,
    /// Addresses of this server.
    NameServer,
    /// A Service, or a part of it.
    Hosts(&'z Named, Hosts<'z, 'p>),
    /// Another name.
    Alias(&'z Named, &'z Name),
    /// An address of a Pod.
    Pod(IpAddr),
    /// The name exists, without records.
    Empty(Why),
    /// There is no such name.
    Nothing(Option<&'z Named>, Why),
}

/// What a name of a Service stands for.
#[derive(Debug)]
pub enum Hosts<'z, 'p> {
    /// Addresses that the Service itself has, and its ports that are meant.
    Own(&'z [IpAddr], Ports<'p>),
    /// Endpoints.
    Endpoints(&'z [Endpoint], Filter<'p>),
}

/// Which ports are meant.
#[derive(Debug, Clone, Copy)]
pub enum Ports<'p> {
    /// Every one.
    All,
    /// That of this name and protocol.
    Called(&'p str, &'p str),
}

/// Which endpoints are meant.
#[derive(Debug, Clone, Copy)]
pub enum Filter<'p> {
    /// Every one.
    All,
    /// Those that answer for the whole Service.
    Near(Ports<'p>),
    /// Those of a topology zone.
    Zone(&'p str),
}

impl Ports<'_> {
    /// Whether a port is meant.
    pub fn take(self, port: &Port) -> bool {
        match self {
            Ports::All => true,
            Ports::Called(name, protocol) => port.is(name, protocol),
        }
    }
}

impl<'p> Filter<'p> {
    /// Whether an endpoint is meant.
    pub fn takes(self, endpoint: &Endpoint) -> bool {
        match self {
            Filter::All => true,
            Filter::Near(Ports::All) => endpoint.near,
            Filter::Near(ports) => endpoint.near && endpoint.ports.iter().any(|p| ports.take(p)),
            Filter::Zone(zone) => {
                let own = endpoint.zone.as_deref();
                own.is_some_and(|own| own.eq_ignore_ascii_case(zone))
            }
        }
    }

    /// Which ports of such an endpoint are meant.
    pub const fn ports(self) -> Ports<'p> {
        match self {
            Filter::Near(ports) => ports,
            Filter::All | Filter::Zone(_) => Ports::All,
        }
    }
}

/// Why a name has, or has not, what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is answered.
    Answered,
    /// It has no record of the type.
    NoSuchType,
    /// Sources have not told all yet.
    NotSynced,
    /// Zones are not given away.
    Transfer,
    /// Names lead to each other in a circle, or too far.
    Circle,
    /// It only has names below it.
    Above,
    /// No name has this form.
    Form,
    /// The namespace is not answered for.
    NotExposed,
    /// There is no such namespace.
    NoNamespace,
    /// There is no such Service.
    NoService,
    /// The Service has no endpoint, and such ones are not answered.
    EmptyService,
    /// The headless Service has no ready endpoint.
    NoReadyEndpoint,
    /// The Service has no published endpoint of this name.
    NoEndpoint,
    /// The Service has no port of this name and protocol.
    NoPort,
    /// What the ExternalName says is no name.
    NoName,
    /// An ExternalName has no names below it.
    BelowAlias,
    /// The Service has no address outside the cluster.
    NoExternal,
    /// Names of Pods are off.
    PodsDisabled,
    /// There is no such Pod.
    NoPod,
    /// Nobody that has a name has this address.
    NoAddress,
}

/// Where to look, and by which rules.
#[derive(Debug, Clone, Copy)]
pub struct Finder<'z, 'o> {
    /// The zone.
    pub zone: &'z Zone,
    /// The rules.
    pub options: &'o Options,
    /// What the names stand for.
    pub view: View,
}

impl<'z> Finder<'z, '_> {
    /// What stands at a path.
    pub fn find<'p>(&self, path: &'p Path<'p>) -> Found<'z, 'p> {
        match path {
            Path::Apex => Found::Apex,
            Path::Version => Found::Version,
            Path::NameServer => Found::NameServer,
            Path::Branch | Path::Above => Found::Empty(Why::Above),
            Path::Namespace { namespace, of_pods } => self.namespace(namespace, *of_pods),
            Path::Pod {
                namespace,
                pod,
                part,
            } => self.pod(namespace, pod, part),
            Path::Service {
                namespace,
                service,
                part,
            } => self.service(namespace, service, part),
        }
    }

    fn namespace<'p>(&self, namespace: &str, of_pods: bool) -> Found<'z, 'p> {
        match self.refusal(namespace) {
            Some(why) => Found::Nothing(None, why),
            None if of_pods && self.options.pods == Pods::Disabled => {
                Found::Nothing(None, Why::PodsDisabled)
            }
            None => Found::Empty(Why::Above),
        }
    }

    /// Why nothing in a namespace is answered.
    fn refusal(&self, namespace: &str) -> Option<Why> {
        if !self.options.exposes(namespace) {
            return Some(Why::NotExposed);
        }
        (!self.zone.has_namespace(namespace)).then_some(Why::NoNamespace)
    }

    fn pod<'p>(&self, namespace: &str, pod: &str, part: &Part<'_>) -> Found<'z, 'p> {
        let nothing = |why| Found::Nothing(None, why);
        if self.options.pods == Pods::Disabled {
            return nothing(Why::PodsDisabled);
        }
        if let Some(why) = self.refusal(namespace) {
            return nothing(why);
        }
        let address = undashed(pod).filter(|_| *part == Part::Whole);
        let verified = self.options.pods == Pods::Verified;
        let is_there = |address: &IpAddr| !verified || self.zone.has_pod(namespace, *address);
        match address.filter(is_there) {
            Some(address) => Found::Pod(address),
            None => nothing(Why::NoPod),
        }
    }

    fn service<'p>(&self, namespace: &str, service: &str, part: &'p Part<'p>) -> Found<'z, 'p> {
        if let Some(why) = self.refusal(namespace) {
            return Found::Nothing(None, why);
        }
        let named = self.zone.service(namespace, service);
        let Some(named) = named.filter(|named| named.kind != Kind::Slices) else {
            return Found::Nothing(None, Why::NoService);
        };
        let found = match self.view {
            View::External => self.outside(named, part),
            View::Cluster | View::Reverse => self.inside(named, part),
        };
        found.unwrap_or_else(|why| Found::Nothing(Some(named), why))
    }

    fn inside<'p>(&self, named: &'z Named, part: &'p Part<'p>) -> Result<Found<'z, 'p>, Why> {
        match (&named.kind, part) {
            (Kind::ExternalName(None), Part::Whole) => Err(Why::NoName),
            (Kind::ExternalName(Some(target)), Part::Whole) => Ok(Found::Alias(named, target)),
            (Kind::ExternalName(_), _) => Err(Why::BelowAlias),
            (Kind::ClusterIp(_), _)
                if self.options.ignore_empty_service && named.endpoints().is_empty() =>
            {
                Err(Why::EmptyService)
            }
            (_, Part::Endpoint(host)) => self.endpoint(named, host),
            (Kind::ClusterIp(addresses), _) => own(named, addresses, part),
            (Kind::Headless | Kind::Slices, _) => self.headless(named, part),
        }
    }

    fn outside<'p>(&self, named: &'z Named, part: &'p Part<'p>) -> Result<Found<'z, 'p>, Why> {
        let by_endpoints = self.options.external_headless && named.external.is_empty();
        match part {
            Part::Endpoint(host) if by_endpoints => self.endpoint(named, host),
            Part::Endpoint(_) => Err(Why::NoEndpoint),
            _ if by_endpoints && named.kind == Kind::Headless => self.headless(named, part),
            _ if named.external.is_empty() => Err(Why::NoExternal),
            _ => own(named, &named.external, part),
        }
    }

    fn endpoint<'p>(&self, named: &'z Named, host: &str) -> Result<Found<'z, 'p>, Why> {
        let called = named.endpoints_called(host);
        if !called.is_empty() {
            let hosts = Hosts::Endpoints(called, Filter::All);
            return Ok(Found::Hosts(named, hosts));
        }
        let protocol = host.strip_prefix('_').unwrap_or_default();
        let of_service = named.ports.iter();
        let of_endpoints = named.endpoints().iter().flat_map(|e| &*e.ports);
        let mut ports = of_service.chain(of_endpoints);
        let zonal = self.zonal(named) && host == ZONE_LABEL;
        let is_above = ports.any(|port| port.is_named() && port.speaks(protocol));
        match zonal || is_above {
            true => Ok(Found::Empty(Why::Above)),
            false => Err(Why::NoEndpoint),
        }
    }

    fn headless<'p>(&self, named: &'z Named, part: &'p Part<'p>) -> Result<Found<'z, 'p>, Why> {
        let endpoints = named.endpoints();
        let some = |filter: Filter<'p>| endpoints.iter().any(|e| filter.takes(e));
        let filter = match part {
            _ if endpoints.is_empty() => return Err(Why::NoReadyEndpoint),
            Part::Whole | Part::Endpoint(_) => Filter::Near(Ports::All),
            Part::Zone { zone, prefer } => match Filter::Zone(zone) {
                filter if !prefer || some(filter) => filter,
                _ => Filter::All,
            },
            Part::Port { port, protocol } => match Filter::Near(Ports::Called(port, protocol)) {
                filter if some(filter) => filter,
                _ if self.zonal(named)
                    && *protocol == "zone"
                    && ["pin", "prefer"].contains(port) =>
                {
                    return Ok(Found::Empty(Why::Above));
                }
                _ => return Err(Why::NoPort),
            },
        };
        Ok(Found::Hosts(named, Hosts::Endpoints(endpoints, filter)))
    }

    /// Whether topology zones have names below a Service.
    fn zonal(&self, named: &Named) -> bool {
        self.options.zonal_names && self.view == View::Cluster && named.kind == Kind::Headless
    }
}

/// The Service at addresses of its own.
fn own<'z, 'p>(
    named: &'z Named,
    addresses: &'z [IpAddr],
    part: &'p Part<'p>,
) -> Result<Found<'z, 'p>, Why> {
    let ports = match part {
        Part::Whole => Ports::All,
        Part::Port { port, protocol } => Ports::Called(port, protocol),
        Part::Endpoint(_) => return Err(Why::NoEndpoint),
        Part::Zone { .. } => return Err(Why::Form),
    };
    let is_whole = matches!(ports, Ports::All);
    match is_whole || named.ports.iter().any(|port| ports.take(port)) {
        true => Ok(Found::Hosts(named, Hosts::Own(addresses, ports))),
        false => Err(Why::NoPort),
    }
}
