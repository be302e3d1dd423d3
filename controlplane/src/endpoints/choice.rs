//! Which endpoints of its slices serve a port of a Service.
//!
//! ```text
//!   slices -> of this port, each address once -> per family -> Cluster pool: tiers, ready
//!                                                              (hinted for here) or terminating
//!                                                          \-> Local pool: on nodes of here,
//!                                                              tiers, ready or terminating
//! ```
//!
//! Guarantees: choice and order depend on the slices alone, not on their arrival. The rules are
//! those of kube-proxy (pkg/proxy/topology.go; KEP-1669, KEP-2433, KEP-3015), and tiers before
//! them. Health checks may narrow the choice later: this module only reads what slices say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use sluice_conf::{Backend, BackendState, Protocol};

use super::{Conditions, Endpoint, Slice, SlicePort};
use crate::service::ServiceSpec;

/// Which endpoints of the slices are meant, and at which port.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Those with the port of this name, at `port` or else where the slice says.
    Named {
        /// Name of the port.
        name: &'a str,
        /// Its protocol.
        protocol: Protocol,
        /// Port, whatever the slice says.
        port: Option<u16>,
    },
    /// Those of slices that have a port of this protocol, or of all slices when none has; at the
    /// port that the client used.
    Every(Protocol),
}

/// Where the gateway stands.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// Nodes that it stands in front of; empty: every node.
    pub nodes: &'a BTreeSet<String>,
    /// Its zone.
    pub zone: Option<&'a str>,
}

impl Here<'_> {
    fn has(&self, node: &str) -> bool {
        self.nodes.is_empty() || self.nodes.contains(node)
    }

    fn is_home(&self, endpoint: &Endpoint) -> bool {
        self.nodes.is_empty() || endpoint.node.as_deref().is_some_and(|node| self.has(node))
    }
}

/// An endpoint at its best, of all slices that list it.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    const fn is(&self) -> Conditions {
        self.endpoint.conditions
    }

    fn terminates_and_serves(&self) -> bool {
        self.is().serving && self.is().terminating
    }
}

/// Backends of one port, sorted; `slices` are the Service's, sorted by name. A tier serves while
/// those before it have fewer than `tier_minimum` ready endpoints.
pub fn backends(
    slices: &[&Slice],
    wanted: Wanted<'_>,
    here: Here<'_>,
    tier_minimum: u16,
) -> Vec<Backend> {
    let mut backends = Vec::new();
    for ipv4 in [true, false] {
        let found = candidates(slices, wanted, ipv4);
        let all: Vec<Candidate<'_>> = found.values().copied().collect();
        let home = |c: &&Candidate<'_>| here.is_home(c.endpoint);
        let local: Vec<Candidate<'_>> = all.iter().filter(home).copied().collect();
        let everywhere = Choice::of(&all, tier_minimum).hinted(&all, here);
        let nearby = Choice::of(&local, tier_minimum);
        backends.extend(found.into_iter().filter_map(|(address, candidate)| {
            let local = here.is_home(candidate.endpoint) && nearby.takes(&candidate);
            let state = match everywhere.takes(&candidate) {
                true => BackendState::Active,
                false => BackendState::Draining,
            };
            let Conditions { ready, serving, .. } = candidate.is();
            (ready || serving).then_some(Backend {
                address: address.ip(),
                port: address.port(),
                weight: candidate.endpoint.weight,
                state,
                local,
            })
        }));
    }
    backends
}

/// How many endpoints of a Service are ready here: what its health check node port tells. Terminating
/// ones do not count although they may still serve, so that load balancers leave first (KEP-1669);
/// an address counts once, whatever its ports (kube-proxy pkg/proxy/endpointschangetracker.go,
/// `LocalReadyEndpoints`). Of two families the one with more endpoints is told: a pod that has both
/// is one endpoint of each.
pub fn local_ready(spec: &ServiceSpec, slices: &[&Slice], here: Here<'_>) -> usize {
    // Ports of ranges need no port in a slice; nothing else can be served without one.
    let may_serve = |slice: &&&Slice| !slice.ports.is_empty() || !spec.port_ranges.is_empty();
    let serving = slices.iter().filter(may_serve);
    let ready = serving
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.conditions.ready && here.is_home(endpoint));
    let addresses: BTreeSet<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
    let of_ipv4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    of_ipv4.max(addresses.len() - of_ipv4)
}

