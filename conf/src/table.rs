//! The service table: everything that the dataplane answers for at one moment.
//!
//! A table is applied whole or not at all. [`ServiceTable::validate`] is what both sides mean by
//! "valid": the control plane checks before it sends, the dataplane checks before it believes.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::service::{Backend, Forwarding, Frontend, Protocol, Service, ServiceName};

/// Version of the service table, counted by the control plane; higher is newer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose addresses are whose: tells classes of clients apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Networks {
    /// Pods.
    pub pods: Vec<IpNet>,
    /// Nodes that the gateway stands in front of.
    pub nodes: Vec<IpNet>,
    /// Where ClusterIPs come from: what is sent to an address that no Service has is dropped
    /// (KEP-3866).
    pub services: Vec<IpNet>,
}

/// All Services of one generation, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceTable {
    /// Version of this table.
    pub generation: Generation,
    /// Networks of the cluster.
    pub networks: Networks,
    /// One entry per Service port; tables share those that are equal.
    #[serde(with = "crate::change::services")]
    pub services: Vec<Arc<Service>>,
}

/// Why a table is not valid; names the Service and the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two entries carry the same identity.
    #[error("service {0} is listed twice")]
    DuplicateService(ServiceName),
    /// Two Services claim the same address, port and protocol.
    #[error("{address} port {port}/{protocol} is claimed by {first} and by {second}")]
    DuplicateFrontend {
        /// Claimed address.
        address: IpAddr,
        /// Claimed port.
        port: u16,
        /// Claimed protocol.
        protocol: Protocol,
        /// Service that was listed first.
        first: Box<ServiceName>,
        /// Service that was listed second.
        second: Box<ServiceName>,
    },
    /// A backend stands twice in one Service.
    #[error("service {service}: backend {address} port {port} is listed twice")]
    DuplicateBackend {
        /// Service concerned.
        service: Box<ServiceName>,
        /// Backend's address.
        address: IpAddr,
        /// Backend's port.
        port: u16,
    },
    /// An address that can never be a frontend or a backend.
    #[error("service {service}: {role} address {address} is {why}")]
    BadAddress {
        /// Service concerned.
        service: Box<ServiceName>,
        /// "frontend" or "backend".
        role: &'static str,
        /// The address.
        address: IpAddr,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Port 0 names no port.
    #[error("service {service}: {role} port of {address} is 0; use 1 to 65535")]
    ZeroPort {
        /// Service concerned.
        service: Box<ServiceName>,
        /// "frontend" or "backend".
        role: &'static str,
        /// The address.
        address: IpAddr,
    },
    /// A weight out of range.
    #[error("service {service}: backend {address} has weight {weight}; use 1 to {max}", max = Backend::MAX_WEIGHT)]
    BadWeight {
        /// Service concerned.
        service: Box<ServiceName>,
        /// Backend's address.
        address: IpAddr,
        /// The weight.
        weight: u16,
    },
    /// A range that ends before it begins, or overlaps another one.
    #[error("service {service}: frontend {address} ports {first}-{last}: {why}")]
    BadRange {
        /// Service concerned.
        service: Box<ServiceName>,
        /// Frontend's address.
        address: IpAddr,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A backend whose port follows the client's, or must, and cannot.
    #[error("service {service}: backend {address} port {port}: {why}")]
    BadBackendPort {
        /// Service concerned.
        service: Box<ServiceName>,
        /// Backend's address.
        address: IpAddr,
        /// Backend's port.
        port: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More backends than one Service can have.
    #[error("service {service} has {count} backends; at most {max} are possible", max = ServiceTable::MAX_BACKENDS)]
    TooManyBackends {
        /// Service concerned.
        service: Box<ServiceName>,
        /// How many it has.
        count: usize,
    },
}

impl ServiceTable {
    /// Most backends of one Service: Maglev rows are 16 bits wide.
    pub const MAX_BACKENDS: usize = 65_535;

    /// Checks everything that the dataplane relies on.
    ///
    /// # Errors
    /// The first violation found, with the Service it stands in.
    pub fn validate(&self) -> Result<(), TableError> {
        let mut claims = Claims::default();
        for service in &self.services {
            service.validate()?;
            claims.add(service)?;
        }
        Ok(())
    }
}

impl Service {
    /// Checks what must hold of it, whatever else is in its table.
    ///
    /// # Errors
    /// The first violation found.
    pub fn validate(&self) -> Result<(), TableError> {
        for frontend in &self.frontends {
            check_endpoint(&self.name, "frontend", frontend.address, frontend.port)?;
            if frontend.last_port < frontend.port {
                return Err(bad_range(&self.name, frontend, "it ends before it begins"));
            }
        }
        check_backends(self)
    }
}

/// What the Services of one table have taken: names, and what clients use.
#[derive(Debug, Default)]
pub struct Claims<'a> {
    names: HashSet<&'a ServiceName>,
    ports: HashMap<(IpAddr, u16, Protocol), &'a ServiceName>,
    ranges: HashMap<(IpAddr, Protocol), Vec<RangeInclusive<u16>>>,
}

impl<'a> Claims<'a> {
    /// Room for the claims of so many Services.
    pub fn with_capacity(services: usize) -> Self {
        let mut claims = Self::default();
        claims.names.reserve(services);
        claims.ports.reserve(services);
        claims
    }

    /// Takes what a Service needs.
    ///
    /// # Errors
    /// What another one, or itself, has already.
    pub fn add(&mut self, service: &'a Service) -> Result<(), TableError> {
        if !self.names.insert(&service.name) {
            return Err(TableError::DuplicateService(service.name.clone()));
        }
        for frontend in &service.frontends {
            match frontend.is_range() {
                true => self.add_range(&service.name, frontend)?,
                false => self.add_port(&service.name, frontend)?,
            }
        }
        Ok(())
    }

    fn add_port(&mut self, name: &'a ServiceName, frontend: &Frontend) -> Result<(), TableError> {
        let claim = (frontend.address, frontend.port, name.protocol);
        match self.ports.insert(claim, name) {
            None => Ok(()),
            Some(first) => Err(TableError::DuplicateFrontend {
                address: frontend.address,
                port: frontend.port,
                protocol: name.protocol,
                first: Box::new(first.clone()),
                second: Box::new(name.clone()),
            }),
        }
    }

    fn add_range(&mut self, name: &ServiceName, frontend: &Frontend) -> Result<(), TableError> {
        let (first, last) = (frontend.port, frontend.last_port);
        let key = (frontend.address, name.protocol);
        let known = self.ranges.entry(key).or_default();
        if known
            .iter()
            .any(|other| *other.start() <= last && first <= *other.end())
        {
            let why = "it overlaps another range of this address";
            return Err(bad_range(name, frontend, why));
        }
        known.push(first..=last);
        Ok(())
    }
}

fn bad_range(service: &ServiceName, frontend: &Frontend, why: &'static str) -> TableError {
    TableError::BadRange {
        service: Box::new(service.clone()),
        address: frontend.address,
        first: frontend.port,
        last: frontend.last_port,
        why,
    }
}

/// Checks what a port of a backend may be: 0 follows the client's port, which only makes sense
/// where clients have several; direct return cannot change the port at all.
fn check_backend_port(service: &Service, backend: &Backend) -> Result<(), TableError> {
    let bad = |why| {
        Err(TableError::BadBackendPort {
            service: Box::new(service.name.clone()),
            address: backend.address,
            port: backend.port,
            why,
        })
    };
    if service.forwarding == Forwarding::DirectReturn {
        let mut frontends = service.frontends.iter();
        let same = |frontend: &Frontend| !frontend.is_range() && frontend.port == backend.port;
        if backend.port != 0 && !frontends.all(same) {
            return bad("direct return keeps the port that the client used; use 0 or that port");
        }
    }
    Ok(())
}

fn check_backends(service: &Service) -> Result<(), TableError> {
    let name = || Box::new(service.name.clone());
    let count = service.backends.len();
    if count > ServiceTable::MAX_BACKENDS {
        return Err(TableError::TooManyBackends {
            service: name(),
            count,
        });
    }
    let end = |backend: &Backend| (backend.address, backend.port);
    let is_sorted = service.backends.is_sorted_by(|a, b| end(a) < end(b));
    let mut seen = HashSet::default();
    for backend in &service.backends {
        let &Backend {
            address,
            port,
            weight,
            ..
        } = backend;
        // Port 0 is the port that the client used.
        check_endpoint(&service.name, "backend", address, port.max(1))?;
        check_backend_port(service, backend)?;
        if weight == 0 || weight > Backend::MAX_WEIGHT {
            return Err(TableError::BadWeight {
                service: name(),
                address,
                weight,
            });
        }
        if !is_sorted && !seen.insert((address, port)) {
            return Err(TableError::DuplicateBackend {
                service: name(),
                address,
                port,
            });
        }
    }
    Ok(())
}

fn check_endpoint(
    service: &ServiceName,
    role: &'static str,
    address: IpAddr,
    port: u16,
) -> Result<(), TableError> {
    let service = || Box::new(service.clone());
    if port == 0 {
        return Err(TableError::ZeroPort {
            service: service(),
            role,
            address,
        });
    }
    match unusable(address) {
        Some(why) => Err(TableError::BadAddress {
            service: service(),
            role,
            address,
            why,
        }),
        None => Ok(()),
    }
}

/// Why no Service can use this address, if so, in words that complete "the address is": the rules of
/// the Endpoints API, and plain routing.
pub fn unusable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if link_local {
        Some("a link-local or broadcast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Access, BackendState, FrontendKind};

    fn service(name: &str, vip: &str) -> Service {
        let name = ServiceName {
            namespace: "default".into(),
            name: name.into(),
            port: String::new(),
            protocol: Protocol::Tcp,
        };
        Service {
            frontends: vec![Frontend::new(
                vip.parse().unwrap(),
                80,
                FrontendKind::LoadBalancer,
                Access::default(),
            )],
            backends: vec![Backend {
                address: "10.0.2.10".parse().unwrap(),
                port: 8080,
                weight: 1,
                state: BackendState::Active,
                local: false,
            }],
            ..Service::new(name)
        }
    }

    fn table(services: Vec<Service>) -> ServiceTable {
        ServiceTable {
            generation: Generation(1),
            services: services.into_iter().map(Arc::new).collect(),
            ..ServiceTable::default()
        }
    }

    #[test]
    fn a_plain_table_is_valid() {
        let table = table(vec![service("a", "192.0.2.1"), service("b", "192.0.2.2")]);
        assert_eq!(table.validate(), Ok(()));
    }

    #[test]
    fn two_services_cannot_claim_one_frontend() {
        let error = table(vec![service("a", "192.0.2.1"), service("b", "192.0.2.1")])
            .validate()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 port 80/TCP is claimed by default/a/TCP and by default/b/TCP"
        );
    }

    #[test]
    fn the_same_port_of_two_protocols_coexists() {
        let tcp = service("dns", "192.0.2.1");
        let mut udp = tcp.clone();
        udp.name.protocol = Protocol::Udp;
        assert_eq!(table(vec![tcp, udp]).validate(), Ok(()));
    }

    #[test]
    fn a_service_listed_twice_is_refused() {
        let error = table(vec![service("a", "192.0.2.1"), service("a", "192.0.2.2")]).validate();
        assert!(matches!(error, Err(TableError::DuplicateService(_))));
    }

    #[test]
    fn weights_ports_and_addresses_have_bounds() {
        for (edit, text) in [
            (
                (|s: &mut Service| s.backends[0].weight = 0) as fn(&mut Service),
                "service default/a/TCP: backend 10.0.2.10 has weight 0; use 1 to 1000",
            ),
            (
                |s| s.frontends[0].port = 0,
                "service default/a/TCP: frontend port of 192.0.2.1 is 0; use 1 to 65535",
            ),
            (
                |s| s.frontends[0].last_port = 79,
                "service default/a/TCP: frontend 192.0.2.1 ports 80-79: it ends before it begins",
            ),
            (
                |s| {
                    s.frontends[0].last_port = 90;
                    s.frontends.push(s.frontends[0]);
                },
                "service default/a/TCP: frontend 192.0.2.1 ports 80-90: it overlaps another range of this address",
            ),
            (
                |s| s.forwarding = Forwarding::DirectReturn,
                "service default/a/TCP: backend 10.0.2.10 port 8080: direct return keeps the port that the client used; use 0 or that port",
            ),
            (
                |s| s.frontends[0].address = "127.0.0.1".parse().unwrap(),
                "service default/a/TCP: frontend address 127.0.0.1 is a loopback address",
            ),
            (
                |s| s.backends.push(s.backends[0]),
                "service default/a/TCP: backend 10.0.2.10 port 8080 is listed twice",
            ),
        ] {
            let mut bad = service("a", "192.0.2.1");
            edit(&mut bad);
            assert_eq!(table(vec![bad]).validate().unwrap_err().to_string(), text);
        }
    }
}
