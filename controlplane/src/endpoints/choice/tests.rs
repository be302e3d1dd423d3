//! One rule of the choice a test.

use sluice_conf::BackendState::{Active, Draining};

use super::super::tests::{endpoints, slice};
use super::*;

/// Owns what [`Here`] borrows.
struct Place {
    nodes: BTreeSet<String>,
    zone: Option<&'static str>,
}

const ANYWHERE: Place = Place {
    nodes: BTreeSet::new(),
    zone: None,
};

impl Place {
    fn at(node: &str, zone: Option<&'static str>) -> Self {
        let nodes = BTreeSet::from([node.to_owned()]);
        Self { nodes, zone }
    }

    fn here(&self) -> Here<'_> {
        Here {
            nodes: &self.nodes,
            zone: self.zone,
        }
    }
}

const PORT: Wanted<'static> = Wanted::Named {
    name: "",
    protocol: Protocol::Tcp,
    port: None,
};

fn chosen(slices: &[Slice]) -> Vec<(String, BackendState)> {
    let slices: Vec<&Slice> = slices.iter().collect();
    let backends = backends(&slices, PORT, ANYWHERE.here(), 1);
    backends
        .iter()
        .map(|b| (format!("{}:{}", b.address, b.port), b.state))
        .collect()
}

/// Last bytes of the addresses that the Cluster pool and the Local pool take.
fn pools(slices: &[Slice], place: &Place, tier_minimum: u16) -> (Vec<u8>, Vec<u8>) {
    let slices: Vec<&Slice> = slices.iter().collect();
    let backends = backends(&slices, PORT, place.here(), tier_minimum);
    let last = |b: &Backend| match b.address {
        std::net::IpAddr::V4(v4) => v4.octets()[3],
        std::net::IpAddr::V6(v6) => v6.octets()[15],
    };
    let cluster = backends.iter().filter(|b| b.state == Active).map(last);
    let local = backends.iter().filter(|b| b.local).map(last);
    (cluster.collect(), local.collect())
}

/// Endpoints by the rest of their entries.
fn written(family: &str, head: &str, entries: &[&str]) -> Slice {
    let prefix = if family == "IPv4" {
        "10.0.2."
    } else {
        "2001:db8::"
    };
    let mut text = format!("addressType: {family}\nports: [{{port: 8080}}]\nendpoints:\n");
    for (number, entry) in entries.iter().enumerate() {
        text.push_str(&format!(
            "- {{addresses: [\"{prefix}{}\"]{entry}}}\n",
            number + 1
        ));
    }
    let mut slice = slice(&text);
    slice.name = head.to_owned();
    slice
}

const TERMINATING: &str = ", conditions: {ready: false, serving: true, terminating: true}";

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
        let wanted = Wanted::Named {
            name,
            protocol,
            port: None,
        };
        let found = backends(&[&slice], wanted, ANYWHERE.here(), 1);
        found.iter().map(|b| b.port).collect::<Vec<_>>()
    };
    assert_eq!(ports("a", Protocol::Tcp), [1]);
    assert_eq!(ports("a", Protocol::Udp), [0; 0]);
    assert_eq!(ports("b", Protocol::Udp), [2]);
    assert_eq!(ports("c", Protocol::Tcp), [0; 0]);
    assert_eq!(ports("", Protocol::Tcp), [3]);
}

#[test]
fn only_the_first_address_of_an_endpoint_is_used() {
    let slice = slice(
        "addressType: IPv4\nports: [{port: 1}]\nendpoints: [{addresses: [10.0.2.1, 10.0.2.9]}]\n",
    );
    assert_eq!(chosen(&[slice]), [("10.0.2.1:1".into(), Active)]);
}

#[test]
fn families_are_chosen_one_by_one() {
    let v4 = written("IPv4", "a", &[TERMINATING]);
    let v6 = written("IPv6", "b", &["", TERMINATING]);
    assert_eq!(
        chosen(&[v4, v6]),
        [
            ("10.0.2.1:8080".to_owned(), Active),
            ("2001:db8::1:8080".to_owned(), Active),
            ("2001:db8::2:8080".to_owned(), Draining),
        ],
        "IPv4 has nothing ready, whatever IPv6 has"
    );
}

