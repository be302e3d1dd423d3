//! Pools, source addresses and hints as kube-proxy has them, case by case.

use sluice_conf::Networks;

use std::net::IpAddr;

use super::*;
use crate::testing::objects;

/// Who a client is.
#[derive(Clone, Copy)]
enum Client {
    Pod,
    Node,
    Other,
}

use Client::{Node, Other, Pod};

/// The gateway that kube-proxy's tests have as their node.
fn node(zone: Option<&str>) -> Rules {
    Rules {
        node_addresses: vec!["192.168.0.2".parse().unwrap()],
        networks: Networks {
            pods: vec!["10.0.0.0/8".parse().unwrap()],
            nodes: vec!["192.168.0.2/32".parse().unwrap()],
            services: vec!["172.30.0.0/16".parse().unwrap()],
        },
        local_nodes: BTreeSet::from(["test-node".to_owned()]),
        zone: zone.map(str::to_owned),
        defaults: Defaults {
            source_nat: SourceNatMode::Kubernetes,
            ..Defaults::default()
        },
        ..Rules::default()
    }
}

fn table(text: &str, rules: &Rules) -> ServiceTable {
    let (services, slices) = objects(text);
    let (table, problems) = table_of(services, slices, rules);
    assert_eq!(lines(&problems), [""; 0], "{text}");
    assert_eq!(table.validate(), Ok(()));
    assert_eq!(table.networks, rules.networks);
    table
}

// === Who is masqueraded, and by whom they are served ===

/// Three Services as in kube-proxy's TestInternalExternalMasquerade: policies Cluster, external
/// Local, internal Local; one endpoint here, one elsewhere.
fn masquerading(rules: &Rules) -> ServiceTable {
    let mut text = String::new();
    for (number, policy) in [
        (1, ""),
        (2, "externalTrafficPolicy: Local, "),
        (3, "internalTrafficPolicy: Local, "),
    ] {
        text.push_str(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: svc{number}}}\nspec: {{{policy}type: LoadBalancer, clusterIP: 172.30.0.4{number}, loadBalancerIP: 5.6.7.{number}, ports: [{{name: p80, port: 80, nodePort: 300{number}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: svc{number}, labels: {{kubernetes.io/service-name: svc{number}}}}}\naddressType: IPv4\nports: [{{name: p80, port: 80}}]\nendpoints: [{{addresses: [10.180.0.{number}], nodeName: test-node}}, {{addresses: [10.180.1.{number}], nodeName: remote}}]\n---\n"
        ));
    }
    table(&text, rules)
}

/// How many endpoints serve, and whether the client is masqueraded.
fn outcome(
    table: &ServiceTable,
    service: usize,
    kind: FrontendKind,
    client: Client,
) -> (usize, bool) {
    let service = &table.services[service];
    let mut frontends = service.frontends.iter();
    let frontend = frontends.find(|frontend| frontend.kind == kind).unwrap();
    let access = match client {
        Pod => frontend.pods,
        Node => frontend.nodes,
        Other => frontend.others,
    };
    let serves = |b: &&Backend| match access.pool {
        Pool::Cluster => b.state == BackendState::Active,
        Pool::Local => b.local,
    };
    let masquerades = access.source_nat == SourceNat::Masquerade;
    (service.backends.iter().filter(serves).count(), masquerades)
}

fn outcomes(table: &ServiceTable, kind: FrontendKind) -> [[(usize, bool); 3]; 3] {
    [0, 1, 2].map(|service| [Pod, Node, Other].map(|client| outcome(table, service, kind, client)))
}

const EXTERNAL: [FrontendKind; 2] = [FrontendKind::NodePort, FrontendKind::LoadBalancer];

#[test]
fn with_pod_networks_outsiders_are_masqueraded_and_pods_are_not() {
    let table = masquerading(&node(None));
    assert_eq!(
        outcomes(&table, FrontendKind::ClusterIp),
        [
            [(2, false), (2, true), (2, true)],
            [(2, false), (2, true), (2, true)],
            [(1, false), (1, true), (1, true)],
        ]
    );
    for kind in EXTERNAL {
        assert_eq!(
            outcomes(&table, kind),
            [
                [(2, true), (2, true), (2, true)],
                [(2, false), (2, true), (1, false)],
                [(2, true), (2, true), (2, true)],
            ]
        );
    }
}

#[test]
fn without_pod_networks_pods_are_as_everybody_else() {
    let mut rules = node(None);
    rules.networks.pods.clear();
    rules.masquerade_all = true;
    let table = masquerading(&rules);
    assert_eq!(
        outcomes(&table, FrontendKind::ClusterIp),
        [[(2, true); 3], [(2, true); 3], [(1, true); 3]]
    );
    for kind in EXTERNAL {
        assert_eq!(
            outcomes(&table, kind),
            [
                [(2, true), (2, true), (2, true)],
                [(1, false), (2, true), (1, false)],
                [(2, true), (2, true), (2, true)],
            ]
        );
    }
    rules.masquerade_all = false;
    assert_eq!(
        outcomes(&masquerading(&rules), FrontendKind::ClusterIp),
        [[(2, false); 3], [(2, false); 3], [(1, false); 3]]
    );
}

