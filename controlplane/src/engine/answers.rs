//! Answers of the engine to what others ask.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_conf::message::controlplane::{DrainRow, DrainStage, Problem};
use tracing::info;

use super::Engine;
use super::events::Event;
use super::questions::{Detail, Inventory, Question, Standing, Standings, View};
use crate::endpoints::Slice;
use crate::index::Known;
use crate::kinds::policy;
use crate::object::{Kind, NamespacedName, ObjectId};
use crate::readiness::Moment;
use crate::readiness::drains::{Drain, Stage, Target};
use crate::service::ServiceType;
use crate::store;
use crate::words;

impl Engine {
    pub(super) fn answer(&mut self, question: Question, moment: Moment) {
        // Whoever asked may be gone: then nobody reads the answer.
        match question {
            Question::View(answer) => drop(answer.send(self.view())),
            Question::Rehearsal(answer) => {
                drop(answer.send(self.rehearsal(moment).map(Box::new)));
            }
            Question::Standings { namespace, answer } => {
                drop(answer.send(self.standings(namespace.as_deref(), moment)));
            }
            Question::Detail { service, answer } => {
                drop(answer.send(self.detail(&service, moment)));
            }
            Question::Inventory(answer) => drop(answer.send(self.inventory())),
            Question::Drains(answer) => {
                let drains = self.readiness.drains().iter();
                let rows = drains.map(|(target, drain)| self.drain_row(target, drain, moment));
                drop(answer.send(rows.collect()));
            }
            Question::Drain {
                target,
                timeout_seconds,
                answer,
            } => drop(answer.send(self.drain(target, timeout_seconds, moment))),
            Question::Announced { namespaces, answer } => {
                drop(answer.send(self.announced(namespaces.as_ref())));
            }
            Question::Undrain { target, answer } => {
                drop(answer.send(self.undrain(&target, moment)));
            }
        }
    }

    /// What there is now.
    pub fn view(&self) -> View {
        View {
            services: self.catalog.services().cloned().collect(),
            slices: self.catalog.slice_count(),
            problems: self.problems.all().to_vec(),
        }
    }

    fn standings(&self, namespace: Option<&str>, moment: Moment) -> Standings {
        let names = self.catalog.names().into_iter();
        let wanted = names.filter(|name| namespace.is_none_or(|only| only == name.namespace));
        self.standings_of(wanted, moment)
    }

