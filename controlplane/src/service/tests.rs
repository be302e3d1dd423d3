//! One rule for Services a test.

use sluice_conf::BackendGone;
use sluice_conf::settings::controlplane::SourceNatMode;

use super::*;
use crate::testing::check_service;

/// A Service with an address, unless `spec` is about addresses.
fn manifest(annotations: &str, spec: &str) -> String {
    let address =
        match spec.contains("clusterIP") || spec.contains("IPs:") || spec.contains("External") {
            true => "",
            false => "clusterIP: 10.0.0.9, ",
        };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: {{{annotations}}}\nspec: {{{address}{spec}}}\n"
    )
}

fn issues(spec: &str) -> Vec<(String, String)> {
    let checked = check_service(&manifest("", spec));
    assert!(checked.good.is_none() || checked.issues.iter().all(|i| !i.fatal));
    checked
        .issues
        .into_iter()
        .map(|i| (i.field, i.message))
        .collect()
}

fn good(annotations: &str, spec: &str) -> ServiceSpec {
    let checked = check_service(&manifest(annotations, spec));
    assert_eq!(checked.issues, [], "{spec}");
    checked.good.unwrap()
}

#[test]
fn every_impossible_value_is_named_with_its_field() {
    for (spec, field, message) in [
        (
            "ports: [{port: 0}]",
            "spec.ports[0].port",
            "is missing or 0; use 1 to 65535",
        ),
        (
            "ports: [{port: 70000}]",
            "spec.ports[0].port",
            "70000 is not a port; use 1 to 65535",
        ),
        (
            "ports: [{port: 1, protocol: tcp}]",
            "spec.ports[0].protocol",
            "\"tcp\" is not a protocol; use TCP, UDP or SCTP",
        ),
        (
            "ports: [{port: 1, name: A_b}]",
            "spec.ports[0].name",
            "\"A_b\" is not a name; use up to 63 of a-z, 0-9 and -",
        ),
        (
            "ports: [{port: 1, name: a}, {port: 2}]",
            "spec.ports[1].name",
            "is missing; every port needs a name when there are several",
        ),
        (
            "ports: [{port: 1, name: a}, {port: 1, name: b}]",
            "spec.ports[1].port",
            "1/TCP is the port of spec.ports[0] already",
        ),
        (
            "ports: [{port: 1, name: a}, {port: 2, name: a}]",
            "spec.ports[1].name",
            "\"a\" is the name of spec.ports[0] already",
        ),
        (
            "type: NodePort, ports: [{port: 1, nodePort: 99999}]",
            "spec.ports[0].nodePort",
            "99999 is not a port; use 1 to 65535",
        ),
        (
            "type: NodePort, ports: [{port: 1, name: a, nodePort: 3}, {port: 2, name: b, nodePort: 3}]",
            "spec.ports[1].nodePort",
            "3/TCP is the node port of spec.ports[0] already",
        ),
        (
            "ports: [{port: 1, nodePort: 30000}]",
            "spec.ports[0].nodePort",
            "is not possible for type ClusterIP; use NodePort",
        ),
        (
            "ports: []",
            "spec.ports",
            "is empty; a Service needs a port",
        ),
        (
            "type: Cluster, ports: [{port: 1}]",
            "spec.type",
            "\"Cluster\" is not a type; use ClusterIP, NodePort or LoadBalancer",
        ),
        (
            "clusterIP: 10.0.0, ports: [{port: 1}]",
            "spec.clusterIP",
            "\"10.0.0\" is not an IP address",
        ),
        (
            "externalIPs: [10.0.0], ports: [{port: 1}]",
            "spec.externalIPs[0]",
            "\"10.0.0\" is not an IP address",
        ),
        (
            "ports: [{port: 1}], internalTrafficPolicy: local",
            "spec.internalTrafficPolicy",
            "\"local\" is not possible; use Cluster or Local",
        ),
        (
            "ports: [{port: 1}], externalTrafficPolicy: Node",
            "spec.externalTrafficPolicy",
            "\"Node\" is not possible; use Cluster or Local",
        ),
        (
            "ports: [{port: 1}], sessionAffinity: Cookie",
            "spec.sessionAffinity",
            "\"Cookie\" is not possible; use None or ClientIP",
        ),
        (
            "ports: [{port: 1}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            "0 is not possible; use 1 to 86400",
        ),
        (
            "ports: [{port: 1}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            "86401 is not possible; use 1 to 86400",
        ),
        (
            "type: LoadBalancer, clusterIP: 10.0.0.9, loadBalancerIP: 192.0.2.1, ports: [{port: 1}], loadBalancerSourceRanges: [192.0.2.1]",
            "spec.loadBalancerSourceRanges[0]",
            "\"192.0.2.1\" is not a network; write 10.0.0.0/8 or 2001:db8::/32",
        ),
        (
            "clusterIP: 127.0.0.1, ports: [{port: 1}]",
            "spec.clusterIP",
            "127.0.0.1 is a loopback address; clients could never reach it",
        ),
    ] {
        assert_eq!(
            issues(spec),
            [(field.to_owned(), message.to_owned())],
            "{spec}"
        );
    }
}

