//! Where a packet goes next: routes, links and link-layer neighbours as the kernel knows them.
//!
//! A [`Network`] is one moment of the kernel's view, read by netlink and never changed in place.
//! Packets leave by interfaces that the dataplane serves: a route through another interface only
//! says that there is no way.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;

use crate::io::InterfaceId;

/// Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The broadcast address.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An interface that the dataplane serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its own Ethernet address.
    pub mac: MacAddress,
    /// Its IPv4 addresses, primary first.
    pub addresses: Vec<Ipv4Addr>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub up: bool,
}

/// One route of the kernel's main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Network address of the destination.
    pub destination: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix_len: u8,
    /// Interface to send by; [`InterfaceId::UNSERVED`] when the route ends the search without a
    /// way: it leads to an interface that is not served, or it is a blackhole.
    pub interface: InterfaceId,
    /// Router to send to; `None` when the destination is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Preferred source address of the route, if it names one.
    pub source: Option<Ipv4Addr>,
    /// Lower is preferred among routes of the same prefix.
    pub metric: u32,
}

/// Result of a route lookup: to whom the packet goes on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Interface to send by.
    pub interface: InterfaceId,
    /// Whose Ethernet address the frame gets: the router's or the destination's.
    pub address: Ipv4Addr,
    /// Address that the host itself would use as source.
    pub source: Ipv4Addr,
}

/// The kernel's view at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    links: Vec<Link>,
    /// By prefix length, longest first; only lengths that occur.
    routes: Vec<(u8, HashMap<u32, Route>)>,
    neighbours: HashMap<(InterfaceId, Ipv4Addr), MacAddress>,
    host_addresses: HashSet<Ipv4Addr>,
}

impl Network {
    /// A network of these links (indexed by [`InterfaceId`]), routes and neighbours. Of several
    /// routes with one prefix the one with the lowest metric is used, of equals the first.
    pub fn new(
        links: Vec<Link>,
        routes: impl IntoIterator<Item = Route>,
        neighbours: HashMap<(InterfaceId, Ipv4Addr), MacAddress>,
    ) -> Self {
        let mut by_length: Vec<HashMap<u32, Route>> = vec![HashMap::new(); 33];
        for route in routes {
            let Some(slot) = by_length.get_mut(usize::from(route.prefix_len)) else {
                continue;
            };
            let key = route.destination.to_bits() & mask(route.prefix_len);
            let known = slot.entry(key).or_insert(route);
            if route.metric < known.metric {
                *known = route;
            }
        }
        let routes = (0..=32u8).rev().zip(by_length.into_iter().rev());
        let routes = routes.filter(|(_, map)| !map.is_empty()).collect();
        let host_addresses = links
            .iter()
            .flat_map(|link| link.addresses.iter().copied())
            .collect();
        Self {
            links,
            routes,
            neighbours,
            host_addresses,
        }
    }

    /// The same network on a host that has these addresses, too: on its loopback interface and on
    /// interfaces that are not served.
    #[must_use]
    pub fn with_host_addresses(mut self, addresses: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        self.host_addresses.extend(addresses);
        self
    }

    /// Every address of the host.
    pub fn host_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.host_addresses.iter().copied()
    }

    /// The link of an interface.
    pub fn link(&self, interface: InterfaceId) -> Option<&Link> {
        self.links.get(usize::from(interface.0))
    }

    /// Whether the address is one of the host's.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.host_addresses.contains(&address)
    }

    /// All links with their numbers.
    pub fn links(&self) -> impl Iterator<Item = (InterfaceId, &Link)> {
        (0..).map(InterfaceId).zip(&self.links)
    }

    /// Where a packet to `destination` goes next; `None` when the most specific route leads
    /// nowhere that is served.
    pub fn next_hop(&self, destination: Ipv4Addr) -> Option<NextHop> {
        let route = self.routes.iter().find_map(|(length, routes)| {
            let route = routes.get(&(destination.to_bits() & mask(*length)))?;
            // The kernel, too, passes over routes of a link that is down.
            let is_down = self.link(route.interface).is_some_and(|link| !link.up);
            (!is_down).then_some(route)
        })?;
        let link = self.link(route.interface)?;
        Some(NextHop {
            interface: route.interface,
            address: route.gateway.unwrap_or(destination),
            source: route.source.or_else(|| link.addresses.first().copied())?,
        })
    }

    /// Ethernet address of a next hop, once the kernel has resolved it.
    pub fn neighbour(&self, interface: InterfaceId, address: Ipv4Addr) -> Option<MacAddress> {
        self.neighbours.get(&(interface, address)).copied()
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix_len.min(32)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(address: &str) -> Link {
        Link {
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            addresses: vec![address.parse().unwrap()],
            mtu: 1500,
            up: true,
        }
    }

    fn route(prefix: &str, interface: u16, gateway: Option<&str>, metric: u32) -> Route {
        let (destination, length) = prefix.split_once('/').unwrap();
        Route {
            destination: destination.parse().unwrap(),
            prefix_len: length.parse().unwrap(),
            interface: InterfaceId(interface),
            gateway: gateway.map(|g| g.parse().unwrap()),
            source: None,
            metric,
        }
    }

    fn hop(network: &Network, to: &str) -> Option<(u16, String)> {
        let hop = network.next_hop(to.parse().unwrap())?;
        Some((hop.interface.0, hop.address.to_string()))
    }

    #[test]
    fn the_longest_prefix_wins_and_then_the_lowest_metric() {
        let network = Network::new(
            vec![link("10.0.1.1"), link("10.0.2.1")],
            [
                route("0.0.0.0/0", 0, Some("10.0.1.254"), 100),
                route("0.0.0.0/0", 0, Some("10.0.1.253"), 50),
                route("10.0.2.0/24", 1, None, 0),
                route("10.0.2.128/25", 0, None, 0),
            ],
            HashMap::new(),
        );
        assert_eq!(hop(&network, "10.0.2.7"), Some((1, "10.0.2.7".into())));
        assert_eq!(hop(&network, "10.0.2.200"), Some((0, "10.0.2.200".into())));
        assert_eq!(
            hop(&network, "198.51.100.1"),
            Some((0, "10.0.1.253".into()))
        );
    }

    #[test]
    fn a_route_that_leads_nowhere_hides_the_default_route() {
        let network = Network::new(
            vec![link("10.0.1.1")],
            [
                route("0.0.0.0/0", 0, Some("10.0.1.254"), 0),
                route("192.0.2.0/24", InterfaceId::UNSERVED.0, None, 0),
            ],
            HashMap::new(),
        );
        assert_eq!(hop(&network, "192.0.2.7"), None);
        assert_eq!(
            hop(&network, "198.51.100.1"),
            Some((0, "10.0.1.254".into()))
        );
    }

    #[test]
    fn a_link_that_is_down_carries_no_route() {
        let mut down = link("10.0.1.1");
        down.up = false;
        let network = Network::new(vec![down], [route("0.0.0.0/0", 0, None, 0)], HashMap::new());
        assert_eq!(network.next_hop(Ipv4Addr::new(192, 0, 2, 1)), None);
    }
}
