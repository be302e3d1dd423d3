//! Who may use a Service, and whose endpoints serve whom.

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;
use sluice_conf::Pool;

use super::{Checker, ServiceType};
use crate::address;

/// `sessionAffinityConfig.clientIP.timeoutSeconds` when it is not written (core/v1
/// DefaultClientIPServiceAffinitySeconds).
const AFFINITY_SECONDS: u32 = 10_800;
/// The most it can be (core/v1 ClientIPConfig): a day.
const MAX_AFFINITY_SECONDS: u32 = 86_400;

impl Checker<'_> {
    /// A traffic policy; absent means Cluster.
    pub(super) fn pool(&mut self, field: &str, written: &Option<String>) -> Pool {
        match written.as_deref() {
            None | Some("" | "Cluster") => Pool::Cluster,
            Some("Local") => Pool::Local,
            Some(other) => {
                let message = format!("{other:?} is not possible; use Cluster or Local");
                self.report.refuse(format!("spec.{field}"), message);
                Pool::Cluster
            }
        }
    }

    pub(super) fn affinity(&mut self, spec: &api::ServiceSpec) -> Option<u32> {
        match spec.session_affinity.as_deref() {
            None | Some("" | "None") => return None,
            Some("ClientIP") => {}
            Some(other) => {
                let message = format!("{other:?} is not possible; use None or ClientIP");
                self.report.refuse("spec.sessionAffinity", message);
                return None;
            }
        }
        let config = spec.session_affinity_config.as_ref();
        let config = config.and_then(|config| config.client_ip.as_ref());
        let Some(written) = config.and_then(|client_ip| client_ip.timeout_seconds) else {
            return Some(AFFINITY_SECONDS);
        };
        let possible = 1..=MAX_AFFINITY_SECONDS;
        let seconds = u32::try_from(written).ok().filter(|s| possible.contains(s));
        if seconds.is_none() {
            let message = format!("{written} is not possible; use 1 to {MAX_AFFINITY_SECONDS}");
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            self.report.refuse(field, message);
        }
        seconds
    }

    /// `loadBalancerSourceRanges`, sorted.
    pub(super) fn source_ranges(
        &mut self,
        kind: ServiceType,
        spec: &api::ServiceSpec,
    ) -> Vec<IpNet> {
        let written = spec
            .load_balancer_source_ranges
            .as_deref()
            .unwrap_or_default();
        if kind != ServiceType::LoadBalancer {
            if !written.is_empty() {
                let message = format!(
                    "has no effect for type {}; it needs type LoadBalancer",
                    kind.as_str()
                );
                self.report.warn("spec.loadBalancerSourceRanges", message);
            }
            return Vec::new();
        }
        let mut ranges = Vec::with_capacity(written.len());
        for (index, text) in written.iter().enumerate() {
            match address::network(text.trim()) {
                Some(range) => ranges.push(range),
                None => {
                    let field = format!("spec.loadBalancerSourceRanges[{index}]");
                    let message =
                        format!("{text:?} is not a network; write 10.0.0.0/8 or 2001:db8::/32");
                    self.report.refuse(field, message);
                }
            }
        }
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// `trafficDistribution` only tells those who write EndpointSlices which hints to give
    /// (KEP-4444, KEP-3015); the hints decide.
    pub(super) fn distribution(&mut self, spec: &api::ServiceSpec) {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        if let Some(written) = spec.traffic_distribution.as_deref()
            && !known.contains(&written)
        {
            let message = format!("{written:?} has no effect; known: {}", known.join(", "));
            self.report.warn("spec.trafficDistribution", message);
        }
    }
}