#[test]
fn masquerade_all_includes_pods_at_cluster_ips_only() {
    let rules = Rules {
        masquerade_all: true,
        ..node(None)
    };
    let table = masquerading(&rules);
    assert_eq!(outcomes(&table, FrontendKind::ClusterIp)[0], [(2, true); 3]);
    assert_eq!(
        outcomes(&table, FrontendKind::LoadBalancer)[1],
        [(2, false), (2, true), (1, false)]
    );
}

#[test]
fn one_mode_for_everybody_changes_no_pool() {
    for (mode, masquerades) in [
        (SourceNatMode::Masquerade, true),
        (SourceNatMode::Preserve, false),
    ] {
        let mut rules = node(None);
        let kubernetes = masquerading(&rules);
        rules.defaults.source_nat = mode;
        let table = masquerading(&rules);
        for kind in [FrontendKind::ClusterIp, EXTERNAL[0], EXTERNAL[1]] {
            let same = outcomes(&kubernetes, kind)
                .map(|service| service.map(|(serving, _)| (serving, masquerades)));
            assert_eq!(outcomes(&table, kind), same);
        }
    }
}

#[test]
fn pods_are_told_apart_by_family() {
    let rules = node(None);
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 172.30.0.1, clusterIPs: [172.30.0.1, \"fd00::1\"], ports: [{port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web, labels: {kubernetes.io/service-name: web}}\naddressType: IPv6\nports: [{port: 80}]\nendpoints: [{addresses: [\"2001:db8::1\"]}]\n";
    let table = table(text, &rules);
    let others: Vec<_> = table.services[0]
        .frontends
        .iter()
        .map(|frontend| frontend.others.source_nat)
        .collect();
    assert_eq!(others, [SourceNat::Masquerade, SourceNat::Preserve]);
    assert_eq!(table.services[0].backends.len(), 1);
}

// === Which endpoints (kube-proxy pkg/proxy/topology_test.go TestCategorizeEndpoints) ===

/// A case: the zone of the node; what the Service says of its policies, and whether it has a node
/// port; endpoints as `(last byte, zones, local, conditions)`; last bytes of the endpoints for
/// Cluster and for Local, `None` where no frontend uses that pool.
type Case<'a> = (
    Option<&'a str>,
    (&'a str, bool),
    &'a [(u8, &'a str, bool, &'a str)],
    (Option<&'a [u8]>, Option<&'a [u8]>),
);

const READY: &str = "ready: true";
const TERMINATING: &str = "ready: false, serving: true, terminating: true";
const EXTERNAL_LOCAL: &str = "externalTrafficPolicy: Local, ";
const INTERNAL_LOCAL: &str = "internalTrafficPolicy: Local, ";
const BOTH_LOCAL: &str = "internalTrafficPolicy: Local, externalTrafficPolicy: Local, ";

const CASES: &[Case<'_>] = &[
    (
        Some("a"),
        ("", false),
        &[
            (3, "a", false, READY),
            (4, "b", false, READY),
            (5, "c", false, READY),
            (6, "a", false, READY),
        ],
        (Some(&[3, 6]), None),
    ),
    (
        Some("a"),
        (EXTERNAL_LOCAL, true),
        &[
            (3, "a", true, READY),
            (4, "b", true, READY),
            (5, "c", false, READY),
            (6, "a", false, READY),
        ],
        (Some(&[3, 6]), Some(&[3, 4])),
    ),
    (
        Some("a"),
        (INTERNAL_LOCAL, true),
        &[
            (3, "a", true, READY),
            (4, "b", true, READY),
            (5, "c", false, READY),
            (6, "a", false, READY),
        ],
        (Some(&[3, 6]), Some(&[3, 4])),
    ),
    (
        Some(""),
        ("", false),
        &[(3, "a", false, READY)],
        (Some(&[3]), None),
    ),
    (
        Some("b"),
        ("", false),
        &[(3, "a", false, READY)],
        (Some(&[3]), None),
    ),
    (
        Some("a"),
        ("", false),
        &[
            (3, "a", false, READY),
            (4, "b", false, READY),
            (5, "c", false, READY),
            (6, "a", false, "ready: false"),
        ],
        (Some(&[3]), None),
    ),
    (
        Some("c"),
        ("", false),
        &[
            (3, "a b c", false, READY),
            (4, "b c", false, READY),
            (5, "b d", false, READY),
            (6, "c", false, READY),
        ],
        (Some(&[3, 4, 6]), None),
    ),
    (
        Some("a"),
        (EXTERNAL_LOCAL, true),
        &[
            (1, "a", true, READY),
            (2, "b", true, READY),
            (3, "a", false, READY),
            (4, "b", false, READY),
        ],
        (Some(&[1, 3]), Some(&[1, 2])),
    ),
    (None, (INTERNAL_LOCAL, false), &[], (None, Some(&[]))),
    (
        None,
        (INTERNAL_LOCAL, false),
        &[(1, "", true, READY), (2, "", true, READY)],
        (None, Some(&[1, 2])),
    ),
    (
        None,
        ("", false),
        &[
            (1, "", false, "ready: false"),
            (2, "", false, "ready: false"),
        ],
        (Some(&[]), None),
    ),
    (
        None,
        (INTERNAL_LOCAL, true),
        &[(1, "", true, READY), (2, "", false, READY)],
        (Some(&[1, 2]), Some(&[1])),
    ),
    (
        None,
        (EXTERNAL_LOCAL, true),
        &[(1, "", true, READY), (2, "", false, READY)],
        (Some(&[1, 2]), Some(&[1])),
    ),
    (
        None,
        (BOTH_LOCAL, true),
        &[(1, "", true, READY), (2, "", false, READY)],
        (Some(&[1, 2]), Some(&[1])),
    ),
    (
        None,
        (BOTH_LOCAL, true),
        &[(1, "", false, TERMINATING), (2, "", false, TERMINATING)],
        (Some(&[1, 2]), Some(&[])),
    ),
    (
        None,
        (EXTERNAL_LOCAL, true),
        &[
            (1, "", false, READY),
            (2, "", true, "ready: false, serving: false"),
            (3, "", true, TERMINATING),
            (4, "", false, TERMINATING),
        ],
        (Some(&[1]), Some(&[3])),
    ),
    (
        None,
        (EXTERNAL_LOCAL, false),
        &[(1, "", false, READY), (2, "", true, READY)],
        (Some(&[1, 2]), None),
    ),
    (
        None,
        (INTERNAL_LOCAL, false),
        &[(1, "", false, READY), (2, "", true, READY)],
        (None, Some(&[2])),
    ),
];

fn manifests(policy: &str, node_port: bool, endpoints: &[(u8, &str, bool, &str)]) -> String {
    let (kind, port) = match node_port {
        true => ("NodePort", ", nodePort: 8080"),
        false => ("ClusterIP", ""),
    };
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: svc}}\nspec: {{{policy}type: {kind}, clusterIP: 172.30.0.1, ports: [{{port: 80{port}}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: svc, labels: {{kubernetes.io/service-name: svc}}}}\naddressType: IPv4\nports: [{{port: 80}}]\n"
    );
    if endpoints.is_empty() {
        text.push_str("endpoints: []\n");
    } else {
        text.push_str("endpoints:\n");
    }
    for (last, zones, local, conditions) in endpoints {
        let node = if *local { "test-node" } else { "other" };
        let zones: Vec<_> = zones.split(' ').filter(|z| !z.is_empty()).collect();
        let hints = zones.iter().map(|zone| format!("{{name: {zone}}}"));
        let hints = hints.collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "- {{addresses: [10.1.2.{last}], nodeName: {node}, conditions: {{{conditions}}}, hints: {{forZones: [{hints}]}}}}\n"
        ));
    }
    text
}

