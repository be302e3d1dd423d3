//! Names under which this server lists itself in a zone.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use super::answer::below;
use super::options::{Options, View};
use super::records::{Kind, Named};
use super::zone::{Role, Zone};

/// The names and addresses: of the Services that have an own address as an endpoint; if there are
/// none in a cluster zone, the own addresses under the default name (CoreDNS).
pub(super) fn hosts(
    zone: &Zone,
    options: &Options,
    view: View,
    origin: &Name,
) -> Vec<(Name, IpAddr)> {
    let own = options.addresses.iter();
    let places = own.clone().flat_map(|address| zone.places(*address));
    let behind = places.filter(|place| matches!(place.role, Role::Endpoint(_)));
    let services = behind.filter_map(|place| zone.named(&place.service));
    let mut hosts: Vec<(Name, IpAddr)> = services
        .flat_map(|named| match view {
            View::External => outside(named, options, origin),
            View::Cluster | View::Reverse => inside(named, origin),
        })
        .collect();
    if hosts.is_empty() && view != View::External {
        let name = default_name(origin);
        hosts.extend(name.into_iter().flat_map(|name| {
            let own = own.clone();
            own.map(move |address| (name.clone(), *address))
        }));
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// The name when no Service has one.
pub(super) fn default_name(origin: &Name) -> Option<Name> {
    origin.prepend_label("dns").ok()?.prepend_label("ns").ok()
}

fn inside(named: &Named, origin: &Name) -> Vec<(Name, IpAddr)> {
    match &named.kind {
        Kind::ClusterIp(addresses) => at(named, View::Cluster, origin, addresses),
        Kind::Headless => endpoints(named, View::Cluster, origin),
        Kind::ExternalName(_) | Kind::Slices => Vec::new(),
    }
}

fn outside(named: &Named, options: &Options, origin: &Name) -> Vec<(Name, IpAddr)> {
    match options.external_headless && named.kind == Kind::Headless {
        true => endpoints(named, View::External, origin),
        false => at(named, View::External, origin, &named.external),
    }
}

fn at(named: &Named, view: View, origin: &Name, addresses: &[IpAddr]) -> Vec<(Name, IpAddr)> {
    let name = below(origin, view, &named.service, None);
    let each = |name: Name| {
        addresses
            .iter()
            .map(move |address| (name.clone(), *address))
    };
    name.into_iter().flat_map(each).collect()
}

fn endpoints(named: &Named, view: View, origin: &Name) -> Vec<(Name, IpAddr)> {
    let endpoints = named.endpoints().iter();
    let each = endpoints.filter_map(|endpoint| {
        let name = below(origin, view, &named.service, Some(&endpoint.host))?;
        Some((name, endpoint.address))
    });
    each.collect()
}
