use std::net::Ipv4Addr;

use sluice_conf::service::{
    Access, Backend, BackendState, Frontend, FrontendKind, Pool, Service, ServiceName, SourceNat,
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
        services,
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
