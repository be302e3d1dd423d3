//! Service tables as they come from the socket: refused or usable, never half of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use ipnet::IpNet;
use sluice_conf::codec::decode;
use sluice_conf::settings::dataplane::{Limits, PortRange};
use sluice_conf::{
    Access, Backend, BackendGone, BackendState, Forwarding, Frontend, FrontendKind, Generation,
    Networks, Ping, Pool, Protocol, Refusal, Service, ServiceName, ServiceTable, SourceNat,
    TableChange,
};
use sluice_dataplane::service::{Choice, Draft, MapError, ServiceMap, Target, Terms};

const LIMITS: Limits = Limits {
    services: 64,
    frontends: 256,
    backends: 256,
};

/// A table that is close to a valid one.
#[derive(Debug, Arbitrary)]
struct Likely {
    services: Vec<LikelyService>,
    networks: Vec<(u8, u8)>,
}

#[derive(Debug, Arbitrary)]
struct LikelyService {
    name: u8,
    protocol: u8,
    frontends: Vec<LikelyFrontend>,
    backends: Vec<LikelyBackend>,
    policies: [u8; 6],
    ranges: Vec<(u8, u8)>,
}

#[derive(Debug, Arbitrary)]
struct LikelyFrontend {
    address: u8,
    port: u8,
    span: u8,
    kind: u8,
    access: [u8; 3],
    guarded: bool,
}

#[derive(Debug, Arbitrary)]
struct LikelyBackend {
    address: u8,
    port: u8,
    weight: u8,
    flags: u8,
}

/// Takes the bytes for a table on the socket, and for one that is close to a valid one.
pub fn run(data: &[u8]) {
    if let Ok(table) = decode::<ServiceTable>(data) {
        build(table);
    }
    let Ok(likely) = Likely::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let table = likely.table();
    if let Ok(change) = decode::<TableChange>(data) {
        apply(change, &table);
    }
    build(table);
}

fn terms() -> Terms {
    Terms {
        workers: 2,
        reserved: PortRange {
            first: 16_384,
            last: 29_999,
        },
        limits: LIMITS,
    }
}

/// A change of a table comes to the same as the table that it makes, also to be refused.
fn apply(change: TableChange, base: &ServiceTable) {
    let nothing = ServiceMap::default();
    let Ok(map) = ServiceMap::build(base.clone(), &nothing, &terms()) else {
        return;
    };
    let drafted = Draft::by(change.clone(), &map);
    let changed = drafted.and_then(|draft| ServiceMap::compile(draft, &map, &terms()));
    let Ok(table) = change.apply(base) else {
        return assert!(matches!(changed, Err(MapError::Change(_))), "{changed:?}");
    };
    let whole = ServiceMap::build(table, &nothing, &terms());
    let tables = |map: Result<ServiceMap, MapError>| map.ok().map(|map| map.to_table());
    assert_eq!(tables(changed), tables(whole));
}

fn build(table: ServiceTable) {
    let terms = terms();
    let Ok(map) = ServiceMap::build(table.clone(), &ServiceMap::default(), &terms) else {
        return;
    };
    assert_eq!(map.to_table(), table);
    ensure_served(&map, &table);
    let again = ServiceMap::build(table.clone(), &map, &terms);
    match again {
        Ok(again) => assert_eq!(again.to_table(), table),
        Err(error) => unreachable!("accepted once and not again: {error}"),
    }
}

/// Every frontend is found, and what it chooses is a backend of its Service and family.
fn ensure_served(map: &ServiceMap, table: &ServiceTable) {
    for service in &table.services {
        for frontend in &service.frontends {
            let ports = [frontend.port, frontend.last_port];
            for port in ports {
                let protocol = service.name.protocol;
                let target = Target {
                    address: frontend.address,
                    port,
                    protocol,
                };
                let Some(served) = map.frontend(&target) else {
                    unreachable!("{} does not serve {target:?}", service.name);
                };
                if !frontend.is_range() {
                    assert_eq!(served.service.entry.name, service.name);
                }
                for pool in [Pool::Cluster, Pool::Local] {
                    let choice = served
                        .service
                        .choose(pool, frontend.address, u64::MAX, None);
                    if let Choice::Row(_, backend, _) = choice {
                        let is_v4 = backend.entry.address.is_ipv4();
                        assert_eq!(is_v4, frontend.address.is_ipv4(), "{target:?}");
                    }
                }
            }
        }
    }
}

impl Likely {
    fn table(&self) -> ServiceTable {
        let mut networks = Networks::default();
        for (address, bits) in &self.networks {
            networks.services.extend(net(*address, *bits));
        }
        ServiceTable {
            generation: Generation(1),
            networks,
            services: self
                .services
                .iter()
                .map(|service| Arc::new(service.service()))
                .collect(),
        }
    }
}

impl LikelyService {
    fn service(&self) -> Service {
        let [affinity, gone, refusal, ping, mss, direct] = self.policies;
        let mut service = Service::new(ServiceName {
            namespace: "n".into(),
            name: self.name.to_string(),
            port: String::new(),
            protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
                [usize::from(self.protocol) % 3],
        });
        service.frontends = self
            .frontends
            .iter()
            .map(LikelyFrontend::frontend)
            .collect();
        service.backends = self.backends.iter().map(LikelyBackend::backend).collect();
        service.source_ranges = self
            .ranges
            .iter()
            .filter_map(|(a, b)| net(*a, *b))
            .collect();
        service.affinity_seconds = (affinity > 127).then_some(u32::from(affinity));
        let drain = BackendGone::Drain {
            seconds: u32::from(gone),
        };
        service.backend_gone =
            [BackendGone::Keep, BackendGone::Reset, drain][usize::from(gone) % 3];
        service.refusal =
            [Refusal::Icmp, Refusal::TcpReset, Refusal::Drop][usize::from(refusal) % 3];
        service.ping = [Ping::Never, Ping::Ready, Ping::Always][usize::from(ping) % 3];
        service.mss_clamp = (mss > 127).then_some(u16::from(mss) * 8);
        service.forwarding = [Forwarding::Nat, Forwarding::DirectReturn][usize::from(direct > 200)];
        service
    }
}

impl LikelyFrontend {
    fn frontend(&self) -> Frontend {
        use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort};
        let kind = [ClusterIp, LoadBalancer, ExternalIp, NodePort][usize::from(self.kind) % 4];
        let [pods, nodes, others] = self.access.map(access);
        let port = u16::from(self.port);
        Frontend {
            last_port: port + u16::from(self.span) / 16,
            pods,
            nodes,
            others,
            guarded: self.guarded,
            ..Frontend::new(address(self.address), port, kind, Access::default())
        }
    }
}

impl LikelyBackend {
    fn backend(&self) -> Backend {
        Backend {
            address: address(self.address),
            port: u16::from(self.port),
            weight: u16::from(self.weight) * 4,
            state: [BackendState::Active, BackendState::Draining][usize::from(self.flags & 1)],
            local: self.flags & 2 != 0,
        }
    }
}

fn access(bits: u8) -> Access {
    Access {
        pool: [Pool::Cluster, Pool::Local][usize::from(bits & 1)],
        source_nat: [SourceNat::Masquerade, SourceNat::Preserve][usize::from(bits >> 1 & 1)],
    }
}

fn address(number: u8) -> IpAddr {
    match number {
        0 => Ipv4Addr::UNSPECIFIED.into(),
        1 => Ipv6Addr::LOCALHOST.into(),
        2..128 => Ipv4Addr::new(10, 0, 0, number).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn net(number: u8, bits: u8) -> Option<IpNet> {
    IpNet::new(address(number), bits).ok()
}
