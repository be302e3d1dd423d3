//! Slices before and after a change: who serves each port, how many of them are ready here, and
//! whether connections are left that lead to nobody.
//!
//! The cases have no Services, so each gets one that names all ports of its slices. UDP clients
//! speak to every port before and after the change: whoever is still there keeps its clients, and
//! nobody is sent to an endpoint that is gone, or refused where there is one by now. That there is
//! something to clean up at all means that other endpoints of a UDP port serve than before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_conf::{Frontend, Protocol, ServiceName, ServiceTable};
use sluice_controlplane::endpoints::{self, choice};
use sluice_controlplane::object::Lines;
use sluice_controlplane::rules::Rules;
use sluice_controlplane::service;

use super::cluster::Cluster;
use super::form::{Config, Slice, nullable};
use super::gateway::{Fate, Gateway};
use super::objects;
use super::probe;
use super::wire::Seen;

/// A change.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    #[serde(default)]
    config: Config,
    #[serde(default, deserialize_with = "nullable")]
    before: Vec<Slice>,
    #[serde(default, deserialize_with = "nullable")]
    after: Vec<Slice>,
    expect_before: BTreeMap<String, BTreeSet<End>>,
    expect_after: BTreeMap<String, BTreeSet<End>>,
    local_ready_endpoints: BTreeMap<String, usize>,
    stale_connection_cleanup_needed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct End {
    endpoint: SocketAddr,
    #[serde(default)]
    local: bool,
}

/// Judges a change.
pub fn judge(change: &Change, value: &Value) -> Result<(), String> {
    let all: Vec<Slice> = [&change.before, &change.after]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let place = Cluster::new(Vec::new(), &all, &change.config, value)?;
    let services = services(&all, &place)?;
    let cluster = |slices: &[Slice]| -> Result<Cluster, String> {
        let cluster = Cluster::new(services.clone(), slices, &change.config, value)?;
        let taken = place.taken.clone();
        Ok(Cluster { taken, ..cluster })
    };
    let (before, after) = (cluster(&change.before)?, cluster(&change.after)?);
    let tables = [before.compile().table, after.compile().table];
    same("before", &change.expect_before, &tables[0])?;
    same("after", &change.expect_after, &tables[1])?;
    counts(&change.local_ready_endpoints, &after)?;
    let needed = udp(&tables[0]) != udp(&tables[1]);
    if needed != change.stale_connection_cleanup_needed {
        return Err(format!(
            "expected staleConnectionCleanupNeeded to be {}, seen {needed}",
            !needed
        ));
    }
    nobody_is_lost(&place, &tables)
}

/// A Service for each that the slices name, with an address of both families.
fn services(slices: &[Slice], place: &Cluster) -> Result<Vec<Service>, String> {
    let mut ports: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for slice in slices {
        let named = ports.entry(&slice.service).or_default();
        named.extend(slice.ports.iter().map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            (port.name.as_deref().unwrap_or_default(), protocol)
        }));
    }
    // Two addresses are the gateway's, and the next is the client's.
    let free = |ipv4| place.free(ipv4, ports.len() + 3).split_off(3);
    let addresses = free(true).into_iter().zip(free(false));
    let services = ports
        .iter()
        .zip(addresses)
        .map(|((name, ports), (v4, v6))| {
            let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
            let ports = ports.iter().zip(1..).map(|((name, protocol), port)| {
            json!({"name": name, "port": port, "protocol": protocol})
        });
            let form = json!({
                "namespace": namespace,
                "name": name,
                "type": "ClusterIP",
                "clusterIP": v4,
                "clusterIPs": [v4, v6],
                "ports": ports.collect::<Vec<_>>(),
            });
            objects::service(&form).map(|(service, _)| service)
        });
    services.collect()
}

/// Exactly the expected endpoints serve each port.
fn same(
    when: &str,
    expected: &BTreeMap<String, BTreeSet<End>>,
    table: &ServiceTable,
) -> Result<(), String> {
    let serving = table.services.iter().filter(|s| !s.backends.is_empty());
    let seen: BTreeMap<String, BTreeSet<End>> = serving
        .map(|service| {
            let ends = service.backends.iter().map(|backend| End {
                endpoint: SocketAddr::new(backend.address, backend.port),
                local: backend.local,
            });
            (key(&service.name), ends.collect())
        })
        .collect();
    match seen == *expected {
        true => Ok(()),
        false => Err(format!("{when}: expected {expected:?}, seen {seen:?}")),
    }
}

/// `namespace/name:port/PROTOCOL`.
fn key(name: &ServiceName) -> String {
    let ServiceName {
        namespace,
        name,
        port,
        protocol,
    } = name;
    format!("{namespace}/{name}:{port}/{protocol}")
}

