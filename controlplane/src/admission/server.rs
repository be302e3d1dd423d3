//! Services of an API server: their status is where their load-balancer addresses are kept.
//!
//! Guarantees: what the status names stays, if no other Service has it; of several gateways only the
//! one that leads gives addresses, the others serve what the status says.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::balancer::{self, told};
use super::{Admission, Asked, Decision};
use crate::annotations::ranges::PortRange;
use crate::index::{Good, Version};
use crate::object::NamespacedName;
use crate::pools;

/// What the status of a Service of an API server should say.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its `metadata.uid`.
    pub uid: Option<String>,
    /// The addresses, in their order; an empty list takes the entries away, `None` leaves them.
    pub addresses: Option<Vec<IpAddr>>,
    /// The entries as the source saw them last.
    pub told: Vec<core::LoadBalancerIngress>,
    /// Why it has no address, or not the one that it should have.
    pub pending: Option<String>,
}

impl Admission {
    /// What the status of a Service should say; `None` where that is not for this gateway to tell.
    pub fn wanted(&self, name: &NamespacedName) -> Option<Wanted> {
        let admitted = self.admitted.get(name)?;
        let ours = admitted.version.admitted && self.settings.classes.serve(&admitted.service);
        if !ours || !self.leads {
            return None;
        }
        Some(Wanted {
            uid: admitted.service.metadata.uid.clone(),
            // Without a pool they are somebody else's.
            addresses: (!self.pools.is_empty()).then(|| self.pools.held(name)),
            told: told(written(&admitted.version)?).to_vec(),
            pending: admitted.pending.clone(),
        })
    }

    /// Tells whether this gateway leads. One that begins to decides on all Services of the API
    /// server; one that ends leaves them with what they have.
    pub fn set_leads(&mut self, leads: bool) -> Vec<Decision> {
        if std::mem::replace(&mut self.leads, leads) == leads || !leads {
            return Vec::new();
        }
        let from_server = self.admitted.iter().filter(|(_, a)| a.version.admitted);
        let names = from_server.map(|(name, _)| name.clone()).collect();
        self.review(names)
    }

    /// Takes over what new Services of the API server have, before anybody is given anything.
    pub(super) fn adopt_new(&mut self, asked: &[Asked]) {
        let is_new = |asked: &&Asked| {
            let before = self.admitted.get(&asked.name);
            asked.version.admitted && before.is_none_or(|before| !before.version.admitted)
        };
        // Without a pool they are taken as written.
        for asked in asked.iter().filter(is_new) {
            if !self.pools.is_empty() && self.settings.classes.serve(&asked.service) {
                let ranges = self.ranges(&asked.name);
                balancer::adopt(&mut self.pools, &asked.service, &ranges);
            }
        }
    }

    /// Gives a Service its load-balancer addresses, or follows the gateway that does.
    pub(super) fn balance(
        &mut self,
        name: &NamespacedName,
        version: &Version,
        service: &core::Service,
    ) -> pools::Outcome {
        let ranges = self.ranges(name);
        let follows = version.admitted && !self.leads && !self.pools.is_empty();
        let written = written(version).filter(|_| follows);
        let Some(written) = written else {
            return balancer::assign(&mut self.pools, service, &ranges);
        };
        let given = balancer::given(written);
        // Without an entry the leader has not written yet, or cannot: nothing is taken away.
        if !given.is_empty() {
            balancer::adopt(&mut self.pools, written, &ranges);
        }
        let addresses = self.pools.held(name);
        if !given.is_empty() && given != addresses {
            self.behind.insert(name.clone());
        }
        pools::Outcome {
            addresses,
            problem: None,
        }
    }

    fn ranges(&self, name: &NamespacedName) -> Vec<PortRange> {
        let policy = self.policies.get(name);
        policy.map_or_else(Vec::new, |policy| policy.port_ranges.clone())
    }
}

