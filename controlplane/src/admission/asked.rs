//! New versions of Services, and who is decided on first.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Admission, Decision};
use crate::field::FieldError;
use crate::index::Version;
use crate::object::{Issue, NamespacedName};
use crate::registry::defaulted;
use crate::service;

/// A Service that asks to be served.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Which Service.
    pub name: NamespacedName,
    /// Where its version comes from.
    pub version: Version,
    /// The version.
    pub service: Arc<core::Service>,
}

impl Admission {
    /// Decides on new versions of Services, then on those that waited for what is free now.
    pub fn decide(&mut self, asked: Vec<Asked>) -> Vec<Decision> {
        for asked in &asked {
            self.waiting.remove(&asked.name);
        }
        self.adopt_new(&asked);
        let mut decisions = self.decide_all(asked);
        if std::mem::take(&mut self.released) {
            let waiting = std::mem::take(&mut self.waiting);
            decisions.extend(self.decide_all(waiting.into_values().collect()));
        }
        let behind = std::mem::take(&mut self.behind);
        decisions.extend(self.serve_again(behind));
        self.save(&mut decisions);
        decisions
    }

    fn decide_all(&mut self, mut asked: Vec<Asked>) -> Vec<Decision> {
        // Nobody is given what the status of another says.
        for asked in asked.iter().filter(|asked| asked.version.admitted) {
            self.follow_status(&asked.name, &asked.service);
        }
        asked.sort_by_cached_key(|asked| (self.rank(asked), asked.name.clone()));
        asked
            .into_iter()
            .map(|asked| self.decide_one(asked))
            .collect()
    }

    /// Who is decided on first: who holds something, who asks for something definite, the others.
    fn rank(&self, asked: &Asked) -> u8 {
        let spec = asked.service.spec.as_ref();
        let address = spec.and_then(|spec| spec.cluster_ip.as_deref());
        let ports = spec.and_then(|spec| spec.ports.as_deref());
        let mut ports = ports.into_iter().flatten();
        if self.admitted.contains_key(&asked.name) {
            0
        } else if address.is_some_and(|ip| !ip.is_empty()) || ports.any(|p| p.node_port.is_some()) {
            1
        } else {
            2
        }
    }

    fn decide_one(&mut self, asked: Asked) -> Decision {
        let before = self.admitted.get(&asked.name);
        let own = before.filter(|before| !before.version.admitted);
        let own = own.map(|before| Arc::clone(&before.service));
        let result = match asked.version.admitted {
            true => {
                // It moved to an API server, which has its own addresses.
                if let Some(own) = &own {
                    self.release(own);
                    self.record.forget(asked.name.clone());
                }
                Ok((*asked.service).clone())
            }
            false => self.admit(&asked, own.as_deref()),
        };
        match result {
            Ok(service) => {
                self.released |= own.is_some_and(|own| own.spec != service.spec);
                self.serve(&asked.name, asked.version, service)
            }
            Err(issues) => {
                let name = asked.name.clone();
                self.waiting.insert(name.clone(), asked);
                Decision {
                    issues,
                    ..Decision::nothing(name)
                }
            }
        }
    }

    /// The Service with all that it is given.
    fn admit(
        &mut self,
        asked: &Asked,
        before: Option<&core::Service>,
    ) -> Result<core::Service, Vec<Issue>> {
        let NamespacedName { namespace, name } = &asked.name;
        let lines = &asked.version.lines;
        let written = service::check(namespace, name, &asked.service, lines);
        if written.good.is_none() {
            return Err(written.issues);
        }
        let new = defaulted(own((*asked.service).clone(), &asked.name));
        let result = match before {
            Some(before) => self.registry.update(before, new),
            None => self.registry.create(new),
        };
        let issue = |FieldError { field, message, .. }| Issue {
            field,
            message,
            fatal: true,
        };
        result
            .map(|service| with_written_status(service, &asked.service))
            .map_err(|errors| errors.into_iter().map(issue).collect())
    }
}

/// A Service of a file, without what only an API server can have said of it: a file may have been
/// copied out of a cluster.
fn own(mut service: core::Service, name: &NamespacedName) -> core::Service {
    service.metadata = ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        labels: service.metadata.labels,
        annotations: service.metadata.annotations,
        ..ObjectMeta::default()
    };
    service
}

/// A registered Service with the balancer's addresses that were written with it.
fn with_written_status(mut service: core::Service, written: &core::Service) -> core::Service {
    let is_balancer = |spec: &core::ServiceSpec| spec.type_.as_deref() == Some("LoadBalancer");
    if service.spec.as_ref().is_some_and(is_balancer) && written.status.is_some() {
        service.status.clone_from(&written.status);
    }
    service
}
