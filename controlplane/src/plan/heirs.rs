//! Frontends that leave one Service port and come to another, as when a port is given a name: their
//! connections are judged by the other one then, and go on with the backends that both have.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use sluice_conf::{Frontend, Protocol, Service, ServiceTable};

/// Who has which frontend afterwards.
pub(super) struct Heirs<'a>(HashMap<(IpAddr, Protocol), Vec<(&'a Frontend, &'a Service)>>);

impl<'a> Heirs<'a> {
    /// All frontends of `after`.
    pub(super) fn of(after: &'a ServiceTable) -> Self {
        let mut heirs: HashMap<_, Vec<_>> = HashMap::new();
        for service in &after.services {
            for frontend in &service.frontends {
                let at = (frontend.address, service.name.protocol);
                let there = heirs.entry(at).or_default();
                there.push((frontend, &**service));
            }
        }
        Self(heirs)
    }

    /// Who has this frontend: of several the one with the fewest ports, as a single port wins over
    /// a range.
    pub(super) fn heir(&self, frontend: &Frontend, protocol: Protocol) -> Option<&'a Service> {
        let there = self.0.get(&(frontend.address, protocol))?.iter();
        let holds =
            |other: &Frontend| other.port <= frontend.port && frontend.last_port <= other.last_port;
        let heirs = there.filter(|(other, _)| holds(other));
        let heir = heirs.min_by_key(|(other, _)| other.last_port - other.port);
        heir.map(|(_, service)| *service)
    }
}

/// Backends of `old` that `heir` has, too.
pub(super) fn inherited(old: &Service, heir: &Service) -> Vec<SocketAddr> {
    let had: HashSet<_> = old.backends.iter().map(|b| (b.address, b.port)).collect();
    let both = heir
        .backends
        .iter()
        .filter(|backend| had.contains(&(backend.address, backend.port)));
    both.map(|backend| SocketAddr::new(backend.address, backend.port))
        .collect()
}
