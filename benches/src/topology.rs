//! The gateway that the benchmarks run: a middling one, of both families.
//!
//! ```text
//!   clients 100.64.0.0/15, 2001:db8:c::/48           200 nodes 10.0.2.10 to .209,
//!          '-- router 10.0.1.254, fe80::fe -- [gateway] -- 2001:db8:2::a to ::d1
//! ```
//!
//! 100 Services of each family with one Vip each and 10 backends each, which share the nodes and
//! differ in their ports.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Context;
use sluice_conf::settings::dataplane::{self, PortRange};
use sluice_conf::{
    Access, Backend, BackendState, Frontend, FrontendKind, Generation, Protocol, Service,
    ServiceName, ServiceTable, SourceNat,
};
use sluice_dataplane::io::InterfaceId;
use sluice_dataplane::neighbour::{Link, MacAddress, Network, Route, Routing};
use sluice_dataplane::service::{ServiceMap, Terms};

use crate::traffic::Numbered;

/// Services of the gateway, of each family.
pub const SERVICES: u16 = 100;

/// Backends of a Service.
pub const BACKENDS: u16 = 10;

/// The interface towards clients.
pub const CLIENT_SIDE: InterfaceId = InterfaceId(0);

/// The interface towards backends.
pub const BACKEND_SIDE: InterfaceId = InterfaceId(1);

/// TCP port of every Vip.
pub const FRONTEND_PORT: u16 = 80;

/// Source ports of masqueraded connections: with ten million connections to 1,000 backends one in
/// five is taken. The range that the daemon ships would be three quarters full.
pub const MASQUERADE_PORTS: PortRange = PortRange {
    first: 16_384,
    last: 65_535,
};

const NODES: u16 = 200;
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 254);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);

/// Ethernet address of the gateway on an interface.
pub const fn gateway_mac(interface: InterfaceId) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, interface.0 as u8])
}

/// Routes and resolved neighbours of the picture above.
pub fn network() -> Network {
    let link = |interface, v4, v6| Link {
        mac: gateway_mac(interface),
        v4: vec![v4],
        v6: vec![v6],
        mtu: 1500,
        up: true,
        ..Link::default()
    };
    let own6 = |net| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, 1);
    Network::new(
        vec![
            link(CLIENT_SIDE, Ipv4Addr::new(10, 0, 1, 1), own6(1)),
            link(BACKEND_SIDE, Ipv4Addr::new(10, 0, 2, 1), own6(2)),
        ],
        routing(ROUTER, (Ipv4Addr::new(10, 0, 2, 0), 24)),
        routing(
            ROUTER6,
            (Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0), 64),
        ),
    )
}

/// Nodes on the link, everybody else behind the router.
fn routing<A: Numbered>(router: A, (net, prefix_len): (A, u8)) -> Routing<A> {
    let route = |destination, prefix_len, interface, gateway| Route {
        destination,
        prefix_len,
        interface,
        gateway,
        source: None,
        metric: 0,
    };
    let mac = |last| MacAddress([2, 0, 0, 1, 0, last]);
    let nodes = (0..NODES).map(|number| ((BACKEND_SIDE, A::node(number)), mac(number as u8)));
    let neighbours = nodes.chain([((CLIENT_SIDE, router), mac(254))]);
    Routing::new(
        [
            route(net, prefix_len, BACKEND_SIDE, None),
            route(A::UNSPECIFIED, 0, CLIENT_SIDE, Some(router)),
        ],
        neighbours.collect::<HashMap<_, _>>(),
    )
}

/// A table of so many Services of one family with [`BACKENDS`] backends each.
pub fn services<A: Numbered>(count: u16, source_nat: SourceNat) -> ServiceTable {
    ServiceTable {
        generation: Generation(1),
        services: (0..count)
            .map(|n| Arc::new(service::<A>(n, source_nat)))
            .collect(),
        ..ServiceTable::default()
    }
}

/// The table of the gateway: [`SERVICES`] of each family.
pub fn both_families(source_nat: SourceNat) -> ServiceTable {
    let mut table = services::<Ipv4Addr>(SERVICES, source_nat);
    let six = services::<Ipv6Addr>(SERVICES, source_nat);
    table.services.extend(six.services);
    table
}

fn service<A: Numbered>(number: u16, source_nat: SourceNat) -> Service {
    let backend = |place| Backend {
        address: A::node(number % (NODES / BACKENDS) * BACKENDS + place).into(),
        port: 8000 + number,
        weight: 1,
        state: BackendState::Active,
        local: false,
    };
    let name = ServiceName {
        namespace: "default".into(),
        // Of one length, so that the order of names is the order of numbers.
        name: format!("{}-{number:05}", A::NAME.to_lowercase()),
        port: String::new(),
        protocol: Protocol::Tcp,
    };
    let access = Access {
        source_nat,
        ..Access::default()
    };
    let kind = FrontendKind::LoadBalancer;
    let mut backends: Vec<Backend> = (0..BACKENDS).map(backend).collect();
    backends.sort_by_key(|backend| backend.address);
    let vip = A::vip(number).into();
    Service {
        frontends: vec![Frontend::new(vip, FRONTEND_PORT, kind, access)],
        backends,
        ..Service::new(name)
    }
}

/// The table compiled for so many workers, beside `previous`.
///
/// # Errors
/// When the table is not usable, which is a mistake in this module.
pub fn compiled(
    table: ServiceTable,
    previous: &ServiceMap,
    workers: u16,
) -> anyhow::Result<ServiceMap> {
    ServiceMap::build(table, previous, &terms(workers)).context("compiling the Services")
}

/// What the settings say about tables, for so many workers.
pub fn terms(workers: u16) -> Terms {
    Terms {
        workers,
        reserved: MASQUERADE_PORTS,
        limits: dataplane::Limits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_resolved_and_clients_are_behind_the_router() {
        let network = network();
        let table = both_families(SourceNat::Masquerade);
        let map = compiled(table, &ServiceMap::default(), 1).unwrap();
        let backends: Vec<_> = map.services().flat_map(|s| &s.backends).collect();
        assert_eq!(backends.len(), 2 * usize::from(SERVICES * BACKENDS));
        for backend in backends {
            let hop = network.way_to(backend.entry.address).unwrap();
            assert_eq!(hop.interface, BACKEND_SIDE);
            assert!(network.is_resolved(&hop));
        }
        let hop = network.next_hop(Ipv4Addr::client(77)).unwrap();
        assert_eq!((hop.interface, hop.address), (CLIENT_SIDE, ROUTER));
        let hop = network.next_hop(Ipv6Addr::client(77)).unwrap();
        assert_eq!((hop.interface, hop.address), (CLIENT_SIDE, ROUTER6));
    }

    #[test]
    fn a_table_of_ten_thousand_services_is_usable() {
        let table = services::<Ipv4Addr>(10_000, SourceNat::Masquerade);
        let backends: usize = table.services.iter().map(|s| s.backends.len()).sum();
        assert_eq!(backends, 100_000);
        table.validate().unwrap();
    }
}