fn candidates<'a>(
    slices: &[&'a Slice],
    wanted: Wanted<'_>,
    ipv4: bool,
) -> BTreeMap<SocketAddr, Candidate<'a>> {
    let of_family = |endpoint: &&Endpoint| endpoint.address.is_ipv4() == ipv4;
    let speaks = |slice: &Slice, protocol| slice.ports.iter().any(|p| p.protocol == protocol);
    let spoken = |protocol| {
        let mut slices = slices.iter();
        slices.any(|s| speaks(s, protocol) && s.endpoints.iter().any(|e| of_family(&e)))
    };
    let any_speaks = matches!(wanted, Wanted::Every(protocol) if spoken(protocol));
    let mut found: BTreeMap<SocketAddr, Candidate<'a>> = BTreeMap::new();
    for slice in slices {
        let ports: Vec<u16> = match wanted {
            Wanted::Named {
                name,
                protocol,
                port,
            } => {
                let matching = |p: &&SlicePort| p.name == name && p.protocol == protocol;
                let matching = slice.ports.iter().filter(matching);
                matching.map(|p| port.unwrap_or(p.port)).collect()
            }
            Wanted::Every(protocol) if any_speaks && !speaks(slice, protocol) => continue,
            Wanted::Every(_) => vec![0],
        };
        for port in ports {
            for endpoint in slice.endpoints.iter().filter(of_family) {
                let address = SocketAddr::new(endpoint.address, port);
                let other = Candidate { endpoint };
                let best = found.entry(address).or_insert(other);
                let rank = |c: &Candidate<'_>| (c.is().rank(), Reverse(c.endpoint.tier));
                if rank(&other) > rank(best) {
                    *best = other;
                }
            }
        }
    }
    found
}

/// What a pool takes of its members.
#[derive(Debug, Clone, Copy)]
struct Choice<'a> {
    last_tier: u16,
    readiness: Readiness,
    hints: Topology<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    Terminating,
}

/// Which hints are followed.
#[derive(Debug, Clone, Copy)]
enum Topology<'a> {
    None,
    Node(Here<'a>),
    Zone(&'a str),
}

impl<'a> Choice<'a> {
    fn of(members: &[Candidate<'_>], tier_minimum: u16) -> Self {
        let mut ready: BTreeMap<u16, usize> = BTreeMap::new();
        for member in members {
            *ready.entry(member.endpoint.tier).or_default() += usize::from(member.is().ready);
        }
        let (mut last_tier, mut before) = (0, 0);
        for (tier, ready) in ready {
            if before >= usize::from(tier_minimum) {
                break;
            }
            last_tier = tier;
            before += ready;
        }
        Self {
            last_tier,
            readiness: match before {
                0 => Readiness::Terminating,
                _ => Readiness::Ready,
            },
            hints: Topology::None,
        }
    }

    /// Follows hints when all that could be taken have one and one of them names this place; nodes
    /// come before zones. Without anything ready there is nothing to narrow.
    fn hinted(mut self, members: &[Candidate<'_>], here: Here<'a>) -> Self {
        if self.readiness != Readiness::Ready {
            return self;
        }
        let follow = |topology: &Topology<'a>| {
            let taken = || members.iter().filter(|c| self.takes(c));
            taken().all(|c| topology.is_hinted(c.endpoint))
                && taken().any(|c| topology.suits(c.endpoint))
        };
        let zone = here.zone.map(Topology::Zone);
        let choices = [Some(Topology::Node(here)), zone];
        let mut choices = choices.into_iter().flatten();
        self.hints = choices.find(follow).unwrap_or(Topology::None);
        self
    }

    fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let may = match self.readiness {
            Readiness::Ready => candidate.is().ready,
            Readiness::Terminating => candidate.terminates_and_serves(),
        };
        may && candidate.endpoint.tier <= self.last_tier && self.hints.suits(candidate.endpoint)
    }
}

impl Topology<'_> {
    fn is_hinted(&self, endpoint: &Endpoint) -> bool {
        match self {
            Topology::None => true,
            Topology::Node(_) => !endpoint.hints.nodes.is_empty(),
            Topology::Zone(_) => !endpoint.hints.zones.is_empty(),
        }
    }

    fn suits(&self, endpoint: &Endpoint) -> bool {
        match self {
            Topology::None => true,
            Topology::Node(here) => endpoint.hints.nodes.iter().any(|node| here.has(node)),
            Topology::Zone(zone) => endpoint.hints.zones.iter().any(|hint| hint == zone),
        }
    }
}

#[cfg(test)]
mod tests;
