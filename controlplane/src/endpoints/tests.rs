//! One rule for EndpointSlices a test.

use super::*;
use crate::testing::check_slice;

const HEAD: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: {kubernetes.io/service-name: web}\n";

pub(super) fn slice(rest: &str) -> Slice {
    let checked = check_slice(&format!("{HEAD}{rest}"));
    assert_eq!(checked.issues, [], "{rest}");
    checked.good.unwrap()
}

/// A slice with port 8080 and endpoints `(last byte of the address, conditions)`.
pub(super) fn endpoints(endpoints: &[(u8, &str)]) -> Slice {
    let mut text = String::from("addressType: IPv4\nports: [{port: 8080}]\nendpoints:\n");
    for (last, conditions) in endpoints {
        text.push_str(&format!(
            "- {{addresses: [10.0.2.{last}], conditions: {{{conditions}}}}}\n"
        ));
    }
    slice(&text)
}

#[test]
fn absent_conditions_have_the_defaults_of_the_api() {
    let slice = endpoints(&[
        (1, ""),
        (2, "ready: false"),
        (3, "ready: false, serving: true"),
    ]);
    let conditions: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| {
            let c = e.conditions;
            (c.ready, c.serving, c.terminating)
        })
        .collect();
    assert_eq!(
        conditions,
        [
            (true, true, false),
            (false, false, false),
            (false, true, false)
        ]
    );
}

#[test]
fn weights_come_from_the_annotation() {
    let text = HEAD.replace(
        "  labels",
        "  annotations: {sluice.dev/weights: \"10.0.2.1=3,10.0.2.9=2\"}\n  labels",
    );
    let rest = "addressType: IPv4\nports: [{port: 1}]\nendpoints: [{addresses: [10.0.2.1]}, {addresses: [10.0.2.2]}]\n";
    let checked = check_slice(&format!("{text}{rest}"));
    let weights: Vec<_> = checked
        .good
        .unwrap()
        .endpoints
        .iter()
        .map(|e| e.weight)
        .collect();
    assert_eq!(weights, [3, 1]);
    assert_eq!(
        checked.issues[0].message,
        "10.0.2.9 is not an endpoint of this slice"
    );
}

#[test]
fn addresses_that_lead_nowhere_are_left_out_with_a_problem() {
    let text = format!(
        "{HEAD}addressType: IPv4\nports: [{{port: 1}}]\nendpoints: [{{addresses: [127.0.0.1]}}, {{addresses: [169.254.0.1]}}, {{addresses: [10.0.2.1]}}]\n"
    );
    let checked = check_slice(&text);
    assert_eq!(checked.issues.len(), 2);
    assert_eq!(checked.issues[1].field, "endpoints[1].addresses[0]");
    assert_eq!(checked.good.unwrap().endpoints.len(), 1);
}

#[test]
fn impossible_values_refuse_the_slice() {
    for (rest, field) in [
        ("addressType: IPv5\nendpoints: []", "addressType"),
        (
            "addressType: IPv4\nendpoints: [{addresses: [web]}]",
            "endpoints[0].addresses[0]",
        ),
        (
            "addressType: IPv4\nendpoints: [{addresses: [\"2001:db8::1\"]}]",
            "endpoints[0].addresses[0]",
        ),
        (
            "addressType: IPv4\nendpoints: [{addresses: []}]",
            "endpoints[0].addresses[0]",
        ),
        (
            "addressType: IPv4\nendpoints: []\nports: [{port: 0}]",
            "ports[0].port",
        ),
        (
            "addressType: IPv4\nendpoints: []\nports: [{port: 1, protocol: X}]",
            "ports[0].protocol",
        ),
        (
            "addressType: IPv4\nendpoints: []\nports: [{port: 1}, {port: 2}]",
            "ports[1].name",
        ),
    ] {
        let checked = check_slice(&format!("{HEAD}{rest}\n"));
        assert!(checked.good.is_none(), "{rest}");
        assert_eq!(checked.issues[0].field, field);
    }
}

#[test]
fn hints_and_tier_are_read() {
    let text = HEAD.replace(
        "  labels",
        "  annotations: {sluice.dev/tier: \"1\"}\n  labels",
    );
    let rest = "addressType: IPv6\nports: [{port: 1}]\nendpoints: [{addresses: [\"2001:db8::1\"], hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: node}]}}, {addresses: [\"2001:db8::2\"]}]\n";
    let checked = check_slice(&format!("{text}{rest}"));
    assert_eq!((&checked.issues, &checked.notes), (&vec![], &vec![]));
    let slice = checked.good.unwrap();
    assert_eq!(slice.endpoints[1].tier, 1);
    assert_eq!(slice.endpoints[0].hints.zones, ["a", "b"]);
    assert_eq!(slice.endpoints[0].hints.nodes, ["node"]);
    assert_eq!(slice.endpoints[1].hints, Hints::default());
}

#[test]
fn old_spellings_of_addresses_are_written_anew() {
    let slice = slice("addressType: IPv4\nendpoints: [{addresses: [10.180.00.001]}]\n");
    assert_eq!(slice.endpoints[0].address.to_string(), "10.180.0.1");
}
