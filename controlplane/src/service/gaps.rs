//! What a Service asks for and this gateway does not do. Each is a problem that refuses nothing: an
//! operator who counts on it shall see it in `sluicectl status`, not find out in production.

use k8s_openapi::api::core::v1 as api;

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
        Some(class) => report.note(format!(
            "is for the load balancers of class {class:?}: it gets no load-balancer address here"
        )),
    }
}

/// A Service of type ClusterIP without any address looks fine and serves nobody.
pub(super) fn address(
    kind: ServiceType,
    spec: &api::ServiceSpec,
    vips: &[Vip],
    report: &mut Report,
) {
    // An address that is wrong was named already.
    let has_one = !vips.is_empty() || is_headless(spec) || report.refuses();
    if kind == ServiceType::ClusterIp && !has_one {
        let message = "is missing; write one, or set cluster.service_networks so that it gets one";
        report.warn("spec.clusterIP", message);
    }
}
