//! What the dataplane is told: which addresses it handles, and how they are spelled.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use sluice_conf::{FrontendKind, Protocol, ServiceTable};

use super::cluster::{Cluster, Compiled};
use super::form::{Config, Listed, Slice, nullable, protocol};
use super::gateway::{Fate, Gateway};
use super::{objects, probe};
use crate::conformance::Outcome;

/// A Service with its slices, and what is expected of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact<T> {
    service: Value,
    #[serde(default)]
    config: Config,
    #[serde(default, deserialize_with = "nullable")]
    endpoint_slices: Vec<Slice>,
    expect: T,
}

impl<T> Fact<T> {
    fn cluster(&self, value: &Value) -> Result<Cluster, String> {
        let (service, _) = objects::service(&self.service)?;
        Cluster::new(vec![service], &self.endpoint_slices, &self.config, value)
    }
}

/// Whether an address is the dataplane's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    address: IpAddr,
    #[serde(deserialize_with = "protocol")]
    protocol: Protocol,
    port: u16,
    handled_by_dataplane: bool,
}

/// How values are spelled in the table.
#[derive(Debug, Deserialize)]
pub struct Spelled {
    #[serde(default, rename = "clusterIP")]
    cluster_ip: Listed<IpAddr>,
    #[serde(default, rename = "loadBalancerIP")]
    load_balancer_ip: Listed<IpAddr>,
    #[serde(default, rename = "externalIP")]
    external_ip: Listed<IpAddr>,
    #[serde(default, rename = "sourceRange")]
    source_range: Listed<IpNet>,
    #[serde(default)]
    endpoint: Listed<SocketAddr>,
}

/// Judges whether the filter and the engine take an address for theirs.
pub fn handled(fact: &Fact<Handled>, value: &Value) -> Outcome {
    let result = fact.cluster(value).and_then(|cluster| {
        let compiled = cluster.compile();
        is_handled(&fact.expect, &cluster, &compiled)
            .map_err(|error| format!("{error}{}", compiled.remark))
    });
    result.into()
}

fn is_handled(expect: &Handled, cluster: &Cluster, compiled: &Compiled) -> Result<(), String> {
    let front = SocketAddr::new(expect.address, expect.port);
    let service = compiled.at(front, expect.protocol);
    let backends = compiled.table.services.iter().flat_map(|s| &s.backends);
    let endpoints = backends.map(|backend| backend.address).collect();
    let mut gateway = Gateway::new(cluster, endpoints, 64)?;
    gateway.apply(&compiled.table)?;
    let client = cluster.free(front.is_ipv4(), 3).pop();
    let client = client.ok_or("there is no address left for a client")?;
    let client = SocketAddr::new(client, probe::FIRST_PORT);
    let has_backend = service.is_some_and(|service| !service.backends.is_empty());
    match (expect.handled_by_dataplane, service) {
        (false, Some(service)) => Err(format!("expected no Service there, seen {}", service.name)),
        (true, None) => Err(format!("expected a Service at {front}, seen none")),
        (true, Some(_)) if has_backend => {
            probe::converse(&mut gateway, expect.protocol, client, front).map(|_| ())
        }
        (true, Some(_)) => probe::refused(&mut gateway, expect.protocol, client, front),
        (false, None) => match probe::fate(&mut gateway, expect.protocol, client, front)? {
            Fate::Left | Fate::Returned => Ok(()),
            other => Err(format!(
                "expected {front} to be left to the kernel, seen: {other}"
            )),
        },
    }
}

/// Judges how values of a Service and its slices come out.
pub fn normalised(fact: &Fact<Spelled>, value: &Value) -> Outcome {
    let result = fact.cluster(value).and_then(|cluster| {
        let Compiled { table, remark } = cluster.compile();
        is_spelled(&fact.expect, &table).map_err(|error| format!("{error}{remark}"))
    });
    result.into()
}

fn is_spelled(expect: &Spelled, table: &ServiceTable) -> Result<(), String> {
    let frontends = table.services.iter().flat_map(|service| &service.frontends);
    let of = |kind: FrontendKind| -> Vec<IpAddr> {
        let frontends = frontends.clone().filter(|frontend| frontend.kind == kind);
        frontends.map(|frontend| frontend.address).collect()
    };
    let ranges = table
        .services
        .iter()
        .flat_map(|service| &service.source_ranges);
    let backends = table.services.iter().flat_map(|service| &service.backends);
    let ends = backends.map(|backend| SocketAddr::new(backend.address, backend.port));
    all_in(
        "clusterIP",
        &expect.cluster_ip,
        &of(FrontendKind::ClusterIp),
    )?;
    all_in(
        "loadBalancerIP",
        &expect.load_balancer_ip,
        &of(FrontendKind::LoadBalancer),
    )?;
    all_in(
        "externalIP",
        &expect.external_ip,
        &of(FrontendKind::ExternalIp),
    )?;
    all_in(
        "sourceRange",
        &expect.source_range,
        &ranges.copied().collect::<Vec<_>>(),
    )?;
    all_in("endpoint", &expect.endpoint, &ends.collect::<Vec<_>>())
}

fn all_in<T: PartialEq + std::fmt::Display + std::fmt::Debug>(
    key: &str,
    expected: &Listed<T>,
    seen: &[T],
) -> Result<(), String> {
    let mut expected = expected.all().iter();
    match expected.find(|value| !seen.contains(value)) {
        None => Ok(()),
        Some(value) => Err(format!("expected {key} {value}, seen {seen:?}")),
    }
}