#[test]
fn the_local_pool_knows_only_nodes_of_here_and_falls_back_on_its_own() {
    let slice = written(
        "IPv4",
        "a",
        &[
            ", nodeName: far",
            &format!(", nodeName: near{TERMINATING}"),
            TERMINATING,
            ", nodeName: near, conditions: {ready: false, serving: false, terminating: true}",
        ],
    );
    let near = Place::at("near", None);
    assert_eq!(
        pools(std::slice::from_ref(&slice), &near, 1),
        (vec![1], vec![2])
    );
    assert_eq!(
        pools(&[slice], &ANYWHERE, 1),
        (vec![1], vec![1]),
        "without nodes every node is here"
    );
}

#[test]
fn an_endpoint_without_a_node_is_local_only_where_every_node_is() {
    let slice = [written("IPv4", "a", &["", ", nodeName: near"])];
    assert_eq!(pools(&slice, &Place::at("near", None), 1).1, [2]);
    assert_eq!(pools(&slice, &ANYWHERE, 1).1, [1, 2]);
}

#[test]
fn hints_for_nodes_come_before_hints_for_zones() {
    let hints = |node: &str, zone: &str| {
        format!(", hints: {{forNodes: [{{name: {node}}}], forZones: [{{name: {zone}}}]}}")
    };
    let slice = [written(
        "IPv4",
        "a",
        &[&hints("near", "b"), &hints("far", "a"), &hints("far", "b")],
    )];
    assert_eq!(pools(&slice, &Place::at("near", Some("a")), 1).0, [1]);
    assert_eq!(pools(&slice, &Place::at("other", Some("a")), 1).0, [2]);
    assert_eq!(pools(&slice, &Place::at("other", None), 1).0, [1, 2, 3]);
    assert_eq!(pools(&slice, &ANYWHERE, 1).0, [1, 2, 3]);
}

#[test]
fn one_ready_endpoint_without_a_hint_switches_hints_off() {
    let hint = ", hints: {forZones: [{name: a}]}";
    let unready = ", conditions: {ready: false}";
    let place = Place::at("n", Some("a"));
    let other = ", hints: {forZones: [{name: b}]}";
    let slice = [written("IPv4", "a", &[hint, other, ""])];
    assert_eq!(pools(&slice, &place, 1).0, [1, 2, 3]);
    let slice = [written("IPv4", "a", &[hint, other, unready])];
    assert_eq!(pools(&slice, &place, 1).0, [1]);
}

#[test]
fn hints_are_dropped_before_the_terminating_serve() {
    let hint = |zone: &str| format!(", hints: {{forZones: [{{name: {zone}}}]}}{TERMINATING}");
    let slice = [written("IPv4", "a", &[&hint("a"), &hint("b")])];
    assert_eq!(pools(&slice, &Place::at("n", Some("a")), 1).0, [1, 2]);
}

#[test]
fn a_ready_endpoint_that_hints_leave_out_keeps_its_connections() {
    let slice = written(
        "IPv4",
        "a",
        &[
            ", hints: {forZones: [{name: a}]}",
            ", hints: {forZones: [{name: b}]}",
        ],
    );
    let place = Place::at("n", Some("a"));
    let backends = backends(&[&slice], PORT, place.here(), 1);
    let states: Vec<_> = backends.iter().map(|b| b.state).collect();
    assert_eq!(states, [Active, Draining]);
}

/// A slice of `tier` with endpoints that end in these bytes.
fn tiered(tier: u16, members: &[(u8, &str)]) -> Slice {
    let mut slice = endpoints(members);
    slice.name = format!("tier-{tier}");
    slice
        .endpoints
        .iter_mut()
        .for_each(|endpoint| endpoint.tier = tier);
    slice
}

#[test]
fn a_tier_serves_while_those_before_it_are_too_few() {
    let unready = "ready: false, serving: true";
    let slices = [
        tiered(0, &[(1, ""), (2, unready)]),
        tiered(5, &[(3, ""), (4, "")]),
        tiered(9, &[(5, "")]),
    ];
    for (minimum, taken) in [(1, vec![1]), (2, vec![1, 3, 4]), (3, vec![1, 3, 4])] {
        assert_eq!(pools(&slices, &ANYWHERE, minimum).0, taken, "{minimum}");
        assert_eq!(pools(&slices, &ANYWHERE, minimum).1, taken, "{minimum}");
    }
    assert_eq!(pools(&slices, &ANYWHERE, 4).0, [1, 3, 4, 5]);
    let states = chosen(&slices);
    assert_eq!(states.len(), 5, "the others keep their connections");
    assert!(states.iter().skip(1).all(|(_, state)| *state == Draining));
}

