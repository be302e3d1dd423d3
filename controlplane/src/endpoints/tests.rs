//! One rule for EndpointSlices a test.

use super::*;
use crate::testing::check_slice;

const HEAD: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: {kubernetes.io/service-name: web}\n";

fn slice(rest: &str) -> Slice {
    let checked = check_slice(&format!("{HEAD}{rest}"));
    assert_eq!(checked.issues, [], "{rest}");
    checked.good.unwrap()
}

/// A slice with port 8080 and endpoints `(last byte of the address, conditions)`.
fn endpoints(endpoints: &[(u8, &str)]) -> Slice {
    let mut text = String::from("addressType: IPv4\nports: [{port: 8080}]\nendpoints:\n");
    for (last, conditions) in endpoints {
        text.push_str(&format!(
            "- {{addresses: [10.0.2.{last}], conditions: {{{conditions}}}}}\n"
        ));
    }
    slice(&text)
}

fn chosen(slices: &[Slice]) -> Vec<(String, BackendState)> {
    let slices: Vec<&Slice> = slices.iter().collect();
    let backends = backends(&slices, "", PortProtocol::Tcp);
    backends
        .iter()
        .map(|b| (format!("{}:{}", b.address, b.port), b.state))
        .collect()
}

use sluice_conf::BackendState::{Active, Draining};

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
fn only_what_is_ready_gets_new_connections_while_there_is_some() {
    let slice = endpoints(&[
        (1, ""),
        (2, "ready: false"),
        (3, "ready: false, serving: true, terminating: true"),
        (4, "ready: false, serving: false, terminating: true"),
        (5, "ready: false, serving: true"),
        (6, "ready: true, terminating: true"),
    ]);
    assert_eq!(
        chosen(&[slice]),
        [
            ("10.0.2.1:8080".into(), Active),
            ("10.0.2.3:8080".into(), Draining),
            ("10.0.2.5:8080".into(), Draining),
            ("10.0.2.6:8080".into(), Active),
        ]
    );
}

#[test]
fn with_nothing_ready_what_terminates_and_serves_is_used() {
    let slice = endpoints(&[
        (2, "ready: false"),
        (3, "ready: false, serving: true, terminating: true"),
        (5, "ready: false, serving: true"),
    ]);
    assert_eq!(
        chosen(&[slice]),
        [
            ("10.0.2.3:8080".into(), Active),
            ("10.0.2.5:8080".into(), Draining)
        ]
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_at_its_best() {
    let moving = endpoints(&[
        (1, "ready: false, serving: true, terminating: true"),
        (2, ""),
    ]);
    let moved = endpoints(&[(1, "")]);
    let expected = [
        ("10.0.2.1:8080".to_owned(), Active),
        ("10.0.2.2:8080".to_owned(), Active),
    ];
    assert_eq!(chosen(&[moving.clone(), moved.clone()]), expected);
    assert_eq!(chosen(&[moved, moving]), expected);
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let slice = slice(
        "addressType: IPv4\nports: [{name: a, port: 1}, {name: b, port: 2, protocol: UDP}, {name: c}, {name: \"\", port: 3}]\nendpoints: [{addresses: [10.0.2.1, 10.0.2.9]}]\n",
    );
    let ports = |name, protocol| {
        let found = backends(&[&slice], name, protocol);
        found.iter().map(|b| b.port).collect::<Vec<_>>()
    };
    assert_eq!(ports("a", PortProtocol::Tcp), [1]);
    assert_eq!(ports("a", PortProtocol::Udp), [0; 0]);
    assert_eq!(ports("b", PortProtocol::Udp), [2]);
    assert_eq!(ports("c", PortProtocol::Tcp), [0; 0]);
    assert_eq!(ports("", PortProtocol::Tcp), [3]);
}

#[test]
fn only_the_first_address_of_an_endpoint_is_used() {
    let slice = slice(
        "addressType: IPv4\nports: [{port: 1}]\nendpoints: [{addresses: [10.0.2.1, 10.0.2.9]}]\n",
    );
    assert_eq!(chosen(&[slice]), [("10.0.2.1:1".into(), Active)]);
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
fn ipv6_endpoints_are_known_and_not_used() {
    let slice = check_slice(&format!(
        "{HEAD}addressType: IPv6\nports: [{{port: 1}}]\nendpoints: [{{addresses: [\"2001:db8::1\"]}}]\n"
    ));
    assert_eq!(slice.notes.len(), 1);
    assert_eq!(chosen(&[slice.good.unwrap()]), []);
}
