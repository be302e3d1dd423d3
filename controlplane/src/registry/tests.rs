//! Services through the whole registry.

mod model;

use serde_json::{Value, json};

use super::*;

fn networks(texts: &[&str]) -> Cluster {
    Cluster {
        services: texts.iter().map(|text| text.parse().unwrap()).collect(),
        ..Cluster::default()
    }
}

fn dual() -> Registry {
    Registry::new(&networks(&["10.96.0.0/24", "fd00:10::/64"]))
}

fn service(name: &str, spec: Value) -> Service {
    let metadata = json!({"name": name, "namespace": "shop"});
    let object = json!({"metadata": metadata, "spec": spec});
    defaulted(serde_json::from_value(object).unwrap())
}

fn spec(service: &Service) -> &ServiceSpec {
    service.spec.as_ref().unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Vec<FieldError>>) -> String {
    let errors = result.unwrap_err();
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

fn node_ports(service: &Service) -> Vec<i32> {
    let ports = shape::ports(spec(service));
    ports
        .iter()
        .map(|port| port.node_port.unwrap_or(0))
        .collect()
}

#[test]
fn what_is_left_out_gets_the_defaults_of_the_api() {
    let plain = service("web", json!({"ports": [{"port": 80}]}));
    assert_eq!(defaulted(plain.clone()), plain);
    let seen = serde_json::to_value(spec(&plain)).unwrap();
    let wanted = json!({
        "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    });
    assert_eq!(seen, wanted);
    let sticky = json!({
        "type": "LoadBalancer", "sessionAffinity": "ClientIP", "clusterIP": "",
        "ports": [{"port": 53, "protocol": "UDP", "targetPort": "dns", "nodePort": 0}],
    });
    let seen = serde_json::to_value(spec(&service("dns", sticky))).unwrap();
    let wanted = json!({
        "type": "LoadBalancer", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
        "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": true,
        "ports": [{"port": 53, "protocol": "UDP", "targetPort": "dns"}],
    });
    assert_eq!(seen, wanted);
    let outside = service(
        "web",
        json!({"externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]}),
    );
    assert_eq!(
        spec(&outside).external_traffic_policy.as_deref(),
        Some("Cluster")
    );
    let name = service(
        "name",
        json!({"type": "ExternalName", "externalName": "a.example"}),
    );
    assert_eq!(spec(&name).internal_traffic_policy, None);
}

#[test]
fn two_gateways_that_know_the_same_services_choose_the_same_values() {
    let fill = || {
        let mut registry = dual();
        let stored: Vec<Service> = (0..50)
            .map(|number| {
                let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 443}]);
                let spec = json!({
                    "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports,
                    "ipFamilyPolicy": "RequireDualStack",
                });
                registry
                    .create(service(&format!("web-{number}"), spec))
                    .unwrap()
            })
            .collect();
        stored
    };
    let stored = fill();
    assert_eq!(stored, fill());
    for service in &stored {
        let ips = shape::cluster_ips(spec(service));
        let v4: std::net::Ipv4Addr = ips[0].parse().unwrap();
        assert!(v4.octets()[3] > 16, "{v4} is of the band for requests");
        let ports = node_ports(service);
        assert!(ports.iter().all(|port| *port >= 30086), "{ports:?}");
    }
}

#[test]
fn a_conflict_names_the_other_service_and_changes_nothing() {
    let mut registry = dual();
    let first = json!({"clusterIP": "10.96.0.10", "type": "NodePort",
        "ports": [{"port": 80, "nodePort": 30080}]});
    registry.create(service("first", first.clone())).unwrap();
    let error = refusal(registry.create(service("second", first)));
    assert_eq!(
        error,
        "spec.clusterIPs[0]: 10.96.0.10 is in use by Service shop/first; choose another, or \
         leave it out; spec.ports[0].nodePort: 30080 is in use by Service shop/first; choose \
         another, or leave it out"
    );
    let partly = json!({"clusterIP": "10.96.0.11", "type": "NodePort",
        "ports": [{"port": 80, "nodePort": 30080}]});
    assert!(registry.create(service("second", partly)).is_err());
    assert!(!registry.holds_address("10.96.0.11".parse().unwrap()));
    assert_eq!(registry.node_ports().used(), 1);
    let again = registry.create(service("first", json!({"ports": [{"port": 80}]})));
    assert_eq!(
        refusal(again),
        "metadata.name: Service shop/first exists already"
    );
}

#[test]
fn values_that_cannot_be_given_name_the_range_and_the_setting() {
    let mut registry = dual();
    for (ip, port, message) in [
        (
            "10.97.0.1",
            30080,
            "spec.clusterIPs[0]: 10.97.0.1 is none of the addresses that 10.96.0.0/24 has for \
             Services (cluster.service_networks)",
        ),
        (
            "10.96.0.1",
            80,
            "spec.ports[0].nodePort: 80 is not in 30000-32767, the range of node ports \
             (cluster.node_ports)",
        ),
        (
            "10.96.0.1",
            -1,
            "spec.ports[0].nodePort: -1 is not in 30000-32767, the range of node ports \
             (cluster.node_ports)",
        ),
    ] {
        let spec = json!({"type": "NodePort", "clusterIP": ip,
            "ports": [{"port": 80, "nodePort": port}]});
        assert_eq!(refusal(registry.create(service("web", spec))), message);
    }
    let mut small = Registry::new(&Cluster {
        services: vec!["10.96.0.0/30".parse().unwrap()],
        node_ports: 30000..=30000,
    });
    let one = json!({"type": "NodePort", "ports": [{"port": 80}]});
    small.create(service("a", one.clone())).unwrap();
    let error = refusal(small.create(service("b", one.clone())));
    assert_eq!(
        error,
        "spec.ports[0].nodePort: every node port of 30000-30000 is in use; delete a Service, or \
         widen cluster.node_ports"
    );
    small
        .create(service("b", json!({"ports": [{"port": 80}]})))
        .unwrap();
    let error = refusal(small.create(service("c", json!({"ports": [{"port": 80}]}))));
    assert_eq!(
        error,
        "spec.clusterIPs: every address of 10.96.0.0/30 is in use; delete a Service, or give \
         more in cluster.service_networks"
    );
}

#[test]
fn without_networks_any_address_may_be_named_once_and_none_is_given() {
    let mut registry = Registry::new(&Cluster::default());
    let both = json!({"clusterIP": "192.0.2.1", "clusterIPs": ["192.0.2.1", "2001:db8::1"],
        "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]});
    let stored = registry.create(service("both", both)).unwrap();
    assert_eq!(shape::families(spec(&stored)), ["IPv4", "IPv6"]);
    let one = json!({"clusterIP": "198.51.100.1", "ipFamilyPolicy": "PreferDualStack",
        "ports": [{"port": 80}]});
    let stored = registry.create(service("one", one)).unwrap();
    assert_eq!(shape::families(spec(&stored)), ["IPv4"]);
    let taken = json!({"clusterIP": "2001:db8::1", "ports": [{"port": 80}]});
    let error = refusal(registry.create(service("taken", taken)));
    assert!(
        error.contains("2001:db8::1 is in use by Service shop/both"),
        "{error}"
    );
    let stored = registry.create(service("web", json!({"ports": [{"port": 80}]})));
    let stored = stored.unwrap();
    assert_eq!(spec(&stored).cluster_ip, None, "there is nothing to give");
}

#[test]
fn protocols_of_one_port_share_a_node_port_also_when_one_comes_later() {
    let mut registry = dual();
    let tcp = json!({"name": "t", "port": 53, "protocol": "TCP"});
    let udp = json!({"name": "u", "port": 53, "protocol": "UDP"});
    let web = json!({"name": "w", "port": 80, "protocol": "TCP"});
    let with = |ports: Value| service("dns", json!({"type": "NodePort", "ports": ports}));
    let stored = registry.create(with(json!([tcp]))).unwrap();
    let stored = registry
        .update(&stored, with(json!([web, udp, tcp])))
        .unwrap();
    let ports = node_ports(&stored);
    assert_eq!(ports[1], ports[2]);
    assert_ne!(ports[0], ports[1]);
    assert_eq!(registry.node_ports().used(), 2);
    let moved = json!({"name": "u", "port": 54, "protocol": "UDP"});
    let stored = registry.update(&stored, with(json!([moved, tcp]))).unwrap();
    assert_eq!(node_ports(&stored), [ports[1], ports[1]]);
    assert_eq!(registry.node_ports().used(), 1);
}

#[test]
fn node_ports_that_are_not_wanted_any_more_stay_until_their_fields_go() {
    let mut registry = dual();
    let with = |allocate: bool, port: Value| {
        let spec = json!({"type": "LoadBalancer", "ports": [port],
            "allocateLoadBalancerNodePorts": allocate});
        service("web", spec)
    };
    let stored = registry.create(with(true, json!({"port": 80}))).unwrap();
    let number = node_ports(&stored)[0];
    let written = json!({"port": 80, "nodePort": number});
    let stored = registry.update(&stored, with(false, written)).unwrap();
    assert_eq!(node_ports(&stored), [number]);
    let stored = registry
        .update(&stored, with(false, json!({"port": 80})))
        .unwrap();
    assert_eq!(node_ports(&stored), [0]);
    assert_eq!(registry.node_ports().used(), 0);
}

#[test]
fn the_status_is_the_stored_one_and_its_load_balancer_goes_with_the_type() {
    let mut registry = dual();
    let with = |name: &str| {
        let mut web = service("web", json!({"type": name, "ports": [{"port": 80}]}));
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}});
        web.status = serde_json::from_value(status).unwrap();
        web
    };
    let mut stored = registry.create(with("LoadBalancer")).unwrap();
    assert_eq!(stored.status, None);
    stored.status = with("LoadBalancer").status;
    let unstated = service(
        "web",
        json!({"type": "LoadBalancer", "ports": [{"port": 80}]}),
    );
    let stored = registry.update(&stored, unstated).unwrap();
    assert_eq!(stored.status, with("LoadBalancer").status);
    let stored = registry.update(&stored, with("NodePort")).unwrap();
    assert_eq!(stored.status.unwrap().load_balancer, None);
}

#[test]
fn after_a_restart_everybody_has_what_they_had_also_outside_of_new_ranges() {
    let mut before = dual();
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let first = before.create(service("first", spec.clone())).unwrap();
    let second = before.create(service("second", spec.clone())).unwrap();

    let mut after = Registry::new(&Cluster {
        services: vec!["10.97.0.0/24".parse().unwrap()],
        node_ports: 31000..=31001,
    });
    after.adopt(&first).unwrap();
    after.adopt(&second).unwrap();
    let again = refusal(after.adopt(&second));
    assert_eq!(again, "metadata.name: Service shop/second exists already");
    let mut twin = first.clone();
    twin.metadata.name = Some("twin".into());
    let error = refusal(after.adopt(&twin));
    assert!(error.contains("is in use by Service shop/first"), "{error}");

    let mut changed = service("first", spec);
    changed.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].port = 81;
    let kept = after.update(&first, changed).unwrap();
    assert_eq!(
        super::spec_of(&kept).cluster_ips,
        super::spec_of(&first).cluster_ips
    );
    assert_eq!(node_ports(&kept), node_ports(&first));
    assert_eq!(after.delete(&kept), Deletion::Gone);
    assert_eq!(after.delete(&kept), Deletion::Gone);
    after.adopt(&twin).unwrap();
}

#[test]
fn what_was_allocated_does_not_change_by_an_update() {
    let mut registry = dual();
    let ports = json!([{"port": 80}]);
    let local = |port: i32| {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port, "ports": ports, "loadBalancerClass": "a/b"});
        service("web", spec)
    };
    let stored = registry.create(local(30100)).unwrap();
    let error = refusal(registry.update(&stored, local(30101)));
    assert_eq!(
        error,
        "spec.healthCheckNodePort: may not change; it is 30100"
    );
    assert!(!registry.node_ports().contains(30101));
    let mut other = local(0);
    other.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.200".into());
    other.spec.as_mut().unwrap().load_balancer_class = None;
    let error = refusal(registry.update(&stored, other));
    for field in [
        "spec.loadBalancerClass: may not change",
        "spec.clusterIPs[0]: ",
    ] {
        assert!(error.contains(field), "{error}");
    }
    assert!(!registry.holds_address("10.96.0.200".parse().unwrap()));
}