#[test]
fn endpoints_are_chosen_as_kube_proxy_chooses_them() {
    for (zone, (policy, node_port), endpoints, (cluster, local)) in CASES {
        let text = manifests(policy, *node_port, endpoints);
        let table = table(&text, &node(*zone));
        let service = &table.services[0];
        let uses = |pool| {
            let mut accesses = service.frontends.iter().flat_map(Frontend::accesses);
            accesses.any(|access| access.pool == pool)
        };
        let taken = |pool, takes: fn(&Backend) -> bool| {
            let last = |b: &Backend| match b.address {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(_) => 0,
            };
            let taken = service.backends.iter().filter(|b| takes(b));
            uses(pool).then(|| taken.map(last).collect::<Vec<_>>())
        };
        let found = (
            taken(Pool::Cluster, |b| b.state == BackendState::Active),
            taken(Pool::Local, |b| b.local),
        );
        let wanted = (cluster.map(<[u8]>::to_vec), local.map(<[u8]>::to_vec));
        assert_eq!(found, wanted, "{text}");
    }
}

// === Nobody near (kube-proxy pkg/proxy/nftables/proxier_test.go TestNoEndpointsMetric) ===

#[test]
fn service_ports_without_local_endpoints_are_counted_by_policy() {
    let here: &[(u8, &str, bool, &str)] = &[(1, "", true, READY), (2, "", false, READY)];
    let away: &[(u8, &str, bool, &str)] = &[(1, "", false, READY), (2, "", false, READY)];
    for (policy, endpoints, wanted) in [
        (INTERNAL_LOCAL, here, (0, 0)),
        (EXTERNAL_LOCAL, here, (0, 0)),
        (BOTH_LOCAL, here, (0, 0)),
        (BOTH_LOCAL, away, (1, 1)),
        (INTERNAL_LOCAL, away, (1, 0)),
        (EXTERNAL_LOCAL, away, (0, 1)),
        (BOTH_LOCAL, &[][..], (0, 0)),
    ] {
        let table = table(&manifests(policy, true, endpoints), &node(None));
        let count = count_without_local(&table.services);
        assert_eq!((count.internal, count.external), wanted, "{policy}");
    }
}