#[test]
fn the_same_port_of_two_protocols_coexists() {
    let spec = good(
        "",
        "ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]",
    );
    assert_eq!(spec.ports.len(), 2);
}

#[test]
fn an_sctp_port_is_served() {
    let spec = good("", "ports: [{port: 1, protocol: SCTP}]");
    assert_eq!(spec.ports[0].protocol, Protocol::Sctp);
}

#[test]
fn every_address_is_a_vip_once_and_the_first_kind_wins() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, annotations: {sluice.dev/load-balancer-ips: \"192.0.2.2, 192.0.2.3\"}}\nspec: {type: LoadBalancer, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, \"2001:db8::1\"], loadBalancerIP: 192.0.2.2, externalIPs: [192.0.2.9, 192.0.2.2], ports: [{port: 1}]}\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.4}, {ip: 192.0.2.5, ipMode: Proxy}, {hostname: lb.example.com}, {ip: 10.0.0.1, ipMode: VIP}]}}\n";
    let checked = check_service(text);
    assert_eq!(checked.issues, []);
    assert_eq!(checked.notes, [""; 0]);
    let vips: Vec<_> = checked
        .good
        .unwrap()
        .vips
        .iter()
        .map(|v| format!("{} {:?}", v.address, v.kind))
        .collect();
    assert_eq!(
        vips,
        [
            "10.0.0.1 ClusterIp",
            "2001:db8::1 ClusterIp",
            "192.0.2.2 LoadBalancer",
            "192.0.2.3 LoadBalancer",
            "192.0.2.4 LoadBalancer",
            "192.0.2.9 ExternalIp"
        ]
    );
}

#[test]
fn load_balancer_addresses_need_the_type() {
    let spec = "clusterIP: 10.0.0.9, loadBalancerIP: 192.0.2.2, ports: [{port: 1}]";
    let checked = check_service(&manifest("sluice.dev/load-balancer-ips: 192.0.2.3", spec));
    assert_eq!(checked.good.unwrap().vips.len(), 1);
    let told: Vec<_> = checked
        .issues
        .iter()
        .map(|issue| (issue.field.as_str(), issue.message.as_str()))
        .collect();
    let message = "has no effect for type ClusterIP; it needs type LoadBalancer";
    assert_eq!(
        told,
        [
            ("metadata.annotations.sluice.dev/load-balancer-ips", message),
            ("spec.loadBalancerIP", message)
        ]
    );
}

#[test]
fn what_the_gateway_does_not_do_is_a_problem_that_refuses_nothing() {
    for (asked, field) in [
        (
            "loadBalancerSourceRanges: [192.0.2.0/24]",
            "loadBalancerSourceRanges",
        ),
        ("trafficDistribution: PreferMine", "trafficDistribution"),
        ("healthCheckNodePort: 30500", "healthCheckNodePort"),
        ("loadBalancerClass: example.com/x", "loadBalancerClass"),
    ] {
        let spec = format!("clusterIP: 10.0.0.9, ports: [{{port: 1}}], {asked}");
        let checked = check_service(&manifest("", &spec));
        assert_eq!(checked.issues.len(), 1, "{asked}: {:?}", checked.issues);
        assert_eq!(checked.issues[0].field, format!("spec.{field}"));
        assert_eq!(checked.good.unwrap().vips.len(), 1);
    }
}

#[test]
fn the_defaults_that_the_api_server_writes_are_no_problem() {
    let written = "clusterIP: 10.0.0.9, ports: [{port: 1}], sessionAffinity: None, externalTrafficPolicy: Cluster, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, healthCheckNodePort: 0, externalIPs: [], selector: {app: web}";
    assert_eq!(issues(written), []);
}

#[test]
fn a_service_that_nobody_can_reach_is_reported() {
    let spec = "type: ClusterIP, externalIPs: [], ports: [{port: 1}]";
    let message = "is missing; write one, or set cluster.service_networks so that it gets one";
    let wanted = ("spec.clusterIP".to_owned(), message.to_owned());
    assert_eq!(issues(spec), [wanted]);
    assert!(check_service(&manifest("", spec)).good.is_some());
    // What these lack they are given.
    for spec in [
        "type: LoadBalancer, clusterIP: 10.0.0.9, ports: [{port: 1}]",
        "type: NodePort, clusterIP: 10.0.0.9, ports: [{port: 1}]",
    ] {
        assert_eq!(issues(spec), []);
    }
}

#[test]
fn a_headless_service_may_have_no_ports() {
    let spec = good("", "clusterIP: None");
    assert!(spec.headless);
    assert_eq!(spec.vips, []);
}

