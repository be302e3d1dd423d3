use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_conf::service::{
    Access, Backend, BackendState, Forwarding, Frontend, FrontendKind, Pool, Service, ServiceName,
    SourceNat,
};
use sluice_conf::table::Generation;

use super::*;
use crate::neighbour::{Link, Routing};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(addresses: &[&str]) -> Network {
    let link = |text: &&str| Link {
        v4: vec![text.parse().unwrap()],
        mtu: 1500,
        up: true,
        ..Link::default()
    };
    let links = addresses.iter().map(link).collect();
    Network::new(links, Routing::default(), Routing::default())
}

fn service(name: &str, address: &str, kind: FrontendKind, source_nat: SourceNat) -> Service {
    let name = ServiceName {
        namespace: "default".into(),
        name: name.into(),
        port: String::new(),
        protocol: Protocol::Udp,
    };
    let pool = Pool::Cluster;
    Service {
        frontends: vec![Frontend::new(
            ip(address),
            53,
            kind,
            Access { pool, source_nat },
        )],
        backends: vec![Backend {
            address: ip("10.0.2.10"),
            port: 5353,
            weight: 1,
            state: BackendState::Draining,
            local: false,
        }],
        ..Service::new(name)
    }
}

fn filter(services: Vec<Service>, settings: &dataplane::SourceNat) -> Filter {
    let table = ServiceTable {
        generation: Generation(1),
        services: services.into_iter().map(Arc::new).collect(),
        ..ServiceTable::default()
    };
    Filter::new(&table, &network(&["10.0.1.1", "10.0.2.1"]), settings)
}

const BACKEND: Endpoint = Endpoint {
    address: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 10)),
    port: 5353,
    protocol: Protocol::Udp,
};

#[test]
fn a_vip_is_ours_with_every_port_and_a_node_port_alone() {
    let masquerade = SourceNat::Masquerade;
    let filter = filter(
        vec![
            service("vip", "192.0.2.1", FrontendKind::LoadBalancer, masquerade),
            service("port", "10.0.1.1", FrontendKind::NodePort, masquerade),
        ],
        &dataplane::SourceNat::default(),
    );
    assert_eq!(filter.vips, BTreeSet::from([ip("192.0.2.1")]));
    let node_port = Endpoint {
        address: ip("10.0.1.1"),
        port: 53,
        protocol: Protocol::Udp,
    };
    assert_eq!(filter.node_ports, BTreeSet::from([node_port]));
    assert_eq!(filter.backends, BTreeSet::new());
}

#[test]
fn replies_to_every_host_address_are_ours_in_the_port_range() {
    let settings = dataplane::SourceNat::default();
    let filter = filter(vec![], &settings);
    let expected = BTreeMap::from([
        (ip("10.0.1.1"), settings.ports),
        (ip("10.0.2.1"), settings.ports),
    ]);
    assert_eq!(filter.masquerade, expected);
    assert_eq!(filter.host_addresses, expected.into_keys().collect());
    assert_eq!(filter.vips, BTreeSet::new());
}

#[test]
fn a_set_masquerade_address_is_a_vip_unless_a_link_has_it() {
    let mut settings = dataplane::SourceNat {
        address: Some(Ipv4Addr::new(203, 0, 113, 9)),
        ..dataplane::SourceNat::default()
    };
    let own = filter(vec![], &settings);
    assert_eq!(own.vips, BTreeSet::from([ip("203.0.113.9")]));
    assert_eq!(
        own.masquerade,
        BTreeMap::from([(ip("203.0.113.9"), settings.ports)])
    );

    settings.address = Some(Ipv4Addr::new(10, 0, 2, 1));
    let shared = filter(vec![], &settings);
    assert_eq!(shared.vips, BTreeSet::new());
    assert_eq!(
        shared.masquerade,
        BTreeMap::from([(ip("10.0.2.1"), settings.ports)])
    );
}

#[test]
fn backends_are_ours_only_where_the_client_address_is_kept() {
    let kind = FrontendKind::ClusterIp;
    let services = vec![
        service("a", "192.0.2.1", kind, SourceNat::Preserve),
        service("b", "192.0.2.2", kind, SourceNat::Masquerade),
    ];
    let settings = dataplane::SourceNat::default();
    assert_eq!(
        filter(services, &settings).backends,
        BTreeSet::from([BACKEND])
    );
}

#[test]
fn a_retired_backend_stays_ours() {
    let mut filter = filter(vec![], &dataplane::SourceNat::default());
    filter.retain_backends([BACKEND]);
    assert_eq!(filter.backends, BTreeSet::from([BACKEND]));
}

#[test]
fn the_order_of_services_does_not_matter() {
    let kind = FrontendKind::ExternalIp;
    let a = service("a", "192.0.2.1", kind, SourceNat::Preserve);
    let b = service("b", "192.0.2.2", kind, SourceNat::Preserve);
    let settings = dataplane::SourceNat::default();
    assert_eq!(
        filter(vec![a.clone(), b.clone()], &settings),
        filter(vec![b, a], &settings)
    );
}

const ADDRESSES: [&str; 4] = ["10.0.1.1", "10.0.2.1", "2001:db8:1::1", "fe80::1"];

fn filter_of(table: &ServiceTable, settings: &dataplane::SourceNat) -> Filter {
    let links = ADDRESSES.map(|text| match ip(text) {
        IpAddr::V4(v4) => Link {
            v4: vec![v4],
            ..Link::default()
        },
        IpAddr::V6(v6) => Link {
            v6: vec![v6],
            ..Link::default()
        },
    });
    let network = Network::new(links.to_vec(), Routing::default(), Routing::default());
    Filter::new(table, &network, settings)
}

