//! What a Service asks of the pools.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use crate::address::{self, Family};
use crate::annotations::ranges::PortRange;
use crate::annotations::{self, ADDRESS_POOL, ALLOW_SHARED_IP, LOAD_BALANCER_IPS};
use crate::object::NamespacedName;
use crate::service::protocol;

/// What decides whether a Service may share an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sharing {
    /// The key; Services without one share with nobody.
    pub key: Option<String>,
    /// With `externalTrafficPolicy: Local` the selector: only Services of the same pods share.
    pub local_selector: Option<BTreeMap<String, String>>,
    /// Ports that the Service uses at its addresses.
    pub ports: Vec<PortRange>,
}

impl Sharing {
    /// Why these two cannot share an address, if so.
    pub(super) fn refusal(&self, other: &Self) -> Option<String> {
        match (&self.key, &other.key) {
            (None, _) => return Some(format!("this Service has no {ALLOW_SHARED_IP}")),
            (_, None) => return Some(format!("it has no {ALLOW_SHARED_IP}")),
            (Some(own), Some(others)) if own != others => {
                return Some(format!("its {ALLOW_SHARED_IP} is {others:?}, not {own:?}"));
            }
            _ => {}
        }
        if self.local_selector != other.local_selector {
            let reason = "with externalTrafficPolicy Local both need the same selector";
            return Some(reason.to_owned());
        }
        let taken = |port: &&PortRange| other.ports.iter().any(|taken| taken.overlaps(port));
        let port = self.ports.iter().find(taken)?;
        Some(format!("both use port {port}"))
    }
}

/// What a Service of type LoadBalancer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which Service.
    pub name: NamespacedName,
    /// Its labels, by which pools select it.
    pub labels: BTreeMap<String, String>,
    /// The only pool that its addresses may come from.
    pub pool: Option<String>,
    /// Addresses that it writes; empty: any.
    pub addresses: Vec<IpAddr>,
    /// Families that it wants one address of each, first one first.
    pub families: Vec<Family>,
    /// Whether it goes without families that no pool can serve (`PreferDualStack`).
    pub one_is_enough: bool,
    /// What decides whether it may share.
    pub sharing: Sharing,
}

impl Claim {
    /// The claim of a Service that was validated and defaulted; malformed addresses are left out,
    /// they were reported before. `port_ranges` are those of its annotation or policy.
    pub fn of(service: &api::Service, port_ranges: &[PortRange]) -> Self {
        let metadata = &service.metadata;
        let spec = service.spec.clone().unwrap_or_default();
        let annotation = |name| annotations::get(&metadata.annotations, name);
        let named = |name| {
            annotation(name)
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
        };
        let namespace = metadata.namespace.as_deref().filter(|n| !n.is_empty());
        let name = metadata.name.as_deref().unwrap_or_default();
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        let mut ports = ports(&spec);
        ports.extend(port_ranges);
        let families = families(&spec);
        Self {
            name: NamespacedName::new(namespace.unwrap_or("default"), name),
            labels: metadata.labels.clone().unwrap_or_default(),
            pool: named(ADDRESS_POOL),
            addresses: addresses(
                spec.load_balancer_ip.as_deref(),
                annotation(LOAD_BALANCER_IPS),
            ),
            one_is_enough: spec.ip_family_policy.as_deref() != Some("RequireDualStack"),
            families,
            sharing: Sharing {
                key: named(ALLOW_SHARED_IP),
                local_selector: local.then(|| spec.selector.clone().unwrap_or_default()),
                ports,
            },
        }
    }
}

fn addresses(field: Option<&str>, annotation: Option<&str>) -> Vec<IpAddr> {
    let annotated = annotation.into_iter().flat_map(|list| list.split(','));
    let mut addresses = Vec::new();
    for address in field.into_iter().chain(annotated) {
        let address = address::address(address.trim());
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    addresses
}

/// The families of a Service; one that says nothing takes what there is, IPv4 first.
fn families(spec: &api::ServiceSpec) -> Vec<Family> {
    let family = |text: &String| match text.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    let written = spec.ip_families.iter().flatten().filter_map(family);
    let cluster_ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let addresses = cluster_ips.filter_map(|text| address::address(text));
    let mut families = Vec::new();
    for family in written.chain(addresses.map(Family::of)) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    if families.is_empty() {
        families = vec![Family::V4, Family::V6];
    }
    families
}

fn ports(spec: &api::ServiceSpec) -> Vec<PortRange> {
    let ports = spec.ports.iter().flatten();
    let range = |port: &api::ServicePort| {
        let number = u16::try_from(port.port).ok()?;
        Some(PortRange {
            first: number,
            last: number,
            protocol: protocol(port.protocol.as_deref()).ok()?,
        })
    };
    ports.filter_map(range).collect()
}
