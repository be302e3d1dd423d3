//! A Service as a whole (core validation `ValidateServiceCreate`, `ValidateServiceUpdate`).

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::cluster_ips::{self, is_headless};
use super::mistakes::{Mistakes, quoted};
use super::names::{LABEL, SUBDOMAIN};
use super::{addresses, load_balancer, metadata, ports, traffic};
use crate::field::FieldError;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// What is wrong with a Service that is new; nothing when it is valid. The status is not looked at.
pub fn service_create(service: &Service) -> Vec<FieldError> {
    let mut mistakes = Mistakes::default();
    let spec = spec(service);
    load_balancer::class(&mut mistakes, &spec, None);
    whole(&mut mistakes, service, &spec);
    mistakes.into_errors()
}

/// What is wrong with a Service that replaces `old`, which was valid; nothing when it may.
pub fn service_update(service: &Service, old: &Service) -> Vec<FieldError> {
    let mut mistakes = Mistakes::default();
    let (spec, old_spec) = (spec(service), self::spec(old));
    metadata::update(&mut mistakes, &service.metadata, &old.metadata);
    cluster_ips::update(&mut mistakes, &spec, &old_spec);
    load_balancer::class(&mut mistakes, &spec, Some(&old_spec));
    traffic::update(&mut mistakes, &spec, &old_spec);
    whole(&mut mistakes, service, &spec);
    mistakes.into_errors()
}

/// A Service without a spec has an empty one.
fn spec(service: &Service) -> Cow<'_, ServiceSpec> {
    let written = service.spec.as_ref();
    written.map_or_else(|| Cow::Owned(ServiceSpec::default()), Cow::Borrowed)
}

fn whole(mistakes: &mut Mistakes, service: &Service, spec: &ServiceSpec) {
    metadata::check(mistakes, &service.metadata, &LABEL);
    topology_annotations(mistakes, service);
    ports::check(mistakes, spec);
    metadata::labels(mistakes, "spec.selector", spec.selector.as_ref());
    mistakes.given("spec.type", spec.type_.as_deref(), &TYPES);
    by_type(mistakes, spec);
    cluster_ips::check(mistakes, spec);
    for (index, text) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        if let Some(address) = addresses::any(mistakes, &field, text) {
            addresses::special(mistakes, &field, address);
        }
    }
    load_balancer::check(mistakes, spec, &service.metadata);
    traffic::check(mistakes, spec);
}

/// Two annotations that mean the same must say the same.
fn topology_annotations(mistakes: &mut Mistakes, service: &Service) {
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let Some(annotations) = &service.metadata.annotations else {
        return;
    };
    if let (Some(mode), Some(hints)) = (annotations.get(MODE), annotations.get(HINTS))
        && mode != hints
    {
        let message = format!(
            "is {} and {HINTS} is {}; they must agree, or remove {HINTS}",
            quoted(mode),
            quoted(hints)
        );
        mistakes.invalid(format_args!("metadata.annotations[{MODE}]"), message);
    }
}

fn by_type(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    match spec.type_.as_deref() {
        Some(kind @ ("LoadBalancer" | "NodePort")) if is_headless(spec) => {
            let message = format!("may not be None for type {kind}; use type ClusterIP");
            mistakes.invalid("spec.clusterIPs[0]", message);
        }
        Some("ExternalName") => external_name(mistakes, spec),
        _ => {}
    }
}

fn external_name(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    for (part, is_set) in [
        (
            "clusterIPs",
            spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        ),
        (
            "ipFamilies",
            spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()),
        ),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if is_set {
            let message = "is not possible for type ExternalName; remove it";
            mistakes.forbidden(format_args!("spec.{part}"), message);
        }
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    // A dot at the end says that the name is a full one.
    let name = name.strip_suffix('.').unwrap_or(name);
    mistakes.named("spec.externalName", Some(name), &SUBDOMAIN);
}
