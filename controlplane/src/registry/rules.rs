//! Rules of validation that the registry cannot do without: they say when what was allocated may
//! change (pkg/apis/core/validation, `ValidateService`, `ValidateServiceUpdate`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::families::SINGLE;
use super::shape;
use crate::field::{FieldError, Reason};

type Errors = Vec<FieldError>;

/// What is wrong with a Service that is complete.
pub(super) fn create(spec: &ServiceSpec) -> Errors {
    let mut errors = Errors::new();
    by_type(spec, &mut errors);
    traffic(spec, &mut errors);
    health_check(spec, &mut errors);
    affinity(spec, &mut errors);
    duplicate_node_ports(spec, &mut errors);
    errors
}

/// What is wrong with a complete Service that is to replace another.
pub(super) fn update(new: &ServiceSpec, old: &ServiceSpec) -> Errors {
    let mut errors = create(new);
    if shape::has_health_check(new)
        && shape::has_health_check(old)
        && new.health_check_node_port != old.health_check_node_port
    {
        invalid(&mut errors, "spec.healthCheckNodePort", UNCHANGEABLE);
    }
    let both_balance = shape::is_load_balancer(new) && shape::is_load_balancer(old);
    if both_balance && new.load_balancer_class != old.load_balancer_class {
        invalid(&mut errors, "spec.loadBalancerClass", UNCHANGEABLE);
    }
    if !shape::is_external_name(new) && !shape::is_external_name(old) {
        stays_or_grows(new, old, &mut errors);
    }
    errors
}

const UNCHANGEABLE: &str = "may not change once set";

fn invalid(errors: &mut Errors, field: impl Into<String>, message: impl Into<String>) {
    errors.push(FieldError::new(field, Reason::Invalid, message));
}

fn forbid(errors: &mut Errors, field: impl Into<String>, message: impl Into<String>) {
    errors.push(FieldError::new(field, Reason::Forbidden, message));
}

fn by_type(spec: &ServiceSpec, errors: &mut Errors) {
    if shape::is_external_name(spec) {
        for (field, set) in [
            ("spec.clusterIP", spec.cluster_ip.is_some()),
            ("spec.clusterIPs", spec.cluster_ips.is_some()),
            ("spec.ipFamilies", spec.ip_families.is_some()),
            ("spec.ipFamilyPolicy", spec.ip_family_policy.is_some()),
        ] {
            if set {
                forbid(errors, field, "may not be set when type is ExternalName");
            }
        }
    }
    if shape::has_node_ports(spec) && shape::is_headless(spec) {
        let message = "may be None for type ClusterIP only";
        invalid(errors, "spec.clusterIPs[0]", message);
    }
    for (index, port) in shape::ports(spec).iter().enumerate() {
        if shape::is_type(spec, "ClusterIP") && port.node_port.is_some() {
            let field = format!("spec.ports[{index}].nodePort");
            forbid(errors, field, "may not be set when type is ClusterIP");
        }
    }
}

fn traffic(spec: &ServiceSpec, errors: &mut Errors) {
    let field = "spec.externalTrafficPolicy";
    match (
        shape::is_external(spec),
        spec.external_traffic_policy.as_deref(),
    ) {
        (true, Some("Cluster" | "Local")) | (false, None) => {}
        (true, None) => {
            let message = "must be Cluster or Local for this type";
            errors.push(FieldError::new(field, Reason::Required, message));
        }
        (true, Some(other)) => {
            let message = format!("{other:?} is not supported; Cluster and Local are");
            errors.push(FieldError::new(field, Reason::NotSupported, message));
        }
        (false, Some(_)) => {
            invalid(
                errors,
                field,
                "may be set only when clients outside can reach it",
            );
        }
    }
}

fn health_check(spec: &ServiceSpec, errors: &mut Errors) {
    if !shape::has_health_check(spec) && spec.health_check_node_port.is_some() {
        let message = "may be set only for type LoadBalancer with externalTrafficPolicy Local";
        invalid(errors, "spec.healthCheckNodePort", message);
    }
}

fn affinity(spec: &ServiceSpec, errors: &mut Errors) {
    let field = "spec.sessionAffinityConfig";
    let config = spec.session_affinity_config.as_ref();
    match spec.session_affinity.as_deref() {
        Some("ClientIP")
            if config
                .and_then(|config| config.client_ip.as_ref())
                .is_none() =>
        {
            let message = "must be there when sessionAffinity is ClientIP";
            errors.push(FieldError::new(field, Reason::Required, message));
        }
        None | Some("None") if config.is_some() => {
            forbid(errors, field, "may not be set when sessionAffinity is None");
        }
        _ => {}
    }
}

fn duplicate_node_ports(spec: &ServiceSpec, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in shape::ports(spec).iter().enumerate() {
        let Some(number) = port.node_port else {
            continue;
        };
        if !seen.insert((number, shape::protocol(port))) {
            let message = format!("{number} is there already for {}", shape::protocol(port));
            let field = format!("spec.ports[{index}].nodePort");
            errors.push(FieldError::new(field, Reason::Duplicate, message));
        }
    }
}

/// The first address and family stay; the second may come, and go when one family is asked for.
fn stays_or_grows(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    let headless = (shape::is_headless(new), shape::is_headless(old));
    if headless != (true, true) {
        let lists = (shape::cluster_ips(new), shape::cluster_ips(old));
        list_stays_or_grows(new, lists, "spec.clusterIPs", errors);
    }
    if headless == (false, false) {
        let lists = (shape::families(new), shape::families(old));
        list_stays_or_grows(new, lists, "spec.ipFamilies", errors);
    }
}

fn list_stays_or_grows(
    spec: &ServiceSpec,
    (new, old): (&[String], &[String]),
    field: &str,
    errors: &mut Errors,
) {
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        if new != old {
            let message = format!("is {old} and may not change once set");
            invalid(errors, format!("{field}[{index}]"), message);
        }
    }
    if new.is_empty() && !old.is_empty() {
        invalid(errors, format!("{field}[0]"), "may not be removed");
    } else if new.len() < old.len() && shape::policy(spec) != Some(SINGLE) {
        let message = format!("must be {SINGLE} to remove the second of {field}");
        invalid(errors, "spec.ipFamilyPolicy", message);
    }
}
