//! Services as environment variables of workloads, as the kubelet gives them to Pods.
//!
//! Guarantees: names, values and choice of Services are those of the kubelet (Kubernetes 1.35,
//! `pkg/kubelet/envvars` and `getServiceEnvVarMap`). Names of Services are changed as little as there:
//! upper case, and `_` for `-`, so one that begins with a digit makes names that a shell cannot use;
//! [`format`](mod@format) leaves those out and says so. Where the kubelet lets chance decide, between Services whose
//! variables have the same name, the Service that sorts first keeps it.
//!
//! A Pod sees the Services that were there before it; who asks here sees those that are there now.

use std::collections::{BTreeMap, HashSet};

pub use announced::{Announced, AnnouncedPort, Announcements, variables};
pub use sluice_conf::message::controlplane::environment::Variable;

mod announced;
pub mod concerned;
pub mod folder;
pub mod format;

/// Namespace of the Service that every workload is told of.
pub const MASTER_NAMESPACE: &str = "default";
/// Name of the Service that every workload is told of.
pub const MASTER_NAME: &str = "kubernetes";

/// Whom Services are announced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Whether it wants the Services of its namespace (`enableServiceLinks`).
    pub service_links: bool,
    /// Whether it waits until Services are known; the kubelet's static Pods do not.
    pub waits: bool,
}

/// Services are not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not all objects are read yet; ask again")]
pub struct NotYet;

/// The variables of a workload: its `own`, of one name the last, then those of Services by name.
/// `services` holds at least those of its namespace and the master; `None` while they are not known.
///
/// # Errors
/// The workload waits for Services that are not known yet.
pub fn environment(
    workload: &Workload<'_>,
    own: &[Variable],
    services: Option<&[Announced]>,
) -> Result<Vec<Variable>, NotYet> {
    let services = match services {
        Some(services) => services,
        None if workload.waits => return Err(NotYet),
        None => &[],
    };
    let chosen = chosen(workload, services);
    let mut all = last_of_each(own);
    let mut names: HashSet<String> = all.iter().map(|v| v.name.clone()).collect();
    let of_services = chosen.into_values().flat_map(announced::of_one);
    all.extend(of_services.filter(|variable| names.insert(variable.name.clone())));
    Ok(all)
}

/// Services that the workload is told of, by name.
fn chosen<'a>(
    workload: &Workload<'_>,
    services: &'a [Announced],
) -> BTreeMap<&'a str, &'a Announced> {
    let mut chosen = BTreeMap::new();
    for service in services {
        if service.is_master() {
            chosen.entry(service.name.as_str()).or_insert(service);
        } else if workload.service_links && service.namespace == workload.namespace {
            chosen.insert(&service.name, service);
        }
    }
    chosen
}

