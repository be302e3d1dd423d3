//! What each class of clients gets at a frontend: whose endpoints, and which source address.
//!
//! Pools follow the traffic policies whatever the source address; `kubernetes` masquerades whom
//! kube-proxy masquerades in nftables mode (pkg/proxy/nftables/proxier.go).

use std::net::IpAddr;

use sluice_conf::settings::controlplane::SourceNatMode;
use sluice_conf::{Access, Forwarding, Frontend, FrontendKind, Pool, SourceNat};

use crate::rules::Rules;
use crate::service::ServiceSpec;

const fn access(pool: Pool, source_nat: SourceNat) -> Access {
    Access { pool, source_nat }
}

/// A frontend of one port.
pub(super) fn frontend(
    address: IpAddr,
    port: u16,
    kind: FrontendKind,
    spec: &ServiceSpec,
    rules: &Rules,
) -> Frontend {
    let detected = rules.detects_pods(address);
    let [mut pods, mut nodes, mut others] = match kind {
        FrontendKind::ClusterIp => internal(spec.internal, detected, rules.masquerade_all),
        _ => external(spec.external, detected),
    };
    if let Some(same) = for_everybody(spec, rules) {
        for access in [&mut pods, &mut nodes, &mut others] {
            access.source_nat = same;
        }
    }
    let of_family = |range: &ipnet::IpNet| range.addr().is_ipv4() == address.is_ipv4();
    Frontend {
        pods,
        nodes,
        others,
        guarded: kind == FrontendKind::LoadBalancer && spec.source_ranges.iter().any(of_family),
        ..Frontend::new(address, port, kind, others)
    }
}

/// How packets of a Service get to its backends.
pub(super) fn forwarding(spec: &ServiceSpec, rules: &Rules) -> Forwarding {
    spec.policies
        .forwarding
        .unwrap_or(rules.defaults.forwarding)
}

/// The source address translation of all clients, unless it depends on who they are.
fn for_everybody(spec: &ServiceSpec, rules: &Rules) -> Option<SourceNat> {
    if forwarding(spec, rules) == Forwarding::DirectReturn {
        return Some(SourceNat::Preserve);
    }
    let mode = spec
        .policies
        .source_nat
        .unwrap_or(rules.defaults.source_nat);
    match mode {
        SourceNatMode::Masquerade => Some(SourceNat::Masquerade),
        SourceNatMode::Preserve => Some(SourceNat::Preserve),
        SourceNatMode::Kubernetes => None,
    }
}

/// Pods, nodes and others at a ClusterIP: who comes from outside the pod networks could not be
/// answered by a pod directly.
fn internal(pool: Pool, detected: bool, masquerade_all: bool) -> [Access; 3] {
    let masquerade = access(pool, SourceNat::Masquerade);
    let preserve = access(pool, SourceNat::Preserve);
    match (masquerade_all, detected) {
        (true, _) => [masquerade; 3],
        (false, true) => [preserve, masquerade, masquerade],
        (false, false) => [preserve; 3],
    }
}

/// Pods, nodes and others at an address for clients outside. Whoever is inside the cluster gets
/// Cluster semantics there whatever the policy.
fn external(pool: Pool, detected: bool) -> [Access; 3] {
    let everywhere = access(Pool::Cluster, SourceNat::Masquerade);
    let shortcut = access(Pool::Cluster, SourceNat::Preserve);
    let nearby = access(Pool::Local, SourceNat::Preserve);
    match (pool, detected) {
        (Pool::Cluster, _) => [everywhere; 3],
        (Pool::Local, true) => [shortcut, everywhere, nearby],
        (Pool::Local, false) => [nearby, everywhere, nearby],
    }
}
