use super::*;
use crate::endpoints;
use crate::health::probe::Action;
use crate::slices::deriver::Deriver;
use crate::slices::node::{self, Nodes};
use crate::slices::pod;
use crate::slices::selectors::Selectors;
use crate::slices::service::{numbers, selects};

#[test]
fn mistakes_in_a_pod_are_named_with_their_fields() {
    let pod = json!({
        "metadata": {"name": "Big", "namespace": "a.b", "labels": {"-x": "y", "ok": "-"}},
        "spec": {"hostname": "a_b", "containers": [{"name": "c", "ports": [
            {"containerPort": 0, "protocol": "ICMP", "name": "1234567890123456"},
        ]}], "initContainers": [{"name": "i", "ports": [{"containerPort": 65536}]}]},
        "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "nowhere"}]},
    });
    let errors = pod::check(&serde_json::from_value(pod).unwrap());
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "metadata.namespace",
            "metadata.labels",
            "metadata.labels",
            "spec.hostname",
            "status.podIPs[1].ip",
            "status.podIPs[2].ip",
            "spec.containers[0].ports[0].containerPort",
            "spec.containers[0].ports[0].protocol",
            "spec.containers[0].ports[0].name",
            "spec.initContainers[0].ports[0].containerPort",
        ]
    );
}

#[test]
fn mistakes_in_a_node_are_named_with_their_fields() {
    let node = json!({
        "metadata": {"name": ""},
        "status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "n"}],
            "allocatable": {"cpu": "much"},
        },
    });
    let errors = node::check(&serde_json::from_value(node).unwrap());
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "status.addresses[1].address",
            "status.allocatable.cpu"
        ]
    );
}

#[test]
fn cpus_count_only_if_every_node_says_its_part() {
    let mut nodes = Nodes::default();
    nodes.insert(node("a", "zone-a"));
    let zones = |nodes: &Nodes| {
        let zones = nodes.cpu_by_zone();
        zones
            .map(|(zone, cpu)| (zone.to_string(), cpu))
            .collect::<Vec<_>>()
    };
    assert_eq!(zones(&nodes), [], "one zone is no choice");
    nodes.insert(node("b", "zone-b"));
    nodes.insert(node("b2", "zone-b"));
    let both = [("zone-a".to_owned(), 1500), ("zone-b".to_owned(), 3000)];
    assert_eq!(zones(&nodes), both);
    let mut silent = node("c", "");
    nodes.insert(silent.clone());
    assert_eq!(zones(&nodes), []);
    silent.excluded = true;
    nodes.insert(silent);
    assert_eq!(zones(&nodes), both);
    nodes.remove("b2");
    nodes.remove("b");
    assert_eq!(zones(&nodes), []);
}

#[test]
fn a_probe_finds_named_ports_in_its_own_container() {
    let pod = pod(&json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 1}]},
            {"name": "b", "ports": [{"name": "http", "containerPort": 2}], "readinessProbe": {
                "httpGet": {"port": "http", "scheme": "HTTPS"}, "periodSeconds": 5,
            }},
            {"name": "c", "readinessProbe": {"exec": {"command": ["true"]}}},
            {"name": "d", "readinessProbe": {"tcpSocket": {"port": "absent"}}},
        ]},
    }));
    let readiness: Vec<_> = pod.containers.iter().map(|c| c.readiness.clone()).collect();
    let probe = readiness[1].clone().unwrap();
    assert!(readiness[0].is_none() && readiness[2].is_none() && readiness[3].is_none());
    assert_eq!((probe.port, probe.probe.timing.period.as_secs()), (2, 5));
    assert!(matches!(probe.probe.action, Action::Http(http) if http.tls));
    assert!(pod.is_probed());
}

#[test]
fn a_pod_is_probed_only_when_no_kubelet_says_whether_it_is_ready() {
    let pod = |container: Value, conditions: Value| {
        pod(&json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [container]},
            "status": {"podIP": "10.1.0.1", "conditions": conditions},
        }))
    };
    let probe = json!({"name": "c", "readinessProbe": {"tcpSocket": {"port": 80}}});
    let command = json!({"name": "c", "readinessProbe": {"exec": {"command": ["true"]}}});
    let other = json!([{"type": "PodScheduled", "status": "True"}]);
    let unready = json!([{"type": "Ready", "status": "False"}]);
    assert!(pod(probe.clone(), json!([])).is_probed());
    assert!(pod(probe.clone(), other).is_probed());
    assert!(!pod(probe, unready).is_probed());
    assert!(!pod(command, json!([])).is_probed());
    assert!(!pod(json!({"name": "c"}), json!([])).is_probed());
}

#[test]
fn a_headless_service_means_its_own_port() {
    let service = |ip: &str| {
        service(json!({
            "metadata": {"name": "db"},
            "spec": {"clusterIP": ip, "ports": [{"port": 5432, "targetPort": 6432}, {"port": 53, "protocol": "UDP"}]},
        }))
    };
    let pod = member("p", "db", "10.0.0.1");
    assert_eq!(numbers(&service("None"), &pod), [Some(5432), Some(53)]);
    assert_eq!(numbers(&service("10.0.0.1"), &pod), [Some(6432), Some(53)]);
}

#[test]
fn an_external_name_and_an_empty_selector_select_nothing() {
    let of = |kind: &str, selector: Value| {
        service(json!({
            "metadata": {"name": "s"},
            "spec": {"type": kind, "selector": selector},
        }))
    };
    let pod = member("p", "web", "10.0.0.1");
    assert!(selects(&of("ClusterIP", json!({"app": "web"})), &pod));
    for (kind, selector) in [
        ("ExternalName", json!({"app": "web"})),
        ("ClusterIP", json!({})),
        ("ClusterIP", json!({"app": "web", "tier": "one"})),
    ] {
        let service = of(kind, selector);
        let mut selectors = Selectors::default();
        selectors.insert(&service);
        assert!(!selects(&service, &pod));
        assert!(selectors.select(&pod).is_empty());
    }
}

#[test]
fn services_are_found_by_any_label_and_forgotten_when_they_go() {
    let mut selectors = Selectors::default();
    for number in 0..100 {
        let selector = json!({"tier": "web", "app": format!("app-{number}")});
        selectors.insert(&service(json!({
            "metadata": {"name": format!("s-{number}")},
            "spec": {"selector": selector},
        })));
    }
    let mut pod = member("p", "app-7", "10.0.0.1");
    assert!(selectors.select(&pod).is_empty(), "lacks the tier");
    let labels = [("app", "app-7"), ("tier", "web")];
    pod.labels = labels.map(|(key, value)| (key.into(), value.into())).into();
    let found = selectors.select(&pod);
    let name = crate::object::NamespacedName::new("default", "s-7");
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        std::slice::from_ref(&name)
    );
    selectors.remove(&name);
    assert!(selectors.select(&pod).is_empty());
}

#[test]
fn a_derived_slice_reads_the_same_in_both_forms() {
    let mut deriver = Deriver::default();
    deriver.set_node(node("n", "zone-a"));
    let mut local = (*web("a")).clone();
    local.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameNode".into());
    deriver.set_service(Arc::new(local));
    deriver.set_pod(member("pod", "a", "10.1.0.1"));
    let slices = deriver.refresh().remove(0).slices;
    let api = slices[0].api("default", "a");
    let checked = endpoints::check("default", &slices[0].name, &api);
    assert_eq!(checked.issues, []);
    assert_eq!(checked.good, Some(slices[0].checked("default", "a")));
    assert_eq!(api.endpoints.unwrap()[0].zone.as_deref(), Some("zone-a"));
}