#[test]
fn a_ready_endpoint_of_a_later_tier_beats_a_terminating_one_of_the_first() {
    let terminating = "ready: false, serving: true, terminating: true";
    let first = tiered(0, &[(1, terminating)]);
    let slices = [first.clone(), tiered(1, &[(2, "")])];
    assert_eq!(pools(&slices, &ANYWHERE, 1).0, [2]);
    let slices = [first, tiered(1, &[(2, terminating)])];
    assert_eq!(pools(&slices, &ANYWHERE, 1).0, [1, 2]);
}

#[test]
fn an_endpoint_in_two_tiers_is_in_the_first() {
    let slices = [tiered(0, &[(1, "")]), tiered(1, &[(1, ""), (2, "")])];
    assert_eq!(pools(&slices, &ANYWHERE, 1).0, [1]);
}

#[test]
fn a_range_takes_the_endpoints_of_its_protocol_or_else_all() {
    let of = |port: &str, last: u8| {
        slice(&format!(
            "addressType: IPv4\nports: [{port}]\nendpoints: [{{addresses: [10.0.2.{last}]}}]\n"
        ))
    };
    let tcp = of("{name: a, port: 1}, {name: b, port: 2}", 1);
    let udp = of("{name: c, port: 3, protocol: UDP}", 2);
    let taken = |slices: &[&Slice], protocol| {
        let found = backends(slices, Wanted::Every(protocol), ANYWHERE.here(), 1);
        assert!(found.iter().all(|b| b.port == 0));
        let found = found.iter().map(|b| b.address.to_string());
        found.collect::<Vec<_>>()
    };
    assert_eq!(taken(&[&tcp, &udp], Protocol::Tcp), ["10.0.2.1"]);
    assert_eq!(taken(&[&tcp, &udp], Protocol::Udp), ["10.0.2.2"]);
    assert_eq!(
        taken(&[&tcp, &udp], Protocol::Sctp),
        ["10.0.2.1", "10.0.2.2"]
    );
}

#[test]
fn a_fixed_port_makes_one_backend_of_an_endpoint_with_several() {
    let one = slice(
        "addressType: IPv4\nports: [{port: 8080}]\nendpoints: [{addresses: [10.0.2.1], conditions: {ready: false, serving: true}}]\n",
    );
    let other =
        slice("addressType: IPv4\nports: [{port: 8081}]\nendpoints: [{addresses: [10.0.2.1]}]\n");
    let wanted = Wanted::Named {
        name: "",
        protocol: Protocol::Tcp,
        port: Some(80),
    };
    let found = backends(&[&one, &other], wanted, ANYWHERE.here(), 1);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].port, found[0].state), (80, Active));
}

#[test]
fn health_checks_count_each_ready_address_of_here_once_and_the_fuller_family() {
    let service = |port_ranges: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, annotations: {{{port_ranges}}}}}\nspec: {{clusterIP: 10.0.0.9, ports: [{{port: 1}}]}}\n"
        );
        crate::testing::check_service(&text).good.unwrap()
    };
    let (plain, ranged) = (service(""), service("sluice.dev/port-ranges: 100-200/udp"));
    let of = |name: &str, family: &str, ports: &str, endpoints: &str| {
        let text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\nports: [{ports}]\nendpoints: [{endpoints}]\n"
        );
        crate::testing::check_slice(&text).good.unwrap()
    };
    let here = "{addresses: [10.1.0.1], nodeName: a}, {addresses: [10.1.0.2], nodeName: a}";
    let others = "{addresses: [10.1.0.3], nodeName: b}, {addresses: [10.1.0.4]}, {addresses: [10.1.0.5], nodeName: a, conditions: {ready: false, serving: true, terminating: true}}";
    let slices = [
        of("s1", "IPv4", "{port: 80}", &format!("{here}, {others}")),
        of("s2", "IPv4", "{name: x, port: 81}", here),
        of(
            "s3",
            "IPv6",
            "{port: 80}",
            "{addresses: ['fd00::1'], nodeName: a}",
        ),
        of("s4", "IPv4", "", "{addresses: [10.1.0.6], nodeName: a}"),
    ];
    let slices: Vec<&Slice> = slices.iter().collect();
    let at_a = Place::at("a", None);
    assert_eq!(local_ready(&plain, &slices, at_a.here()), 2);
    assert_eq!(local_ready(&ranged, &slices, at_a.here()), 3);
    assert_eq!(local_ready(&plain, &slices, ANYWHERE.here()), 4);
    assert_eq!(local_ready(&plain, &[], ANYWHERE.here()), 0);
}
