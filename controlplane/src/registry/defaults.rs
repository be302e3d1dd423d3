//! Values of fields that nobody has set (pkg/apis/core/v1/defaults.go, `SetDefaults_Service`).
//!
//! What depends on the cluster or is allocated is not set here: see the registry.

use k8s_openapi::api::core::v1::{
    ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::shape;

/// How long `sessionAffinity: ClientIP` remembers a client, in seconds.
const AFFINITY_SECONDS: i32 = 10_800;

/// The Service as the API server reads it from a manifest. To do so twice changes nothing.
pub fn defaulted(mut service: Service) -> Service {
    let spec = service.spec.get_or_insert_default();
    shape::tidy(spec);
    spec.type_.get_or_insert_with(|| "ClusterIP".into());
    session_affinity(spec);
    shape::ports_mut(spec).iter_mut().for_each(port);
    if shape::is_external(spec) {
        let policy = &mut spec.external_traffic_policy;
        policy.get_or_insert_with(|| "Cluster".into());
    }
    internal_traffic_policy(spec);
    if shape::is_load_balancer(spec) {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    service
}

/// Every type but ExternalName has an `internalTrafficPolicy`.
pub(super) fn internal_traffic_policy(spec: &mut ServiceSpec) {
    if !shape::is_external_name(spec) {
        let policy = &mut spec.internal_traffic_policy;
        policy.get_or_insert_with(|| "Cluster".into());
    }
}

fn session_affinity(spec: &mut ServiceSpec) {
    match spec
        .session_affinity
        .get_or_insert_with(|| NO_AFFINITY.into())
        .as_str()
    {
        NO_AFFINITY => spec.session_affinity_config = None,
        "ClientIP" => {
            let config: &mut SessionAffinityConfig =
                spec.session_affinity_config.get_or_insert_default();
            let client_ip: &mut ClientIPConfig = config.client_ip.get_or_insert_default();
            client_ip.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
}

const NO_AFFINITY: &str = "None";

fn port(port: &mut ServicePort) {
    port.protocol.get_or_insert_with(|| "TCP".into());
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::Int(_)) => false,
        Some(IntOrString::String(name)) => name.is_empty(),
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}
