//! Tables from manifests, and what must hold for all of them.

mod policies;
mod topology;

use proptest::prelude::*;
use sluice_conf::settings::controlplane::{Defaults, SourceNatMode};
use sluice_conf::{
    Backend, BackendGone, BackendState, Forwarding, Frontend, FrontendKind, Ping, Pool, Protocol,
    Refusal, SourceNat, codec,
};

use super::*;
use crate::testing::{Gateway, lines, service, slice};

fn rules() -> Rules {
    Rules {
        node_addresses: vec!["198.51.100.1".parse().unwrap()],
        external_ips: vec!["10.96.0.0/30".parse().unwrap()],
        ..Rules::default()
    }
}

/// What a control plane compiles of these files, read one after the other.
fn compiled(files: &[String]) -> Compiled {
    compiled_by(files, rules())
}

fn compiled_by(files: &[String], rules: Rules) -> Compiled {
    let mut gateway = Gateway::new(rules);
    for (number, text) in files.iter().enumerate() {
        gateway.apply(&format!("{number}.yaml"), text);
    }
    gateway.compiled()
}

fn frontends(compiled: &Compiled) -> Vec<String> {
    let services = compiled.table.services.iter();
    services
        .flat_map(|service| {
            service.frontends.iter().map(move |frontend| {
                format!(
                    "{} {}:{} {:?}",
                    service.name, frontend.address, frontend.port, frontend.kind
                )
            })
        })
        .collect()
}

#[test]
fn the_examples_compile_without_a_problem() {
    let compiled = compiled(&[
        include_str!("../../../conf/examples/services/web.yaml").to_owned(),
        include_str!("../../../conf/examples/services/dns.yaml").to_owned(),
        include_str!("../../../conf/examples/services/voice.yaml").to_owned(),
    ]);
    assert_eq!(lines(&compiled.problems), [""; 0]);
    assert_eq!(
        frontends(&compiled),
        [
            "default/dns:dns/UDP 10.96.0.53:53 ClusterIp",
            "default/dns:dns-tcp/TCP 10.96.0.53:53 ClusterIp",
            "default/voice:10000-20000/udp/UDP 10.96.0.20:10000 ClusterIp",
            "default/voice:10000-20000/udp/UDP 203.0.113.20:10000 LoadBalancer",
            "default/voice:10000-20000/udp/UDP 2001:db8:113::20:10000 LoadBalancer",
            "default/voice:10000-20000/udp/UDP fd00:96::20:10000 ClusterIp",
            "default/voice:sip/UDP 10.96.0.20:5060 ClusterIp",
            "default/voice:sip/UDP 198.51.100.1:30754 NodePort",
            "default/voice:sip/UDP 203.0.113.20:5060 LoadBalancer",
            "default/voice:sip/UDP 2001:db8:113::20:5060 LoadBalancer",
            "default/voice:sip/UDP fd00:96::20:5060 ClusterIp",
            "default/web:http/TCP 10.96.0.10:80 ClusterIp",
            "default/web:http/TCP 198.51.100.1:30080 NodePort",
            "default/web:http/TCP 203.0.113.10:80 LoadBalancer",
        ]
    );
    let sip = &compiled.table.services[3];
    let states: Vec<_> = sip.backends.iter().map(|b| b.state).collect();
    use BackendState::{Active, Draining};
    assert_eq!(states, [Active, Draining, Active], "the second site waits");
    let web = &compiled.table.services[4];
    let backends: Vec<_> = web
        .backends
        .iter()
        .map(|b| (b.address.to_string(), b.port, b.state))
        .collect();
    assert_eq!(
        backends,
        [11, 12, 13].map(|last| (format!("10.0.2.{last}"), 8080, BackendState::Active))
    );
}

/// A Service and a slice of one endpoint in one file.
fn served(name: &str, address: &str, endpoint: &str) -> String {
    let slice = slice(&format!("{name}-1"), name, &[endpoint]);
    format!("{}---\n{slice}", service(name, address))
}

#[test]
fn who_was_known_first_keeps_a_disputed_frontend() {
    let external = |name| {
        let text = served(name, "10.96.0.1", "10.0.2.1");
        text.replace("clusterIP: 10.96.0.1", "externalIPs: [10.96.0.1]")
    };
    let compiled = compiled(&[external("zebra"), external("ant")]);
    assert_eq!(
        frontends(&compiled),
        ["default/zebra/TCP 10.96.0.1:80 ExternalIp"]
    );
    assert_eq!(
        lines(&compiled.problems),
        [
            "1.yaml:6 Service default/ant spec.externalIPs[0]: 10.96.0.1 port 80/TCP is served by Service default/zebra already; Service default/ant does not get it"
        ]
    );
    assert_eq!(
        compiled.table.services.len(),
        2,
        "the loser stays, without that frontend"
    );
}

#[test]
fn an_address_of_the_gateway_cannot_be_a_vip() {
    let compiled = compiled(&[served("web", "198.51.100.1", "10.0.2.1")]);
    assert_eq!(frontends(&compiled), [""; 0]);
    assert_eq!(compiled.problems.len(), 1);
}

