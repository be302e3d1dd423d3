use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteProtocol,
    RouteType,
};
use sluice_conf::settings::dataplane::{CopyMode, XdpMode};

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

fn served(name: &str, vlan: &[u16]) -> Interface {
    Interface {
        name: name.into(),
        xdp: XdpMode::Auto,
        copy: CopyMode::Auto,
        vlan: vlan.to_vec(),
    }
}

fn route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.kind = kind;
    route.header.address_family = AddressFamily::Inet;
    route.header.table = routes::MAIN_TABLE as u8;
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
    let mut state = State::new(&[served("eth1", &[]), served("eth2", &[])]);
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
    let router = Neighbour {
        interface: InterfaceId(0),
        address: ROUTER.into(),
    };
    assert_eq!(state.stale_gateways().collect::<Vec<_>>(), [router]);
}

const ROUTER6: &str = "fe80::254";

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn address6(index: u32, text: &str, flags: AddressHeaderFlags) -> AddressMessage {
    let mut message = address(index, [0; 4], flags);
    message.attributes = vec![AddressAttribute::Address(v6(text).into())];
    message
}

fn route6(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut route = route(kind, attributes);
    route.header.address_family = AddressFamily::Inet6;
    route
}

fn by_router6(index: u32) -> Vec<RouteAttribute> {
    vec![
        RouteAttribute::Oif(index),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6(ROUTER6))),
    ]
}

fn vlan(index: u32, name: &str, below: u32, id: u16) -> LinkMessage {
    let mut link = link(index, name, LinkFlags::Up | LinkFlags::Running);
    link.attributes.extend([
        LinkAttribute::Link(below),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
        ]),
    ]);
    link
}

fn link7() -> LinkMessage {
    link(7, "eth1", LinkFlags::Up | LinkFlags::Running)
}

fn with(vlan: &[u16], dumped: Dumped) -> State {
    let mut state = State::new(&[served("eth1", vlan)]);
    state.replace(dumped);
    state
}

fn next_hop6(state: &State, to: &str) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let hop = state.network().next_hop(v6(to))?;
    Some((hop.address, hop.source))
}

#[test]
fn global_addresses_of_ipv6_stand_first_and_doubtful_ones_are_left_out() {
    let none = AddressHeaderFlags::empty();
    let state = with(
        &[],
        Dumped {
            links: vec![link7()],
            addresses: vec![
                address6(7, "fe80::1", none),
                address6(7, "2001:db8::3", AddressHeaderFlags::Deprecated),
                address6(7, "2001:db8::4", AddressHeaderFlags::Tentative),
                address6(7, "2001:db8::5", AddressHeaderFlags::Dadfailed),
                address6(7, "2001:db8::1", none),
                address6(9, "2001:db8:9::1", none),
                address6(9, "fe80::9", none),
            ],
            ..Dumped::default()
        },
    );
    let network = state.network();
    let addresses = ["2001:db8::1", "2001:db8::3", "fe80::1"].map(v6);
    assert_eq!(network.link(InterfaceId(0)).unwrap().v6, addresses);
    let expected = ["2001:db8::1", "2001:db8::3", "2001:db8:9::1"].map(|text| v6(text).into());
    assert_eq!(state.host_addresses, HashSet::from(expected));
}

#[test]
fn a_route_of_ipv6_leads_to_a_router_by_its_link_local_address() {
    let state = with(
        &[],
        Dumped {
            links: vec![link7()],
            addresses: vec![address6(7, "2001:db8::1", AddressHeaderFlags::empty())],
            routes: vec![
                route6(RouteType::Unicast, by_router6(7)),
                route(RouteType::Unicast, by_router(7)),
            ],
            ..Dumped::default()
        },
    );
    let expected = Some((v6(ROUTER6), v6("2001:db8::1")));
    assert_eq!(next_hop6(&state, "2001:db8:5::5"), expected);
    // IPv4 has its own default route, and no address to send from.
    assert_eq!((state.v4.len(), state.v6.len()), (1, 1));
}

#[test]
fn the_prefix_of_every_link_is_no_route() {
    let mut on_link = route6(
        RouteType::Unicast,
        vec![
            RouteAttribute::Oif(7),
            RouteAttribute::Destination(RouteAddress::Inet6(v6("fe80::"))),
        ],
    );
    on_link.header.destination_prefix_length = 64;
    let dumped = Dumped {
        links: vec![link7()],
        routes: vec![on_link],
        ..Dumped::default()
    };
    assert_eq!(with(&[], dumped).v6, []);
}

#[test]
fn a_route_that_the_gateway_made_itself_is_not_seen() {
    let mut own = route(RouteType::BlackHole, vec![]);
    own.header.protocol = RouteProtocol::Other(super::super::PROTOCOL);
    let routes = vec![own, route(RouteType::Unicast, by_router(7))];
    assert_eq!(next_hop(&state(routes)), Some(ROUTER));
}

