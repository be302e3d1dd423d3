//! What has changed among the objects, and whom it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Engine;
use crate::admission::Asked;
use crate::index::{Change, Good, Version};
use crate::kinds::policy::{self, Beaten, PolicySpec};
use crate::object::{Issue, Kind, NamespacedName, ObjectId};

/// What has changed and is for the admission to decide on.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) asked: Vec<Asked>,
    pub(super) gone: BTreeSet<NamespacedName>,
    pub(super) pools: bool,
    pub(super) policies: bool,
    pub(super) nodes: bool,
}

impl Engine {
    /// Sorts what has changed to those whom it concerns.
    pub(super) fn take_in_changes(&mut self) -> Changes {
        let mut news = Changes::default();
        for Change { id, version } in self.index.take_changes() {
            let name = id.named();
            match (id.kind, version) {
                (_, Some(version)) => self.take_in_version(name, version, &mut news),
                (Kind::Service, None) => {
                    news.gone.insert(name);
                }
                (Kind::EndpointSlice, None) => self.catalog.remove_slice(&name),
                (Kind::Pod, None) => {
                    self.names.pod(&name, None);
                    self.deriver.remove_pod(&name);
                }
                (Kind::Node, None) => {
                    self.deriver.remove_node(&name.name);
                    news.nodes = true;
                }
                (Kind::AddressPool, None) => {
                    news.pools |= self.pools.remove(&name.name).is_some();
                }
                (Kind::ServicePolicy, None) => {
                    news.policies |= self.policies.remove(&name).is_some();
                }
                (Kind::Namespace, None) => self.take_in_namespace(&name.name, false),
            }
        }
        news
    }

    fn take_in_version(&mut self, name: NamespacedName, version: Version, news: &mut Changes) {
        match version.good.clone() {
            Good::Namespace => self.take_in_namespace(&name.name, true),
            Good::Pod(pod) => {
                self.names.pod(&name, Some(&pod));
                let services = self.deriver.set_pod((*pod).clone());
                services.into_iter().for_each(|s| self.catalog.concern(s));
            }
            Good::Node(node) => {
                self.deriver.set_node((*node).clone());
                news.nodes = true;
            }
            Good::Slice(slice) => self.catalog.put_slice(version.known(slice)),
            Good::Pool(pool) => {
                self.pools.insert(name.name, (*pool).clone());
                news.pools = true;
            }
            Good::Policy(policy) => {
                self.policies.insert(name, policy);
                news.policies = true;
            }
            Good::Service(service) => news.asked.push(Asked {
                name,
                version,
                service,
            }),
        }
    }

    fn take_in_namespace(&self, name: &str, is_there: bool) {
        self.names.namespace(name, is_there);
        self.concern_namespace(name);
    }

    /// Which policy holds for each Service. Those that have no effect are told so.
    pub(super) fn attached_policies(&mut self) -> BTreeMap<NamespacedName, Arc<PolicySpec>> {
        let all = self.policies.iter().map(|(name, policy)| (name, &**policy));
        let (attached, beaten) = policy::attach(all);
        let mut issues: BTreeMap<&NamespacedName, Vec<Issue>> = self
            .policies
            .keys()
            .map(|name| (name, Vec::new()))
            .collect();
        for Beaten {
            policy,
            field,
            message,
        } in beaten
        {
            let of_policy = issues.get_mut(&policy).into_iter();
            of_policy.for_each(|issues| {
                issues.push(Issue {
                    field: field.clone(),
                    message: message.clone(),
                    fatal: false,
                });
            });
        }
        for (name, issues) in issues {
            let id = ObjectId::of(Kind::ServicePolicy, name);
            self.index.judge(&id, issues);
        }
        let policy = |(service, policy): (NamespacedName, &NamespacedName)| {
            Some((service, Arc::clone(self.policies.get(policy)?)))
        };
        attached.into_iter().filter_map(policy).collect()
    }

    /// Services that nobody has any more; once also those that an earlier process left. A file that
    /// cannot be read may hold them, and would find its addresses given to others.
    pub(super) fn gone(&mut self, mut gone: BTreeSet<NamespacedName>) -> BTreeSet<NamespacedName> {
        if self.restored || self.index.is_partial() {
            return gone;
        }
        self.restored = true;
        let index = &self.index;
        let unknown = |name: &&NamespacedName| !index.has(&ObjectId::of(Kind::Service, name));
        gone.extend(self.admission.names().filter(unknown).cloned());
        gone
    }
}
