//! Fields of a Service that only type LoadBalancer has, and `status.loadBalancer`.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::addresses;
use super::mistakes::{Mistakes, quoted};
use super::names::{QUALIFIED, SUBDOMAIN};
use crate::address;
use crate::field::FieldError;

/// Source ranges of old manifests, separated by commas; the field wins over it.
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

const ONLY: &str = "is only possible for type LoadBalancer; remove it or change the type";

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

pub(super) fn check(mistakes: &mut Mistakes, spec: &ServiceSpec, metadata: &ObjectMeta) {
    const ALLOCATE: &str = "spec.allocateLoadBalancerNodePorts";
    match (
        is_load_balancer(spec),
        spec.allocate_load_balancer_node_ports,
    ) {
        (false, Some(_)) => mistakes.forbidden(ALLOCATE, ONLY),
        (true, None) => mistakes.missing(ALLOCATE, "use true or false"),
        _ => {}
    }
    source_ranges(mistakes, spec, metadata);
}

fn source_ranges(mistakes: &mut Mistakes, spec: &ServiceSpec, metadata: &ObjectMeta) {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    let ranges = spec
        .load_balancer_source_ranges
        .as_deref()
        .unwrap_or_default();
    let annotations = metadata.annotations.as_ref();
    if !ranges.is_empty() {
        if !is_load_balancer(spec) {
            mistakes.forbidden(FIELD, ONLY);
        }
        for (index, range) in ranges.iter().enumerate() {
            addresses::range(mistakes, format_args!("{FIELD}[{index}]"), range.trim());
        }
    } else if let Some(written) = annotations.and_then(|all| all.get(RANGES)) {
        let field = format!("metadata.annotations[{RANGES}]");
        if !is_load_balancer(spec) {
            mistakes.forbidden(&field, ONLY);
        }
        let ranges = written.split(',').map(str::trim);
        let wrong = ranges
            .clone()
            .find(|range| address::network(range).is_none());
        if let Some(range) = wrong.filter(|_| !written.trim().is_empty()) {
            addresses::range(mistakes, &field, range);
        }
    }
}

/// Checks `spec.loadBalancerClass`, which stays as long as the type does.
pub(super) fn class(mistakes: &mut Mistakes, spec: &ServiceSpec, old: Option<&ServiceSpec>) {
    const FIELD: &str = "spec.loadBalancerClass";
    let class = spec.load_balancer_class.as_deref();
    if !is_load_balancer(spec) {
        if class.is_some() {
            mistakes.forbidden(FIELD, ONLY);
        }
        return;
    }
    if let Some(old) = old.filter(|old| is_load_balancer(old))
        && old.load_balancer_class.as_deref() != class
    {
        let was = old
            .load_balancer_class
            .as_deref()
            .map_or("not set".into(), quoted);
        let message = format!(
            "may not change; it is {was}. Change the type first, or create another Service"
        );
        mistakes.invalid(FIELD, message);
    }
    if let Some(class) = class {
        mistakes.form(FIELD, class, &QUALIFIED);
    }
}

/// What is wrong with the status of a Service (core validation `ValidateLoadBalancerStatus`);
/// nothing when it is valid. The API server asks this when a status is written, and no manifest is
/// refused for it.
pub fn service_status(service: &Service) -> Vec<FieldError> {
    const FIELD: &str = "status.loadBalancer.ingress";
    let mut mistakes = Mistakes::default();
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status
        .and_then(|status| status.ingress.as_deref())
        .unwrap_or_default();
    if !ingress.is_empty() && !service.spec.as_ref().is_some_and(is_load_balancer) {
        mistakes.forbidden(FIELD, ONLY);
        return mistakes.into_errors();
    }
    for (index, ingress) in ingress.iter().enumerate() {
        point(&mut mistakes, &format!("{FIELD}[{index}]"), ingress);
    }
    mistakes.into_errors()
}

fn point(mistakes: &mut Mistakes, path: &str, ingress: &LoadBalancerIngress) {
    let ip = ingress.ip.as_deref().filter(|ip| !ip.is_empty());
    if let Some(ip) = ip {
        addresses::any(mistakes, format_args!("{path}.ip"), ip);
    }
    let field = format_args!("{path}.ipMode");
    match (ingress.ip_mode.as_deref(), ip) {
        (None, Some(_)) => mistakes.missing(field, "an ip needs VIP or Proxy"),
        (Some(_), None) => mistakes.forbidden(field, "is only possible with an ip; remove it"),
        (Some(mode), Some(_)) => mistakes.one_of(field, mode, &["Proxy", "VIP"]),
        (None, None) => {}
    }
    let hostname = ingress.hostname.as_deref().unwrap_or_default();
    if hostname.is_empty() {
        return;
    }
    let field = format_args!("{path}.hostname");
    if address::address(hostname).is_some() {
        mistakes.invalid(field, format!("{hostname:?} is an address; write it to ip"));
    } else {
        mistakes.form(field, hostname, &SUBDOMAIN);
    }
}
