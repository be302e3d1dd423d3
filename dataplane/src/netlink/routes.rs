//! The kernel's routes as ours. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};

use crate::flow::Address;
use crate::io::InterfaceId;
use crate::neighbour::Route;

/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
pub(super) const MAIN_TABLE: u32 = 254;

/// A route of family `A`; `None` when it is of the other one, or none that packets of others take.
/// `ids` are the served interfaces by the kernel's numbers.
pub(super) fn route<A: Address>(
    message: &RouteMessage,
    ids: &HashMap<u32, InterfaceId>,
) -> Option<Route<A>> {
    let header = &message.header;
    let is_usable = !header
        .flags
        .intersects(RouteFlags::Dead | RouteFlags::Linkdown | RouteFlags::Cloned);
    let is_ours = u8::from(header.protocol) == super::PROTOCOL;
    if !is_family::<A>(header.address_family) || !is_usable || is_ours || header.tos != 0 {
        return None;
    }
    let leads_nowhere = matches!(
        header.kind,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
    );
    if header.kind != RouteType::Unicast && !leads_nowhere {
        return None;
    }
    let mut route = Route {
        destination: A::UNSPECIFIED,
        prefix_len: header.destination_prefix_length,
        interface: InterfaceId::UNSERVED,
        gateway: None,
        source: None,
        metric: 0,
    };
    let mut table = u32::from(header.table);
    let mut hop = hop(None, &message.attributes, ids);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = address(to)?,
            RouteAttribute::PrefSource(from) => route.source = address(from),
            RouteAttribute::Priority(priority) => route.metric = *priority,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::MultiPath(hops) => {
                let unusable = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
                hop = hops
                    .iter()
                    .filter(|hop| !hop.flags.intersects(unusable))
                    .find_map(|hop| self::hop(Some(hop.interface_index), &hop.attributes, ids));
            }
            _ => {}
        }
    }
    // Kept without a way, so that no shorter prefix takes its place.
    if let Some((interface, gateway)) = hop.filter(|_| !leads_nowhere) {
        (route.interface, route.gateway) = (interface, gateway);
    }
    (table == MAIN_TABLE && !is_of_link(route.destination)).then_some(route)
}

/// Interface and gateway of a next hop, if it lies on a served interface.
fn hop<A: Address>(
    mut ifindex: Option<u32>,
    attributes: &[RouteAttribute],
    ids: &HashMap<u32, InterfaceId>,
) -> Option<(InterfaceId, Option<A>)> {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(router) => gateway = Some(address(router)?),
            // A gateway of the other family: without it the route would look as if on the link.
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some((*ids.get(&ifindex?)?, gateway))
}

fn is_family<A: Address>(family: AddressFamily) -> bool {
    let expected = match A::UNSPECIFIED.into() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    family == expected
}

/// Every link has the same link-local prefix (RFC 4291 section 2.5.6): nothing is routed to it.
fn is_of_link(destination: impl Address) -> bool {
    matches!(destination.into(), IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

fn address<A: Address>(address: &RouteAddress) -> Option<A> {
    match *address {
        RouteAddress::Inet(v4) => A::of(v4.into()),
        RouteAddress::Inet6(v6) => A::of(v6.into()),
        _ => None,
    }
}
