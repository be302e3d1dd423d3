//! The follower on a real kernel, in namespaces of its own; needs root.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crossbeam::channel::{Receiver, unbounded};
use sluice_conf::settings::dataplane::{CopyMode, XdpMode};

use super::namespace::{Namespace, ip};
use super::*;
use crate::io::InterfaceId;

const SERVED: InterfaceId = InterfaceId(0);

/// A gateway that serves `eth1`, wired to `far` in another namespace.
struct Scene {
    gateway: Namespace,
    other: Namespace,
}

struct Following {
    _handle: Handle,
    first: Network,
    later: Receiver<Network>,
    resolve: Resolve,
}

impl Following {
    /// The first network that is as wanted.
    fn until(&self, wanted: impl Fn(&Network) -> bool) -> Network {
        if wanted(&self.first) {
            return self.first.clone();
        }
        loop {
            // Only a test that fails waits for so long.
            let network = self.later.recv_timeout(Duration::from_secs(20));
            match network.expect("the network is never as wanted") {
                network if wanted(&network) => return network,
                _ => {}
            }
        }
    }

    /// Asks for a neighbour as workers do, for every frame again, until it is known.
    fn until_asked(&self, wanted: Neighbour) {
        for _ in 0..60 {
            assert!(self.resolve.ask(wanted));
            let heard = self.later.recv_timeout(Duration::from_secs(1));
            if heard.is_ok_and(|network| network.is_resolved(&wanted)) {
                return;
            }
        }
        panic!("{wanted:?} is never resolved");
    }
}

fn wire(gateway: &Namespace, other: &Namespace) {
    let name = other.name();
    gateway.run(move || {
        ip("link add eth1 type veth peer name far");
        ip(&format!("link set far netns {name}"));
        ip("link set eth1 up");
    });
    other.run(|| _ = ip("link set far up"));
}

impl Scene {
    fn new() -> Self {
        let (gateway, other) = (Namespace::new(), Namespace::new());
        wire(&gateway, &other);
        Self { gateway, other }
    }

    fn follow(&self) -> Following {
        let interface = Interface {
            name: "eth1".into(),
            xdp: XdpMode::Auto,
            copy: CopyMode::Auto,
            vlan: Vec::new(),
        };
        self.gateway.run(move || {
            let (resolve, unresolved) = unresolved(4096).unwrap();
            let (publish, later) = unbounded();
            let publish = move |network| _ = publish.send(network);
            let (handle, first) = start(&[interface], unresolved, publish).unwrap();
            Following {
                _handle: handle,
                first,
                later,
                resolve,
            }
        })
    }
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn way(network: &Network, to: &str) -> Option<IpAddr> {
    network.way_to(to.parse().unwrap()).map(|way| way.address)
}

#[test]
fn addresses_and_routes_of_both_families_are_followed() {
    let scene = Scene::new();
    let following = scene.follow();
    scene.gateway.run(|| {
        ip("addr add 10.0.1.1/24 dev eth1");
        ip("addr add 2001:db8:1::1/64 dev eth1 nodad");
        ip("route add default via 10.0.1.254");
        ip("route add 2001:db8:8::/48 via fe80::8 dev eth1");
        ip("route add 2001:db8:9::/48 nexthop via 2001:db8:1::8 dev eth1 nexthop via 2001:db8:1::9 dev eth1");
        ip("route add blackhole 2001:db8:9:9::/64");
        ip("route add blackhole 2001:db8:8:8::/64 proto 83");
    });
    let network = following.until(|network| {
        way(network, "2001:db8:9::1").is_some()
            && way(network, "2001:db8:9:9::1").is_none()
            && network.link(SERVED).is_some_and(|link| link.v6.len() == 2)
    });
    assert_eq!(
        way(&network, "192.0.2.1"),
        Some("10.0.1.254".parse().unwrap())
    );
    assert_eq!(
        way(&network, "2001:db8:1::5"),
        Some(v6("2001:db8:1::5").into())
    );
    assert_eq!(way(&network, "2001:db8:8::1"), Some(v6("fe80::8").into()));
    assert_eq!(
        way(&network, "2001:db8:9::1"),
        Some(v6("2001:db8:1::8").into())
    );
    // The gateway's own blackhole is not seen, so the wider route goes on.
    let own = network.way_to("2001:db8:8:8::1".parse().unwrap());
    assert_eq!(own.map(|way| way.address), Some(v6("fe80::8").into()));
    let addresses = &network.link(SERVED).unwrap().v6;
    assert_eq!(addresses[0], v6("2001:db8:1::1"));
    assert!(addresses[1].is_unicast_link_local());
}

#[test]
fn a_neighbour_of_either_family_is_resolved_at_request() {
    let scene = Scene::new();
    scene.gateway.run(|| {
        ip("addr add 10.0.1.1/24 dev eth1");
        ip("addr add 2001:db8:1::1/64 dev eth1 nodad");
    });
    scene.other.run(|| {
        ip("link set far address 02:00:00:00:00:42");
        ip("addr add 10.0.1.2/24 dev far");
        ip("addr add 2001:db8:1::2/64 dev far nodad");
    });
    let following = scene.follow();
    for address in ["10.0.1.2", "2001:db8:1::2"] {
        let wanted = Neighbour {
            interface: SERVED,
            address: address.parse().unwrap(),
        };
        following.until_asked(wanted);
    }
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_followed() {
    let scene = Scene::new();
    let following = scene.follow();
    let route = || {
        ip("addr add 10.0.1.1/24 dev eth1");
        ip("route add default via 10.0.1.254");
    };
    scene.gateway.run(route);
    following.until(|network| way(network, "192.0.2.1").is_some());
    scene.gateway.run(|| _ = ip("link del eth1"));
    following.until(|network| network.link(SERVED).is_some_and(|link| !link.up));
    wire(&scene.gateway, &scene.other);
    scene.gateway.run(route);
    let network = following.until(|network| way(network, "192.0.2.1").is_some());
    assert!(network.link(SERVED).unwrap().up);
}
