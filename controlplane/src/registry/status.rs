//! What an update of `status.loadBalancer` may say (pkg/registry/core/service/strategy.go,
//! `dropServiceStatusDisabledFields`; pkg/apis/core/validation, `ValidateLoadBalancerStatus`;
//! KEP-1860).

use k8s_openapi::api::core::v1::LoadBalancerIngress;

use crate::field::{FieldError, Reason};

/// The entries of `status.loadBalancer.ingress` that are stored after an update.
///
/// `ip_mode`: whether the API knows `ipMode`. Otherwise it is removed, unless stored entries have
/// it from a time when the API knew it.
///
/// # Errors
/// Where the API knows `ipMode`, every entry with an address needs one, `VIP` or `Proxy`, and
/// entries without may not have it.
pub fn load_balancer_ingress(
    stored: &[LoadBalancerIngress],
    mut submitted: Vec<LoadBalancerIngress>,
    ip_mode: bool,
) -> Result<Vec<LoadBalancerIngress>, Vec<FieldError>> {
    if !ip_mode {
        if !stored.iter().any(|entry| entry.ip_mode.is_some()) {
            submitted.iter_mut().for_each(|entry| entry.ip_mode = None);
        }
        return Ok(submitted);
    }
    let entries = submitted.iter().enumerate();
    let errors: Vec<_> = entries
        .filter_map(|(index, entry)| {
            let (reason, message) = mistake(entry)?;
            let field = format!("status.loadBalancer.ingress[{index}].ipMode");
            Some(FieldError::new(field, reason, message))
        })
        .collect();
    match errors.is_empty() {
        true => Ok(submitted),
        false => Err(errors),
    }
}

fn mistake(entry: &LoadBalancerIngress) -> Option<(Reason, &'static str)> {
    let has_ip = entry.ip.as_deref().is_some_and(|ip| !ip.is_empty());
    match (has_ip, entry.ip_mode.as_deref()) {
        (true, None) => Some((Reason::Required, "must be VIP or Proxy when ip is set")),
        (false, Some(_)) => Some((Reason::Forbidden, "may not be set when ip is not")),
        (true, Some("VIP" | "Proxy")) | (false, None) => None,
        (true, Some(_)) => Some((Reason::NotSupported, "is not supported; VIP and Proxy are")),
    }
}
