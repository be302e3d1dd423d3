//! What a Service asks for and this gateway does not do. Each is a problem that refuses nothing: an
//! operator who counts on it shall see it in `sluicectl status`, not find out in production.

use k8s_openapi::api::core::v1 as api;
use sluice_conf::FrontendKind;

use super::{LOAD_BALANCER_CLASS, ServiceType, Vip, is_headless};
use crate::object::Report;

/// Names a class that is not this gateway's, or of no use.
pub(super) fn class(kind: ServiceType, spec: &api::ServiceSpec, report: &mut Report) {
    let field = "spec.loadBalancerClass";
    match spec.load_balancer_class.as_deref() {
        None => {}
        Some(_) if kind != ServiceType::LoadBalancer => {
            let kind = kind.as_str();
            let message = format!("has no effect for type {kind}; it needs type LoadBalancer");
            report.warn(field, message);
        }
        Some(LOAD_BALANCER_CLASS) => {}
        Some(_) => {
            let message = "has no effect: this gateway serves every Service of its folder";
            report.warn(field, message);
        }
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
