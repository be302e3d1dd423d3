//! Which endpoints are usable, cluster-wide and locally.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_conf::{Backend, BackendState};
use sluice_controlplane::compile::count_without_local;

use super::cluster::Cluster;
use super::flow::list;
use super::form::{Config, Endpoint, Slice, SlicePort, nullable};
use super::objects;
use crate::conformance::Outcome;

/// Endpoints and policies of a Service, and who is usable.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Categorised {
    node_zone: Option<String>,
    #[serde(default)]
    service: Policies,
    #[serde(default, deserialize_with = "nullable")]
    endpoints: Vec<Usable>,
    expect: Categories,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policies {
    #[serde(deserialize_with = "nullable")]
    internal_policy_local: bool,
    #[serde(deserialize_with = "nullable")]
    external_policy_local: bool,
    node_port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usable {
    endpoint: SocketAddr,
    #[serde(default, deserialize_with = "nullable")]
    local: bool,
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    zone_hints: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    node_hints: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Categories {
    cluster_endpoints: Option<BTreeSet<SocketAddr>>,
    local_endpoints: Option<BTreeSet<SocketAddr>>,
    all_endpoints: Option<BTreeSet<SocketAddr>>,
    has_any_endpoints: Option<bool>,
}

/// Judges who is usable. The table holds both sets for every Service; one that the Service does not
/// use, null in the file, is not looked at.
pub fn categorised(case: &Categorised, value: &Value) -> Outcome {
    let result = case.backends(value).and_then(|backends| {
        let of = |usable: &dyn Fn(&Backend) -> bool| -> BTreeSet<SocketAddr> {
            let usable = backends.iter().filter(|backend| usable(backend));
            usable.map(|b| SocketAddr::new(b.address, b.port)).collect()
        };
        let everywhere = of(&|backend| backend.state == BackendState::Active);
        let local = of(&|backend| backend.local);
        let expect = &case.expect;
        same("clusterEndpoints", &expect.cluster_endpoints, &everywhere)?;
        same("localEndpoints", &expect.local_endpoints, &local)?;
        let used = [
            (&expect.cluster_endpoints, &everywhere),
            (&expect.local_endpoints, &local),
        ];
        let used = used.into_iter().filter(|(used, _)| used.is_some());
        let all = used.flat_map(|(_, found)| found).copied().collect();
        same("allEndpoints", &expect.all_endpoints, &all)?;
        let any = !everywhere.is_empty() || !local.is_empty();
        match expect.has_any_endpoints {
            Some(expected) if expected != any => {
                Err(format!("expected hasAnyEndpoints {expected}, seen {any}"))
            }
            _ => Ok(()),
        }
    });
    result.into()
}

fn same(
    key: &str,
    expected: &Option<BTreeSet<SocketAddr>>,
    seen: &BTreeSet<SocketAddr>,
) -> Result<(), String> {
    match expected {
        Some(expected) if expected != seen => Err(format!(
            "expected {key} {}, seen {}",
            list(expected),
            list(seen)
        )),
        _ => Ok(()),
    }
}

const HERE: &str = "here";
const ELSEWHERE: &str = "elsewhere";

impl Categorised {
    fn backends(&self, value: &Value) -> Result<Vec<Backend>, String> {
        let config = Config {
            node_name: HERE.to_owned(),
            ..Config::default()
        };
        let mut cluster = Cluster::new(Vec::new(), &[], &config, value)?;
        let first = self.endpoints.first();
        let ipv4 = first.is_none_or(|usable| usable.endpoint.is_ipv4());
        let vip = cluster.free(ipv4, 1).pop();
        let service = objects::service(&self.service.form(vip))?.0;
        let slices = self.slices();
        let zone = self.node_zone.clone();
        cluster = Cluster::new(vec![service], &slices, &config, value)?;
        cluster.rules.zone = zone;
        let compiled = cluster.compile();
        let service = compiled.table.services.first();
        let refused = || format!("the Service is not served{}", compiled.remark);
        service
            .map(|service| service.backends.clone())
            .ok_or_else(refused)
    }

    /// A slice for each port and family.
    fn slices(&self) -> Vec<Slice> {
        let mut by_port: BTreeMap<(bool, u16), Vec<Endpoint>> = BTreeMap::new();
        for usable in &self.endpoints {
            let key = (usable.endpoint.is_ipv4(), usable.endpoint.port());
            by_port.entry(key).or_default().push(Endpoint {
                addresses: vec![usable.endpoint.ip().to_string()],
                node_name: Some(if usable.local { HERE } else { ELSEWHERE }.to_owned()),
                ready: usable.ready,
                serving: usable.serving,
                terminating: usable.terminating,
                zone_hints: usable.zone_hints.clone(),
                node_hints: usable.node_hints.clone(),
            });
        }
        let slice = |((_, port), endpoints)| slice(SERVICE, &[("", port)], endpoints);
        by_port.into_iter().map(slice).collect()
    }
}

const SERVICE: &str = "default/categorised";

impl Policies {
    fn form(&self, vip: Option<IpAddr>) -> Value {
        let policy = |local: bool| if local { "Local" } else { "Cluster" };
        json!({
            "namespace": "default",
            "name": "categorised",
            "type": if self.node_port.is_some() { "NodePort" } else { "ClusterIP" },
            "clusterIP": vip,
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": self.node_port}],
            "internalTrafficPolicy": policy(self.internal_policy_local),
            "externalTrafficPolicy": policy(self.external_policy_local),
        })
    }
}

fn slice(service: &str, ports: &[(&str, u16)], endpoints: Vec<Endpoint>) -> Slice {
    let port = |(name, port): &(&str, u16)| SlicePort {
        name: Some((*name).to_owned()),
        port: Some(i32::from(*port)),
        protocol: None,
    };
    Slice {
        service: service.to_owned(),
        _number: None,
        address_type: None,
        ports: ports.iter().map(port).collect(),
        endpoints,
    }
}

/// A Service with endpoints that may all be elsewhere.
#[derive(Debug, Deserialize)]
pub struct WithoutLocal {
    service: Value,
    #[serde(default)]
    config: Config,
    #[serde(default, deserialize_with = "nullable")]
    endpoints: Vec<Placed>,
    expect: Counts,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    address: String,
    node_name: Option<String>,
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    services_without_local_internal: usize,
    services_without_local_external: usize,
}

/// Judges the count of Services that lack local endpoints.
pub fn without_local(case: &WithoutLocal, value: &Value) -> Outcome {
    count(case, value).into()
}

fn count(case: &WithoutLocal, value: &Value) -> Result<(), String> {
    let (service, _) = objects::service(&case.service)?;
    let metadata = &service.metadata;
    let name = [&metadata.namespace, &metadata.name].map(|n| n.clone().unwrap_or_default());
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let ports = ports.into_iter().flatten().map(|port| SlicePort {
        name: port.name.clone(),
        port: Some(port.port),
        protocol: port.protocol.clone(),
    });
    let endpoints = case.endpoints.iter().map(|placed| Endpoint {
        addresses: vec![placed.address.clone()],
        node_name: placed.node_name.clone(),
        ready: placed.ready,
        serving: placed.serving,
        terminating: placed.terminating,
        ..Endpoint::default()
    });
    let slice = Slice {
        service: name.join("/"),
        _number: None,
        address_type: None,
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    };
    let mut cluster = Cluster::new(vec![service], &[slice], &case.config, value)?;
    if cluster.rules.node_addresses.is_empty() {
        // Where there is no node port there is no external policy to count.
        cluster.rules.node_addresses = cluster.free(true, 1);
        cluster.rules.node_addresses.extend(cluster.free(false, 1));
    }
    let compiled = cluster.compile();
    let seen = count_without_local(&compiled.table.services);
    let seen = (seen.internal, seen.external);
    let expect = &case.expect;
    let expected = (
        expect.services_without_local_internal,
        expect.services_without_local_external,
    );
    match seen == expected {
        true => Ok(()),
        false => Err(format!(
            "expected (internal, external) {expected:?}, seen {seen:?}{}",
            compiled.remark
        )),
    }
}
