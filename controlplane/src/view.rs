//! What sluicectl is shown of the objects: rows made from a view, when somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use sluice_conf::message::controlplane::{
    EndpointRow, EndpointsRow, FrontendRow, PortRow, ServiceRow,
};
use sluice_conf::{FrontendKind, Protocol, ServiceTable};

use crate::endpoints::Slice;
use crate::engine::View;
use crate::index::Known;
use crate::service::{ServiceSpec, ServiceType};

type Key<'a> = (&'a str, &'a str);

/// Services of `namespace`, or of all, sorted by namespace and name.
pub fn services(
    view: &View,
    table: Option<&ServiceTable>,
    namespace: Option<&str>,
    now: Duration,
) -> Vec<ServiceRow> {
    let frontends = frontends(table, namespace);
    let wanted = |spec: &ServiceSpec| namespace.is_none_or(|only| only == spec.namespace);
    let known = view.services.iter().filter(|known| wanted(&known.object));
    known
        .map(|known| {
            let key = (known.object.namespace.as_str(), known.object.name.as_str());
            let frontends = frontends.get(&key).cloned().unwrap_or_default();
            service(known, frontends, now)
        })
        .collect()
}

fn service(known: &Known<ServiceSpec>, frontends: Vec<FrontendRow>, now: Duration) -> ServiceRow {
    let spec = &known.object;
    let (cluster, external): (Vec<_>, Vec<_>) = spec
        .vips
        .iter()
        .partition(|vip| vip.kind == FrontendKind::ClusterIp);
    let port = |port: &crate::service::ServicePort| PortRow {
        name: port.name.clone(),
        port: port.port,
        node_port: port.node_port,
        protocol: port.protocol.to_string(),
    };
    ServiceRow {
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        kind: spec.kind.as_str().to_owned(),
        cluster_ips: cluster.iter().map(|vip| vip.address).collect(),
        headless: spec.headless,
        external_ips: external.iter().map(|vip| vip.address).collect(),
        ports: spec.ports.iter().map(port).collect(),
        age_seconds: age(known.first_seen, now),
        affinity_seconds: spec.affinity_seconds,
        source_ranges: spec.source_ranges.clone(),
        internal_traffic_policy: spec.internal,
        external_traffic_policy: spec.external,
        frontends,
    }
}

fn frontends<'a>(
    table: Option<&'a ServiceTable>,
    namespace: Option<&str>,
) -> HashMap<Key<'a>, Vec<FrontendRow>> {
    let mut rows: HashMap<Key<'a>, Vec<FrontendRow>> = HashMap::new();
    for service in table.into_iter().flat_map(|table| &table.services) {
        let name = &service.name;
        if namespace.is_some_and(|only| only != name.namespace) {
            continue;
        }
        let of_service = rows.entry((&name.namespace, &name.name)).or_default();
        of_service.extend(service.frontends.iter().map(|frontend| FrontendRow {
            address: frontend.address,
            port: frontend.port,
            last_port: frontend.last_port,
            protocol: name.protocol,
            kind: frontend.kind,
            pool: frontend.others.pool,
        }));
    }
    rows
}

/// Endpoints of the Services of `namespace`, or of all, sorted by namespace, Service and address.
pub fn endpoints(view: &View, namespace: Option<&str>, now: Duration) -> Vec<EndpointsRow> {
    let mut slices: BTreeMap<Key<'_>, Vec<&Known<Slice>>> = BTreeMap::new();
    for known in &view.services {
        let spec = &known.object;
        if spec.kind != ServiceType::ExternalName {
            slices.entry((&spec.namespace, &spec.name)).or_default();
        }
    }
    for known in &view.slices {
        if let Some(service) = &known.object.service {
            let key = (known.object.namespace.as_str(), service.as_str());
            slices.entry(key).or_default().push(known);
        }
    }
    let wanted = |key: &Key<'_>| namespace.is_none_or(|only| only == key.0);
    let ages: HashMap<Key<'_>, Duration> = view
        .services
        .iter()
        .map(|s| {
            (
                (s.object.namespace.as_str(), s.object.name.as_str()),
                s.first_seen,
            )
        })
        .collect();
    slices
        .into_iter()
        .filter(|(key, _)| wanted(key))
        .map(|(key, slices)| {
            let first = slices.iter().map(|slice| slice.first_seen).min();
            let first = first.or_else(|| ages.get(&key).copied());
            EndpointsRow {
                namespace: key.0.to_owned(),
                service: key.1.to_owned(),
                endpoints: rows(&slices),
                age_seconds: age(first.unwrap_or(now), now),
            }
        })
        .collect()
}

fn rows(slices: &[&Known<Slice>]) -> Vec<EndpointRow> {
    let mut rows: BTreeMap<(SocketAddr, &str, Protocol), EndpointRow> = BTreeMap::new();
    for slice in slices {
        for port in &slice.object.ports {
            for endpoint in &slice.object.endpoints {
                let address = SocketAddr::new(endpoint.address, port.port);
                let key = (address, port.name.as_str(), port.protocol);
                rows.entry(key).or_insert_with(|| EndpointRow {
                    address: endpoint.address,
                    port: port.port,
                    port_name: port.name.clone(),
                    protocol: port.protocol.to_string(),
                    ready: endpoint.conditions.ready,
                    serving: endpoint.conditions.serving,
                    terminating: endpoint.conditions.terminating,
                    node: endpoint.node.clone(),
                    weight: endpoint.weight,
                });
            }
        }
    }
    rows.into_values().collect()
}

fn age(first_seen: Duration, now: Duration) -> u64 {
    now.saturating_sub(first_seen).as_secs()
}
