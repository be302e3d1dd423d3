//! `status.loadBalancer.ingress` of one Service: compared, and written where it differs.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde_json::{Value, json};

use crate::admission::{Classes, told};
use crate::object::NamespacedName;
use crate::source::kubernetes::client::{Api, ApiError, built};

/// Whether the entries say just `addresses`. A server from before `ipMode` (KEP-1860) drops it,
/// which means the same.
pub(super) fn says(ingress: &[LoadBalancerIngress], addresses: &[IpAddr]) -> bool {
    let same = |(entry, address): (&LoadBalancerIngress, &IpAddr)| {
        let ip = entry.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
        let vip = entry.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        ip == Some(*address) && vip && entry.hostname.is_none()
    };
    ingress.len() == addresses.len() && ingress.iter().zip(addresses).all(same)
}

/// A merge patch (RFC 7396) that holds only for the version that it was made for.
fn patch(version: Option<&str>, addresses: &[IpAddr]) -> Value {
    let entry = |address: &IpAddr| json!({ "ip": address.to_string(), "ipMode": "VIP" });
    let ingress = match addresses {
        [] => Value::Null,
        some => some.iter().map(entry).collect(),
    };
    json!({
        "metadata": { "resourceVersion": version },
        "status": { "loadBalancer": { "ingress": ingress } }
    })
}

/// Makes the status of a Service say `addresses`; returns whether it had to be written. A Service
/// that is gone or not ours is left alone.
///
/// # Errors
/// The API server; 409 when the Service was changed at the same moment.
pub(super) async fn write(
    api: &Api,
    classes: Classes,
    name: &NamespacedName,
    addresses: &[IpAddr],
    limit: Duration,
) -> Result<bool, ApiError> {
    let services = Request::new(format!("/api/v1/namespaces/{}/services", name.namespace));
    let get = built(services.get(&name.name, &GetParams::default()))?;
    let service: Service = match api.json(get, limit).await {
        Ok(service) => service,
        Err(error) if error.code() == Some(404) => return Ok(false),
        Err(error) => return Err(error),
    };
    if !classes.serve(&service) || says(told(&service), addresses) {
        return Ok(false);
    }
    let patch = Patch::Merge(patch(
        service.metadata.resource_version.as_deref(),
        addresses,
    ));
    let params = PatchParams::default();
    let request = built(services.patch_subresource("status", &name.name, &params, &patch))?;
    match api.json::<Service>(request, limit).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(404) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ip: &str, mode: Option<&str>) -> LoadBalancerIngress {
        LoadBalancerIngress {
            ip: Some(ip.into()),
            ip_mode: mode.map(str::to_owned),
            ..LoadBalancerIngress::default()
        }
    }

    #[test]
    fn a_status_is_compared_by_what_it_means() {
        let four: IpAddr = "192.0.2.1".parse().unwrap();
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        let both = [
            entry("192.0.2.1", Some("VIP")),
            entry("2001:DB8:0::1", None),
        ];
        assert!(says(&both, &[four, six]));
        assert!(!says(&both, &[six, four]));
        assert!(!says(&both, &[four]));
        assert!(!says(&[entry("192.0.2.1", Some("Proxy"))], &[four]));
        assert!(says(&[], &[]));
        let mut named = entry("192.0.2.1", None);
        named.hostname = Some("lb.example.com".into());
        assert!(!says(&[named], &[four]));
    }

    #[test]
    fn no_address_takes_the_entries_away() {
        let patch = patch(Some("7"), &[]);
        assert_eq!(patch["status"]["loadBalancer"], json!({ "ingress": null }));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
