//! What sluicectl is shown of the objects: rows made from a view, when somebody asks.

use std::collections::HashMap;
use std::time::Duration;

use sluice_conf::message::controlplane::environment::{Environment, Variable};
use sluice_conf::message::controlplane::{
    EventRow, FrontendRow, NodeRow, PodRow, PolicyRow, PoolRow, PortRow, ServiceDetail, ServiceRow,
};
use sluice_conf::{FrontendKind, ServiceTable};

use crate::engine::{Detail, Inventory, View};
use crate::env::{self, Announcements, NotYet, Workload};
use crate::index::Known;
use crate::kinds::probe::Question;
use crate::object::NamespacedName;
use crate::service::ServiceSpec;

mod endpoints;

pub use endpoints::endpoints;

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
        external_name: spec.external_name.clone(),
        cluster_ips: cluster.iter().map(|vip| vip.address).collect(),
        headless: spec.headless,
        external_ips: external.iter().map(|vip| vip.address).collect(),
        ports: spec.ports.iter().map(port).collect(),
        age_seconds: now.saturating_sub(known.first_seen).as_secs(),
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

/// What a workload is told of Services; `None` is known before every source has told all.
///
/// # Errors
/// The workload waits for what is not known yet.
pub fn environment(
    workload: &Workload<'_>,
    own: &[Variable],
    known: Option<&Announcements>,
) -> Result<Environment, NotYet> {
    let services = known.map(|known| known.services.as_slice());
    let there = known.is_some_and(|known| known.namespaces.contains(workload.namespace));
    Ok(Environment {
        namespace_exists: there,
        variables: env::environment(workload, own, services)?,
    })
}

/// One Service with its `events`.
pub fn detail(detail: Detail, events: Vec<EventRow>) -> ServiceDetail {
    let endpoints = endpoints(&detail.standings);
    ServiceDetail {
        // Objects of the API are maps with text keys; these always are JSON.
        manifest: serde_json::to_string(&*detail.service).unwrap_or_default(),
        endpoints: endpoints
            .into_iter()
            .flat_map(|row| row.endpoints)
            .collect(),
        pending: detail.pending,
        problems: detail.problems,
        events,
    }
}

/// The pools in the order of use.
pub fn pools(inventory: &Inventory) -> Vec<PoolRow> {
    let pools = inventory.pools.iter();
    pools
        .map(|usage| PoolRow {
            name: usage.pool.clone(),
            family: usage.family.to_string(),
            total: usage.total,
            used: usage.used as u64,
            auto_assign: usage.auto_assign,
            ranges: usage.ranges.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

/// Policies of `namespace`, or of all, sorted by namespace and name.
pub fn policies(inventory: &Inventory, namespace: Option<&str>) -> Vec<PolicyRow> {
    let wanted = |name: &NamespacedName| namespace.is_none_or(|only| only == name.namespace);
    let policies = inventory
        .policies
        .iter()
        .filter(|(name, _, _)| wanted(name));
    policies
        .map(|(name, policy, in_force)| PolicyRow {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            targets: policy.targets.clone(),
            in_force: in_force.clone(),
            probe: policy.probe.as_ref().map(|probe| asked(&probe.question)),
            fail_open_percent: policy.fail_open_percent,
        })
        .collect()
}

/// The Nodes, sorted by name.
pub fn nodes(inventory: &Inventory) -> Vec<NodeRow> {
    let nodes = inventory.nodes.iter();
    nodes
        .map(|(node, local)| NodeRow {
            name: node.name.to_string(),
            ready: node.ready,
            local: *local,
            zone: node.zone.as_deref().map(str::to_owned),
            addresses: node.addresses.to_vec(),
        })
        .collect()
}

/// Pods of `namespace`, or of all, sorted by namespace and name.
pub fn pods(inventory: &Inventory, namespace: Option<&str>) -> Vec<PodRow> {
    let pods = inventory.pods.iter();
    pods.filter(|pod| namespace.is_none_or(|only| only == &*pod.namespace))
        .map(|pod| PodRow {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            ready: pod.ready,
            terminating: pod.terminating,
            finished: pod.finished,
            addresses: pod.addresses.to_vec(),
            node: pod.node.as_deref().map(str::to_owned),
            labels: pod
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        })
        .collect()
}

/// What a probe asks, as a policy writes it.
fn asked(question: &Question) -> String {
    let kind = match question {
        Question::Tcp => "tcp",
        Question::Http { tls: false, .. } => "http",
        Question::Http { tls: true, .. } => "https",
        Question::Grpc { .. } => "grpc",
    };
    kind.to_owned()
}