/// The Service as its source has it.
fn written(version: &Version) -> Option<&core::Service> {
    match &version.good {
        Good::Service(service) => Some(service),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::admission::Settings;
    use crate::kinds::pool::{self, AddressPool};
    use crate::object::{Lines, Origin};

    fn name(text: &str) -> NamespacedName {
        NamespacedName::new("shop", text)
    }

    fn asked(service: &str, entries: &[&str]) -> Asked {
        let entries: Vec<_> = entries.iter().map(|ip| json!({ "ip": ip })).collect();
        let service: core::Service = serde_json::from_value(json!({
            "metadata": { "namespace": "shop", "name": service, "uid": service },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1"],
                "ipFamilies": ["IPv4"],
                "ports": [{ "port": 80, "protocol": "TCP" }]
            },
            "status": { "loadBalancer": { "ingress": entries } }
        }))
        .unwrap();
        let service = Arc::new(service);
        Asked {
            name: name(service.metadata.name.as_deref().unwrap()),
            version: Version {
                good: Good::Service(Arc::clone(&service)),
                origin: Origin {
                    file: "kubernetes".into(),
                    line: None,
                },
                order: 1,
                first_seen: Duration::ZERO,
                admitted: true,
                lines: Lines::default(),
            },
            service,
        }
    }

    fn admission() -> Admission {
        let mut admission = Admission::new(Settings::default(), None).unwrap();
        let pool: AddressPool = serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "AddressPool",
            "metadata": { "name": "all" },
            "spec": { "addresses": ["192.0.2.10-192.0.2.11"] }
        }))
        .unwrap();
        let pool = pool::check(&pool).good.unwrap();
        admission.set_pools(BTreeMap::from([("all".to_owned(), pool)]));
        admission
    }

    /// The last number of each address.
    fn held(admission: &Admission, service: &str) -> Vec<u8> {
        let held = admission.pools.held(&name(service));
        let last = |address: IpAddr| match address {
            IpAddr::V4(four) => four.octets()[3],
            IpAddr::V6(six) => six.octets()[15],
        };
        held.into_iter().map(last).collect()
    }

    #[test]
    fn what_a_status_names_is_taken_over_before_anybody_is_given_anything() {
        let mut admission = admission();
        admission.decide(vec![
            asked("a", &[]),
            asked("b", &["192.0.2.10"]),
            asked("c", &[]),
        ]);
        assert_eq!(held(&admission, "b"), [10]);
        assert_eq!(held(&admission, "a"), [11]);
        let wanted = admission.wanted(&name("a")).unwrap();
        assert_eq!(
            wanted.addresses,
            Some(vec!["192.0.2.11".parse::<IpAddr>().unwrap()])
        );
        assert_eq!((wanted.uid.as_deref(), wanted.told), (Some("a"), vec![]));
        assert_eq!(wanted.pending, None);
        let empty = admission.wanted(&name("c")).unwrap();
        assert_eq!(empty.addresses, Some(vec![]));
        assert!(empty.pending.is_some());
    }

    #[test]
    fn a_gateway_that_does_not_lead_serves_what_the_leader_gives() {
        let mut admission = admission();
        assert!(admission.set_leads(false).is_empty());
        admission.decide(vec![asked("a", &[]), asked("b", &[])]);
        assert!(held(&admission, "a").is_empty());
        assert_eq!(admission.wanted(&name("a")), None);
        admission.decide(vec![asked("b", &["192.0.2.10"])]);
        assert_eq!(held(&admission, "b"), [10]);
        // An entry that goes missing takes nothing away: the leader may be gone.
        admission.decide(vec![asked("b", &[])]);
        assert_eq!(held(&admission, "b"), [10]);
        let decided = admission.set_leads(true);
        assert_eq!(decided.len(), 2);
        assert_eq!(held(&admission, "b"), [10]);
        assert_eq!(held(&admission, "a"), [11]);
    }

    #[test]
    fn addresses_that_the_leader_exchanged_are_exchanged() {
        let mut admission = admission();
        admission.decide(vec![asked("a", &[]), asked("b", &[])]);
        assert_eq!(
            (held(&admission, "a"), held(&admission, "b")),
            (vec![10], vec![11])
        );
        admission.set_leads(false);
        admission.decide(vec![
            asked("a", &["192.0.2.11"]),
            asked("b", &["192.0.2.10"]),
        ]);
        assert_eq!(
            (held(&admission, "a"), held(&admission, "b")),
            (vec![11], vec![10])
        );
        assert!(admission.behind.is_empty());
    }

    #[test]
    fn without_a_pool_the_addresses_are_left_to_others() {
        let mut admission = Admission::new(Settings::default(), None).unwrap();
        admission.decide(vec![asked("a", &["198.51.100.1"]), asked("b", &[])]);
        let wanted = admission.wanted(&name("a")).unwrap();
        assert_eq!((wanted.addresses, wanted.pending), (None, None));
        assert_eq!(held(&admission, "a"), [1]);
        let empty = admission.wanted(&name("b")).unwrap();
        assert_eq!(empty.addresses, None);
        assert!(empty.pending.is_some());
    }
}
