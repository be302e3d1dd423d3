//! Where a packet goes next: routes, links and link-layer neighbours as the kernel knows them.
//!
//! A [`Network`] is one moment of the kernel's view, read by netlink and never changed in place.
//! Packets leave by interfaces that the dataplane serves: a route through another interface only
//! says that there is no way.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::{HashMap as FastMap, HashSet as FastSet};

use crate::flow::Address;
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

/// VLAN identifiers of a frame, outermost first; 0 is none (IEEE 802.1Q section 9.6 keeps 0 for
/// frames without a VLAN).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tags(pub [u16; 2]);

impl Tags {
    /// How many there are.
    pub fn count(self) -> usize {
        self.0.iter().filter(|tag| **tag != 0).count()
    }

    /// Bytes that they take in a frame.
    pub fn len(self) -> usize {
        4 * self.count()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.count() == 0
    }
}

/// An interface that the dataplane serves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its own Ethernet address.
    pub mac: MacAddress,
    /// Its IPv4 addresses, primary first.
    pub v4: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, those of wider scope first.
    pub v6: Vec<Ipv6Addr>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Tags that its frames carry.
    pub tags: Tags,
}

/// One route of the kernel's main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<A> {
    /// Network address of the destination.
    pub destination: A,
    /// Prefix length, 0 to the bits of an address.
    pub prefix_len: u8,
    /// Interface to send by; [`InterfaceId::UNSERVED`] when the route ends the search without a
    /// way: it leads to an interface that is not served, or it is a blackhole.
    pub interface: InterfaceId,
    /// Router to send to; `None` when the destination is on the link.
    pub gateway: Option<A>,
    /// Preferred source address of the route, if it names one.
    pub source: Option<A>,
    /// Lower is preferred among routes of the same prefix.
    pub metric: u32,
}

/// Result of a route lookup: to whom the packet goes on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop<A> {
    /// Interface to send by.
    pub interface: InterfaceId,
    /// Whose Ethernet address the frame gets: the router's or the destination's.
    pub address: A,
    /// Address that the host itself would use as source.
    pub source: A,
}

impl<A: Address> NextHop<A> {
    /// The neighbour that it leads to.
    pub fn neighbour(&self) -> Neighbour {
        Neighbour {
            interface: self.interface,
            address: self.address.into(),
        }
    }
}

/// Somebody on a link, whose Ethernet address is known or wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The link.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
}

/// Routes and neighbours of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing<A: Address> {
    /// By prefix length, longest first; only lengths that occur.
    routes: Vec<(u8, FastMap<A, Route<A>>)>,
    neighbours: FastMap<(InterfaceId, A), MacAddress>,
}

impl<A: Address> Default for Routing<A> {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            neighbours: FastMap::default(),
        }
    }
}

impl<A: Address> Routing<A> {
    /// These routes and neighbours. Of several routes with one prefix the one with the lowest
    /// metric is used, of equals the first.
    pub fn new(
        routes: impl IntoIterator<Item = Route<A>>,
        neighbours: impl IntoIterator<Item = ((InterfaceId, A), MacAddress)>,
    ) -> Self {
        let mut by_length: Vec<FastMap<A, Route<A>>> =
            vec![FastMap::default(); usize::from(A::BITS) + 1];
        for route in routes {
            let Some(slot) = by_length.get_mut(usize::from(route.prefix_len)) else {
                continue;
            };
            let key = route.destination.network(route.prefix_len);
            let known = slot.entry(key).or_insert(route);
            if route.metric < known.metric {
                *known = route;
            }
        }
        let routes = (0..=A::BITS).rev().zip(by_length.into_iter().rev());
        Self {
            routes: routes.filter(|(_, map)| !map.is_empty()).collect(),
            neighbours: neighbours.into_iter().collect(),
        }
    }
}

/// An address family that a [`Network`] routes.
pub trait Routed: Address {
    /// The family's part of the network.
    fn routing(network: &Network) -> &Routing<Self>;

    /// The link's addresses of this family.
    fn of_link(link: &Link) -> &[Self];
}

impl Routed for Ipv4Addr {
    fn routing(network: &Network) -> &Routing<Self> {
        &network.v4
    }

    fn of_link(link: &Link) -> &[Self] {
        &link.v4
    }
}

impl Routed for Ipv6Addr {
    fn routing(network: &Network) -> &Routing<Self> {
        &network.v6
    }

    fn of_link(link: &Link) -> &[Self] {
        &link.v6
    }
}

/// The kernel's view at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    links: Vec<Link>,
    v4: Routing<Ipv4Addr>,
    v6: Routing<Ipv6Addr>,
    host_addresses: FastSet<IpAddr>,
}

impl Network {
    /// A network of these links, indexed by [`InterfaceId`], with their routes and neighbours.
    pub fn new(links: Vec<Link>, v4: Routing<Ipv4Addr>, v6: Routing<Ipv6Addr>) -> Self {
        // A link-local address is the host's on its own link only, and never a client's business.
        let v6_of = |link: &Link| {
            let wide = link.v6.iter().filter(|v6| !v6.is_unicast_link_local());
            wide.copied().map(IpAddr::V6).collect::<Vec<_>>()
        };
        let v4_of = |link: &Link| link.v4.iter().copied().map(IpAddr::V4).collect::<Vec<_>>();
        let host_addresses = links
            .iter()
            .flat_map(|link| [v4_of(link), v6_of(link)].concat())
            .collect();
        Self {
            links,
            v4,
            v6,
            host_addresses,
        }
    }

