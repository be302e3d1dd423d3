//! What an update takes over from the stored Service, and what it clears, before anything is
//! checked or allocated (pkg/registry/core/service/storage/storage.go and strategy.go).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::shape;

/// Takes over what was allocated and the update leaves out (`patchAllocatedValues`).
///
/// Node ports follow the name of their port; one that the update has given to another port does
/// not.
pub fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if !shape::is_external_name(old) && !shape::is_external_name(new) {
        if new.cluster_ip.is_none() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.is_none() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if shape::wants_node_ports(old) && shape::wants_node_ports(new) {
        keep_node_ports(new, old);
    }
    if shape::has_health_check(old) && shape::has_health_check(new) {
        let port = &mut new.health_check_node_port;
        *port = port.or(old.health_check_node_port);
    }
}

fn keep_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let moved = shape::node_ports(new);
    let ports = shape::ports(old).iter();
    let by_name: BTreeMap<&str, i32> = ports
        .filter_map(|port| Some((port.name.as_deref().unwrap_or_default(), port.node_port?)))
        .collect();
    for port in shape::ports_mut(new) {
        let known = by_name.get(port.name.as_deref().unwrap_or_default());
        let known = known.filter(|number| !moved.contains(number));
        port.node_port = port.node_port.or(known.copied());
    }
}

/// Aligns `clusterIPs` with `clusterIP`, so that a client that knows only the latter can do its
/// work (`normalizeClusterIPs`).
pub fn normalise_cluster_ips(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let only_first = |spec: &ServiceSpec| spec.cluster_ip.clone().map(|first| vec![first]);
    let Some(old) = old else {
        if new.cluster_ips.is_none() {
            new.cluster_ips = only_first(new);
        }
        return;
    };
    if new.cluster_ip == old.cluster_ip {
        if new.cluster_ips.is_none() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if new.cluster_ips == old.cluster_ips {
        new.cluster_ips = only_first(new);
    }
}

/// Clears what the new type has no use for, unless the update changed it too: then it is left for
/// validation to refuse (`dropTypeDependentFields`).
pub fn drop_type_dependent(new: &mut ServiceSpec, old: &ServiceSpec) {
    if shape::is_external_name(new) && !shape::is_external_name(old) {
        drop_addresses(new, old);
    }
    let moved_away = |has: fn(&ServiceSpec) -> bool, new: &ServiceSpec| has(old) && !has(new);
    let no_new_node_port = shape::node_ports(new).is_subset(&shape::node_ports(old));
    if moved_away(shape::has_node_ports, new) && no_new_node_port {
        let ports = shape::ports_mut(new);
        ports.iter_mut().for_each(|port| port.node_port = None);
    }
    if moved_away(shape::has_health_check, new) {
        drop_same(&mut new.health_check_node_port, &old.health_check_node_port);
    }
    if moved_away(shape::is_load_balancer, new) {
        drop_same(
            &mut new.allocate_load_balancer_node_ports,
            &old.allocate_load_balancer_node_ports,
        );
        drop_same(&mut new.load_balancer_class, &old.load_balancer_class);
    }
    if moved_away(shape::is_external, new) {
        drop_same(
            &mut new.external_traffic_policy,
            &old.external_traffic_policy,
        );
    }
}

fn drop_addresses(new: &mut ServiceSpec, old: &ServiceSpec) {
    if shape::same_cluster_ips(new, old) {
        new.cluster_ip = None;
        new.cluster_ips = None;
    }
    drop_same(&mut new.ip_families, &old.ip_families);
    drop_same(&mut new.ip_family_policy, &old.ip_family_policy);
}

fn drop_same<T: PartialEq>(new: &mut Option<T>, old: &Option<T>) {
    new.take_if(|value| Some(&*value) == old.as_ref());
}