    fn standings_of<'a>(
        &self,
        names: impl Iterator<Item = &'a NamespacedName>,
        moment: Moment,
    ) -> Standings {
        Standings {
            services: names
                .filter_map(|name| self.standing(name, moment))
                .collect(),
            drains: self.readiness.drains().clone(),
            moment,
        }
    }

    /// What serves a Service; `None` when nothing ever does.
    fn standing(&self, name: &NamespacedName, moment: Moment) -> Option<Standing> {
        let service = self.catalog.service(name);
        if service.is_some_and(|known| known.object.kind == ServiceType::ExternalName) {
            return None;
        }
        let known: Vec<&Known<Slice>> = self.catalog.slices_of(name).collect();
        let first_seen = known.iter().map(|slice| slice.first_seen).min();
        let first_seen = first_seen.or_else(|| service.map(|service| service.first_seen));
        let made = service.map(|service| {
            let slices = known.iter().map(|slice| &*slice.object);
            self.readiness.look(&service.object, slices, moment).slices
        });
        let mut made = made.into_iter().flatten().map(|slice| match slice {
            Cow::Borrowed(_) => None,
            Cow::Owned(slice) => Some(slice),
        });
        let slices = known.iter();
        Some(Standing {
            service: name.clone(),
            first_seen: first_seen.unwrap_or(moment.now),
            slices: slices
                .map(|slice| (Arc::clone(&slice.object), made.next().flatten()))
                .collect(),
            verdicts: self.readiness.verdicts(name),
        })
    }

    fn detail(&self, name: &NamespacedName, moment: Moment) -> Option<Detail> {
        let (service, _) = self.admission.service(name)?;
        let spec = &self.catalog.service(name)?.object;
        let mut objects = vec![ObjectId::of(Kind::Service, name).to_string()];
        if spec.policy.is_some() {
            let all = self.policies.iter().map(|(name, policy)| (name, &**policy));
            let policy = policy::attach(all).0.get(name).copied().cloned();
            objects.extend(policy.map(|p| ObjectId::of(Kind::ServicePolicy, &p).to_string()));
        }
        let concerns = |problem: &&Problem| {
            let object = problem.object.as_ref();
            object.is_some_and(|object| objects.contains(object))
        };
        let problems = self.problems.all().iter().filter(concerns);
        Some(Detail {
            service: Arc::clone(service),
            standings: self.standings_of(std::iter::once(name), moment),
            pending: self.admission.pending(name).map(str::to_owned),
            problems: problems.cloned().collect(),
        })
    }

    fn inventory(&self) -> Inventory {
        let all = self.policies.iter().map(|(name, policy)| (name, &**policy));
        let (attached, _) = policy::attach(all);
        let holds_for = |policy: &NamespacedName| {
            let own = attached.iter().filter(|(_, holds)| **holds == policy);
            own.map(|(service, _)| service.name.clone()).collect()
        };
        let policies = self.policies.iter();
        let local = &self.rules.local_nodes;
        let is_local = |name: &str| local.is_empty() || local.contains(name);
        let mut nodes: Vec<_> = self.deriver.nodes().iter().collect();
        nodes.sort_by_key(|node| &node.name);
        let mut pods: Vec<_> = self.deriver.pods().cloned().collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Inventory {
            pools: self.admission.pool_usage(),
            policies: policies
                .map(|(name, policy)| (name.clone(), Arc::clone(policy), holds_for(name)))
                .collect(),
            nodes: nodes
                .into_iter()
                .map(|node| (node.clone(), is_local(&node.name)))
                .collect(),
            pods,
        }
    }

    fn drain(
        &mut self,
        target: Target,
        timeout_seconds: Option<u32>,
        moment: Moment,
    ) -> Result<DrainRow, String> {
        let drains = self.readiness.drains_mut();
        let drain = drains.begin(target.clone(), timeout_seconds, moment.unix);
        let bytes = serde_json::to_vec(&drain).unwrap_or_default();
        self.keep(store::Change::Drain(target.to_string(), bytes))?;
        let row = self.drain_row(&target, &drain, moment);
        let message = format!("is drained, {}", words::count(row.endpoints, "endpoint"));
        self.tell_drain(&target, "Drain", message, moment);
        self.look_at_drained(moment);
        Ok(row)
    }

    fn undrain(&mut self, target: &Target, moment: Moment) -> Result<bool, String> {
        let drained = self.drained(moment);
        self.keep(store::Change::Undrain(target.to_string()))?;
        let was = self.readiness.drains_mut().end(target);
        if was {
            let message = "is not drained any more".to_owned();
            self.tell_drain(target, "Undrained", message, moment);
        }
        self.look_again(drained, moment);
        Ok(was)
    }

    /// Compiles anew what is drained, and tells of the drains that went a step further.
    pub(super) fn look_at_drained(&mut self, moment: Moment) {
        for (target, stage) in self.steps.update(self.readiness.drains(), moment.unix) {
            match stage {
                Stage::Noticed => {}
                Stage::Draining => {
                    let message = "new connections go elsewhere".to_owned();
                    self.tell_drain(&target, "Draining", message, moment);
                }
                Stage::Gone => {
                    let message = "its time is over, existing connections end".to_owned();
                    self.tell_drain(&target, "Drained", message, moment);
                }
            }
        }
        let drained = self.drained(moment);
        self.look_again(drained, moment);
    }

    fn tell_drain(&self, target: &Target, reason: &'static str, message: String, moment: Moment) {
        let (namespace, object) = match target {
            Target::Address(address) => (None, format!("Address {address}")),
            Target::Node(node) => (None, format!("Node {node}")),
            Target::Pod(pod) => (Some(pod.namespace.clone()), format!("Pod {pod}")),
        };
        info!("{object}: {message}");
        let event = Event {
            namespace,
            object,
            warning: false,
            reason,
            message,
        };
        self.events.note(event, moment.now);
    }

    fn drain_row(&self, target: &Target, drain: &Drain, moment: Moment) -> DrainRow {
        let slices = self.catalog.slices().map(|slice| &slice.object);
        let meant = slices.flat_map(|slice| {
            let endpoints = slice.endpoints.iter();
            endpoints.filter(|endpoint| target.is(&slice.namespace, endpoint))
        });
        let addresses: BTreeSet<_> = meant.map(|endpoint| endpoint.address).collect();
        DrainRow {
            target: target.to_string(),
            endpoints: addresses.len(),
            stage: stage(self.readiness.drains().stage_of(drain, moment.unix)),
            timeout_seconds: drain.timeout_seconds,
            age_seconds: moment.unix.saturating_sub(drain.since),
        }
    }

    fn keep(&self, change: store::Change) -> Result<(), String> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let committed = store.lock().commit(&[change]);
        committed.map_err(|error| error.to_string())
    }
}

