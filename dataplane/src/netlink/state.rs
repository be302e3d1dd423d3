//! What the kernel has told, and the [`Network`] that follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use sluice_conf::settings::dataplane::Interface;

use super::resolver::Freshness;
use super::socket::Dumped;
use super::{links, routes, tags_of};
use crate::flow::Address;
use crate::io::InterfaceId;
use crate::neighbour::{Link, MacAddress, Neighbour, Network, Route, Routing, Tags};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    mac: MacAddress,
    stale: bool,
}

/// What is known of the served interfaces.
#[derive(Debug)]
pub(super) struct State {
    served: Vec<(String, Tags)>,
    by_index: HashMap<u32, InterfaceId>,
    links: Vec<Link>,
    v4: Vec<Route<Ipv4Addr>>,
    v6: Vec<Route<Ipv6Addr>>,
    gateways: BTreeSet<Neighbour>,
    neighbours: BTreeMap<Neighbour, Known>,
    /// Of every interface, served or not.
    host_addresses: HashSet<IpAddr>,
}

impl State {
    pub(super) fn new(interfaces: &[Interface]) -> Self {
        let served = interfaces
            .iter()
            .map(|interface| (interface.name.clone(), tags_of(interface)));
        Self::of(served.collect())
    }

    fn of(served: Vec<(String, Tags)>) -> Self {
        let down = |(_, tags): &(String, Tags)| Link {
            tags: *tags,
            ..Link::default()
        };
        Self {
            by_index: HashMap::new(),
            links: served.iter().map(down).collect(),
            v4: Vec::new(),
            v6: Vec::new(),
            gateways: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            host_addresses: HashSet::new(),
            served,
        }
    }

    /// Forgets everything for what was just read. An interface that is gone stays in the network
    /// as a link that is down; one that was made again is found by its name.
    pub(super) fn replace(&mut self, dumped: Dumped) {
        *self = Self::of(std::mem::take(&mut self.served));
        for (place, (name, tags)) in self.served.iter().enumerate() {
            let Some(found) = links::find(&dumped.links, name, *tags) else {
                continue;
            };
            self.by_index
                .insert(found.header.index, InterfaceId(place as u16));
            if let Some(link) = self.links.get_mut(place) {
                *link = links::link(found, *tags);
            }
        }
        self.add_addresses(&dumped.addresses);
        let ids = &self.by_index;
        let all = dumped.routes.iter();
        self.v4 = all.clone().filter_map(|r| routes::route(r, ids)).collect();
        self.v6 = all.filter_map(|r| routes::route(r, ids)).collect();
        self.gateways = gateways(&self.v4).chain(gateways(&self.v6)).collect();
        for neighbour in dumped.neighbours {
            self.neighbour(neighbour);
        }
    }

    fn add_addresses(&mut self, messages: &[AddressMessage]) {
        let mut usable: Vec<_> = messages
            .iter()
            .filter_map(|message| Some((message, usable_address(message)?)))
            .collect();
        // Stable: within a rank the kernel's order is kept.
        usable.sort_by_key(|(message, address)| rank(message, address));
        for (message, address) in usable {
            if !is_link_local(&address) {
                self.host_addresses.insert(address);
            }
            let id = self.by_index.get(&message.header.index);
            let Some(link) = id.and_then(|id| self.links.get_mut(usize::from(id.0))) else {
                continue;
            };
            match address {
                IpAddr::V4(v4) if !link.v4.contains(&v4) => link.v4.push(v4),
                IpAddr::V6(v6) if !link.v6.contains(&v6) => link.v6.push(v6),
                _ => {}
            }
        }
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
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = links::mac(bytes),
                _ => {}
            }
        }
        // The kernel lists the groups it sends to, too; nothing of ours goes there.
        let Some(address) = address.filter(|address| !address.is_multicast()) else {
            return false;
        };
        let key = Neighbour { interface, address };
        match lladdr.filter(|_| is_resolved(message.header.state)) {
            Some(mac) => {
                let stale = message.header.state == NeighbourState::Stale;
                let old = self.neighbours.insert(key, Known { mac, stale });
                old.is_none_or(|old| old.mac != mac)
            }
            None => self.neighbours.remove(&key).is_some(),
        }
    }

    pub(super) fn network(&self) -> Network {
        let v4 = Routing::new(self.v4.iter().copied(), self.macs());
        let v6 = Routing::new(self.v6.iter().copied(), self.macs());
        Network::new(self.links.clone(), v4, v6)
            .with_host_addresses(self.host_addresses.iter().copied())
    }

    fn macs<A: Address>(&self) -> HashMap<(InterfaceId, A), MacAddress> {
        let of_family = |(key, known): (&Neighbour, &Known)| {
            Some(((key.interface, A::of(key.address)?), known.mac))
        };
        self.neighbours.iter().filter_map(of_family).collect()
    }

    pub(super) fn ifindex(&self, interface: InterfaceId) -> Option<u32> {
        self.by_index
            .iter()
            .find(|(_, id)| **id == interface)
            .map(|(index, _)| *index)
    }

    pub(super) fn freshness(&self, neighbour: Neighbour) -> Freshness {
        match self.neighbours.get(&neighbour) {
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

fn gateways<A: Address>(routes: &[Route<A>]) -> impl Iterator<Item = Neighbour> + '_ {
    routes.iter().filter_map(|route| {
        Some(Neighbour {
            interface: route.interface,
            address: route.gateway?.into(),
        })
    })
}

/// The address, unless it is not known yet to be the host's alone, or known not to be (RFC 4862
/// section 5.4).
fn usable_address(message: &AddressMessage) -> Option<IpAddr> {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    if message.header.flags.intersects(unusable) {
        return None;
    }
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    // IPv6 has the local address apart on point-to-point links only.
    let plain = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
        _ => None,
    };
    let attributes = &message.attributes;
    let address = attributes.iter().find_map(local);
    address.or_else(|| attributes.iter().find_map(plain))
}

/// The lower, the sooner an address stands for its link: global before link-local, lasting before
/// deprecated and temporary (for IPv4: primary before secondary).
fn rank(message: &AddressMessage, address: &IpAddr) -> (bool, bool) {
    let lesser = AddressHeaderFlags::Secondary | AddressHeaderFlags::Deprecated;
    (
        is_link_local(address),
        message.header.flags.intersects(lesser),
    )
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
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
mod tests;