fn counts(expected: &BTreeMap<String, usize>, cluster: &Cluster) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for service in &cluster.services {
        let count = local_ready(service, &cluster.slices, &cluster.rules)?;
        let metadata = &service.metadata;
        let name = [&metadata.namespace, &metadata.name].map(|n| n.clone().unwrap_or_default());
        if count > 0 {
            seen.insert(name.join("/"), count);
        }
    }
    match seen == *expected {
        true => Ok(()),
        false => Err(format!(
            "expected localReadyEndpoints {expected:?}, seen {seen:?}"
        )),
    }
}

/// How many endpoints of a Service the health check node port tells.
pub fn local_ready(
    service: &Service,
    slices: &[EndpointSlice],
    rules: &Rules,
) -> Result<usize, String> {
    let metadata = &service.metadata;
    let [namespace, name] =
        [&metadata.namespace, &metadata.name].map(|n| n.as_deref().unwrap_or_default());
    let checked = service::check(namespace, name, service, &Lines::default());
    let refused = || {
        format!(
            "the control plane refuses the Service: {:?}",
            checked.issues
        )
    };
    let spec = checked.good.as_ref().ok_or_else(refused)?;
    let slices: Vec<endpoints::Slice> = slices
        .iter()
        .filter_map(|slice| {
            let metadata = &slice.metadata;
            let [namespace, name] =
                [&metadata.namespace, &metadata.name].map(|n| n.as_deref().unwrap_or_default());
            endpoints::check(namespace, name, slice).good
        })
        .filter(|slice| slice.namespace == namespace && slice.service.as_deref() == Some(name))
        .collect();
    let here = choice::Here {
        nodes: &rules.local_nodes,
        zone: None,
    };
    Ok(choice::local_ready(
        spec,
        &slices.iter().collect::<Vec<_>>(),
        here,
    ))
}

/// Who serves the UDP ports.
fn udp(table: &ServiceTable) -> BTreeMap<&ServiceName, BTreeSet<SocketAddr>> {
    let services = table.services.iter();
    let services = services.filter(|service| service.name.protocol == Protocol::Udp);
    let ends = services.map(|service| {
        let backends = service.backends.iter();
        let ends = backends.map(|backend| SocketAddr::new(backend.address, backend.port));
        (&service.name, ends.collect())
    });
    ends.collect()
}

/// UDP clients of all ports, before and after.
fn nobody_is_lost(place: &Cluster, tables: &[ServiceTable; 2]) -> Result<(), String> {
    let [before, after] = tables.each_ref().map(udp);
    let ends = || before.values().chain(after.values());
    let endpoints: BTreeSet<IpAddr> = ends().flatten().map(SocketAddr::ip).collect();
    // Each port is served at an address of either family.
    let connections: usize = ends().map(|ends| 2 * probe::enough(ends.len())).sum();
    let mut gateway = Gateway::new(place, endpoints, 2 * connections)?;
    gateway.apply(&tables[0])?;
    let mut held = Vec::new();
    for service in tables[0]
        .services
        .iter()
        .filter(|s| before.contains_key(&s.name))
    {
        for Frontend { address, port, .. } in &service.frontends {
            let client = place.free(address.is_ipv4(), 3).pop();
            let client = client.ok_or("there is no address left for a client")?;
            let front = SocketAddr::new(*address, *port);
            for port in probe::ports(probe::enough(service.backends.len())) {
                let client = SocketAddr::new(client, port);
                let end = meets(&mut gateway, client, front)?;
                held.push((&service.name, client, front, end));
            }
        }
    }
    gateway.apply(&tables[1])?;
    for (name, client, front, end) in held {
        let is_alike = |other: &&SocketAddr| other.is_ipv4() == front.is_ipv4();
        let ends: BTreeSet<&SocketAddr> = after
            .get(name)
            .into_iter()
            .flatten()
            .filter(is_alike)
            .collect();
        let seen = meets(&mut gateway, client, front)?;
        let is_right = match (&end, &seen) {
            (Some(end), seen) if ends.contains(end) => *seen == Some(*end),
            (_, Some(seen)) => ends.contains(seen),
            (_, None) => ends.is_empty(),
        };
        if !is_right {
            let name = key(name);
            return Err(format!(
                "a client of {name} met {end:?} and now meets {seen:?}; there are {ends:?}"
            ));
        }
    }
    Ok(())
}

/// Who gets a datagram; nobody when it is refused.
fn meets(
    gateway: &mut Gateway,
    client: SocketAddr,
    front: SocketAddr,
) -> Result<Option<SocketAddr>, String> {
    let fate = probe::fate(gateway, Protocol::Udp, client, front)?;
    match &fate {
        Fate::Sent(frames) => match frames.as_slice() {
            [Seen::Segment { to, .. }] => Ok(Some(*to)),
            [Seen::PortUnreachable { .. }] => Ok(None),
            _ => Err(format!(
                "expected {front} to serve or to refuse, seen: {fate}"
            )),
        },
        _ => Err(format!(
            "expected {front} to serve or to refuse, seen: {fate}"
        )),
    }
}
