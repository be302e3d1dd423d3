//! One flow: new connections of one client to one front.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use sluice_dataplane::verdict::DropReason;

use super::cluster::{Cluster, Compiled};
use super::form::{Action, Flow};
use super::gateway::{Fate, Gateway};
use super::probe::{self, Conversation};
use crate::conformance::Outcome;

/// Connections that are tried where all must meet the same fate.
const FEW: usize = 4;

/// Clients for each endpoint that leave nobody out by chance: `n * exp(-16)`.
const FEWEST: usize = 16;

/// Drops that answer the question whether somebody serves the packet; any other reason says that
/// something is wrong with the packet or the gateway.
const BY_POLICY: [DropReason; 4] = [
    DropReason::SourceNotAllowed,
    DropReason::NoLocalBackend,
    DropReason::Unallocated,
    DropReason::Refused,
];

/// Judges a flow.
pub fn judge(flow: &Flow, cluster: &Cluster) -> Outcome {
    if flow.src.is_ipv4() != flow.dst.is_ipv4() {
        let error = format!("{} and {} are of two families", flow.src, flow.dst);
        return Outcome::Failed(error);
    }
    if flow.dst.is_loopback() && flow.expect.action == Action::Dnat {
        let why = "what a node sends to its own loopback address never reaches a gateway";
        return Outcome::NotApplicable(why.to_owned());
    }
    let compiled = cluster.compile();
    let result = play(flow, cluster, &compiled);
    result
        .map_err(|error| format!("{} {}: {error}{}", flow.proto, ends(flow), compiled.remark))
        .into()
}

fn ends(flow: &Flow) -> String {
    format!("{} to {}", flow.src, front(flow))
}

fn front(flow: &Flow) -> SocketAddr {
    SocketAddr::new(flow.dst, flow.port)
}

fn play(flow: &Flow, cluster: &Cluster, compiled: &Compiled) -> Result<(), String> {
    let endpoints = compiled.table.services.iter().flat_map(|s| &s.backends);
    let endpoints = endpoints.map(|backend| backend.address);
    let expected = flow.expect.endpoints.iter().map(SocketAddr::ip);
    let count = probe::enough(flow.expect.endpoints.len());
    let mut gateway = Gateway::new(cluster, endpoints.chain(expected).collect(), 2 * count)?;
    gateway.apply(&compiled.table)?;
    match flow.expect.action {
        Action::Dnat => translated(flow, cluster, compiled, &mut gateway),
        Action::Drop => every_port(flow, |client| {
            match probe::fate(&mut gateway, flow.proto, client, front(flow))? {
                Fate::Dropped(reason) if BY_POLICY.contains(&reason) => Ok(()),
                other => Err(format!("expected a drop by policy, seen: {other}")),
            }
        }),
        Action::Reject => every_port(flow, |client| {
            probe::refused(&mut gateway, flow.proto, client, front(flow))
        }),
        Action::Accept | Action::NotHandled => every_port(flow, |client| {
            not_taken(flow, compiled, &mut gateway, client)
        }),
    }
}

fn every_port(
    flow: &Flow,
    mut judge: impl FnMut(SocketAddr) -> Result<(), String>,
) -> Result<(), String> {
    let mut ports = probe::ports(FEW);
    ports.try_for_each(|port| judge(SocketAddr::new(flow.src, port)))
}

/// The frame must not be taken from the kernel, and no Service may be programmed there. That is
/// delivery, too: a packet for the node that the filter passes goes on to the node's own sockets,
/// as without Sluice.
fn not_taken(
    flow: &Flow,
    compiled: &Compiled,
    gateway: &mut Gateway,
    client: SocketAddr,
) -> Result<(), String> {
    if let Some(service) = compiled.at(front(flow), flow.proto) {
        return Err(format!("expected no Service there, seen {}", service.name));
    }
    match probe::fate(gateway, flow.proto, client, front(flow))? {
        Fate::Left | Fate::Returned => Ok(()),
        other => Err(format!(
            "expected it to be left to the kernel, seen: {other}"
        )),
    }
}

