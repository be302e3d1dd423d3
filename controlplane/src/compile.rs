//! Objects to the Services of the table.
//!
//! Guarantees: pure and deterministic; the outcome depends on the objects, the settings and, only
//! where two objects claim one address, on which was known first. The outcome always passes
//! [`sluice_conf::ServiceTable::validate`]; what could not be served is a problem, never an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use sluice_conf::message::controlplane::Problem;
use sluice_conf::{Service, ServiceName, ServiceTable};

use crate::catalog::Catalog;
use crate::endpoints::{self, Slice};
use crate::index::Known;
use crate::object::{self, Kind, Lines, NamespacedName, ObjectId, Origin};
use crate::readiness::{Moment, Readiness};
use crate::rules::Rules;
use crate::service;

mod access;
mod backends;
mod claims;
mod counts;
mod job;

use claims::Claims;
pub use counts::{Sizes, WithoutLocal, count_without_local};
use job::Job;

/// What is thought of endpoints, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints<'a> {
    /// Who thinks so.
    pub readiness: &'a Readiness,
    /// The moment.
    pub moment: Moment,
}

/// Keeps what every Service was compiled to, and compiles anew what a change concerns.
#[derive(Debug, Clone)]
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

fn id_of_slice(slice: &Slice) -> ObjectId {
    ObjectId {
        kind: Kind::EndpointSlice,
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
    }
}

#[cfg(test)]
mod tests;
