//! The gateway that the benchmarks run: a middling one.
//!
//! ```text
//!   clients 100.64.0.0/15 -- router 10.0.1.254 -- [gateway] -- 200 nodes 10.0.2.10 to .209
//! ```
//!
//! 100 Services with one Vip each and 10 backends each, which share the nodes and differ in their
//! ports.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use anyhow::Context;
use sluice_conf::settings::dataplane;
use sluice_conf::{
    Access, Backend, BackendState, Frontend, FrontendKind, Generation, Protocol, Service,
    ServiceName, ServiceTable, SourceNat,
};
use sluice_dataplane::io::InterfaceId;
use sluice_dataplane::neighbour::{Link, MacAddress, Network, Route, Routing};
use sluice_dataplane::service::{ServiceMap, Terms};

/// Services of the gateway.
pub const SERVICES: u16 = 100;

/// Backends of a Service.
pub const BACKENDS: u16 = 10;

/// The interface towards clients.
pub const CLIENT_SIDE: InterfaceId = InterfaceId(0);

/// The interface towards backends.
pub const BACKEND_SIDE: InterfaceId = InterfaceId(1);

/// TCP port of every Vip.
pub const FRONTEND_PORT: u16 = 80;

const NODES: u16 = 200;
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 254);

/// Ethernet address of the gateway on an interface.
pub const fn gateway_mac(interface: InterfaceId) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, interface.0 as u8])
}

/// Vip of a Service.
pub fn vip(service: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 0).to_bits() + u32::from(service))
}

fn node(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, 10 + (number % NODES) as u8)
}

/// Routes and resolved neighbours of the picture above.
pub fn network() -> Network {
    let link = |interface, address| Link {
        mac: gateway_mac(interface),
        v4: vec![address],
        mtu: 1500,
        up: true,
        ..Link::default()
    };
    let route = |destination, prefix_len, interface, gateway| Route {
        destination,
        prefix_len,
        interface,
        gateway,
        source: None,
        metric: 0,
    };
    let mac = |last| MacAddress([2, 0, 0, 1, 0, last]);
    let nodes = (0..NODES).map(|number| ((BACKEND_SIDE, node(number)), mac(number as u8)));
    let router = ((CLIENT_SIDE, ROUTER), mac(254));
    Network::new(
        vec![
            link(CLIENT_SIDE, Ipv4Addr::new(10, 0, 1, 1)),
            link(BACKEND_SIDE, Ipv4Addr::new(10, 0, 2, 1)),
        ],
        Routing::new(
            [
                route(Ipv4Addr::new(10, 0, 1, 0), 24, CLIENT_SIDE, None),
                route(Ipv4Addr::new(10, 0, 2, 0), 24, BACKEND_SIDE, None),
                route(Ipv4Addr::UNSPECIFIED, 0, CLIENT_SIDE, Some(ROUTER)),
            ],
            nodes.chain([router]).collect::<HashMap<_, _>>(),
        ),
        Routing::default(),
    )
}

/// A table of so many Services with [`BACKENDS`] backends each.
pub fn services(count: u16, source_nat: SourceNat) -> ServiceTable {
    ServiceTable {
        generation: Generation(1),
        services: (0..count).map(|n| service(n, source_nat)).collect(),
        ..ServiceTable::default()
    }
}

fn service(number: u16, source_nat: SourceNat) -> Service {
    let backend = |place| Backend {
        address: node(number * BACKENDS + place).into(),
        port: 8000 + number,
        weight: 1,
        state: BackendState::Active,
        local: false,
    };
    let name = ServiceName {
        namespace: "default".into(),
        // Of one length, so that the order of names is the order of numbers.
        name: format!("service-{number:05}"),
        port: String::new(),
        protocol: Protocol::Tcp,
    };
    let access = Access {
        source_nat,
        ..Access::default()
    };
    let kind = FrontendKind::LoadBalancer;
    Service {
        frontends: vec![Frontend::new(
            vip(number).into(),
            FRONTEND_PORT,
            kind,
            access,
        )],
        backends: (0..BACKENDS).map(backend).collect(),
        ..Service::new(name)
    }
}

/// The table compiled for one worker, beside `previous`.
///
/// # Errors
/// When the table is not usable, which is a mistake in this module.
pub fn compiled(table: ServiceTable, previous: &ServiceMap) -> anyhow::Result<ServiceMap> {
    let terms = Terms {
        workers: 1,
        reserved: dataplane::SourceNat::default().ports,
        limits: dataplane::Limits::default(),
    };
    ServiceMap::build(table, previous, &terms).context("compiling the Services")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_resolved_and_clients_are_behind_the_router() {
        let network = network();
        let map = compiled(
            services(SERVICES, SourceNat::Masquerade),
            &ServiceMap::default(),
        );
        for backend in map.unwrap().services().flat_map(|s| &s.backends) {
            let hop = network.way_to(backend.entry.address).unwrap();
            assert_eq!(hop.interface, BACKEND_SIDE);
            assert!(network.is_resolved(&hop));
        }
        let hop = network.next_hop(Ipv4Addr::new(100, 64, 3, 4)).unwrap();
        assert_eq!((hop.interface, hop.address), (CLIENT_SIDE, ROUTER));
    }
}
