//! Random histories against a model that knows only what every stored Service says of itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Change {
    Apply(u8, Form),
    Delete(u8),
}

/// What a client submits, with few values, so that Services meet.
#[derive(Debug, Clone)]
struct Form {
    kind: u8,
    local: bool,
    policy: u8,
    address: Option<u8>,
    ports: Vec<(u8, bool, Option<u8>)>,
    health_check: Option<u8>,
}

const KINDS: [&str; 4] = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
const POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];

impl Form {
    fn spec(&self) -> Value {
        let kind = KINDS[usize::from(self.kind % 4)];
        let mut spec = json!({"type": kind, "selector": {"app": "web"}});
        if kind == "ExternalName" {
            spec["externalName"] = json!("example.com");
            return spec;
        }
        if let Some(policy) = POLICIES.get(usize::from(self.policy)) {
            spec["ipFamilyPolicy"] = json!(policy);
        }
        match self.address {
            Some(0) => spec["clusterIP"] = json!("None"),
            Some(last) => spec["clusterIP"] = json!(format!("10.96.0.{last}")),
            None => {}
        }
        if kind != "ClusterIP" && self.local {
            spec["externalTrafficPolicy"] = json!("Local");
        }
        if let Some(port) = self
            .health_check
            .filter(|_| kind == "LoadBalancer" && self.local)
        {
            spec["healthCheckNodePort"] = json!(30000 + i32::from(port));
        }
        let ports = self.ports.iter().enumerate();
        let ports = ports.map(|(index, (port, udp, number))| {
            let number = number
                .filter(|_| kind != "ClusterIP")
                .map(|n| 30000 + i32::from(n));
            json!({"name": format!("p{index}"), "port": 80 + i32::from(*port),
                "protocol": if *udp { "UDP" } else { "TCP" }, "nodePort": number})
        });
        spec["ports"] = ports.collect();
        spec
    }
}

fn form() -> impl Strategy<Value = Form> {
    let port = (0_u8..2, any::<bool>(), prop::option::weighted(0.3, 0_u8..9));
    let ports = prop::collection::vec(port, 1..4);
    let address = prop::option::weighted(0.3, 0_u8..8);
    let health_check = prop::option::weighted(0.3, 0_u8..9);
    (
        0_u8..4,
        any::<bool>(),
        0_u8..5,
        address,
        ports,
        health_check,
    )
        .prop_map(|(kind, local, policy, address, ports, health_check)| Form {
            kind,
            local,
            policy,
            address,
            ports,
            health_check,
        })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0_u8..5, form()).prop_map(|(name, form)| Change::Apply(name, form)),
        1 => (0_u8..5).prop_map(Change::Delete),
    ]
}

/// Everything that the stored Services hold; nothing twice.
fn held(stored: &BTreeMap<u8, Service>) -> (BTreeSet<IpAddr>, BTreeSet<i32>) {
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for service in stored.values() {
        let spec = spec(service);
        for ip in shape::cluster_ips(spec).iter().filter(|ip| *ip != "None") {
            assert!(addresses.insert(ip.parse().unwrap()), "{ip} twice");
        }
        let check = spec.health_check_node_port.into_iter();
        let own: BTreeSet<i32> = shape::node_ports(spec).into_iter().collect();
        for port in own.into_iter().chain(check) {
            assert!(ports.insert(port), "{port} twice");
        }
    }
    (addresses, ports)
}

fn taken(registry: &Registry) -> (BTreeSet<IpAddr>, BTreeSet<i32>) {
    let of = |family: Family| {
        let numbers = registry.addresses(family).taken();
        numbers.filter_map(move |number| networks::address(family, number))
    };
    let ports = registry.node_ports().taken();
    let ports = ports.map(|port| i32::try_from(port).unwrap()).collect();
    (of(Family::V4).chain(of(Family::V6)).collect(), ports)
}

/// A complete Service has all that its type has.
fn is_complete(service: &Service) -> bool {
    let spec = spec(service);
    let addresses = shape::is_external_name(spec)
        || shape::is_headless(spec)
        || shape::cluster_ips(spec).len() == shape::families(spec).len();
    let ports = shape::ports(spec).iter();
    let all_ports = ports.clone().all(|port| port.node_port.is_some());
    let no_port = ports.clone().all(|port| port.node_port.is_none());
    addresses
        && if shape::has_node_ports(spec) {
            all_ports
        } else {
            no_port
        }
        && shape::has_health_check(spec) == spec.health_check_node_port.is_some()
        && spec.cluster_ip.as_ref() == shape::cluster_ips(spec).first()
}

fn run(changes: Vec<Change>) {
    // Six addresses of IPv4 and nine node ports: they run out.
    let mut registry = Registry::new(&Cluster {
        services: vec![
            "10.96.0.0/29".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        node_ports: 30000..=30008,
    });
    let mut stored: BTreeMap<u8, Service> = BTreeMap::new();
    for change in changes {
        let before = taken(&registry);
        match change {
            Change::Delete(name) => {
                if let Some(service) = stored.remove(&name) {
                    registry.delete(&service);
                }
            }
            Change::Apply(name, form) => {
                let new = service(&format!("web-{name}"), form.spec());
                let result = match stored.get(&name) {
                    Some(old) => registry.update(old, new),
                    None => registry.create(new),
                };
                match result {
                    Ok(service) => {
                        assert!(is_complete(&service), "{service:#?}");
                        stored.insert(name, service);
                    }
                    Err(errors) => {
                        assert!(!errors.is_empty());
                        assert_eq!(taken(&registry), before, "{errors:?}");
                    }
                }
            }
        }
        assert_eq!(taken(&registry), held(&stored));
    }
    for service in stored.values() {
        let mut fresh = dual();
        fresh.adopt(service).unwrap();
        registry.delete(service);
    }
    assert_eq!(taken(&registry), Default::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn nothing_is_held_twice_or_lost_and_a_refusal_changes_nothing(
        changes in prop::collection::vec(change(), 1..40),
    ) {
        run(changes);
    }
}
