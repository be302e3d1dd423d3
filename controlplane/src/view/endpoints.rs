//! Rows of endpoints: what their slices say, and what the gateway makes of it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::Protocol;
use sluice_conf::message::controlplane::{EndpointRow, EndpointsRow, VerdictRow};

use crate::endpoints::{Endpoint, Slice, SlicePort};
use crate::engine::{self, Standing, Standings};
use crate::health::Judged;

/// The endpoints, sorted by namespace, Service and address.
pub fn endpoints(standings: &Standings) -> Vec<EndpointsRow> {
    let now = standings.moment.now;
    let services = standings.services.iter();
    services
        .map(|standing| EndpointsRow {
            namespace: standing.service.namespace.clone(),
            service: standing.service.name.clone(),
            endpoints: rows(standing, standings),
            age_seconds: now.saturating_sub(standing.first_seen).as_secs(),
        })
        .collect()
}

fn rows(standing: &Standing, standings: &Standings) -> Vec<EndpointRow> {
    let mut rows: BTreeMap<(SocketAddr, &str, Protocol), EndpointRow> = BTreeMap::new();
    for (written, made) in &standing.slices {
        let made = by_address(written, made.as_ref());
        for port in &written.ports {
            for endpoint in &written.endpoints {
                let address = SocketAddr::new(endpoint.address, port.port);
                let key = (address, port.name.as_str(), port.protocol);
                let made = made.get(&endpoint.address).copied();
                rows.entry(key)
                    .or_insert_with(|| row(endpoint, port, made, standing, standings));
            }
        }
    }
    rows.into_values().collect()
}

/// The endpoints of a slice as they serve.
fn by_address<'a>(
    written: &'a Arc<Slice>,
    made: Option<&'a Slice>,
) -> HashMap<IpAddr, &'a Endpoint> {
    let endpoints = &made.unwrap_or(written).endpoints;
    endpoints.iter().map(|e| (e.address, e)).collect()
}

fn row(
    written: &Endpoint,
    port: &SlicePort,
    made: Option<&Endpoint>,
    standing: &Standing,
    standings: &Standings,
) -> EndpointRow {
    let address = SocketAddr::new(written.address, port.port);
    let namespace = &standing.service.namespace;
    let (drains, moment) = (&standings.drains, standings.moment);
    EndpointRow {
        address: written.address,
        port: port.port,
        port_name: port.name.clone(),
        protocol: port.protocol.to_string(),
        ready: written.conditions.ready,
        serving: written.conditions.serving,
        terminating: written.conditions.terminating,
        node: written.node.clone(),
        zone: written.zone.clone(),
        pod: written.pod.clone(),
        weight: made.filter(|e| e.conditions.ready).map_or(0, |e| e.weight),
        verdict: verdict(&standing.verdicts, address, moment.now),
        drain: drains
            .stage(namespace, written, moment.unix)
            .map(engine::stage),
    }
}

/// The verdict on an endpoint at a port, or at another of its ports.
fn verdict(verdicts: &[Judged], address: SocketAddr, now: Duration) -> Option<VerdictRow> {
    let exact = verdicts.iter().find(|j| j.target.address == address);
    let mut of_address = verdicts
        .iter()
        .filter(|j| j.target.address.ip() == address.ip());
    let verdict = &exact.or_else(|| of_address.next())?.verdict;
    Some(VerdictRow {
        healthy: verdict.healthy,
        reason: verdict.reason.to_string(),
        since_seconds: now.saturating_sub(verdict.since).as_secs(),
    })
}