    /// The same network on a host that has these addresses, too: on its loopback interface and on
    /// interfaces that are not served.
    #[must_use]
    pub fn with_host_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.host_addresses.extend(addresses);
        self
    }

    /// Every address of the host.
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.host_addresses.iter().copied()
    }

    /// The link of an interface.
    pub fn link(&self, interface: InterfaceId) -> Option<&Link> {
        self.links.get(usize::from(interface.0))
    }

    /// Whether the address is one of the host's.
    pub fn is_own(&self, address: impl Into<IpAddr>) -> bool {
        self.host_addresses.contains(&address.into())
    }

    /// All links with their numbers.
    pub fn links(&self) -> impl Iterator<Item = (InterfaceId, &Link)> {
        (0..).map(InterfaceId).zip(&self.links)
    }

    /// Where a packet to `destination` goes next; `None` when the most specific route leads
    /// nowhere that is served.
    pub fn next_hop<A: Routed>(&self, destination: A) -> Option<NextHop<A>> {
        let route = A::routing(self)
            .routes
            .iter()
            .find_map(|(length, routes)| {
                let route = routes.get(&destination.network(*length))?;
                // The kernel, too, passes over routes of a link that is down.
                let is_down = self.link(route.interface).is_some_and(|link| !link.up);
                (!is_down).then_some(route)
            })?;
        let link = self.link(route.interface)?;
        Some(NextHop {
            interface: route.interface,
            address: route.gateway.unwrap_or(destination),
            source: route.source.or_else(|| A::of_link(link).first().copied())?,
        })
    }

    /// As [`Network::next_hop`], for an address of either family: only the neighbour it leads to.
    pub fn way_to(&self, destination: IpAddr) -> Option<Neighbour> {
        match destination {
            IpAddr::V4(v4) => self.next_hop(v4).map(|hop| hop.neighbour()),
            IpAddr::V6(v6) => self.next_hop(v6).map(|hop| hop.neighbour()),
        }
    }

    /// Ethernet address of somebody on a link, once the kernel has resolved it.
    pub fn mac<A: Routed>(&self, interface: InterfaceId, address: A) -> Option<MacAddress> {
        A::routing(self)
            .neighbours
            .get(&(interface, address))
            .copied()
    }

    /// Whether the kernel has resolved this neighbour.
    pub fn is_resolved(&self, neighbour: &Neighbour) -> bool {
        match neighbour.address {
            IpAddr::V4(v4) => self.mac(neighbour.interface, v4).is_some(),
            IpAddr::V6(v6) => self.mac(neighbour.interface, v6).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn link(address: &str) -> Link {
        Link {
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            v4: vec![address.parse().unwrap()],
            mtu: 1500,
            up: true,
            ..Link::default()
        }
    }

    fn route(prefix: &str, interface: u16, gateway: Option<&str>, metric: u32) -> Route<Ipv4Addr> {
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

    fn ipv4(links: Vec<Link>, routes: impl IntoIterator<Item = Route<Ipv4Addr>>) -> Network {
        Network::new(
            links,
            Routing::new(routes, HashMap::new()),
            Routing::default(),
        )
    }

    fn hop(network: &Network, to: &str) -> Option<(u16, String)> {
        let hop = network.next_hop(to.parse::<Ipv4Addr>().unwrap())?;
        Some((hop.interface.0, hop.address.to_string()))
    }

    #[test]
    fn the_longest_prefix_wins_and_then_the_lowest_metric() {
        let network = ipv4(
            vec![link("10.0.1.1"), link("10.0.2.1")],
            [
                route("0.0.0.0/0", 0, Some("10.0.1.254"), 100),
                route("0.0.0.0/0", 0, Some("10.0.1.253"), 50),
                route("10.0.2.0/24", 1, None, 0),
                route("10.0.2.128/25", 0, None, 0),
            ],
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
        let network = ipv4(
            vec![link("10.0.1.1")],
            [
                route("0.0.0.0/0", 0, Some("10.0.1.254"), 0),
                route("192.0.2.0/24", InterfaceId::UNSERVED.0, None, 0),
            ],
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
        let network = ipv4(vec![down], [route("0.0.0.0/0", 0, None, 0)]);
        assert_eq!(network.next_hop(Ipv4Addr::new(192, 0, 2, 1)), None);
    }

    #[test]
    fn ipv6_is_routed_by_its_own_table() {
        let mut link = link("10.0.1.1");
        let own: Ipv6Addr = "2001:db8:1::1".parse().unwrap();
        let router: Ipv6Addr = "fe80::9".parse().unwrap();
        link.v6 = vec![own];
        let route = Route {
            destination: Ipv6Addr::UNSPECIFIED,
            prefix_len: 0,
            interface: InterfaceId(0),
            gateway: Some(router),
            source: None,
            metric: 1024,
        };
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let neighbours = HashMap::from([((InterfaceId(0), router), mac)]);
        let routing = Routing::new([route], neighbours);
        let network = Network::new(vec![link], Routing::default(), routing);
        let hop = network
            .next_hop("2001:db8:9::7".parse::<Ipv6Addr>().unwrap())
            .unwrap();
        assert_eq!((hop.address, hop.source), (router, own));
        assert!(network.is_resolved(&hop.neighbour()));
        assert!(network.is_own(own) && network.is_own(Ipv4Addr::new(10, 0, 1, 1)));
        assert_eq!(network.next_hop(Ipv4Addr::new(192, 0, 2, 1)), None);
    }
}
