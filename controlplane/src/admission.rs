//! Which version of a Service is served, and with what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::index::{Known, Version};
use crate::object::{Checked, Issue, NamespacedName};
use crate::service::{self, ServiceSpec};

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

/// Admits Services.
#[derive(Debug, Default)]
pub struct Admission {
    admitted: BTreeMap<NamespacedName, Arc<core::Service>>,
}

impl Admission {
    /// Whether a version of the Service is served.
    pub fn serves(&self, name: &NamespacedName) -> bool {
        self.admitted.contains_key(name)
    }

    /// Takes note that nobody has these Services any more.
    pub fn forget(&mut self, names: &BTreeSet<NamespacedName>) {
        for name in names {
            self.admitted.remove(name);
        }
    }

    /// Decides on new versions of Services.
    pub fn decide(
        &mut self,
        asked: Vec<(NamespacedName, Version, Arc<core::Service>)>,
    ) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(asked.len());
        for (name, version, service) in asked {
            let Checked {
                good,
                issues,
                notes,
            } = service::check(&name.namespace, &name.name, &service, &version.lines);
            if good.is_some() {
                self.admitted.insert(name.clone(), service);
            }
            decisions.push(Decision {
                name,
                served: good.map(|spec| version.known(Arc::new(spec))),
                issues,
                notes,
            });
        }
        decisions
    }
}
