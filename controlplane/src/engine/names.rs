//! What the engine tells the DNS server: the same slices, judged by the same readiness, that the
//! table is compiled from. An endpoint that is drained is told first, before connections go elsewhere.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Engine;
use crate::dns::Shared;
use crate::dns::metrics;
use crate::dns::options::{Options, Pods};
use crate::dns::records::{LeftOut, Named, Published};
use crate::endpoints::{Endpoint, Slice};
use crate::object::NamespacedName;
use crate::readiness::{Moment, Readiness};
use crate::rules::Rules;
use crate::service::ServiceSpec;
use crate::slices::pod::Pod;

/// The DNS server's zone, where there is one.
#[derive(Debug, Default)]
pub(super) struct Names(Option<Told>);

#[derive(Debug)]
struct Told {
    zone: Shared,
    /// Whether it wants to know of Pods.
    pods: bool,
    /// Whether headless Services are answered by zone.
    zonal: bool,
}

impl Engine {
    /// Keeps `zone` up to date, with what `options` need to know; by the zone that the gateway stands
    /// in if answers are `zonal`.
    #[must_use]
    pub fn with_names(mut self, zone: Shared, options: &Options, zonal: bool) -> Self {
        self.names = Names(Some(Told {
            zone,
            pods: options.pods == Pods::Verified,
            zonal,
        }));
        self
    }
}

impl Names {
    /// Tells what became of a Service and its slices; one without slices may be gone.
    pub(super) fn tell(
        &self,
        name: &NamespacedName,
        (spec, slices): (Option<&ServiceSpec>, &[&Slice]),
        (readiness, rules): (&Readiness, &Rules),
        moment: Moment,
    ) {
        let Some(told) = &self.0 else { return };
        let fit = spec.map(|spec| fit(spec, slices, readiness, moment));
        let any_way = spec.is_some_and(|spec| spec.publish_not_ready_addresses);
        let drains = readiness.drains();
        let left_out = |slice: &Slice, endpoint: &Endpoint| {
            let stage = drains.stage(&slice.namespace, endpoint, moment.unix);
            if stage.is_some() {
                return Some(LeftOut::Drained);
            }
            if any_way {
                return None;
            }
            let fit = fit.as_ref().and_then(Option::as_ref);
            let fit = fit.and_then(|fit| fit.get(&endpoint.address));
            match endpoint.conditions.ready {
                true => (fit == Some(&false)).then_some(LeftOut::Unhealthy),
                false if endpoint.conditions.terminating => Some(LeftOut::Terminating),
                false => Some(LeftOut::NotReady),
            }
        };
        let published = Published {
            slices,
            left_out: &left_out,
            zone: rules.zone.as_deref().filter(|_| told.zonal),
        };
        let named = match spec {
            Some(spec) => Some(Named::of(spec, &published, |vip| rules.allows(vip))),
            None if slices.is_empty() => None,
            None => Some(Named::of_slices(name, &published)),
        };
        told.zone.set(name, named);
    }

    /// Everything that is known has been told.
    pub(super) fn told_all(&self) {
        let Some(told) = &self.0 else { return };
        if !told.zone.read().is_synced() {
            told.zone.change(crate::dns::zone::Zone::set_synced);
        }
        metrics::size(&told.zone.read());
    }

    /// Tells whether there is a namespace.
    pub(super) fn namespace(&self, name: &str, is_there: bool) {
        if let Some(told) = &self.0 {
            told.zone.change(|zone| zone.set_namespace(name, is_there));
        }
    }

    /// Tells what became of a Pod; `None` when it is gone.
    pub(super) fn pod(&self, name: &NamespacedName, pod: Option<&Pod>) {
        let Some(told) = self.0.as_ref().filter(|told| told.pods) else {
            return;
        };
        let pod = pod.filter(|pod| !pod.finished && !pod.terminating);
        let addresses = pod.map(|pod| &*pod.addresses).unwrap_or_default();
        told.zone.change(|zone| zone.set_pod(name, addresses));
    }
}