/// New connections must reach all the expected endpoints and nothing else, and be answered.
fn translated(
    flow: &Flow,
    cluster: &Cluster,
    compiled: &Compiled,
    gateway: &mut Gateway,
) -> Result<(), String> {
    let expected: BTreeSet<SocketAddr> = flow.expect.endpoints.iter().copied().collect();
    if expected.is_empty() {
        return Err("action dnat needs expect.endpoints".to_owned());
    }
    let count = probe::enough(expected.len());
    let mut reached = BTreeSet::new();
    let clients = clients(flow, cluster, compiled, count);
    // Of clients that stay with their endpoint there may be too few to meet everybody.
    let are_enough = clients.len() >= FEWEST * expected.len();
    for client in clients {
        let seen = probe::converse(gateway, flow.proto, client, front(flow))?;
        if !expected.contains(&seen.endpoint) {
            return Err(format!(
                "expected one of {}, seen {}",
                list(&expected),
                seen.endpoint
            ));
        }
        masqueraded(flow, gateway, &seen)?;
        reached.insert(seen.endpoint);
    }
    match reached == expected || !are_enough {
        true => Ok(()),
        false => Err(format!(
            "expected all of {}, seen only {}",
            list(&expected),
            list(&reached)
        )),
    }
}

/// Clients of the connections: one of many ports; or where clients stay with their endpoint, many
/// of the same networks, as far as there are.
fn clients(flow: &Flow, cluster: &Cluster, compiled: &Compiled, count: usize) -> Vec<SocketAddr> {
    let service = compiled.at(front(flow), flow.proto);
    let stays = service.is_some_and(|service| service.affinity_seconds.is_some());
    if !stays {
        let ports = probe::ports(count);
        return ports.map(|port| SocketAddr::new(flow.src, port)).collect();
    }
    let networks = networks(cluster, compiled);
    let is_taken = |address: &IpAddr| cluster.taken.contains(address);
    let like = probe::clients_like(flow.src, &networks, is_taken).take(count);
    like.map(|ip| SocketAddr::new(ip, probe::FIRST_PORT))
        .collect()
}

/// Networks that tell clients apart.
pub fn networks(cluster: &Cluster, compiled: &Compiled) -> Vec<IpNet> {
    let networks = &cluster.rules.networks;
    let ranges = compiled
        .table
        .services
        .iter()
        .flat_map(|s| &s.source_ranges);
    let all = [&networks.pods, &networks.nodes, &networks.services];
    all.into_iter().flatten().chain(ranges).copied().collect()
}

/// The source address is rewritten to the gateway's, or kept with its port. Where a client is one
/// of several endpoints it must be masqueraded towards itself whatever is expected, or it would
/// answer itself directly, and an expected masquerade says no more than that.
fn masqueraded(flow: &Flow, gateway: &Gateway, seen: &Conversation) -> Result<(), String> {
    let itself = seen.endpoint.ip() == flow.src;
    let ends = &flow.expect.endpoints;
    let among = ends.len() > 1 && ends.iter().any(|end| end.ip() == flow.src);
    let wanted = match flow.expect.masquerade {
        _ if among && itself => true,
        None => return Ok(()),
        Some(true) if among => return Ok(()),
        Some(wanted) => wanted,
    };
    let (source, client) = (seen.source, seen.client);
    match wanted {
        true if !gateway.has(source.ip()) => Err(format!(
            "expected masquerade towards {}, seen source {source}",
            seen.endpoint
        )),
        false if source != client => Err(format!(
            "expected source {client} to be kept towards {}, seen {source}",
            seen.endpoint
        )),
        _ => Ok(()),
    }
}

/// Ends as a list for a reader.
pub fn list(ends: &BTreeSet<SocketAddr>) -> String {
    let ends: Vec<String> = ends.iter().map(SocketAddr::to_string).collect();
    match ends.is_empty() {
        true => "nobody".to_owned(),
        false => ends.join(", "),
    }
}