#[test]
fn an_endpoint_that_is_a_vip_is_left_out() {
    let compiled = compiled(&[
        service("web", "10.96.0.1"),
        slice("web-1", "web", &["10.96.0.1", "10.0.2.1"]),
    ]);
    assert_eq!(compiled.table.services[0].backends.len(), 1);
    assert_eq!(
        lines(&compiled.problems),
        [
            "0.yaml:8 Service default/web spec.ports[0]: endpoint 10.96.0.1 is an address of a Service and is left out"
        ]
    );
}

#[test]
fn a_new_service_cannot_take_the_endpoints_of_others() {
    let compiled = compiled(&[
        served("web", "10.96.0.1", "10.0.2.1"),
        served("typo", "10.0.2.1", "10.0.2.2"),
    ]);
    assert_eq!(
        frontends(&compiled),
        ["default/web/TCP 10.96.0.1:80 ClusterIp"]
    );
    assert_eq!(compiled.table.services[1].backends.len(), 1);
    assert_eq!(
        lines(&compiled.problems),
        [
            "1.yaml:6 Service default/typo spec.clusterIP: 10.0.2.1 is an endpoint of EndpointSlice default/web-1 already and cannot be a Service's; Service default/typo does not get it"
        ]
    );
}

#[test]
fn a_service_without_a_slice_and_a_slice_without_a_service_are_reported() {
    let compiled = compiled(&[
        service("web", "10.96.0.1"),
        slice("wbe-1", "wbe", &["10.0.2.1"]),
        service("db", "None"),
    ]);
    assert_eq!(
        lines(&compiled.problems),
        [
            "0.yaml:1 Service default/web: has no EndpointSlice, so clients are refused; a slice belongs to it by the label kubernetes.io/service-name: web",
            "1.yaml:1 EndpointSlice default/wbe-1: its Service default/wbe does not exist",
        ]
    );
}

#[test]
fn a_port_that_no_slice_has_is_reported_unless_there_is_no_endpoint() {
    let named =
        slice("web-1", "web", &["10.0.2.1"]).replace("port: 8080", "port: 8080\n  name: http");
    let empty = named.replace("endpoints:\n- addresses: [10.0.2.1]\n", "endpoints: []\n");
    let result = compiled(&[service("web", "10.96.0.1"), named]);
    assert_eq!(
        lines(&result.problems),
        [
            "0.yaml:8 Service default/web spec.ports[0]: no EndpointSlice of this Service has this port (without a name, TCP), so clients are refused; they have: \"http\", TCP"
        ]
    );
    let result = compiled(&[service("web", "10.96.0.1"), empty]);
    assert_eq!(lines(&result.problems), [""; 0]);
}

#[test]
fn a_node_port_without_an_address_of_the_gateway_is_reported() {
    let text =
        served("web", "10.96.0.1", "10.0.2.1").replace("spec:\n", "spec:\n  type: NodePort\n");
    let text = text.replace("- port: 80\n", "- port: 80\n    nodePort: 30080\n");
    let compiled = compiled_by(&[text], Rules::default());
    assert_eq!(
        lines(&compiled.problems),
        [
            "0.yaml:9 Service default/web spec.ports[0]: node port 30080 is not served: node_ports.addresses of the settings is empty"
        ]
    );
}

#[test]
fn a_headless_service_is_not_compiled() {
    assert_eq!(compiled(&[service("db", "None")]).table.services, []);
}

#[test]
fn slices_of_another_namespace_do_not_serve() {
    let other =
        slice("web-1", "web", &["10.0.2.1"]).replace("  name:", "  namespace: shop\n  name:");
    let compiled = compiled(&[service("web", "10.96.0.1"), other]);
    assert_eq!(compiled.table.services[0].backends, []);
}

#[test]
fn the_settings_are_the_default_of_the_annotations() {
    let noted = "metadata:\n  annotations: {sluice.dev/source-nat: masquerade, sluice.dev/backend-gone: reset, sluice.dev/refusal: icmp, sluice.dev/ping: ready, sluice.dev/mss-clamp: \"1300\", sluice.dev/forwarding: nat}\n";
    let files = [
        service("a", "10.96.0.1"),
        service("b", "10.96.0.2").replace("metadata:\n", noted),
    ];
    let rules = Rules {
        defaults: Defaults {
            source_nat: SourceNatMode::Preserve,
            backend_gone: BackendGone::Drain { seconds: 30 },
            refusal: Refusal::TcpReset,
            ping: Ping::Always,
            mss_clamp: Some(1400),
            forwarding: Forwarding::DirectReturn,
        },
        ..Rules::default()
    };
    let services = compiled_by(&files, rules).table.services;
    let policies = |s: &Service| {
        let source_nat = s.frontends[0].others.source_nat;
        (
            (source_nat, s.backend_gone, s.refusal),
            (s.ping, s.mss_clamp, s.forwarding),
        )
    };
    let drain = BackendGone::Drain { seconds: 30 };
    assert_eq!(
        policies(&services[0]),
        (
            (SourceNat::Preserve, drain, Refusal::TcpReset),
            (Ping::Always, Some(1400), Forwarding::DirectReturn)
        )
    );
    assert_eq!(
        policies(&services[1]),
        (
            (SourceNat::Masquerade, BackendGone::Reset, Refusal::Icmp),
            (Ping::Ready, Some(1300), Forwarding::Nat)
        )
    );
}

