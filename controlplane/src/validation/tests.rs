use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;
use crate::field::{FieldError, Reason};

mod anything;

/// A valid LoadBalancer Service with most of its fields set.
fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353, "nodePort": 30053},
            ],
            "externalIPs": ["203.0.113.7"], "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30000, "internalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "sluice.dev/gateway",
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "trafficDistribution": "PreferSameZone",
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8", "ipMode": "VIP"}]}},
    })
}

/// The Service with the value at a JSON pointer replaced; `null` removes it.
fn with(pointer: &str, value: Value) -> Service {
    let mut object = service();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        other => panic!("{other} has no {key}"),
    }
    serde_json::from_value(object).unwrap()
}

fn found(errors: Vec<FieldError>) -> Vec<(String, Reason)> {
    let pairs = errors.into_iter().map(|error| (error.field, error.reason));
    pairs.collect()
}

#[test]
fn a_full_service_is_valid_to_create_and_to_leave_as_it_is() {
    let service: Service = serde_json::from_value(service()).unwrap();
    assert_eq!(service_create(&service), []);
    assert_eq!(service_update(&service, &service), []);
    assert_eq!(service_status(&service), []);
}

#[test]
fn every_field_is_told_by_its_path_and_kind() {
    for (pointer, value, field, reason) in [
        (
            "/metadata/labels",
            json!({"app": "-"}),
            "metadata.labels",
            Reason::Invalid,
        ),
        (
            "/metadata/finalizers",
            json!(["mine"]),
            "metadata.finalizers[0]",
            Reason::Invalid,
        ),
        (
            "/metadata/generation",
            json!(-1),
            "metadata.generation",
            Reason::Invalid,
        ),
        (
            "/metadata/ownerReferences",
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": ""}]),
            "metadata.ownerReferences[0].uid",
            Reason::Invalid,
        ),
        (
            "/spec/trafficDistribution",
            json!("Far"),
            "spec.trafficDistribution",
            Reason::NotSupported,
        ),
        (
            "/spec/ports/1/port",
            json!(65536),
            "spec.ports[1].port",
            Reason::Invalid,
        ),
        (
            "/spec/ports/1/protocol",
            json!("ICMP"),
            "spec.ports[1].protocol",
            Reason::NotSupported,
        ),
        (
            "/spec/ports/1/targetPort",
            json!("a--b"),
            "spec.ports[1].targetPort",
            Reason::Invalid,
        ),
        (
            "/spec/ports/1/targetPort",
            json!(null),
            "spec.ports[1].targetPort",
            Reason::Invalid,
        ),
        (
            "/spec/ports/1/appProtocol",
            json!("a b"),
            "spec.ports[1].appProtocol",
            Reason::Invalid,
        ),
        (
            "/spec/ipFamilyPolicy",
            json!("DualStack"),
            "spec.ipFamilyPolicy",
            Reason::NotSupported,
        ),
        (
            "/spec/clusterIPs",
            json!(null),
            "spec.clusterIPs",
            Reason::Required,
        ),
        (
            "/spec/clusterIP",
            json!(null),
            "spec.clusterIPs",
            Reason::Invalid,
        ),
        (
            "/spec/externalIPs/0",
            json!("fe80::1"),
            "spec.externalIPs[0]",
            Reason::Invalid,
        ),
        (
            "/spec/sessionAffinity",
            json!("Cookie"),
            "spec.sessionAffinity",
            Reason::NotSupported,
        ),
        (
            "/spec/sessionAffinity",
            json!("None"),
            "spec.sessionAffinityConfig",
            Reason::Forbidden,
        ),
        (
            "/spec/sessionAffinityConfig/clientIP",
            json!({"timeoutSeconds": 86401}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            Reason::Invalid,
        ),
        (
            "/spec/sessionAffinityConfig",
            json!({}),
            "spec.sessionAffinityConfig.clientIP",
            Reason::Required,
        ),
        (
            "/spec/sessionAffinityConfig",
            json!(null),
            "spec.sessionAffinityConfig",
            Reason::Required,
        ),
        (
            "/spec/allocateLoadBalancerNodePorts",
            json!(null),
            "spec.allocateLoadBalancerNodePorts",
            Reason::Required,
        ),
        (
            "/spec/healthCheckNodePort",
            json!(0),
            "spec.healthCheckNodePort",
            Reason::Required,
        ),
        (
            "/spec/internalTrafficPolicy",
            json!(""),
            "spec.internalTrafficPolicy",
            Reason::NotSupported,
        ),
        (
            "/spec/internalTrafficPolicy",
            json!(null),
            "spec.internalTrafficPolicy",
            Reason::Required,
        ),
    ] {
        let errors = found(service_create(&with(pointer, value)));
        assert_eq!(errors, [(field.to_owned(), reason)], "{pointer}");
    }
}

#[test]
fn two_ports_may_not_be_the_same() {
    let mut twice = service()["spec"]["ports"][0].clone();
    twice["nodePort"] = json!(30080);
    let errors = service_create(&with("/spec/ports/1", twice));
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "spec.ports[1].name: \"http\" is there already; each may be there once",
            "spec.ports[1]: 80/\"TCP\" is there already; each may be there once",
            "spec.ports[1].nodePort: 30080/\"TCP\" is there already; each may be there once",
        ]
    );
}

