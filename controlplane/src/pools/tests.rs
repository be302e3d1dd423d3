use k8s_openapi::api::core::v1 as api;

use super::*;
use crate::kinds::pool::{self, AddressPool, AddressPoolSpec};

mod model;

fn pool(yaml: &str) -> PoolSpec {
    let spec: AddressPoolSpec = serde_saphyr::from_str(yaml).unwrap();
    let checked = pool::check(&AddressPool::new("pool", spec));
    checked
        .good
        .unwrap_or_else(|| panic!("{:?}", checked.issues))
}

fn with(pools: &[(&str, &str)]) -> Pools {
    let mut empty = Pools::new(Options::default());
    set(&mut empty, pools);
    empty
}

fn set(pools: &mut Pools, new: &[(&str, &str)]) {
    let named = new
        .iter()
        .map(|(name, yaml)| (name.to_string(), pool(yaml)));
    pools.set_pools(named.collect());
}

/// The claim of Service `name` with port 80, changed by `yaml`: annotations, labels and spec.
fn claim(name: &str, yaml: &str) -> Claim {
    let mut service: api::Service = serde_saphyr::from_str(yaml).unwrap();
    service.metadata.name = Some(name.to_owned());
    let spec = service.spec.get_or_insert_default();
    if spec.ports.is_none() {
        let port = api::ServicePort {
            port: 80,
            ..api::ServicePort::default()
        };
        spec.ports = Some(vec![port]);
    }
    if spec.ip_families.is_none() {
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
    }
    Claim::of(&service, &[])
}

fn plain(name: &str) -> Claim {
    claim(name, "{}")
}

/// A claim of an annotation.
fn noted(name: &str, key: &str, value: &str) -> Claim {
    let yaml = format!("{{metadata: {{annotations: {{sluice.dev/{key}: '{value}'}}}}}}");
    claim(name, &yaml)
}

/// A claim with a sharing key, a port and further fields of the spec.
fn shared(name: &str, key: &str, port: &str, spec: &str) -> Claim {
    let yaml = format!(
        "{{metadata: {{annotations: {{sluice.dev/allow-shared-ip: '{key}'}}}}, spec: {{ports: [{port}]{spec}}}}}"
    );
    claim(name, &yaml)
}

#[track_caller]
fn gets(pools: &mut Pools, claim: &Claim, addresses: &str) {
    let outcome = pools.assign(claim);
    assert_eq!(written(&outcome), addresses);
    assert_eq!(outcome.problem, None);
    assert_eq!(pools.held(&claim.name), outcome.addresses);
}

#[track_caller]
fn lacks(pools: &mut Pools, claim: &Claim, problem: &str) {
    let outcome = pools.assign(claim);
    assert_eq!(written(&outcome), "");
    assert_eq!(outcome.problem.as_deref(), Some(problem));
    assert_eq!(pools.held(&claim.name), [] as [IpAddr; 0]);
}

#[track_caller]
fn keeps(pools: &mut Pools, claim: &Claim, addresses: &str, problem: &str) {
    let outcome = pools.assign(claim);
    assert_eq!(written(&outcome), addresses);
    assert_eq!(outcome.problem.as_deref(), Some(problem));
}