fn table_of(services: Vec<Service>) -> ServiceTable {
    ServiceTable {
        generation: Generation(1),
        services: services.into_iter().map(Arc::new).collect(),
        ..ServiceTable::default()
    }
}

fn udp(source: &str, destination: &str, ports: Option<(u16, u16)>) -> Headers {
    Headers {
        source: ip(source),
        destination: ip(destination),
        protocol: 17,
        ports,
    }
}

#[test]
fn each_family_masquerades_by_its_own_address() {
    let settings = dataplane::SourceNat {
        address6: Some("2001:db8:ffff::1".parse().unwrap()),
        ..dataplane::SourceNat::default()
    };
    let filter = filter_of(&table_of(vec![]), &settings);
    let by: Vec<IpAddr> = filter.masquerade.keys().copied().collect();
    assert_eq!(by, ["10.0.1.1", "10.0.2.1", "2001:db8:ffff::1"].map(ip));
    assert_eq!(filter.vips, BTreeSet::from([ip("2001:db8:ffff::1")]));

    let every = filter_of(&table_of(vec![]), &dataplane::SourceNat::default());
    let by: Vec<IpAddr> = every.masquerade.keys().copied().collect();
    // A link-local address is no way back for what was routed.
    assert_eq!(by, ["10.0.1.1", "10.0.2.1", "2001:db8:1::1"].map(ip));
    assert!(!every.host_addresses.contains(&ip("fe80::1")));
}

#[test]
fn a_range_on_an_address_of_the_host_is_ours_port_by_port() {
    let mut range = service(
        "range",
        "2001:db8:1::1",
        FrontendKind::LoadBalancer,
        SourceNat::Masquerade,
    );
    range.frontends[0].last_port = 60;
    let filter = filter_of(&table_of(vec![range]), &dataplane::SourceNat::default());
    assert_eq!(filter.vips, BTreeSet::new());
    for (port, ours) in [(52, false), (53, true), (60, true), (61, false)] {
        let packet = udp("2001:db8:9::9", "2001:db8:1::1", Some((4000, port)));
        assert_eq!(filter.owns(&packet), ours, "{port}");
        let tcp = Headers {
            protocol: 6,
            ..packet
        };
        assert!(!filter.owns(&tcp));
    }
    assert!(filter.owns(&udp("2001:db8:9::9", "2001:db8:1::1", None)));
}

#[test]
fn every_address_of_a_service_network_is_ours_but_the_hosts() {
    let mut table = table_of(vec![]);
    table.networks.services = vec![
        "10.0.2.7/24".parse().unwrap(),
        "fd00::/112".parse().unwrap(),
    ];
    let filter = filter_of(&table, &dataplane::SourceNat::default());
    for (address, ours) in [
        ("10.0.2.9", true),
        ("10.0.2.1", false),
        ("10.0.3.1", false),
        ("fd00::77", true),
        ("fd00::1:0", false),
    ] {
        let source = if address.contains(':') {
            "2001:db8::9"
        } else {
            "198.51.100.9"
        };
        let ping = Headers {
            protocol: 1,
            ..udp(source, address, None)
        };
        assert_eq!(filter.owns(&ping), ours, "{address}");
    }
    assert_eq!(filter.vips, BTreeSet::new());
}

#[test]
fn packets_to_and_from_a_backend_are_ours_unless_the_host_talks_to_it() {
    let web = service(
        "a",
        "192.0.2.1",
        FrontendKind::ClusterIp,
        SourceNat::Preserve,
    );
    let filter = filter_of(&table_of(vec![web]), &dataplane::SourceNat::default());
    let (client, backend, host) = ("198.51.100.9", "10.0.2.10", "10.0.1.1");
    assert!(filter.owns(&udp(backend, client, Some((5353, 4000)))));
    assert!(filter.owns(&udp(client, backend, Some((4000, 5353)))));
    assert!(filter.owns(&udp(client, backend, None)));
    assert!(!filter.owns(&udp(client, backend, Some((4000, 5354)))));
    assert!(!filter.owns(&udp(backend, host, Some((5353, 4000)))));
    assert!(!filter.owns(&udp(host, backend, Some((4000, 5353)))));

    let quoted = udp(client, backend, Some((4000, 5353)));
    assert!(filter.owns_error(ip(client), &quoted));
    assert!(!filter.owns_error(ip(host), &udp(host, backend, Some((4000, 5353)))));
}

#[test]
fn a_backend_that_follows_the_clients_port_is_ours_with_every_port() {
    let mut service = service(
        "a",
        "192.0.2.1",
        FrontendKind::ClusterIp,
        SourceNat::Preserve,
    );
    service.backends[0].port = 0;
    let filter = filter_of(&table_of(vec![service]), &dataplane::SourceNat::default());
    for port in [1, 5353, u16::MAX] {
        assert!(filter.owns(&udp("10.0.2.10", "198.51.100.9", Some((port, 4000)))));
    }
}

#[test]
fn nothing_is_expected_back_from_a_backend_of_direct_return() {
    let mut service = service(
        "a",
        "192.0.2.1",
        FrontendKind::ClusterIp,
        SourceNat::Preserve,
    );
    service.forwarding = Forwarding::DirectReturn;
    let filter = filter_of(&table_of(vec![service]), &dataplane::SourceNat::default());
    assert_eq!(filter.backends, BTreeSet::new());
    assert_eq!(filter.vips, BTreeSet::from([ip("192.0.2.1")]));
}
