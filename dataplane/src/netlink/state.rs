//! What the kernel has told, and the [`Network`] that follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};

use super::resolver::Freshness;
use super::socket::Dumped;
use crate::io::InterfaceId;
use crate::neighbour::{Link, MacAddress, Neighbour, Network, Route, Routing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    mac: MacAddress,
    stale: bool,
}

/// What is known of the served interfaces.
#[derive(Debug)]
pub(super) struct State {
    names: Vec<String>,
    by_index: HashMap<u32, InterfaceId>,
    links: Vec<Link>,
    routes: Vec<Route<Ipv4Addr>>,
    gateways: BTreeSet<Neighbour>,
    neighbours: BTreeMap<(InterfaceId, Ipv4Addr), Known>,
    /// Of every interface, served or not.
    host_addresses: HashSet<Ipv4Addr>,
}

impl State {
    pub(super) fn new(interfaces: &[String]) -> Self {
        Self {
            names: interfaces.to_vec(),
            by_index: HashMap::new(),
            links: vec![Link::default(); interfaces.len()],
            routes: Vec::new(),
            gateways: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            host_addresses: HashSet::new(),
        }
    }

    /// Forgets everything for what was just read. An interface that is gone stays in the network
    /// as a link that is down.
    pub(super) fn replace(&mut self, dumped: Dumped) {
        *self = Self::new(&self.names);
        for link in &dumped.links {
            self.add_link(link);
        }
        self.host_addresses.clear();
        self.add_addresses(&dumped.addresses);
        self.routes = dumped
            .routes
            .iter()
            .filter_map(|route| self.route(route))
            .collect();
        let gateways = self.routes.iter().filter_map(|route| {
            Some(Neighbour {
                interface: route.interface,
                address: route.gateway?.into(),
            })
        });
        self.gateways = gateways.collect();
        for neighbour in dumped.neighbours {
            self.neighbour(neighbour);
        }
    }