fn written(outcome: &Outcome) -> String {
    let addresses = outcome.addresses.iter().map(ToString::to_string);
    addresses.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_free_address_is_given_and_given_again_once_it_is_free() {
    let mut pools = with(&[("a", "addresses: [192.0.2.1-192.0.2.2, 192.0.2.9]")]);
    gets(&mut pools, &plain("one"), "192.0.2.1");
    gets(&mut pools, &plain("two"), "192.0.2.2");
    gets(&mut pools, &plain("three"), "192.0.2.9");
    let problem = "no IPv4 address is free in AddressPool a; add addresses";
    lacks(&mut pools, &plain("four"), problem);
    gets(&mut pools, &plain("one"), "192.0.2.1");
    pools.release(&plain("two").name);
    gets(&mut pools, &plain("four"), "192.0.2.2");
}

#[test]
fn addresses_that_confuse_old_firmware_are_left_out_on_request() {
    let spec = "{addresses: [192.0.1.254-192.0.2.1], avoidBuggyIPs: true}";
    let mut pools = with(&[("a", spec)]);
    gets(&mut pools, &plain("one"), "192.0.1.254");
    gets(&mut pools, &plain("two"), "192.0.2.1");
    let full = "no IPv4 address is free in AddressPool a; add addresses";
    lacks(&mut pools, &plain("three"), full);
    let problem = "192.0.2.0 is in no AddressPool for this Service; add it to one, or remove it to be given another";
    lacks(
        &mut pools,
        &noted("three", "load-balancer-ips", "192.0.2.0"),
        problem,
    );
}

#[test]
fn pools_are_used_by_priority_then_those_for_some_then_by_name() {
    let mut pools = with(&[
        ("a", "addresses: [192.0.2.1]"),
        ("b", "{addresses: [192.0.2.2], namespaces: [default]}"),
        ("c", "{addresses: [192.0.2.3], priority: 2}"),
        ("d", "{addresses: [192.0.2.4], priority: 1}"),
        (
            "e",
            "{addresses: [192.0.2.5], autoAssign: false, priority: 0}",
        ),
        (
            "f",
            "{addresses: [192.0.2.6], namespaces: [other], priority: 0}",
        ),
        (
            "g",
            "{addresses: [192.0.2.7], serviceSelectors: [{matchLabels: {x: y}}]}",
        ),
    ]);
    for (name, address) in [
        ("one", "192.0.2.4"),
        ("two", "192.0.2.3"),
        ("three", "192.0.2.2"),
        ("four", "192.0.2.1"),
    ] {
        gets(&mut pools, &plain(name), address);
    }
    let problem = "no IPv4 address is free in AddressPool d, c, b, a; add addresses";
    lacks(&mut pools, &plain("five"), problem);
    let labelled = claim("six", "{metadata: {labels: {x: y}}}");
    gets(&mut pools, &labelled, "192.0.2.7");
    let other = claim("seven", "{metadata: {namespace: other}}");
    gets(&mut pools, &other, "192.0.2.6");
    gets(
        &mut pools,
        &noted("eight", "address-pool", "e"),
        "192.0.2.5",
    );
}

#[test]
fn a_pool_that_is_named_is_the_only_one_used() {
    let specs = [
        ("a", "addresses: [192.0.2.1-192.0.2.9]"),
        ("b", "{addresses: [192.0.2.20], namespaces: [other]}"),
    ];
    let mut pools = with(&specs);
    let absent = "there is no AddressPool z; create it or name another";
    lacks(&mut pools, &noted("web", "address-pool", "z"), absent);
    let excluded = "AddressPool b is not for this Service; see its namespaces and serviceSelectors";
    lacks(&mut pools, &noted("web", "address-pool", "b"), excluded);
    gets(&mut pools, &noted("web", "address-pool", "a"), "192.0.2.1");
    let yaml = "{metadata: {annotations: {sluice.dev/address-pool: a}}, spec: {loadBalancerIP: 192.0.2.20}}";
    let outside = "192.0.2.20 is not in AddressPool a";
    lacks(&mut pools, &claim("api", yaml), outside);
}

#[test]
fn a_service_moves_only_when_it_asks_for_something_else() {
    let mut pools = with(&[
        ("a", "addresses: [192.0.2.1-192.0.2.9]"),
        ("b", "addresses: [192.0.2.20-192.0.2.29]"),
    ]);
    gets(&mut pools, &plain("web"), "192.0.2.1");
    gets(&mut pools, &noted("web", "address-pool", "b"), "192.0.2.20");
    gets(&mut pools, &plain("web"), "192.0.2.20");
    gets(
        &mut pools,
        &noted("web", "load-balancer-ips", "192.0.2.5"),
        "192.0.2.5",
    );
    gets(&mut pools, &plain("web"), "192.0.2.5");
    gets(&mut pools, &plain("api"), "192.0.2.1");
    gets(&mut pools, &plain("dns"), "192.0.2.2");
}

#[test]
fn what_cannot_be_given_takes_nothing_away() {
    let mut pools = with(&[("a", "addresses: [192.0.2.1-192.0.2.9]")]);
    gets(&mut pools, &plain("web"), "192.0.2.1");
    gets(&mut pools, &plain("api"), "192.0.2.2");
    let problem =
        "192.0.2.1 is used by Service default/web: this Service has no sluice.dev/allow-shared-ip";
    let wish = noted("api", "load-balancer-ips", "192.0.2.1");
    keeps(&mut pools, &wish, "192.0.2.2", problem);
    pools.release(&plain("web").name);
    gets(&mut pools, &wish, "192.0.2.1");
}

#[test]
fn without_any_pool_addresses_are_taken_as_written() {
    let mut pools = Pools::new(Options::default());
    let problem =
        "there is no AddressPool; create one, or write an address by sluice.dev/load-balancer-ips";
    lacks(&mut pools, &plain("web"), problem);
    let hand = noted(
        "web",
        "load-balancer-ips",
        "198.51.100.1,198.51.100.2, fd00::1",
    );
    gets(&mut pools, &hand, "198.51.100.1 198.51.100.2 fd00::1");
    let same = noted("api", "load-balancer-ips", "198.51.100.1");
    gets(&mut pools, &same, "198.51.100.1");
    lacks(&mut pools, &plain("web"), problem);

    // A pool that comes later takes nothing from anybody, and gives what is left.
    set(
        &mut pools,
        &[("a", "addresses: [198.51.100.1-198.51.100.2]")],
    );
    gets(&mut pools, &same, "198.51.100.1");
    gets(&mut pools, &plain("web"), "198.51.100.2");
    set(&mut pools, &[("b", "addresses: [192.0.2.1]")]);
    let kept = "198.51.100.1 is kept, but no AddressPool for this Service holds it any more; put it back into a pool, or create the Service anew to move it";
    keeps(&mut pools, &same, "198.51.100.1", kept);
    let outside = "198.51.100.7 is in no AddressPool for this Service; add it to one, or remove it to be given another";
    lacks(
        &mut pools,
        &noted("new", "load-balancer-ips", "198.51.100.7"),
        outside,
    );
}

#[test]
fn settings_may_allow_addresses_outside_of_pools() {
    let outside_pools = true;
    let mut pools = Pools::new(Options { outside_pools });
    set(&mut pools, &[("a", "addresses: [192.0.2.1]")]);
    gets(
        &mut pools,
        &noted("web", "load-balancer-ips", "198.51.100.7"),
        "198.51.100.7",
    );
}

#[test]
fn an_address_outlives_its_pool_and_that_is_told() {
    let mut pools = with(&[("a", "addresses: [192.0.2.1-192.0.2.9]")]);
    gets(&mut pools, &plain("web"), "192.0.2.1");
    let kept = "192.0.2.1 is kept, but no AddressPool for this Service holds it any more; put it back into a pool, or create the Service anew to move it";
    for new in [
        &[][..],
        &[("a", "addresses: [192.0.2.2-192.0.2.9]")],
        &[("a", "{addresses: [192.0.2.1], namespaces: [other]}")],
    ] {
        set(&mut pools, new);
        keeps(&mut pools, &plain("web"), "192.0.2.1", kept);
    }
    set(&mut pools, &[("b", "addresses: [192.0.2.0/24]")]);
    gets(&mut pools, &plain("web"), "192.0.2.1");
    gets(&mut pools, &plain("api"), "192.0.2.0");
    gets(&mut pools, &plain("dns"), "192.0.2.2");
}

#[test]
fn an_address_is_shared_by_those_with_one_key_and_different_ports() {
    let mut pools = with(&[("a", "addresses: [192.0.2.1-192.0.2.2]")]);
    gets(
        &mut pools,
        &shared("web", "k", "{port: 80}", ""),
        "192.0.2.1",
    );
    gets(
        &mut pools,
        &shared("tls", "k", "{port: 443}", ""),
        "192.0.2.1",
    );
    // As with MetalLB the first address that can be had is given, be it free or shared.
    gets(
        &mut pools,
        &shared("dns", "k", "{port: 80, protocol: UDP}", ""),
        "192.0.2.1",
    );
    gets(
        &mut pools,
        &shared("alt", "k", "{port: 80}", ""),
        "192.0.2.2",
    );
    let full = "no IPv4 address is free in AddressPool a; add addresses";
    lacks(&mut pools, &shared("more", "k", "{port: 80}", ""), full);
    lacks(&mut pools, &shared("more", "l", "{port: 81}", ""), full);
    lacks(&mut pools, &plain("more"), full);
    let local = ", externalTrafficPolicy: Local, selector: {a: b}";
    lacks(&mut pools, &shared("more", "k", "{port: 81}", local), full);

    pools.release(&plain("web").name);
    gets(
        &mut pools,
        &shared("more", "k", "{port: 80}", ""),
        "192.0.2.1",
    );
}

#[test]
fn an_address_that_cannot_be_shared_is_refused_with_the_reason() {
    let mut pools = with(&[("a", "addresses: [192.0.2.1-192.0.2.9]")]);
    let local = ", loadBalancerIP: 192.0.2.1, externalTrafficPolicy: Local, selector: {a: b}";
    gets(
        &mut pools,
        &shared("web", "k", "{port: 80}", local),
        "192.0.2.1",
    );
    gets(
        &mut pools,
        &shared("tls", "k", "{port: 443}", local),
        "192.0.2.1",
    );
    let other = ", loadBalancerIP: 192.0.2.1, externalTrafficPolicy: Local, selector: {a: c}";
    let cluster = ", loadBalancerIP: 192.0.2.1, selector: {a: b}";
    let policies = "with externalTrafficPolicy Local both need the same selector";
    for (key, port, spec, reason) in [
        (
            "l",
            "{port: 81}",
            local,
            "its sluice.dev/allow-shared-ip is \"k\", not \"l\"",
        ),
        (
            "",
            "{port: 81}",
            local,
            "this Service has no sluice.dev/allow-shared-ip",
        ),
        ("k", "{port: 81}", other, policies),
        ("k", "{port: 81}", cluster, policies),
        ("k", "{port: 443}", local, "both use port 443/tcp"),
    ] {
        let problem = format!("192.0.2.1 is used by Service default/tls: {reason}");
        lacks(&mut pools, &shared("new", key, port, spec), &problem);
    }
}

#[test]
fn who_shares_and_stops_to_allow_it_is_given_another_address() {
    let mut pools = with(&[("a", "addresses: [192.0.2.1-192.0.2.2]")]);
    gets(
        &mut pools,
        &shared("web", "k", "{port: 80}", ""),
        "192.0.2.1",
    );
    let tls = ", loadBalancerIP: 192.0.2.1";
    gets(
        &mut pools,
        &shared("tls", "k", "{port: 443}", tls),
        "192.0.2.1",
    );
    gets(
        &mut pools,
        &shared("web", "k", "{port: 8080}", ""),
        "192.0.2.1",
    );
    gets(
        &mut pools,
        &shared("web", "k", "{port: 443}", ""),
        "192.0.2.2",
    );
    let problem =
        "192.0.2.1 is used by Service default/tls: this Service has no sluice.dev/allow-shared-ip";
    let asked = claim("web", "{spec: {loadBalancerIP: 192.0.2.1}}");
    keeps(&mut pools, &asked, "192.0.2.2", problem);
}

#[test]
fn each_family_gets_an_address_and_one_may_be_enough() {
    let both = |name, policy| {
        let yaml =
            format!("{{spec: {{ipFamilies: [IPv6, IPv4], ipFamilyPolicy: {policy}DualStack}}}}");
        claim(name, &yaml)
    };
    let mut pools = with(&[
        ("four", "addresses: [192.0.2.1-192.0.2.3]"),
        ("six", "addresses: ['fd00::1']"),
    ]);
    gets(&mut pools, &both("web", "Require"), "fd00::1 192.0.2.1");
    let full = "no IPv6 address is free in AddressPool four, six; add addresses";
    lacks(&mut pools, &both("api", "Require"), full);
    gets(&mut pools, &both("api", "Prefer"), "192.0.2.2");
    // A single-stack Service gives its other address back.
    gets(&mut pools, &plain("web"), "192.0.2.1");
    gets(&mut pools, &both("api", "Prefer"), "fd00::1 192.0.2.2");
}

#[test]
fn what_was_held_before_a_restart_is_held_after_it() {
    let spec = [("a", "addresses: [192.0.2.1-192.0.2.9]")];
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut pools = with(&spec);
    pools.adopt(&plain("web"), &[address("192.0.2.2"), address("192.0.2.2")]);
    pools.adopt(&plain("thief"), &[address("192.0.2.2")]);
    pools.adopt(&plain("old"), &[address("198.51.100.1")]);
    gets(&mut pools, &plain("new"), "192.0.2.1");
    gets(&mut pools, &plain("thief"), "192.0.2.3");
    gets(&mut pools, &plain("web"), "192.0.2.2");
    let kept = "198.51.100.1 is kept, but no AddressPool for this Service holds it any more; put it back into a pool, or create the Service anew to move it";
    keeps(&mut pools, &plain("old"), "198.51.100.1", kept);
}

#[test]
fn a_whole_address_space_costs_nothing() {
    let mut pools = with(&[("a", "addresses: [0.0.0.0/0, '::/0']")]);
    gets(&mut pools, &plain("one"), "0.0.0.1");
    gets(
        &mut pools,
        &claim("two", "{spec: {ipFamilies: [IPv6]}}"),
        "::2",
    );
}