// === Properties ===

/// Services that collide, slices that overlap, and values that are wrong now and then.
fn any_object() -> impl Strategy<Value = String> {
    let protocol =
        prop_oneof![4 => Just("TCP"), 3 => Just("UDP"), 1 => Just("SCTP"), 1 => Just("ICMP")];
    let kind = prop_oneof![Just("ClusterIP"), Just("NodePort"), Just("LoadBalancer")];
    let address = prop_oneof![
        6 => (0_u8..4).prop_map(|n| format!("10.96.0.{n}")),
        1 => Just("198.51.100.1".to_owned()),
        1 => Just("127.0.0.1".to_owned()),
        1 => Just("None".to_owned()),
        3 => (0_u8..4).prop_map(|n| format!("\"2001:db8::{n}\"")),
    ];
    let annotation = prop_oneof![
        3 => Just(""),
        1 => Just("sluice.dev/forwarding: direct-return"),
        1 => Just("sluice.dev/port-ranges: \"1-3/tcp,2/udp\""),
        1 => Just("sluice.dev/port-ranges: all/tcp, sluice.dev/forwarding: direct-return"),
        1 => Just("sluice.dev/tier-minimum: \"2\", sluice.dev/source-nat: kubernetes"),
    ];
    let port = (
        prop_oneof![9 => 1_i32..4, 1 => Just(70_000)],
        protocol,
        0_i32..3,
    );
    let service = (
        0_u8..4,
        kind,
        address.clone(),
        address,
        proptest::collection::vec(port, 0..3),
        annotation,
    );
    let service = service.prop_map(|(name, kind, cluster, balancer, ports, notes)| {
        let ports = ports.iter().enumerate().map(|(number, (port, protocol, node))| {
            let node = if kind == "ClusterIP" { 0 } else { *node };
            format!("{{name: p{number}, port: {port}, protocol: {protocol}, nodePort: {node}}}")
        });
        let ports = ports.collect::<Vec<_>>().join(", ");
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s{name}, annotations: {{{notes}}}}}\nspec: {{type: {kind}, clusterIP: {cluster}, loadBalancerIP: {balancer}, externalIPs: [{balancer}], ports: [{ports}]}}\n")
    });
    let endpoint = (0_u8..4, any::<bool>(), any::<bool>(), any::<bool>());
    let slice = (
        0_u8..6,
        0_u8..4,
        0_u8..3,
        any::<bool>(),
        proptest::collection::vec(endpoint, 0..5),
    );
    let slice = slice.prop_map(|(name, service, port, ipv4, endpoints)| {
        let (family, prefix) = match ipv4 {
            true => ("IPv4", "10.96.0."),
            false => ("IPv6", "2001:db8::"),
        };
        let endpoints = endpoints.iter().map(|(last, ready, serving, terminating)| {
            format!("{{addresses: [\"{prefix}{last}\"], conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}}}")
        });
        let endpoints = endpoints.collect::<Vec<_>>().join(", ");
        format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: e{name}, labels: {{kubernetes.io/service-name: s{service}}}}}\naddressType: {family}\nports: [{{name: p{port}, port: 8080}}]\nendpoints: [{endpoints}]\n")
    });
    prop_oneof![service, slice]
}

/// Objects that do not collide, so that their order cannot matter.
fn peaceful() -> Vec<String> {
    let mut files = Vec::new();
    for n in 1..5 {
        files.push(service(&format!("s{n}"), &format!("10.96.0.{n}")));
        let shared = format!("10.0.2.{n}");
        files.push(slice(
            &format!("a{n}"),
            &format!("s{n}"),
            &[&shared, "10.0.2.99"],
        ));
        files.push(slice(
            &format!("b{n}"),
            &format!("s{n}"),
            &["10.0.2.50", &shared],
        ));
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_table_is_valid(files in proptest::collection::vec(any_object(), 0..12)) {
        let table = compiled(&files).table;
        prop_assert_eq!(table.validate(), Ok(()));
        prop_assert!(table.services.is_sorted_by(|a, b| a.name < b.name));
        for service in &table.services {
            prop_assert!(service.frontends.is_sorted_by(|a, b| a < b));
            prop_assert!(service.backends.is_sorted_by(|a, b| (a.address, a.port) < (b.address, b.port)));
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(files in Just(peaceful()).prop_shuffle()) {
        let one = compiled(&peaceful());
        let other = compiled(&files);
        prop_assert_eq!(one.problems.len(), 0);
        prop_assert_eq!(codec::encode(&one.table).unwrap(), codec::encode(&other.table).unwrap());
    }
}
