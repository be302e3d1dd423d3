//! What the API server's registry does with a Service on its way into the store: fills in what is
//! left out, takes over what was allocated before, clears what the type has no use for, and
//! allocates ClusterIPs, node ports and health-check node ports (kubernetes/kubernetes
//! pkg/registry/core/service).
//!
//! ```text
//!   submitted --> defaulted --> carry: from the version before --> families --> claim: from the pools
//!                                                                                        |
//!                                                  stored <-- keep, or revert <-- validation --'
//! ```
//!
//! Guarantees: an address or node port belongs to one Service at a time, and is free again when its
//! Service gives it up; a change that is refused changes nothing; the same changes in the same order
//! give the same values. There is no I/O, no clock and no randomness.
//!
//! A dry run is a run on a clone.

mod addresses;
pub mod carry;
mod claim;
mod defaults;
mod families;
pub mod networks;
pub mod pool;
mod pools;
mod runs;
mod shape;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use self::claim::Claim;
pub use self::defaults::defaulted;
use self::pool::Pool;
use self::pools::{Held, Pools};
pub use self::shape::tidy;
pub use self::status::load_balancer_ingress;
use crate::address::Family;
use crate::field::{FieldError, Reason};
use crate::object::NamespacedName;
use crate::validation;

/// What there is to allocate from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Networks of ClusterIPs, that of the primary family first; of each family the first counts.
    /// Without any, a Service may name any address, and gets none by itself.
    pub services: Vec<IpNet>,
    /// Node ports, both ends included.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Cluster {
    /// No networks, and the node ports of the API server (`--service-node-port-range`).
    fn default() -> Self {
        Self {
            services: Vec::new(),
            node_ports: 30000..=32767,
        }
    }
}

/// The addresses and node ports of a cluster, and which Service has which.
#[derive(Debug, Clone)]
pub struct Registry {
    pools: Pools,
    holders: BTreeMap<NamespacedName, Held>,
}

/// What a deletion led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The Service is gone.
    Gone,
    /// `metadata.finalizers` hold it.
    Pending,
}

impl Registry {
    /// A registry without Services.
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            pools: Pools::new(cluster),
            holders: BTreeMap::new(),
        }
    }

    /// Takes in a new Service, which went through [`defaulted`]; returns what is to be stored.
    ///
    /// # Errors
    /// What is wrong with it, or cannot be given to it. Nothing has changed then.
    pub fn create(&mut self, submitted: Service) -> Result<Service, Vec<FieldError>> {
        self.is_new(&NamespacedName::of(&submitted.metadata))?;
        self.admit(None, submitted)
    }

    /// Takes in another version of a stored Service, which went through [`defaulted`]; returns what
    /// is to be stored. What it leaves out of the allocated values, it keeps.
    ///
    /// # Errors
    /// What is wrong with it, or cannot be given to it. Nothing has changed then.
    pub fn update(&mut self, old: &Service, new: Service) -> Result<Service, Vec<FieldError>> {
        let old = self.completed(old.clone());
        self.admit(Some(old), new)
    }

    /// Lets a Service go; all that it held is free. While finalizers hold the Service, it keeps
    /// what it has: delete it again without them.
    pub fn delete(&mut self, service: &Service) -> Deletion {
        let finalizers = service.metadata.finalizers.iter().flatten();
        if finalizers.count() > 0 {
            return Deletion::Pending;
        }
        let held = self
            .holders
            .remove(&NamespacedName::of(&service.metadata))
            .unwrap_or_default();
        for port in held.ports() {
            self.pools.release_port(port);
        }
        for address in held.addresses {
            self.pools.release_address(address);
        }
        Deletion::Gone
    }

    /// Takes in a stored Service with all that it holds, at a start. Values outside the ranges stay
    /// its own: the ranges may have changed.
    ///
    /// # Errors
    /// Another Service holds one of them, or this one was taken in before. Nothing has changed then.
    pub fn adopt(&mut self, stored: &Service) -> Result<(), Vec<FieldError>> {
        let name = NamespacedName::of(&stored.metadata);
        self.is_new(&name)?;
        let held = Held::of(&spec_of(stored));
        let mut claim = Claim::new(&mut self.pools, &self.holders, &name);
        claim.adopt(&held);
        let errors = claim.errors();
        if !errors.is_empty() {
            claim.revert();
            return Err(errors);
        }
        self.holders.insert(name, held);
        Ok(())
    }

    /// A stored Service with the fields that Services had not yet when it was stored
    /// (pkg/registry/core/service/storage, `defaultOnRead`).
    pub fn completed(&self, mut stored: Service) -> Service {
        let spec = stored.spec.get_or_insert_default();
        shape::tidy(spec);
        carry::normalise_cluster_ips(spec, None);
        if shape::is_external_name(spec) {
            spec.internal_traffic_policy = None;
        } else {
            defaults::internal_traffic_policy(spec);
            families::on_read(spec, &self.pools);
        }
        stored
    }

    /// The addresses of a family.
    pub fn addresses(&self, family: Family) -> &Pool {
        self.pools.addresses(family)
    }

    /// The node ports, those of health checks included.
    pub fn node_ports(&self) -> &Pool {
        self.pools.ports()
    }

    /// Whether a Service holds an address.
    pub fn holds_address(&self, address: IpAddr) -> bool {
        let pool = self.addresses(Family::of(address));
        pool.contains(networks::number(address))
    }

    fn is_new(&self, name: &NamespacedName) -> Result<(), Vec<FieldError>> {
        if !self.holders.contains_key(name) {
            return Ok(());
        }
        let message = format!("Service {name} exists already");
        Err(vec![FieldError::new(
            "metadata.name",
            Reason::Duplicate,
            message,
        )])
    }

    fn admit(&mut self, old: Option<Service>, new: Service) -> Result<Service, Vec<FieldError>> {
        let name = NamespacedName::of(&new.metadata);
        let old_spec = old.as_ref().and_then(|old| old.spec.as_ref());
        let mut service = Service {
            status: old.as_ref().and_then(|old| old.status.clone()),
            ..new
        };
        let spec = service.spec.get_or_insert_default();
        prepare(spec, old_spec);
        families::settle(spec, old_spec, &self.pools)?;
        if !shape::is_load_balancer(spec) {
            service
                .status
                .iter_mut()
                .for_each(|status| status.load_balancer = None);
        }

        let mut claim = Claim::new(&mut self.pools, &self.holders, &name);
        claim.fill(spec, old_spec.is_some());
        let held = Held::of(spec);
        // The one place where a complete Service is validated.
        let mut errors = match &old {
            Some(old) => validation::service_update(&service, old),
            None => validation::service_create(&service),
        };
        errors.extend(claim.errors());
        if !errors.is_empty() {
            claim.revert();
            return Err(errors);
        }
        claim.keep(&held);
        self.holders.insert(name, held);
        Ok(service)
    }
}

/// Fills in and clears what follows from the version before.
fn prepare(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    shape::tidy(spec);
    defaults::internal_traffic_policy(spec);
    if let Some(old) = old {
        carry::keep_allocated(spec, old);
    }
    carry::normalise_cluster_ips(spec, old);
    if let Some(old) = old {
        carry::drop_type_dependent(spec, old);
    }
}

fn spec_of(service: &Service) -> ServiceSpec {
    let mut spec = service.spec.clone().unwrap_or_default();
    shape::tidy(&mut spec);
    spec
}

#[cfg(test)]
mod tests;