#[test]
fn an_external_name_needs_nothing() {
    assert_eq!(
        good("", "type: ExternalName, externalName: x.example.com").kind,
        ServiceType::ExternalName
    );
}

#[test]
fn annotations_choose_the_policies() {
    let notes = "sluice.dev/source-nat: preserve, sluice.dev/backend-gone: keep, sluice.dev/port-ranges: 5060-5090/udp";
    let spec = good(notes, "ports: [{port: 1}]");
    let wanted = Policies {
        source_nat: Some(SourceNatMode::Preserve),
        backend_gone: Some(BackendGone::Keep),
        ..Policies::default()
    };
    assert_eq!(spec.policies, wanted);
    assert_eq!(spec.port_ranges.len(), 1);
    let field = "metadata.annotations.sluice.dev/port-ranges";
    assert_eq!(spec.port_ranges_place.field, field);
    let checked = check_service(&manifest("sluice.dev/ping: maybe", "ports: [{port: 1}]"));
    assert!(checked.good.is_none());
    assert_eq!(
        checked.issues[0].message,
        "\"maybe\" is not possible; use never, ready or always"
    );
}

#[test]
fn masquerading_what_returns_directly_is_a_contradiction_that_is_told() {
    let notes = "sluice.dev/forwarding: direct-return, sluice.dev/source-nat: masquerade";
    let checked = check_service(&manifest(notes, "ports: [{port: 1}]"));
    assert!(checked.good.is_some());
    assert_eq!(
        checked.issues[0].message,
        "has no effect: direct return keeps the client's address"
    );
}

#[test]
fn a_client_stays_for_three_hours_or_for_what_is_written() {
    let affinity = |spec: &str| good("", &format!("ports: [{{port: 1}}]{spec}")).affinity_seconds;
    assert_eq!(affinity(""), None);
    assert_eq!(affinity(", sessionAffinity: None"), None);
    assert_eq!(affinity(", sessionAffinity: ClientIP"), Some(10_800));
    for seconds in [1, 86_400] {
        let config = format!(
            ", sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        );
        assert_eq!(affinity(&config), Some(seconds));
    }
}

#[test]
fn traffic_policies_are_read() {
    let spec = good(
        "",
        "ports: [{port: 1}], internalTrafficPolicy: Local, trafficDistribution: PreferSameNode",
    );
    assert_eq!((spec.internal, spec.external), (Pool::Local, Pool::Cluster));
    let spec = good("", "ports: [{port: 1}], externalTrafficPolicy: Local");
    assert_eq!((spec.internal, spec.external), (Pool::Cluster, Pool::Local));
}

#[test]
fn source_ranges_are_trimmed_and_sorted() {
    let spec = good(
        "",
        "type: LoadBalancer, clusterIP: 10.0.0.9, loadBalancerIP: 192.0.2.1, ports: [{port: 1}], loadBalancerSourceRanges: [\" 203.0.113.000/025\", \"2001:db8::/32 \", 192.0.2.77/24, 192.0.2.0/24]",
    );
    let ranges: Vec<String> = spec.source_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["192.0.2.0/24", "203.0.113.0/25", "2001:db8::/32"]);
}

#[test]
fn a_health_check_node_port_needs_a_load_balancer_and_the_policy_local() {
    let spec = |kind: &str, policy: &str, port: i64| {
        format!(
            "type: {kind}, clusterIP: 10.0.0.9, loadBalancerIP: 192.0.2.2, ports: [{{port: 1, nodePort: 30001}}], externalTrafficPolicy: {policy}, healthCheckNodePort: {port}"
        )
    };
    let balanced = |policy, port| spec("LoadBalancer", policy, port);
    let served = good("", &balanced("Local", 30500));
    assert_eq!(served.health_check_node_port, Some(30500));
    assert_eq!(good("", &balanced("Local", 0)).health_check_node_port, None);
    let field = "spec.healthCheckNodePort";
    for spec in [balanced("Cluster", 30500), spec("NodePort", "Local", 30500)] {
        let checked = check_service(&manifest("", &spec));
        assert_eq!(checked.good.unwrap().health_check_node_port, None);
        let told = checked.issues.iter().find(|issue| issue.field == field);
        assert_eq!(
            told.unwrap().message,
            "has no effect: it needs type LoadBalancer and externalTrafficPolicy Local"
        );
    }
    for port in [-1, 65536] {
        let told = issues(&balanced("Local", port));
        let message = format!("{port} is not a port; use 1 to 65535");
        assert_eq!(told, [(field.to_owned(), message)]);
    }
}

#[test]
fn the_gateways_own_class_is_no_problem() {
    let spec = "type: LoadBalancer, clusterIP: 10.0.0.9, loadBalancerIP: 192.0.2.2, ports: [{port: 1}], loadBalancerClass: sluice.dev/gateway";
    assert_eq!(issues(spec), []);
    let class = good("", spec).load_balancer_class;
    assert_eq!(class.as_deref(), Some(LOAD_BALANCER_CLASS));
}
