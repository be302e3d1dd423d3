//! What manifests would change, before they are put in use.
//!
//! Guarantees: the plan is what would happen if the files stood in the manifest folder at this
//! moment: the same admission, allocation and compiling, on a copy. Connections are not counted
//! here; only the dataplane knows them. Verdicts of probes that do not run yet are taken as good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use sluice_conf::message::controlplane::Problem;
use sluice_conf::message::controlplane::plan::{Allocation, Draft, Plan};

use crate::engine::{Rehearsal, Situation};
use crate::object::NamespacedName;

pub mod connections;
pub mod files;
mod heirs;
mod table;

pub use table::compare;

/// What this draft would change.
pub fn make(mut rehearsal: Rehearsal, draft: &Draft) -> Plan {
    let before = rehearsal.situation();
    let outcome = rehearsal.perform(draft);
    let after = rehearsal.situation();
    let known: BTreeSet<_> = before.problems.iter().map(what).collect();
    let warnings = after.problems.iter().filter(|problem| {
        let is_new = !known.contains(&what(problem));
        is_new && !outcome.refused.contains(problem)
    });
    Plan {
        objects: outcome.objects,
        services: compare(&before.table, &after.table),
        allocations: allocations(&before, &after),
        skipped: outcome.skipped,
        warnings: warnings.cloned().collect(),
        refused: outcome.refused.into_iter().collect(),
        pinned: None,
    }
}

/// What makes two problems the same, wherever their object is written.
fn what(problem: &Problem) -> (&str, Option<&str>, &str) {
    let about = problem.object.as_ref().unwrap_or(&problem.file);
    (about, problem.field.as_deref(), &problem.message)
}

/// What Services would be given and would give back.
fn allocations(before: &Situation, after: &Situation) -> Vec<Allocation> {
    let names: BTreeSet<&NamespacedName> = before
        .services
        .keys()
        .chain(after.services.keys())
        .collect();
    let mut allocations = Vec::new();
    for name in names {
        let held = |services: &BTreeMap<_, Arc<Service>>| services.get(name).cloned();
        let (old, new) = (held(&before.services), held(&after.services));
        if let (Some(old), Some(new)) = (&old, &new)
            && Arc::ptr_eq(old, new)
        {
            continue;
        }
        let (old, new) = (holdings(old.as_deref()), holdings(new.as_deref()));
        let allocation = |(field, value): &(&str, String), taken| Allocation {
            service: name.to_string(),
            field: (*field).to_owned(),
            value: value.clone(),
            taken,
        };
        allocations.extend(old.difference(&new).map(|held| allocation(held, false)));
        allocations.extend(new.difference(&old).map(|held| allocation(held, true)));
    }
    allocations
}

/// What only this Service may have, by field.
fn holdings(service: Option<&Service>) -> BTreeSet<(&'static str, String)> {
    let mut holdings = BTreeSet::new();
    let spec = service.and_then(|service| service.spec.as_ref());
    let ips = spec.and_then(|spec| spec.cluster_ips.as_deref());
    let ips = ips.unwrap_or_default().iter().filter(|ip| *ip != "None");
    holdings.extend(ips.map(|ip| ("spec.clusterIPs", ip.clone())));
    let ports = spec.and_then(|spec| spec.ports.as_deref());
    for port in ports.unwrap_or_default() {
        if let Some(node_port) = port.node_port {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            holdings.insert(("spec.ports.nodePort", format!("{node_port}/{protocol}")));
        }
    }
    if let Some(port) = spec.and_then(|spec| spec.health_check_node_port) {
        holdings.insert(("spec.healthCheckNodePort", port.to_string()));
    }
    let status = service.and_then(|service| service.status.as_ref());
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
    let addresses = ingress.unwrap_or_default().iter();
    let addresses = addresses.filter_map(|ingress| ingress.ip.clone());
    holdings.extend(addresses.map(|ip| ("status.loadBalancer.ingress", ip)));
    holdings
}

#[cfg(test)]
mod tests;
