//! What a Service asks for and this gateway does not do. Each is a problem that refuses nothing: an
//! operator who counts on it shall see it in `sluicectl status`, not find out in production.

use k8s_openapi::api::core::v1 as api;
use sluice_conf::FrontendKind;

use super::{ServiceType, Vip, is_headless};
use crate::object::Report;

/// Names what the API has, an operator may count on, and this gateway does not do.
pub(super) fn features(kind: ServiceType, spec: &api::ServiceSpec, report: &mut Report) {
    let mut missing = |field: &str, asked: bool, message: &str| {
        if asked {
            report.warn(format!("spec.{field}"), message);
        }
    };
    let set = |text: &Option<String>, value: &str| text.as_deref() == Some(value);
    let any = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    missing(
        "loadBalancerSourceRanges",
        any(&spec.load_balancer_source_ranges),
        "protects nothing yet: every client may connect",
    );
    missing(
        "sessionAffinity",
        set(&spec.session_affinity, "ClientIP"),
        "has no effect yet: connections of one client may go to several endpoints",
    );
    missing(
        "externalTrafficPolicy",
        set(&spec.external_traffic_policy, "Local"),
        "Local has no effect: to keep the client's address use the annotation \
         sluice.dev/source-nat: preserve",
    );
    missing(
        "internalTrafficPolicy",
        set(&spec.internal_traffic_policy, "Local"),
        "Local has no effect: every endpoint is used",
    );
    missing(
        "trafficDistribution",
        spec.traffic_distribution.is_some(),
        "has no effect yet: connections are spread over every endpoint",
    );
    missing(
        "healthCheckNodePort",
        spec.health_check_node_port.is_some_and(|port| port != 0),
        "is not served yet",
    );
    missing(
        "loadBalancerClass",
        spec.load_balancer_class.is_some(),
        "has no effect: this gateway serves every Service of its folder",
    );
    missing(
        "externalIPs",
        any(&spec.external_ips) && kind != ServiceType::ExternalName,
        "are not served: anybody who may write a Service could claim any address \
         (CVE-2020-8554)",
    );
}

/// Addresses are written by the operator; a Service without one looks fine and serves nobody.
pub(super) fn address(
    kind: ServiceType,
    spec: &api::ServiceSpec,
    vips: &[Vip],
    report: &mut Report,
) {
    let wanted = match kind {
        ServiceType::ClusterIp => (FrontendKind::ClusterIp, "clusterIP"),
        ServiceType::LoadBalancer => (FrontendKind::LoadBalancer, "loadBalancerIP"),
        ServiceType::NodePort | ServiceType::ExternalName => return,
    };
    let has_one = |vip: &Vip| vip.kind == wanted.0 && vip.address.is_ipv4();
    // An address that is wrong was named already.
    if is_headless(spec) || report.refuses() || vips.iter().any(has_one) {
        return;
    }
    let field = format!("spec.{}", wanted.1);
    let message = match vips.iter().any(|vip| vip.kind == wanted.0) {
        true => "an IPv4 address is missing; IPv6 is not served yet",
        false => "is missing; addresses are not allocated, so write one",
    };
    report.warn(field, message);
}
