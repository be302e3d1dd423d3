//! Questions about a Service's spec that several rules ask. Empty text, empty lists and the number
//! 0 mean "not set", as on the wire of the API.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

/// `clusterIP` of a headless Service.
pub(super) const NONE: &str = "None";

/// Makes values that mean "not set" absent, as all rules here expect it.
pub fn tidy(spec: &mut ServiceSpec) {
    for text in [
        &mut spec.type_,
        &mut spec.cluster_ip,
        &mut spec.ip_family_policy,
        &mut spec.external_traffic_policy,
        &mut spec.internal_traffic_policy,
        &mut spec.session_affinity,
    ] {
        text.take_if(|text| text.is_empty());
    }
    for list in [&mut spec.cluster_ips, &mut spec.ip_families] {
        list.take_if(|list| list.is_empty());
    }
    spec.health_check_node_port.take_if(|port| *port == 0);
    for port in ports_mut(spec) {
        port.node_port.take_if(|port| *port == 0);
        port.protocol.take_if(|protocol| protocol.is_empty());
    }
}

pub(super) fn is_type(spec: &ServiceSpec, name: &str) -> bool {
    spec.type_.as_deref().unwrap_or("ClusterIP") == name
}

pub(super) fn is_external_name(spec: &ServiceSpec) -> bool {
    is_type(spec, "ExternalName")
}

pub(super) fn is_load_balancer(spec: &ServiceSpec) -> bool {
    is_type(spec, "LoadBalancer")
}

/// Whether the type can have node ports.
pub(super) fn has_node_ports(spec: &ServiceSpec) -> bool {
    is_type(spec, "NodePort") || is_load_balancer(spec)
}

/// Whether a port without a node port gets one.
pub(super) fn wants_node_ports(spec: &ServiceSpec) -> bool {
    let refused = spec.allocate_load_balancer_node_ports == Some(false);
    is_type(spec, "NodePort") || (is_load_balancer(spec) && !refused)
}

pub(super) fn is_local(spec: &ServiceSpec) -> bool {
    spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether it has a `healthCheckNodePort`.
pub(super) fn has_health_check(spec: &ServiceSpec) -> bool {
    is_load_balancer(spec) && is_local(spec)
}

/// Whether clients outside the cluster may reach it (pkg/api/service, `ExternallyAccessible`).
pub(super) fn is_external(spec: &ServiceSpec) -> bool {
    let external_ips = spec.external_ips.iter().flatten();
    has_node_ports(spec) || (is_type(spec, "ClusterIP") && external_ips.count() > 0)
}

pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    cluster_ips(spec).first().map(String::as_str) == Some(NONE)
}

pub(super) fn has_selector(spec: &ServiceSpec) -> bool {
    spec.selector
        .as_ref()
        .is_some_and(|labels| !labels.is_empty())
}

pub(super) fn policy(spec: &ServiceSpec) -> Option<&str> {
    spec.ip_family_policy.as_deref()
}

pub(super) fn cluster_ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

pub(super) fn families(spec: &ServiceSpec) -> &[String] {
    spec.ip_families.as_deref().unwrap_or_default()
}

pub(super) fn ports(spec: &ServiceSpec) -> &[ServicePort] {
    spec.ports.as_deref().unwrap_or_default()
}

pub(super) fn ports_mut(spec: &mut ServiceSpec) -> &mut [ServicePort] {
    spec.ports.as_deref_mut().unwrap_or_default()
}

pub(super) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The node ports of its ports.
pub(super) fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    ports(spec)
        .iter()
        .filter_map(|port| port.node_port)
        .collect()
}

pub(super) fn same_cluster_ips(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    one.cluster_ip == other.cluster_ip && one.cluster_ips == other.cluster_ips
}
