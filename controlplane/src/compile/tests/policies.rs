//! Families, ranges, guards and forwarding.

use super::*;
use crate::testing::objects;

/// A Service of type LoadBalancer of both families, with annotations and a piece of its spec; two
/// endpoints a family, port 8080.
fn both_families(annotations: &str, spec: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, annotations: {{sluice.dev/load-balancer-ips: \"203.0.113.1,2001:db8:1::1\", {annotations}}}}}\nspec: {{{spec}type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, \"fd00::1\"], ports: [{{name: http, port: 80, nodePort: 30080}}]}}\n"
    );
    for (family, one, two) in [
        ("IPv4", "10.0.2.1", "10.0.2.2"),
        ("IPv6", "2001:db8::1", "2001:db8::2"),
    ] {
        let name = family.to_ascii_lowercase();
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{name}, labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [\"{one}\"]}}, {{addresses: [\"{two}\"]}}]\n"
        ));
    }
    text
}

fn gateway() -> Rules {
    let addresses = ["198.51.100.1", "2001:db8:2::1"];
    Rules {
        node_addresses: addresses.map(|a| a.parse().unwrap()).to_vec(),
        ..Rules::default()
    }
}

fn table(text: &str, rules: &Rules) -> (ServiceTable, Vec<String>) {
    let (services, slices) = objects(text);
    let (table, problems) = table_of(services, slices, rules);
    assert_eq!(table.validate(), Ok(()));
    (table, lines(&problems))
}

fn addresses(service: &Service) -> Vec<String> {
    let frontends = service.frontends.iter();
    let text = |f: &Frontend| format!("{}:{}-{} {:?}", f.address, f.port, f.last_port, f.kind);
    frontends.map(text).collect()
}

#[test]
fn a_service_has_frontends_and_backends_of_both_families() {
    let (table, problems) = table(&both_families("", ""), &gateway());
    assert_eq!(problems, [""; 0]);
    let service = &table.services[0];
    assert_eq!(
        addresses(service),
        [
            "10.96.0.1:80-80 ClusterIp",
            "198.51.100.1:30080-30080 NodePort",
            "203.0.113.1:80-80 LoadBalancer",
            "2001:db8:1::1:80-80 LoadBalancer",
            "2001:db8:2::1:30080-30080 NodePort",
            "fd00::1:80-80 ClusterIp",
        ]
    );
    let backends: Vec<_> = service
        .backends
        .iter()
        .map(|b| b.address.to_string())
        .collect();
    assert_eq!(
        backends,
        ["10.0.2.1", "10.0.2.2", "2001:db8::1", "2001:db8::2"]
    );
}

#[test]
fn an_sctp_port_has_its_entry() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: sig}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 36412, protocol: SCTP}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: sig, labels: {kubernetes.io/service-name: sig}}\naddressType: IPv4\nports: [{port: 36412, protocol: SCTP}]\nendpoints: [{addresses: [10.0.2.1]}]\n";
    let (table, problems) = table(text, &Rules::default());
    assert_eq!(problems, [""; 0]);
    assert_eq!(table.services[0].name.protocol, Protocol::Sctp);
    assert_eq!(table.services[0].backends.len(), 1);
}

#[test]
fn a_source_range_guards_load_balancer_addresses_of_its_family() {
    let spec = "loadBalancerSourceRanges: [\" 203.0.113.0/25\"], ";
    let (table, problems) = table(&both_families("", spec), &gateway());
    assert_eq!(problems, [""; 0]);
    let service = &table.services[0];
    let guarded: Vec<_> = service
        .frontends
        .iter()
        .filter(|frontend| frontend.guarded)
        .map(|frontend| frontend.address.to_string())
        .collect();
    assert_eq!(guarded, ["203.0.113.1"]);
    assert_eq!(service.source_ranges, ["203.0.113.0/25".parse().unwrap()]);
}

#[test]
fn a_source_range_with_a_node_lets_the_vip_itself_in() {
    let spec = "loadBalancerSourceRanges: [192.168.0.0/24], ";
    let mut rules = gateway();
    rules.networks.nodes = vec!["192.168.0.2/32".parse().unwrap()];
    let (table, _) = table(&both_families("", spec), &rules);
    let ranges = table.services[0].source_ranges.iter();
    assert_eq!(
        ranges.map(ToString::to_string).collect::<Vec<_>>(),
        ["192.168.0.0/24", "203.0.113.1/32", "2001:db8:1::1/128"]
    );
}

#[test]
fn affinity_and_clamp_reach_the_table() {
    let text = both_families(
        "sluice.dev/mss-clamp: \"1400\"",
        "sessionAffinity: ClientIP, ",
    );
    let (table, _) = table(&text, &gateway());
    assert_eq!(table.services[0].affinity_seconds, Some(10_800));
    assert_eq!(table.services[0].mss_clamp, Some(1400));
}

#[test]
fn an_external_ip_is_served_only_where_the_settings_allow_it() {
    let text = both_families("", "externalIPs: [192.0.2.9, 192.0.2.200], ");
    let mut rules = gateway();
    rules.external_ips = vec!["192.0.2.0/28".parse().unwrap()];
    let (table, problems) = table(&text, &rules);
    assert!(addresses(&table.services[0]).contains(&"192.0.2.9:80-80 ExternalIp".to_owned()));
    assert_eq!(table.services[0].frontends.len(), 7);
    assert_eq!(
        problems,
        [
            "objects Service default/web spec.externalIPs[1]: 192.0.2.200 is not served: anybody who may write a Service could claim any address (CVE-2020-8554); cluster.external_ips of the settings lists what is allowed"
        ]
    );
}