/// Each name once, at its first place with its last value.
fn last_of_each(variables: &[Variable]) -> Vec<Variable> {
    let mut each: Vec<Variable> = Vec::with_capacity(variables.len());
    let mut places = BTreeMap::new();
    for variable in variables {
        match places.get(variable.name.as_str()) {
            Some(place) => each[*place] = variable.clone(),
            None => {
                places.insert(variable.name.as_str(), each.len());
                each.push(variable.clone());
            }
        }
    }
    each
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sluice_conf::Protocol;

    fn announced(namespace: &str, name: &str, address: &str) -> Announced {
        Announced {
            namespace: namespace.into(),
            name: name.into(),
            cluster_ip: address.into(),
            ports: vec![AnnouncedPort {
                name: String::new(),
                port: 80,
                protocol: Protocol::Tcp,
            }],
        }
    }

    fn workload(namespace: &str) -> Workload<'_> {
        Workload {
            namespace,
            service_links: true,
            waits: true,
        }
    }

    fn value<'a>(variables: &'a [Variable], name: &str) -> Option<&'a str> {
        let mut of_name = variables.iter().filter(|v| v.name == name);
        let found = of_name.next().map(|v| v.value.as_str());
        assert_eq!(of_name.next(), None, "{name} is there twice");
        found
    }

    #[test]
    fn a_workload_sees_its_namespace_and_the_master() {
        let services = [
            announced("default", "kubernetes", "10.96.0.1"),
            announced("default", "web", "10.96.0.2"),
            announced("shop", "cart", "10.96.0.3"),
        ];
        let seen = |namespace: &str, service_links| {
            let workload = Workload {
                service_links,
                ..workload(namespace)
            };
            let variables = environment(&workload, &[], Some(&services)).unwrap();
            let hosts = variables.iter().filter(|v| v.name.ends_with("_HOST"));
            hosts.map(|v| v.value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(seen("shop", true), ["10.96.0.3", "10.96.0.1"]);
        assert_eq!(seen("default", true), ["10.96.0.1", "10.96.0.2"]);
        assert_eq!(seen("shop", false), ["10.96.0.1"]);
        assert_eq!(seen("nowhere", true), ["10.96.0.1"]);
    }

    #[test]
    fn a_namespace_of_its_own_kubernetes_is_told_of_that_whatever_the_order() {
        let mut services = [
            announced("shop", "kubernetes", "10.96.0.9"),
            announced("default", "kubernetes", "10.96.0.1"),
        ];
        for _ in 0..2 {
            let variables = environment(&workload("shop"), &[], Some(&services)).unwrap();
            assert_eq!(
                value(&variables, "KUBERNETES_SERVICE_HOST"),
                Some("10.96.0.9")
            );
            services.reverse();
        }
    }

    #[test]
    fn own_variables_come_first_and_are_never_replaced() {
        let own = [
            Variable::new("WEB_PORT", "mine"),
            Variable::new("FOO", "1"),
            Variable::new("FOO", "2"),
        ];
        let services = [announced("shop", "web", "10.96.0.2")];
        let variables = environment(&workload("shop"), &own, Some(&services)).unwrap();
        assert_eq!(
            variables[..2],
            [Variable::new("WEB_PORT", "mine"), Variable::new("FOO", "2")]
        );
        assert_eq!(value(&variables, "WEB_PORT"), Some("mine"));
        assert_eq!(value(&variables, "WEB_SERVICE_PORT"), Some("80"));
    }

    #[test]
    fn of_two_services_with_a_variable_of_one_name_the_first_by_name_keeps_it() {
        let mut services = [
            announced("shop", "web", "10.96.0.2"),
            announced("shop", "web-service", "10.96.0.3"),
        ];
        for _ in 0..2 {
            let variables = environment(&workload("shop"), &[], Some(&services)).unwrap();
            assert_eq!(value(&variables, "WEB_SERVICE_PORT"), Some("80"));
            services.reverse();
        }
    }

    #[test]
    fn before_services_are_known_only_a_workload_that_does_not_wait_gets_an_answer() {
        let own = [Variable::new("FOO", "1")];
        assert_eq!(environment(&workload("shop"), &own, None), Err(NotYet));
        let hasty = Workload {
            waits: false,
            ..workload("shop")
        };
        assert_eq!(environment(&hasty, &own, None), Ok(own.to_vec()));
    }

    const NAMES: [&str; 5] = ["kubernetes", "web", "web-service", "web-port-80", "a"];

    proptest! {
        #[test]
        fn each_name_is_there_once_and_the_order_of_services_does_not_matter(
            given in prop::collection::btree_set((any::<bool>(), 0..NAMES.len()), 0..8),
            own in prop::collection::vec(("WEB_PORT|A_PORT|FOO", "[a-z]{1,3}"), 0..4),
            service_links in any::<bool>(),
        ) {
            let numbered = (1..).zip(&given);
            let mut services: Vec<Announced> = numbered
                .map(|(number, (own, name))| {
                    let namespace = if *own { "shop" } else { "default" };
                    announced(namespace, NAMES[*name], &format!("10.96.0.{number}"))
                })
                .collect();
            let own: Vec<Variable> = own.iter().map(|(n, v)| Variable::new(n, v)).collect();
            let workload = Workload { service_links, ..workload("shop") };
            let variables = environment(&workload, &own, Some(&services)).unwrap();
            let names: HashSet<&str> = variables.iter().map(|v| v.name.as_str()).collect();
            prop_assert_eq!(names.len(), variables.len());
            for Variable { name, .. } in &own {
                let last = own.iter().rfind(|v| v.name == *name).unwrap();
                prop_assert_eq!(value(&variables, name), Some(last.value.as_str()));
            }
            let told = super::variables(&services);
            let mut of_services = variables.iter().filter(|v| own.iter().all(|o| o.name != v.name));
            prop_assert!(of_services.all(|v| told.contains(v)));
            services.reverse();
            let reversed = environment(&workload, &own, Some(&services)).unwrap();
            prop_assert_eq!(variables, reversed);
        }
    }
}