#[test]
fn annotations_have_an_upper_bound_together() {
    let annotations = |length: usize| json!({"Example.com/A": "x".repeat(length)});
    let limit = (256 << 10) - "Example.com/A".len();
    assert_eq!(
        service_create(&with("/metadata/annotations", annotations(limit))),
        []
    );
    let errors = found(service_create(&with(
        "/metadata/annotations",
        annotations(limit + 1),
    )));
    assert_eq!(
        errors,
        [("metadata.annotations".to_owned(), Reason::Invalid)]
    );
}

#[test]
fn an_update_may_not_change_what_is_settled() {
    let old = with("/metadata/uid", json!("1"));
    for (pointer, value, field, reason) in [
        (
            "/metadata/name",
            json!("shop"),
            "metadata.name",
            Reason::Invalid,
        ),
        (
            "/metadata/namespace",
            json!("web"),
            "metadata.namespace",
            Reason::Invalid,
        ),
        ("/metadata/uid", json!("2"), "metadata.uid", Reason::Invalid),
        (
            "/spec/healthCheckNodePort",
            json!(30001),
            "spec.healthCheckNodePort",
            Reason::Forbidden,
        ),
        (
            "/spec/loadBalancerClass",
            json!("other"),
            "spec.loadBalancerClass",
            Reason::Invalid,
        ),
        (
            "/spec/clusterIPs",
            json!(["10.96.0.7", "fd00::8"]),
            "spec.clusterIPs[1]",
            Reason::Invalid,
        ),
        (
            "/spec/clusterIPs",
            json!(["10.96.0.7"]),
            "spec.ipFamilyPolicy",
            Reason::Invalid,
        ),
        (
            "/spec/ipFamilies",
            json!(["IPv4"]),
            "spec.ipFamilyPolicy",
            Reason::Invalid,
        ),
    ] {
        let errors = found(service_update(&with(pointer, value), &old));
        assert_eq!(errors, [(field.to_owned(), reason)], "{pointer}");
    }
    let mut stored = old.clone();
    stored.metadata.resource_version = Some("7".into());
    let errors = found(service_update(&old, &stored));
    assert_eq!(
        errors,
        [("metadata.resourceVersion".to_owned(), Reason::Invalid)]
    );
}

#[test]
fn a_status_is_told_apart_from_the_object() {
    for (ingress, field, reason) in [
        (
            json!({"ip": "1.2.3", "ipMode": "VIP"}),
            "ip",
            Reason::Invalid,
        ),
        (
            json!({"ip": "1.2.3.4", "ipMode": "NAT"}),
            "ipMode",
            Reason::NotSupported,
        ),
        (
            json!({"hostname": "a", "ipMode": "VIP"}),
            "ipMode",
            Reason::Forbidden,
        ),
        (json!({"hostname": "1.2.3.4"}), "hostname", Reason::Invalid),
        (json!({"hostname": "a_b"}), "hostname", Reason::Invalid),
    ] {
        let service = with("/status/loadBalancer/ingress/0", ingress);
        assert_eq!(service_create(&service), []);
        let errors = found(service_status(&service));
        let last = errors.last().unwrap();
        assert_eq!(
            *last,
            (format!("status.loadBalancer.ingress[0].{field}"), reason)
        );
    }
    let errors = found(service_status(&with("/spec/type", json!("NodePort"))));
    assert_eq!(
        errors,
        [("status.loadBalancer.ingress".to_owned(), Reason::Forbidden)]
    );
}

#[test]
fn a_slice_names_each_endpoint_that_is_wrong() {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop"}, "addressType": "IPv6",
        "ports": [{"name": "http"}, {"name": "http", "protocol": "TCP", "appProtocol": "a b"}],
        "endpoints": [
            {"addresses": ["fd00::1"], "hints": {"forNodes": [{"name": "n1"}, {"name": "n1"}]}},
            {"addresses": ["::1"], "deprecatedTopology": {"topology.kubernetes.io/zone": "a"}},
            {"addresses": ["fd00::2", "10.0.0.1"], "hostname": "A", "nodeName": "a_b"},
        ],
    }))
    .unwrap();
    let expected = [
        ("ports[0].protocol", Reason::Required),
        ("ports[1].name", Reason::Duplicate),
        ("ports[1].appProtocol", Reason::Invalid),
        ("endpoints[0].hints.forNodes[1].name", Reason::Duplicate),
        ("endpoints[1].addresses[0]", Reason::Invalid),
        (
            "endpoints[1].deprecatedTopology[topology.kubernetes.io/zone]",
            Reason::Internal,
        ),
        ("endpoints[2].addresses[1]", Reason::Invalid),
        ("endpoints[2].nodeName", Reason::Invalid),
        ("endpoints[2].hostname", Reason::Invalid),
    ];
    let expected = expected.map(|(field, reason)| (field.to_owned(), reason));
    assert_eq!(found(endpoint_slice_create(&slice)), expected);
    assert_eq!(found(endpoint_slice_update(&slice, &slice)), expected);
}

#[test]
fn a_long_value_is_cut_where_a_character_ends() {
    let errors = service_create(&with("/spec/externalIPs/0", json!("ä".repeat(100_000))));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.chars().count() < 200, "{}", errors[0]);
}