#[test]
fn an_external_ip_that_is_not_allowed_takes_no_endpoint_away() {
    let text = both_families("", "externalIPs: [10.0.2.1], ");
    let (table, problems) = table(&text, &gateway());
    assert_eq!(table.services[0].backends.len(), 4);
    assert_eq!(problems.len(), 1);
}

#[test]
fn old_spellings_are_canonical_in_the_table() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: svc1, namespace: ns1}\nspec: {type: LoadBalancer, clusterIP: 172.30.0.041, ports: [{name: p80, port: 80}], externalIPs: [192.168.099.022], loadBalancerSourceRanges: [203.0.113.000/025]}\nstatus: {loadBalancer: {ingress: [{ip: 1.2.3.004}, {ip: 1.2.3.5, ipMode: Proxy}, {hostname: lb.example.com}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: svc1, namespace: ns1, labels: {kubernetes.io/service-name: svc1}}\naddressType: IPv4\nports: [{name: p80, port: 80}]\nendpoints: [{addresses: [10.180.00.001]}]\n";
    let rules = Rules {
        external_ips: vec!["192.168.99.0/24".parse().unwrap()],
        ..Rules::default()
    };
    let (table, problems) = table(text, &rules);
    assert_eq!(problems, [""; 0]);
    let service = &table.services[0];
    assert_eq!(
        addresses(service),
        [
            "1.2.3.4:80-80 LoadBalancer",
            "172.30.0.41:80-80 ClusterIp",
            "192.168.99.22:80-80 ExternalIp",
        ]
    );
    assert_eq!(service.source_ranges, ["203.0.113.0/25".parse().unwrap()]);
    assert_eq!(service.backends[0].address.to_string(), "10.180.0.1");
}

// === Ranges ===

#[test]
fn a_range_is_an_entry_of_its_own_on_every_vip() {
    let notes = "sluice.dev/port-ranges: \"5060-5090/udp,all/tcp\"";
    let (table, problems) = table(&both_families(notes, ""), &gateway());
    assert_eq!(problems, [""; 0]);
    let names: Vec<_> = table.services.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(
        names,
        [
            "default/web:5060-5090/udp/UDP",
            "default/web:all/tcp/TCP",
            "default/web:http/TCP"
        ]
    );
    assert_eq!(
        addresses(&table.services[0]),
        [
            "10.96.0.1:5060-5090 ClusterIp",
            "203.0.113.1:5060-5090 LoadBalancer",
            "2001:db8:1::1:5060-5090 LoadBalancer",
            "fd00::1:5060-5090 ClusterIp",
        ]
    );
    assert_eq!(
        addresses(&table.services[1])[0],
        "10.96.0.1:1-65535 ClusterIp"
    );
    for service in &table.services[..2] {
        assert_eq!(service.backends.len(), 4);
        assert!(service.backends.iter().all(|backend| backend.port == 0));
    }
}

#[test]
fn ranges_of_two_services_on_one_address_do_not_overlap() {
    let service = |name: &str, ranges: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{sluice.dev/port-ranges: {ranges}}}}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: 80, protocol: SCTP}}]}}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: 80, protocol: SCTP}}]\nendpoints: [{{addresses: [10.0.2.1]}}]\n---\n"
        )
    };
    let text = format!("{}{}", service("a", "10-20/udp"), service("b", "20-30/udp"));
    let (table, problems) = table(&text, &Rules::default());
    assert_eq!(table.services.len(), 4);
    assert_eq!(
        problems,
        [
            "objects Service default/b spec.clusterIP: 10.96.0.1 port 80/SCTP is served by Service default/a already; Service default/b does not get it",
            "objects Service default/b spec.clusterIP: 10.96.0.1 ports 10-20/UDP is served by Service default/a already; Service default/b does not get it",
        ]
    );
}

// === Direct return ===

#[test]
fn direct_return_keeps_the_port_and_the_client() {
    let notes = "sluice.dev/forwarding: direct-return, sluice.dev/port-ranges: 5060-5090/udp";
    let (table, problems) = table(&both_families(notes, ""), &gateway());
    for service in &table.services {
        assert_eq!(service.forwarding, Forwarding::DirectReturn);
        assert!(service.frontends.iter().all(|f| f.kind.is_vip()));
        let accesses = service.frontends.iter().flat_map(Frontend::accesses);
        assert!(
            accesses
                .into_iter()
                .all(|a| a.source_nat == SourceNat::Preserve)
        );
    }
    let ports = |service: &Service| service.backends.iter().map(|b| b.port).collect::<Vec<_>>();
    assert_eq!(ports(&table.services[0]), [0; 4]);
    assert_eq!(ports(&table.services[1]), [80; 4]);
    assert_eq!(
        problems,
        [
            "objects Service default/web spec.ports[0]: direct return keeps the port 80 that clients use: endpoints get it there, not at 8080 (targetPort)",
            "objects Service default/web spec.ports[0]: node port 30080 is not served: direct return needs an address that backends can have",
        ]
    );
}
