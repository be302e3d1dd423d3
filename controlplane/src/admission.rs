//! Which version of a Service is served, and with what it was given.
//!
//! ```text
//!   as written --> defaulted --> registry: rules, ClusterIPs, node ports --.
//!   as an API server has it ------------------------------------------------+--> pools: balancer addresses
//!                                                                           |
//!                                     ServiceSpec, for the compiler  <------'--> store, before it is served
//! ```
//!
//! Guarantees: a version that is refused takes nothing and leaves the one before in use; what a
//! Service was given is in the store before anybody is told of it, and is its own until it is gone,
//! also over restarts; Services that hold something already are decided on before others, those that
//! ask for something definite before those that take what is left. What an API server has admitted is
//! not changed, and gets load-balancer addresses only: those that its status names already, and others
//! only while this gateway leads; so several gateways that read one API server agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use sluice_conf::settings::Controlplane;
use tracing::warn;

use crate::field::FieldError;
use crate::index::{Good, Known, Version};
use crate::kinds::policy::PolicySpec;
use crate::kinds::pool::PoolSpec;
use crate::object::{Checked, Issue, Lines, NamespacedName, Origin};
use crate::pools::{self, Pools};
use crate::registry::{Cluster, Registry};
use crate::service::{self, ServiceSpec};
use crate::store::{SharedStore, StoreError};

mod asked;
mod balancer;
mod classes;
mod record;
mod server;

pub use asked::Asked;
pub use balancer::told;
pub use classes::Classes;
use record::Record;
pub use server::Wanted;

/// How Services are admitted.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What there is to allocate from.
    pub cluster: Cluster,
    /// How load-balancer addresses are given.
    pub pools: pools::Options,
    /// Which Services of type LoadBalancer are given addresses.
    pub classes: Classes,
}

impl From<&Controlplane> for Settings {
    fn from(settings: &Controlplane) -> Self {
        Self {
            cluster: Cluster {
                services: settings.cluster.service_networks.clone(),
                node_ports: settings.node_ports.range.clone(),
            },
            pools: pools::Options {
                outside_pools: settings.load_balancers.outside_pools,
            },
            classes: Classes {
                unset: settings.load_balancers.unset_class,
            },
        }
    }
}

/// What became of a Service.
#[derive(Debug)]
pub struct Decision {
    /// Which Service.
    pub name: NamespacedName,
    /// The version to serve; `None` leaves the one before.
    pub served: Option<Known<ServiceSpec>>,
    /// What is wrong with the version that was asked for.
    pub issues: Vec<Issue>,
    /// What is right and not served.
    pub notes: Vec<String>,
}

/// A Service that is served.
#[derive(Debug, Clone)]
struct Admitted {
    /// As it is stored.
    service: Arc<core::Service>,
    version: Version,
    /// Why it has no load-balancer address, or not the one that it should have.
    pending: Option<String>,
}

/// Admits Services.
#[derive(Debug)]
pub struct Admission {
    settings: Settings,
    registry: Registry,
    pools: Pools,
    policies: BTreeMap<NamespacedName, Arc<PolicySpec>>,
    admitted: BTreeMap<NamespacedName, Admitted>,
    /// Refused, maybe for want of something that another holds.
    waiting: BTreeMap<NamespacedName, Asked>,
    /// Whether something became free that somebody may wait for.
    released: bool,
    /// Not served because they could not be stored.
    held_back: BTreeSet<NamespacedName>,
    /// Whether Services that an API server admitted are given addresses here.
    leads: bool,
    /// Services whose status names addresses that another holds here.
    behind: BTreeSet<NamespacedName>,
    record: Record,
}

