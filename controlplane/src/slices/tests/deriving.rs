use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::object::NamespacedName;
use crate::slices::Settings;
use crate::slices::deriver::Deriver;
use crate::slices::slice::{Endpoint, Slice};

fn named(name: &str) -> NamespacedName {
    NamespacedName::new("default", name)
}

fn deriver(max_endpoints: usize) -> Deriver {
    let mut deriver = Deriver::new(Settings {
        max_endpoints,
        ..Settings::default()
    });
    deriver.set_node(node("n", "zone-a"));
    deriver
}

fn sizes(slices: &[Arc<Slice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.len()).collect()
}

#[test]
fn one_changed_pod_changes_one_slice_and_leaves_the_others_as_they_are() {
    let mut deriver = deriver(10);
    deriver.set_service(web("a"));
    for number in 0..35 {
        let name = format!("pod-{number:02}");
        deriver.set_pod(member(&name, "a", &format!("10.1.0.{number}")));
    }
    let refreshed = deriver.refresh();
    assert_eq!(refreshed.len(), 1);
    assert_eq!(sizes(&refreshed[0].slices), [10, 10, 10, 5]);
    let before = refreshed[0].slices.clone();

    let mut unready = member("pod-17", "a", "10.1.0.17");
    unready.ready = false;
    deriver.set_pod(unready);
    let refreshed = deriver.refresh();
    let after = &refreshed[0].slices;
    let changed = before.iter().zip(after).filter(|(a, b)| !Arc::ptr_eq(a, b));
    assert_eq!(changed.count(), 1);
    assert_eq!(sizes(after), [10, 10, 10, 5]);

    deriver.remove_pod(&named("pod-17"));
    assert_eq!(sizes(&deriver.refresh()[0].slices), [10, 9, 10, 5]);
    assert_eq!(deriver.refresh(), [], "nothing happened since");
}

#[test]
fn a_service_that_goes_takes_its_slices_with_it() {
    let mut deriver = deriver(10);
    deriver.set_service(web("a"));
    let refreshed = deriver.refresh();
    assert_eq!(sizes(&refreshed[0].slices), [0], "the placeholder");
    deriver.remove_service(&named("a"));
    assert_eq!(deriver.refresh()[0].slices, []);
    assert_eq!(deriver.slices(&named("a")), []);
    deriver.remove_service(&named("a"));
    assert_eq!(deriver.refresh(), []);
}

#[test]
fn a_pod_waits_for_its_node() {
    let mut deriver = Deriver::default();
    deriver.set_service(web("a"));
    deriver.set_pod(member("pod", "a", "10.1.0.1"));
    let refreshed = deriver.refresh();
    assert_eq!(sizes(&refreshed[0].slices), [0]);
    assert_eq!(&*refreshed[0].left_out[0], "pod");
    deriver.set_node(node("n", "zone-a"));
    let refreshed = deriver.refresh();
    assert_eq!(sizes(&refreshed[0].slices), [1]);
    assert_eq!(refreshed[0].left_out, []);
    let zone = |deriver: &Deriver| deriver.slices(&named("a"))[0].endpoints[0].zone.clone();
    assert_eq!(zone(&deriver).as_deref(), Some("zone-a"));
    deriver.set_node(node("n", "zone-b"));
    assert_eq!(deriver.refresh().len(), 1);
    assert_eq!(zone(&deriver).as_deref(), Some("zone-b"));
    deriver.remove_node("n");
    assert_eq!(sizes(&deriver.refresh()[0].slices), [0]);
}

#[test]
fn where_no_nodes_are_written_down_none_is_needed() {
    let settings = Settings {
        needs_node: false,
        ..Settings::default()
    };
    let mut deriver = Deriver::new(settings);
    deriver.set_service(web("a"));
    deriver.set_pod(member("pod", "a", "10.1.0.1"));
    assert_eq!(sizes(&deriver.refresh()[0].slices), [1]);
}

