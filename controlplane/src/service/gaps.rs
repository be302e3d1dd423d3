//! What a Service asks for and this gateway does not do. Each is a problem that refuses nothing: an
//! operator who counts on it shall see it in `sluicectl status`, not find out in production.

use k8s_openapi::api::core::v1 as api;
use sluice_conf::FrontendKind;

use super::{ServiceType, Vip, is_headless};
use crate::object::Report;

/// Names what the API has, an operator may count on, and this gateway does not do.
pub(super) fn features(spec: &api::ServiceSpec, report: &mut Report) {
    if spec.health_check_node_port.is_some_and(|port| port != 0) {
        report.warn("spec.healthCheckNodePort", "is not served yet");
    }
    if spec.load_balancer_class.is_some() {
        let message = "has no effect: this gateway serves every Service of its folder";
        report.warn("spec.loadBalancerClass", message);
    }
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
    let has_one = |vip: &Vip| vip.kind == wanted.0;
    // An address that is wrong was named already.
    if is_headless(spec) || report.refuses() || vips.iter().any(has_one) {
        return;
    }
    let message = "is missing; addresses are not allocated, so write one";
    report.warn(format!("spec.{}", wanted.1), message);
}