#[test]
fn an_ipv4_route_by_an_ipv6_router_leads_nowhere() {
    let wrong = vec![
        RouteAttribute::Oif(7),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6(ROUTER6))),
    ];
    assert_eq!(
        next_hop(&state(vec![route(RouteType::Unicast, wrong)])),
        None
    );
}

#[test]
fn a_neighbour_of_ipv6_is_known_by_its_link() {
    let mut state = state(vec![]);
    let mut message = neighbour(NeighbourState::Reachable);
    message.attributes[0] = NeighbourAttribute::Destination(v6(ROUTER6).into());
    assert!(state.neighbour(message));
    let network = state.network();
    let mac = Some(MacAddress(MAC));
    assert_eq!(network.mac(InterfaceId(0), v6(ROUTER6)), mac);
    assert_eq!(network.mac(InterfaceId(1), v6(ROUTER6)), None);
}

#[test]
fn a_group_is_no_neighbour() {
    let mut state = state(vec![]);
    let mut message = neighbour(NeighbourState::Noarp);
    message.attributes[0] = NeighbourAttribute::Destination(v6("ff02::16").into());
    assert!(!state.neighbour(message));
    assert_eq!(state.network().mac(InterfaceId(0), v6("ff02::16")), None);
}

#[test]
fn a_tagged_interface_is_the_vlan_device_on_it() {
    let links = || {
        vec![
            vlan(12, "inner", 11, 200),
            vlan(11, "outer", 7, 100),
            vlan(13, "elsewhere", 9, 100),
            link7(),
            link(9, "other", LinkFlags::Up),
        ]
    };
    for (tags, index) in [(&[][..], 7), (&[100], 11), (&[100, 200], 12)] {
        let dumped = Dumped {
            links: links(),
            addresses: vec![
                address(7, [10, 0, 7, 1], AddressHeaderFlags::empty()),
                address(11, [10, 0, 11, 1], AddressHeaderFlags::empty()),
                address(12, [10, 0, 12, 1], AddressHeaderFlags::empty()),
            ],
            routes: vec![route(RouteType::Unicast, by_router(index))],
            ..Dumped::default()
        };
        let state = with(tags, dumped);
        let network = state.network();
        let link = network.link(InterfaceId(0)).unwrap();
        assert!(link.up);
        assert_eq!(link.mac, MacAddress([2, 0, 0, 0, 0, index as u8]));
        assert_eq!(link.v4, [Ipv4Addr::new(10, 0, index as u8, 1)]);
        assert_eq!(link.tags.count(), tags.len());
        assert_eq!(next_hop(&state), Some(ROUTER));
        assert_eq!(state.ifindex(InterfaceId(0)), Some(index));
    }
}

#[test]
fn a_tagged_interface_without_its_vlan_device_is_down() {
    for tags in [&[101][..], &[100, 201]] {
        let dumped = Dumped {
            links: vec![link7(), vlan(11, "outer", 7, 100)],
            ..Dumped::default()
        };
        let network = with(tags, dumped).network();
        let link = network.link(InterfaceId(0)).unwrap();
        assert!(!link.up);
        assert_eq!(link.tags.count(), tags.len());
    }
}

#[test]
fn a_vlan_device_on_a_link_of_another_namespace_is_not_taken() {
    let mut foreign = vlan(11, "outer", 7, 100);
    foreign.attributes.push(LinkAttribute::LinkNetNsId(1));
    let dumped = Dumped {
        links: vec![link7(), foreign],
        ..Dumped::default()
    };
    assert!(
        !with(&[100], dumped)
            .network()
            .link(InterfaceId(0))
            .unwrap()
            .up
    );
}

#[test]
fn an_interface_that_was_made_again_is_followed_to_its_new_number() {
    let mut state = state(vec![route(RouteType::Unicast, by_router(7))]);
    state.neighbour(neighbour(NeighbourState::Reachable));
    state.replace(Dumped {
        links: vec![link(20, "eth1", LinkFlags::Up | LinkFlags::Running)],
        addresses: vec![address(20, [10, 0, 1, 1], AddressHeaderFlags::empty())],
        routes: vec![route(RouteType::Unicast, by_router(20))],
        ..Dumped::default()
    });
    assert_eq!(state.ifindex(InterfaceId(0)), Some(20));
    assert_eq!(next_hop(&state), Some(ROUTER));
    assert_eq!(state.network().mac(InterfaceId(0), ROUTER), None);
    // What still comes in about the old one is nobody's.
    assert!(!state.neighbour(neighbour(NeighbourState::Stale)));
}