    fn add_link(&mut self, message: &LinkMessage) {
        let named = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::IfName(name) => self.names.iter().position(|served| served == name),
            _ => None,
        };
        let Some(place) = message.attributes.iter().find_map(named) else {
            return;
        };
        self.by_index
            .insert(message.header.index, InterfaceId(place as u16));
        let Some(link) = self.links.get_mut(place) else {
            return;
        };
        // RUNNING is the operational state: up, or unknown for drivers that do not say.
        link.up = message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(bytes) => {
                    link.mac = mac(bytes).unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                _ => {}
            }
        }
    }

    fn add_addresses(&mut self, messages: &[AddressMessage]) {
        for secondary in [false, true] {
            for message in messages {
                let flags = message.header.flags;
                if flags.contains(AddressHeaderFlags::Secondary) != secondary {
                    continue;
                }
                let local = message
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                        _ => None,
                    });
                self.host_addresses.extend(local);
                let id = self.by_index.get(&message.header.index);
                if let Some(link) = id.and_then(|id| self.links.get_mut(usize::from(id.0))) {
                    let new = local.filter(|address| !link.v4.contains(address));
                    link.v4.extend(new);
                }
            }
        }
    }

    fn route(&self, message: &RouteMessage) -> Option<Route<Ipv4Addr>> {
        let header = &message.header;
        let is_dead = header
            .flags
            .intersects(RouteFlags::Dead | RouteFlags::Linkdown);
        let leads_nowhere = matches!(
            header.kind,
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit
        );
        if is_dead || header.tos != 0 || !(header.kind == RouteType::Unicast || leads_nowhere) {
            return None;
        }
        let mut destination = Ipv4Addr::UNSPECIFIED;
        let (mut source, mut metric, mut table) = (None, 0, u32::from(header.table));
        let mut hop = self.hop(None, &message.attributes);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::MultiPath(hops) => {
                    let unusable = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
                    hop = hops
                        .iter()
                        .filter(|hop| !hop.flags.intersects(unusable))
                        .find_map(|hop| self.hop(Some(hop.interface_index), &hop.attributes));
                }
                _ => {}
            }
        }
        if table != MAIN_TABLE {
            return None;
        }
        // Kept without a way, so that no shorter prefix takes its place.
        let (interface, gateway) = hop
            .filter(|_| !leads_nowhere)
            .unwrap_or((InterfaceId::UNSERVED, None));
        let prefix_len = header.destination_prefix_length;
        Some(Route {
            destination,
            prefix_len,
            interface,
            gateway,
            source,
            metric,
        })
    }

    /// Interface and gateway of a next hop, if it lies on a served interface.
    fn hop(
        &self,
        mut ifindex: Option<u32>,
        attributes: &[RouteAttribute],
    ) -> Option<(InterfaceId, Option<Ipv4Addr>)> {
        let mut gateway = None;
        for attribute in attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                // A gateway that is not IPv4: without it the route would look as if on the link.
                RouteAttribute::Via(_) | RouteAttribute::Encap(_) => return None,
                _ => {}
            }
        }
        Some((*self.by_index.get(&ifindex?)?, gateway))
    }

    /// Takes in one neighbour; whether the network is another now.
    pub(super) fn neighbour(&mut self, message: NeighbourMessage) -> bool {
        let Some(&interface) = self.by_index.get(&message.header.ifindex) else {
            return false;
        };
        let mut address = None;
        let mut lladdr = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => {
                    address = Some(*inet);
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
                _ => {}
            }
        }
        let Some(address) = address else { return false };
        let key = (interface, address);
        let old = match lladdr.filter(|_| is_resolved(message.header.state)) {
            Some(mac) => {
                let stale = message.header.state == NeighbourState::Stale;
                let old = self.neighbours.insert(key, Known { mac, stale });
                return old.is_none_or(|old| old.mac != mac);
            }
            None => self.neighbours.remove(&key),
        };
        old.is_some()
    }

    pub(super) fn network(&self) -> Network {
        let neighbours = self
            .neighbours
            .iter()
            .map(|(&key, neighbour)| (key, neighbour.mac));
        let v4 = Routing::new(self.routes.iter().copied(), neighbours.collect());
        Network::new(self.links.clone(), v4, Routing::default())
            .with_host_addresses(self.host_addresses.iter().copied().map(IpAddr::V4))
    }

    pub(super) fn ifindex(&self, interface: InterfaceId) -> Option<u32> {
        self.by_index
            .iter()
            .find(|(_, id)| **id == interface)
            .map(|(index, _)| *index)
    }

    pub(super) fn freshness(&self, neighbour: Neighbour) -> Freshness {
        let IpAddr::V4(address) = neighbour.address else {
            return Freshness::Unknown;
        };
        match self.neighbours.get(&(neighbour.interface, address)) {
            None => Freshness::Unknown,
            Some(Known { stale: true, .. }) => Freshness::Stale,
            Some(_) => Freshness::Known,
        }
    }

    /// Gateways whose neighbour entry is stale.
    pub(super) fn stale_gateways(&self) -> impl Iterator<Item = Neighbour> {
        self.gateways
            .iter()
            .copied()
            .filter(|key| self.freshness(*key) == Freshness::Stale)
    }
}

/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
const MAIN_TABLE: u32 = 254;

fn mac(bytes: &[u8]) -> Option<MacAddress> {
    bytes.try_into().ok().map(MacAddress)
}

