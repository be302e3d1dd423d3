//! Fields of a Service that choose endpoints: session affinity, traffic policies, distribution.

use k8s_openapi::api::core::v1::{ServiceSpec, SessionAffinityConfig};

use super::mistakes::Mistakes;

/// Longest session affinity, in seconds (`MaxClientIPServiceAffinitySeconds`).
const MAX_AFFINITY: i32 = 86_400;

const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];

pub(super) fn check(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    affinity(mistakes, spec);
    external_policy(mistakes, spec);
    internal_policy(mistakes, spec);
    health_check(mistakes, spec);
    if let Some(value) = &spec.traffic_distribution {
        mistakes.one_of("spec.trafficDistribution", value, &DISTRIBUTIONS);
    }
}

/// The health check node port stays while there is one.
pub(super) fn update(mistakes: &mut Mistakes, spec: &ServiceSpec, old: &ServiceSpec) {
    let port = |spec: &ServiceSpec| spec.health_check_node_port.unwrap_or_default();
    if needs_health_check(old) && needs_health_check(spec) && port(spec) != port(old) {
        let message = format!("may not change; it is {}", port(old));
        mistakes.forbidden("spec.healthCheckNodePort", message);
    }
}

fn affinity(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    const CONFIG: &str = "spec.sessionAffinityConfig";
    let affinity = spec.session_affinity.as_deref();
    mistakes.given("spec.sessionAffinity", affinity, &AFFINITIES);
    let config = spec.session_affinity_config.as_ref();
    match affinity {
        Some("ClientIP") => client_ip(mistakes, CONFIG, config),
        Some("None") if config.is_some() => {
            let message = "is not possible for sessionAffinity None; use ClientIP";
            mistakes.forbidden(CONFIG, message);
        }
        _ => {}
    }
}

fn client_ip(mistakes: &mut Mistakes, path: &str, config: Option<&SessionAffinityConfig>) {
    let advice = "sessionAffinity ClientIP needs clientIP.timeoutSeconds";
    let Some(config) = config else {
        return mistakes.missing(path, advice);
    };
    let Some(client) = &config.client_ip else {
        return mistakes.missing(format_args!("{path}.clientIP"), advice);
    };
    let field = format!("{path}.clientIP.timeoutSeconds");
    match client.timeout_seconds {
        None => mistakes.missing(field, advice),
        Some(seconds) if !(1..=MAX_AFFINITY).contains(&seconds) => {
            let message = format!("is {seconds} and must be 1 to {MAX_AFFINITY} seconds");
            mistakes.invalid(field, message);
        }
        Some(_) => {}
    }
}

fn external_policy(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    const FIELD: &str = "spec.externalTrafficPolicy";
    let policy = spec.external_traffic_policy.as_deref();
    if is_external(spec) {
        mistakes.given(FIELD, policy, &POLICIES);
    } else if policy.is_some_and(|policy| !policy.is_empty()) {
        let message = "is only possible for type NodePort or LoadBalancer, or with externalIPs; \
                       remove it";
        mistakes.invalid(FIELD, message);
    }
}

fn internal_policy(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    const FIELD: &str = "spec.internalTrafficPolicy";
    match (&spec.internal_traffic_policy, spec.type_.as_deref()) {
        (Some(policy), _) => mistakes.one_of(FIELD, policy, &POLICIES),
        (None, Some("ClusterIP" | "NodePort" | "LoadBalancer")) => {
            mistakes.given(FIELD, None, &POLICIES);
        }
        (None, _) => {}
    }
}

fn health_check(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    const FIELD: &str = "spec.healthCheckNodePort";
    match (
        needs_health_check(spec),
        spec.health_check_node_port.unwrap_or_default(),
    ) {
        (true, 0) => {
            let advice = "type LoadBalancer with externalTrafficPolicy Local needs one";
            mistakes.missing(FIELD, advice);
        }
        (true, port) => mistakes.port(FIELD, port),
        (false, 0) => {}
        (false, port) => {
            let message = format!(
                "is {port} and only possible for type LoadBalancer with externalTrafficPolicy \
                 Local; remove it"
            );
            mistakes.invalid(FIELD, message);
        }
    }
}

/// Whether clients outside the cluster can reach the Service (api/service `ExternallyAccessible`).
fn is_external(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("LoadBalancer" | "NodePort") => true,
        Some("ClusterIP") => spec
            .external_ips
            .as_ref()
            .is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

/// Whether load balancers ask each node if it has endpoints (api/service `NeedsHealthCheck`).
fn needs_health_check(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local")
}