impl Admission {
    /// Admits on top of what is stored; without a store nothing outlives the process.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(settings: Settings, store: Option<SharedStore>) -> Result<Self, StoreError> {
        let mut admission = Self {
            registry: Registry::new(&settings.cluster),
            pools: Pools::new(settings.pools),
            policies: BTreeMap::new(),
            admitted: BTreeMap::new(),
            waiting: BTreeMap::new(),
            released: false,
            held_back: BTreeSet::new(),
            leads: true,
            behind: BTreeSet::new(),
            record: Record::new(store),
            settings,
        };
        for (name, service) in admission.record.load()? {
            admission.restore(name, service);
        }
        Ok(admission)
    }

    /// An admission that decides as this one would, and stores nothing.
    #[must_use]
    pub fn rehearsal(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            registry: self.registry.clone(),
            pools: self.pools.clone(),
            policies: self.policies.clone(),
            admitted: self.admitted.clone(),
            waiting: self.waiting.clone(),
            released: self.released,
            held_back: BTreeSet::new(),
            leads: self.leads,
            behind: self.behind.clone(),
            record: Record::new(None),
        }
    }

    /// Takes over a Service of an earlier process. It is in use from now on, but known only when a
    /// source has it.
    fn restore(&mut self, name: NamespacedName, service: core::Service) {
        if let Err(errors) = self.registry.adopt(&service) {
            let errors: Vec<String> = errors.iter().map(FieldError::to_string).collect();
            warn!("forgot what Service {name} had: {}", errors.join("; "));
            return self.record.forget(name);
        }
        if self.settings.classes.serve(&service) {
            balancer::adopt(&mut self.pools, &service, &[]);
        }
        let service = Arc::new(service);
        let version = Version {
            good: Good::Service(Arc::clone(&service)),
            origin: Origin {
                file: "store".to_owned(),
                line: None,
            },
            order: 0,
            first_seen: Duration::ZERO,
            admitted: false,
            lines: Lines::default(),
        };
        let pending = None;
        self.admitted.insert(
            name,
            Admitted {
                service,
                version,
                pending,
            },
        );
    }

    /// Names of all Services of which a version is in use.
    pub fn names(&self) -> impl Iterator<Item = &NamespacedName> {
        self.admitted.keys()
    }

    /// A Service as it was admitted, and whether an API server did that.
    pub fn service(&self, name: &NamespacedName) -> Option<(&Arc<core::Service>, bool)> {
        let admitted = self.admitted.get(name)?;
        Some((&admitted.service, admitted.version.admitted))
    }

    /// Why a Service has no load-balancer address, or not the one that it should have.
    pub fn pending(&self, name: &NamespacedName) -> Option<&str> {
        self.admitted.get(name)?.pending.as_deref()
    }

    /// How much of the pools is taken.
    pub fn pool_usage(&self) -> Vec<pools::Usage> {
        self.pools.usage()
    }

    /// What has to be tried again although nothing changes, and why.
    pub fn trouble(&self) -> Option<&str> {
        self.record.trouble()
    }

    /// Replaces the pools; all Services of type LoadBalancer are decided on anew.
    pub fn set_pools(&mut self, pools: BTreeMap<String, PoolSpec>) -> Vec<Decision> {
        self.pools.set_pools(pools);
        let balanced = self.admitted.iter();
        let balanced = balanced.filter(|(_, a)| self.settings.classes.serve(&a.service));
        let names = balanced.map(|(name, _)| name.clone()).collect();
        self.review(names)
    }

    /// Replaces the policies of Services; those concerned are decided on anew.
    pub fn set_policies(
        &mut self,
        policies: BTreeMap<NamespacedName, Arc<PolicySpec>>,
    ) -> Vec<Decision> {
        let before = std::mem::replace(&mut self.policies, policies);
        let mut names: BTreeSet<&NamespacedName> = before.keys().collect();
        names.extend(self.policies.keys());
        names.retain(|name| before.get(*name) != self.policies.get(*name));
        let names = names.into_iter().cloned().collect();
        self.review(names)
    }

    /// Decides anew on versions that are in use.
    pub fn review(&mut self, names: Vec<NamespacedName>) -> Vec<Decision> {
        let mut decisions = self.serve_again(names);
        self.save(&mut decisions);
        decisions
    }

    fn serve_again(&mut self, names: impl IntoIterator<Item = NamespacedName>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for name in names {
            if let Some(admitted) = self.admitted.get(&name) {
                let version = admitted.version.clone();
                let service = (*admitted.service).clone();
                decisions.push(self.serve(&name, version, service));
            }
        }
        decisions
    }

    /// Takes note that nobody has these Services any more: what they held is free.
    pub fn forget(&mut self, names: &BTreeSet<NamespacedName>) {
        for name in names {
            self.waiting.remove(name);
            self.behind.remove(name);
            let Some(admitted) = self.admitted.remove(name) else {
                continue;
            };
            self.pools.release(name);
            if !admitted.version.admitted {
                self.release(&admitted.service);
                self.record.forget(name.clone());
            }
            self.released = true;
        }
    }

    /// Frees what a Service holds.
    fn release(&mut self, service: &core::Service) {
        self.registry.delete(service);
    }

    /// Takes over the load-balancer addresses that an API server has of a Service: another gateway
    /// may have given them.
    fn follow_status(&mut self, name: &NamespacedName, service: &core::Service) {
        let given = balancer::given(service);
        let balanced = self.settings.classes.serve(service);
        if balanced && !given.is_empty() && self.pools.held(name) != given {
            self.pools.release(name);
            let policy = self.policies.get(name);
            let ranges = policy.map_or(&[][..], |policy| policy.port_ranges.as_slice());
            balancer::adopt(&mut self.pools, service, ranges);
        }
    }

    /// Puts an admitted version in use, with its load-balancer addresses.
    fn serve(
        &mut self,
        name: &NamespacedName,
        version: Version,
        mut service: core::Service,
    ) -> Decision {
        let policy = self.policies.get(name).cloned();
        let mut outcome = pools::Outcome::default();
        if self.settings.classes.serve(&service) {
            outcome = self.balance(name, &version, &service);
            balancer::write(&mut service, &outcome.addresses);
        } else {
            self.pools.release(name);
        }
        let Checked {
            good,
            mut issues,
            notes,
        } = service::check(&name.namespace, &name.name, &service, &version.lines);
        let served = good.map(|mut spec| {
            balancer::keep_only(&mut spec, &outcome.addresses);
            if let Some(policy) = policy {
                spec.follow(policy);
            }
            version.known(Arc::new(spec))
        });
        issues.extend(outcome.problem.iter().map(|problem| Issue {
            field: "status.loadBalancer".to_owned(),
            message: problem.clone(),
            fatal: false,
        }));
        if !version.admitted {
            self.record.keep(name, &service);
        }
        let admitted = Admitted {
            service: Arc::new(service),
            version,
            pending: outcome.problem,
        };
        self.admitted.insert(name.clone(), admitted);
        Decision {
            served,
            issues,
            notes,
            ..Decision::nothing(name.clone())
        }
    }

    /// Tries again to store what could not be stored.
    pub fn retry(&mut self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.save(&mut decisions);
        decisions
    }

    /// Stores what was decided. What cannot be stored is not served, and is as soon as it can be.
    fn save(&mut self, decisions: &mut Vec<Decision>) {
        match self.record.save() {
            Ok(()) => {
                let held_back = std::mem::take(&mut self.held_back);
                decisions.extend(self.serve_again(held_back));
            }
            Err(unsaved) => {
                let trouble = self.record.trouble().unwrap_or_default().to_owned();
                let held_back = decisions.iter_mut().filter(|d| unsaved.contains(&d.name));
                for decision in held_back {
                    decision.served = None;
                    decision.issues.push(Issue {
                        field: String::new(),
                        message: format!("cannot be stored, so it is not served yet: {trouble}"),
                        fatal: true,
                    });
                }
                self.held_back = unsaved;
            }
        }
    }
}

impl Decision {
    fn nothing(name: NamespacedName) -> Self {
        Self {
            name,
            served: None,
            issues: Vec::new(),
            notes: Vec::new(),
        }
    }
}