fn is_resolved(state: NeighbourState) -> bool {
    matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    )
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 254);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8]),
        ];
        link
    }

    fn address(index: u32, address: [u8; 4], flags: AddressHeaderFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.attributes = vec![AddressAttribute::Local(IpAddr::from(address))];
        message
    }

    fn route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = kind;
        route.header.table = MAIN_TABLE as u8;
        route.attributes = attributes;
        route
    }

    fn by_router(index: u32) -> Vec<RouteAttribute> {
        vec![
            RouteAttribute::Oif(index),
            RouteAttribute::Gateway(RouteAddress::Inet(ROUTER)),
        ]
    }

    fn neighbour(state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ROUTER)),
            NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
        ];
        message
    }

    fn state(routes: Vec<RouteMessage>) -> State {
        let up = LinkFlags::Up | LinkFlags::Running;
        let none = AddressHeaderFlags::empty();
        let mut state = State::new(&["eth1".into(), "eth2".into()]);
        state.replace(Dumped {
            links: vec![
                link(8, "eth2", LinkFlags::Up),
                link(7, "eth1", up),
                link(9, "other", up),
            ],
            addresses: vec![
                address(7, [10, 0, 1, 2], AddressHeaderFlags::Secondary),
                address(7, [10, 0, 1, 1], none),
                address(9, [10, 0, 9, 1], none),
            ],
            routes,
            ..Dumped::default()
        });
        state
    }

    fn next_hop(state: &State) -> Option<Ipv4Addr> {
        state
            .network()
            .next_hop(Ipv4Addr::new(192, 0, 2, 1))
            .map(|hop| hop.address)
    }

    #[test]
    fn links_stand_in_the_order_of_the_settings_with_primary_addresses_first() {
        let network = state(vec![]).network();
        let eth1 = network.link(InterfaceId(0)).unwrap();
        assert_eq!(
            eth1.v4,
            [Ipv4Addr::new(10, 0, 1, 1), Ipv4Addr::new(10, 0, 1, 2)]
        );
        assert_eq!(
            (eth1.mac, eth1.mtu, eth1.up),
            (MacAddress([2, 0, 0, 0, 0, 7]), 1500, true)
        );
        assert!(!network.link(InterfaceId(1)).unwrap().up);
    }

    #[test]
    fn an_interface_that_is_gone_is_a_link_that_is_down() {
        let mut state = state(vec![route(RouteType::Unicast, by_router(7))]);
        state.replace(Dumped::default());
        assert!(!state.network().link(InterfaceId(0)).unwrap().up);
        assert_eq!(next_hop(&state), None);
    }

    #[test]
    fn only_unicast_routes_by_served_interfaces_count() {
        assert_eq!(
            next_hop(&state(vec![route(RouteType::Unicast, by_router(7))])),
            Some(ROUTER)
        );
        assert_eq!(
            next_hop(&state(vec![route(RouteType::Unicast, by_router(9))])),
            None
        );
        assert_eq!(
            next_hop(&state(vec![route(RouteType::BlackHole, vec![])])),
            None
        );
        let mut elsewhere = by_router(7);
        elsewhere.push(RouteAttribute::Table(100));
        assert_eq!(
            next_hop(&state(vec![route(RouteType::Unicast, elsewhere)])),
            None
        );
    }

    #[test]
    fn of_several_next_hops_the_first_usable_on_a_served_interface_is_used() {
        let hop = |index, last, flags| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.flags = flags;
            let gateway = Ipv4Addr::new(10, 0, 1, last);
            hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
            hop
        };
        let none = RouteNextHopFlags::empty();
        let hops = vec![
            hop(9, 1, none),
            hop(7, 2, RouteNextHopFlags::Dead),
            hop(7, 254, none),
        ];
        let multipath = route(RouteType::Unicast, vec![RouteAttribute::MultiPath(hops)]);
        assert_eq!(next_hop(&state(vec![multipath])), Some(ROUTER));
    }

    #[test]
    fn a_neighbour_is_there_as_long_as_the_kernel_can_reach_it() {
        let mut state = state(vec![]);
        let known = |state: &State| state.network().mac(InterfaceId(0), ROUTER);
        for (change, changed, expected) in [
            (NeighbourState::Incomplete, false, None),
            (NeighbourState::Reachable, true, Some(MacAddress(MAC))),
            (NeighbourState::Stale, false, Some(MacAddress(MAC))),
            (NeighbourState::Probe, false, Some(MacAddress(MAC))),
            (NeighbourState::Failed, true, None),
            (NeighbourState::Permanent, true, Some(MacAddress(MAC))),
            (NeighbourState::None, true, None),
        ] {
            assert_eq!(state.neighbour(neighbour(change)), changed, "{change:?}");
            assert_eq!(known(&state), expected, "{change:?}");
        }
    }

    #[test]
    fn a_gateway_that_is_stale_is_to_be_confirmed() {
        let mut state = state(vec![route(RouteType::Unicast, by_router(7))]);
        state.neighbour(neighbour(NeighbourState::Reachable));
        assert_eq!(state.stale_gateways().count(), 0);
        state.neighbour(neighbour(NeighbourState::Stale));
        assert_eq!(
            state.stale_gateways().collect::<Vec<_>>(),
            [crate::neighbour::Neighbour {
                interface: InterfaceId(0),
                address: ROUTER.into(),
            }]
        );
    }
}