/// A stage as it is sent.
pub(crate) const fn stage(stage: Stage) -> DrainStage {
    match stage {
        Stage::Noticed => DrainStage::Noticed,
        Stage::Draining => DrainStage::Draining,
        Stage::Gone => DrainStage::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Gateway, service, slice};
    use crate::view;

    fn at(seconds: u64) -> Moment {
        Moment {
            now: std::time::Duration::from_secs(seconds),
            unix: seconds,
        }
    }

    /// Weight and stage of each endpoint of all Services.
    fn endpoints(engine: &Engine, moment: Moment) -> Vec<(String, u16, Option<DrainStage>)> {
        let rows = view::endpoints(&engine.standings(None, moment));
        let rows = rows.into_iter().flat_map(|row| row.endpoints);
        rows.map(|e| (e.address.to_string(), e.weight, e.drain))
            .collect()
    }

    fn reasons(engine: &Engine) -> Vec<String> {
        let rows = engine.events().rows(None, std::time::Duration::ZERO);
        rows.into_iter().map(|row| row.reason).collect()
    }

    #[test]
    fn a_drain_is_told_with_what_it_means_until_it_is_over() {
        let mut gateway = Gateway::default();
        gateway.apply("s", &service("web", "10.96.0.1"));
        gateway.apply("e", &slice("web-1", "web", &["10.0.2.1", "10.0.2.2"]));
        let engine = gateway.engine();
        let target: Target = "10.0.2.2".parse().unwrap();
        let row = engine.drain(target.clone(), Some(10), at(100)).unwrap();
        assert_eq!((&*row.target, row.endpoints), ("address/10.0.2.2", 1));
        assert_eq!(row.stage, DrainStage::Draining, "nobody is given notice");
        let (used, drained) = ("10.0.2.1".to_owned(), "10.0.2.2".to_owned());
        assert_eq!(
            endpoints(engine, at(100)),
            [
                (used.clone(), 1, None),
                (drained.clone(), 0, Some(DrainStage::Draining))
            ]
        );
        engine.look_at_drained(at(110));
        assert_eq!(
            endpoints(engine, at(110))[1],
            (drained.clone(), 0, Some(DrainStage::Gone))
        );
        assert_eq!(engine.undrain(&target, at(111)), Ok(true));
        assert_eq!(engine.undrain(&target, at(111)), Ok(false));
        assert_eq!(
            endpoints(engine, at(111)),
            [(used, 1, None), (drained, 1, None)]
        );
        assert_eq!(
            reasons(engine),
            ["Drain", "Draining", "Drained", "Undrained"]
        );
    }

    #[test]
    fn what_comes_after_its_drain_is_drained() {
        let mut gateway = Gateway::default();
        let target: Target = "10.0.2.1".parse().unwrap();
        let drain = gateway.engine().drain(target, None, at(100));
        assert_eq!(drain.unwrap().endpoints, 0);
        gateway.apply("s", &service("web", "10.96.0.1"));
        gateway.apply("e", &slice("web-1", "web", &["10.0.2.1"]));
        assert_eq!(
            endpoints(gateway.engine(), at(100)),
            [("10.0.2.1".into(), 0, Some(DrainStage::Draining))]
        );
    }

    #[test]
    fn a_service_without_an_address_tells_why_until_a_pool_has_one() {
        let mut gateway = Gateway::default();
        let text = service("web", "10.96.0.1").replace(
            "spec:",
            "spec:\n  type: LoadBalancer\n  allocateLoadBalancerNodePorts: false",
        );
        gateway.apply("s", &text);
        let name = NamespacedName::new("default", "web");
        let engine = gateway.engine();
        let detail = engine.detail(&name, at(0)).unwrap();
        let pending = detail.pending.unwrap();
        assert!(
            detail.problems.iter().any(|p| p.message == pending),
            "{pending}"
        );
        assert_eq!(reasons(engine), ["AllocationFailed"]);
        let pool = "apiVersion: sluice.dev/v1alpha1\nkind: AddressPool\nmetadata:\n  name: public\nspec:\n  addresses: [203.0.113.0/28]\n";
        gateway.apply("p", pool);
        let engine = gateway.engine();
        let detail = engine.detail(&name, at(0)).unwrap();
        assert_eq!(detail.pending, None);
        let serves_nobody = |p: &sluice_conf::message::controlplane::Problem| {
            p.message.starts_with("has no EndpointSlice")
        };
        assert!(detail.problems.iter().all(serves_nobody));
        assert_eq!(reasons(engine), ["AllocationFailed", "IPAllocated"]);
        let pools = view::pools(&engine.inventory());
        assert_eq!(pools.len(), 1, "no IPv6");
        assert_eq!((pools[0].total, pools[0].used), (16, 1));
        assert!(
            engine
                .detail(&NamespacedName::new("shop", "web"), at(0))
                .is_none()
        );
    }
}