/// Which endpoints are fit by health and policy; `None` when all are.
fn fit(
    spec: &ServiceSpec,
    slices: &[&Slice],
    readiness: &Readiness,
    moment: Moment,
) -> Option<HashMap<IpAddr, bool>> {
    if !readiness.judges(spec) {
        return None;
    }
    let look = readiness.look(spec, slices.iter().copied(), moment);
    let mut fit: HashMap<IpAddr, bool> = HashMap::new();
    for endpoint in look.slices.iter().flat_map(|slice| &slice.endpoints) {
        *fit.entry(endpoint.address).or_default() |= endpoint.conditions.ready;
    }
    Some(fit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use sluice_conf::settings::controlplane as settings;

    use super::*;
    use crate::readiness::drains::Drains;
    use crate::testing::{Gateway, service, slice};

    fn left_out(zone: &Shared, service: &str) -> Option<Vec<(String, LeftOut)>> {
        let zone = zone.read();
        let named = zone.service("default", service)?;
        let left_out = named.left_out();
        Some(
            left_out
                .map(|(_, host, why)| (host.to_owned(), why))
                .collect(),
        )
    }

    fn gateway(readiness: Readiness) -> (Gateway, Shared) {
        let zone = Shared::default();
        let options = Options::from(&settings::Dns {
            pods: settings::PodNames::Verified,
            ..settings::Dns::default()
        });
        let gateway = Gateway::judging(Rules::default(), readiness);
        (gateway.naming(zone.clone(), &options), zone)
    }

    #[test]
    fn a_drained_endpoint_leaves_dns_while_it_still_serves() {
        let mut drains = Drains::new(BTreeMap::new(), Duration::from_secs(5));
        drains.begin("10.0.2.1".parse().unwrap(), None, 0);
        let health = crate::health::Health::new(
            crate::health::Settings::default(),
            crate::clock::Clock::start(),
        );
        let (mut gateway, zone) = gateway(Readiness::new(health, drains));
        gateway.write("web.yaml", &service("web", "10.96.0.1"));
        gateway.apply("s.yaml", &slice("web-a", "web", &["10.0.2.1", "10.0.2.2"]));
        let drained = ("10-0-2-1".to_owned(), LeftOut::Drained);
        assert_eq!(left_out(&zone, "web"), Some(vec![drained]));
        let table = gateway.table();
        let backends = table.services.iter().flat_map(|service| &service.backends);
        assert_eq!(backends.count(), 2, "connections go there all the same");
    }

    #[test]
    fn what_is_gone_leaves_the_zone_but_for_slices_that_stay() {
        let (mut gateway, zone) = gateway(Readiness::default());
        assert!(!zone.read().is_synced());
        gateway.write("web.yaml", &service("web", "10.96.0.1"));
        gateway.apply("s.yaml", &slice("web-a", "web", &["10.0.2.1"]));
        assert!(zone.read().is_synced());
        assert_eq!(zone.read().size(), (1, 2));
        let name = NamespacedName::new("default", "web");
        gateway.event(crate::source::Event::Delete {
            id: crate::object::ObjectId::of(crate::object::Kind::Service, &name),
            file: "web.yaml".to_owned(),
        });
        gateway.settle();
        assert_eq!(zone.read().size(), (1, 1), "the slice");
    }

    #[test]
    fn pods_and_namespaces_are_told_while_they_are_there() {
        let (mut gateway, zone) = gateway(Readiness::default());
        gateway.apply(
            "p.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec: {containers: []}\nstatus: {podIPs: [{ip: 10.0.2.1}]}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: empty}\n",
        );
        let address = "10.0.2.1".parse().unwrap();
        assert!(zone.read().has_pod("shop", address));
        assert!(zone.read().has_namespace("empty"));
    }
}
