//! Load-balancer addresses of a Service: from the pools into its status, and into what is served.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use sluice_conf::FrontendKind;

use crate::address;
use crate::annotations::ranges::PortRange;
use crate::pools::{Claim, Outcome, Pools};
use crate::service::ServiceSpec;

/// Gives the Service its addresses. Where there are no pools, those that its status names are
/// taken as written: somebody else gave them.
pub(super) fn assign(pools: &mut Pools, service: &Service, ranges: &[PortRange]) -> Outcome {
    let mut claim = Claim::of(service, ranges);
    if pools.is_empty() && claim.addresses.is_empty() {
        claim.addresses = given(service);
    }
    pools.assign(&claim)
}

/// Takes over what the status of the Service says that it has.
pub(super) fn adopt(pools: &mut Pools, service: &Service, ranges: &[PortRange]) {
    let (mut claim, given) = (Claim::of(service, ranges), given(service));
    if pools.is_empty() && claim.addresses.is_empty() {
        claim.addresses.clone_from(&given);
    }
    pools.adopt(&claim, &given);
}

/// Addresses in the status. An address with the mode `Proxy` belongs to a load balancer that must
/// stay in the path (KEP-1860).
pub(super) fn given(service: &Service) -> Vec<IpAddr> {
    let direct = told(service)
        .iter()
        .filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
    direct
        .filter_map(|entry| address::address(entry.ip.as_deref()?))
        .collect()
}

/// The load balancer's entries in the status, as they are.
pub fn told(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
    ingress.unwrap_or_default()
}

/// Writes the addresses into the status, unless it says so already.
pub(super) fn write(service: &mut Service, addresses: &[IpAddr]) {
    if given(service) == addresses {
        return;
    }
    let ingress = addresses.iter().map(|address| LoadBalancerIngress {
        ip: Some(address.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    });
    let status = service.status.get_or_insert_with(ServiceStatus::default);
    status.load_balancer = Some(LoadBalancerStatus {
        ingress: (!addresses.is_empty()).then(|| ingress.collect()),
    });
}

/// Leaves only the load-balancer addresses that it was given.
pub(super) fn keep_only(spec: &mut ServiceSpec, addresses: &[IpAddr]) {
    spec.vips
        .retain(|vip| vip.kind != FrontendKind::LoadBalancer || addresses.contains(&vip.address));
}
