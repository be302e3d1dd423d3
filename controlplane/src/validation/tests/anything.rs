//! Objects with anything in their fields.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::validation::*;

/// Words that decide something in some field, and some that never do.
fn word() -> impl Strategy<Value = String> {
    let words = [
        "",
        "None",
        "ClusterIP",
        "NodePort",
        "LoadBalancer",
        "ExternalName",
        "Local",
        "Cluster",
        "ClientIP",
        "IPv4",
        "IPv6",
        "FQDN",
        "SingleStack",
        "RequireDualStack",
        "TCP",
        "10.96.0.7",
        "fd00::7",
        "::ffff:10.0.0.1",
        "010.0.0.1/08",
        "web",
        "-",
        "a/",
        "VIP",
        "é",
        "a.",
        ".",
    ];
    prop_oneof![3 => select(words.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![
        select(vec![i32::MIN, -1, 0, 1, 80, 65535, 65536, i32::MAX]),
        any::<i32>()
    ]
}

/// An object with some of the keys.
fn some(keys: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let mut whole = Just(Map::new()).boxed();
    for (key, value) in keys {
        whole = (whole, proptest::option::of(value))
            .prop_map(move |(mut map, value)| {
                map.extend(value.map(|value| (key.to_owned(), value)));
                map
            })
            .boxed();
    }
    whole.prop_map(Value::Object).boxed()
}

fn text() -> BoxedStrategy<Value> {
    word().prop_map(Value::from).boxed()
}

fn integer() -> BoxedStrategy<Value> {
    number().prop_map(Value::from).boxed()
}

fn list(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    proptest::collection::vec(of, 0..4)
        .prop_map(Value::from)
        .boxed()
}

fn map() -> BoxedStrategy<Value> {
    let map = proptest::collection::btree_map(word(), word(), 0..3);
    map.prop_map(|map| json!(map)).boxed()
}

fn metadata() -> BoxedStrategy<Value> {
    some(vec![
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", map()),
        ("annotations", map()),
        ("finalizers", list(text())),
        ("uid", text()),
    ])
}

fn any_service() -> impl Strategy<Value = Service> {
    let port = some(vec![
        ("name", text()),
        ("port", integer()),
        ("nodePort", integer()),
        ("protocol", text()),
        ("appProtocol", text()),
        ("targetPort", prop_oneof![text(), integer()].boxed()),
    ]);
    let client = some(vec![(
        "clientIP",
        some(vec![("timeoutSeconds", integer())]),
    )]);
    let point = some(vec![
        ("ip", text()),
        ("ipMode", text()),
        ("hostname", text()),
    ]);
    let status = some(vec![("loadBalancer", some(vec![("ingress", list(point))]))]);
    let mut keys = vec![
        ("ports", list(port)),
        ("selector", map()),
        ("sessionAffinityConfig", client),
        ("healthCheckNodePort", integer()),
        (
            "allocateLoadBalancerNodePorts",
            any::<bool>().prop_map(Value::from).boxed(),
        ),
    ];
    for key in [
        "clusterIPs",
        "externalIPs",
        "ipFamilies",
        "loadBalancerSourceRanges",
    ] {
        keys.push((key, list(text())));
    }
    for key in [
        "type",
        "clusterIP",
        "externalName",
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "sessionAffinity",
        "trafficDistribution",
    ] {
        keys.push((key, text()));
    }
    let service = some(vec![
        ("metadata", metadata()),
        ("spec", some(keys)),
        ("status", status),
    ]);
    service.prop_map(|value| serde_json::from_value(value).unwrap())
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let names = || list(some(vec![("name", text())]));
    let endpoint = some(vec![
        ("addresses", list(text())),
        ("hostname", text()),
        ("nodeName", text()),
        ("deprecatedTopology", map()),
        (
            "hints",
            some(vec![("forZones", names()), ("forNodes", names())]),
        ),
    ]);
    let port = some(vec![
        ("name", text()),
        ("protocol", text()),
        ("appProtocol", text()),
    ]);
    let slice = some(vec![
        ("metadata", metadata()),
        ("addressType", text()),
        ("ports", list(port)),
        ("endpoints", list(endpoint)),
    ]);
    slice.prop_map(|value| serde_json::from_value(value).unwrap())
}

proptest! {
    #[test]
    fn any_service_is_answered_and_to_leave_it_is_as_good_as_to_create_it(
        service in any_service(),
        old in any_service(),
    ) {
        let created = service_create(&service);
        prop_assert_eq!(&service_update(&service, &service), &created);
        let mut all = created;
        all.extend(service_update(&service, &old));
        all.extend(service_status(&service));
        for error in all {
            prop_assert!(!error.field.is_empty() && !error.message.is_empty(), "{:?}", error);
        }
    }

    #[test]
    fn any_slice_is_answered_and_to_leave_it_is_as_good_as_to_create_it(
        slice in any_slice(),
        old in any_slice(),
    ) {
        let created = endpoint_slice_create(&slice);
        prop_assert_eq!(&endpoint_slice_update(&slice, &slice), &created);
        let changed = slice.address_type != old.address_type;
        let updated = endpoint_slice_update(&slice, &old);
        prop_assert_eq!(updated.len(), created.len() + usize::from(changed));
    }
}