#[test]
fn a_selector_that_changes_brings_other_pods() {
    let mut deriver = deriver(10);
    deriver.set_service(web("a"));
    deriver.set_pod(member("one", "a", "10.1.0.1"));
    deriver.set_pod(member("two", "b", "10.1.0.2"));
    deriver.refresh();
    let mut other = (*web("a")).clone();
    let spec = other.spec.as_mut().unwrap();
    let selector: BTreeMap<_, _> = [("app".to_owned(), "b".to_owned())].into();
    spec.selector = Some(selector);
    deriver.set_service(Arc::new(other.clone()));
    let refreshed = deriver.refresh();
    let target = refreshed[0].slices[0].endpoints[0].target.clone().unwrap();
    assert_eq!(&*target.name, "two");
    assert_eq!(sizes(&refreshed[0].slices), [1]);
    other.spec.as_mut().unwrap().selector = None;
    deriver.set_service(Arc::new(other));
    assert_eq!(deriver.refresh()[0].slices, [], "others write them now");
}

// === Any order of changes ===

#[derive(Debug, Clone)]
enum Step {
    Set {
        pod: u8,
        app: u8,
        ready: bool,
        port: u16,
    },
    Remove {
        pod: u8,
    },
    Refresh,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40u8, 0..3u8, any::<bool>(), 0..3u16)
            .prop_map(|(pod, app, ready, port)| Step::Set { pod, app, ready, port }),
        2 => (0..40u8).prop_map(|pod| Step::Remove { pod }),
        1 => Just(Step::Refresh),
    ]
}

fn varied(number: u8, app: u8, ready: bool, port: u16) -> Pod {
    pod(&json!({
        "metadata": {"name": format!("p{number}"), "labels": {"app": format!("app-{app}")}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080 + port}]},
        ]},
        "status": {
            "podIPs": [{"ip": format!("10.1.0.{number}")}, {"ip": format!("fd00::{number}")}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    }))
}

fn both(name: &str) -> Arc<Service> {
    service(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"app": name},
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"port": 80, "targetPort": "http"}],
            "trafficDistribution": "PreferSameNode",
        },
    }))
}

/// Endpoints with their ports, in no order.
fn contents(slices: &[Arc<Slice>]) -> BTreeSet<String> {
    let lines = |slice: &Arc<Slice>| -> Vec<String> {
        let line = |e: &Endpoint| format!("{:?} {e:?}", slice.ports);
        slice.endpoints.iter().map(line).collect()
    };
    let all: Vec<String> = slices.iter().flat_map(lines).collect();
    let once: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(once.len(), all.len(), "no endpoint twice");
    once
}

const MAX: usize = 4;

fn fresh(model: &BTreeMap<u8, Pod>, services: &[Arc<Service>]) -> Deriver {
    let mut deriver = deriver(MAX);
    for pod in model.values() {
        deriver.set_pod(pod.clone());
    }
    services
        .iter()
        .for_each(|s| deriver.set_service(Arc::clone(s)));
    deriver.refresh();
    deriver
}

proptest! {
    #[test]
    fn after_any_changes_the_slices_hold_what_a_fresh_computation_holds(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let services = [both("app-0"), both("app-1"), both("app-2")];
        let mut deriver = deriver(MAX);
        services.iter().for_each(|s| deriver.set_service(Arc::clone(s)));
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set { pod, app, ready, port } => {
                    let pod_facts = varied(pod, app, ready, port);
                    model.insert(pod, pod_facts.clone());
                    deriver.set_pod(pod_facts);
                }
                Step::Remove { pod } => {
                    model.remove(&pod);
                    deriver.remove_pod(&named(&format!("p{pod}")));
                }
                Step::Refresh => {
                    deriver.refresh();
                }
            }
        }
        deriver.refresh();
        let fresh = fresh(&model, &services);
        for name in ["app-0", "app-1", "app-2"].map(named) {
            let slices = deriver.slices(&name);
            prop_assert_eq!(contents(slices), contents(fresh.slices(&name)));
            let names: BTreeSet<_> = slices.iter().map(|slice| &slice.name).collect();
            prop_assert_eq!(names.len(), slices.len(), "no name twice");
            prop_assert!(slices.iter().all(|slice| slice.endpoints.len() <= MAX));
            let types: BTreeSet<_> = slices.iter().map(|slice| slice.address_type).collect();
            prop_assert_eq!(types.len(), 2, "a slice of each family at least");
        }
    }
}
