//! A gateway in memory: steering filter and a whole dataplane, between two routers.
//!
//! ```text
//!   clients, everybody else -- router -- 0 [gateway] 1 -- router -- endpoints
//! ```
//!
//! Every frame that leaves is judged here: its checksums by another parser, its link and Ethernet
//! addresses by where it goes. No frame is lost without a reason, and no slot of memory leaks.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use sluice_conf::ServiceTable;
use sluice_dataplane::io::InterfaceId;
use sluice_dataplane::neighbour::{Link, MacAddress, Network, Route, Routing};
use sluice_dataplane::steer::{Filter, Headers};
use sluice_dataplane::testutil::rig::{BACKENDS, CLIENTS, Rig, RigSettings, Sent};
use sluice_dataplane::verdict::DropReason;

use super::cluster::Cluster;
use super::wire::{self, Packet, Seen};

const SIDES: [InterfaceId; 2] = [CLIENTS, BACKENDS];

/// Records that the engine reviews in a turn after a new table, at least.
const REVIEWED: u32 = 128;

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    rig: Rig,
    network: Network,
    settings: RigSettings,
    filter: Filter,
    own: Vec<IpAddr>,
    endpoints: BTreeSet<IpAddr>,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The steering filter left it to the kernel.
    Left,
    /// The engine gave it back to the kernel, unchanged.
    Returned,
    /// It was dropped.
    Dropped(DropReason),
    /// These frames left.
    Sent(Vec<Seen>),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Left => f.write_str("left to the kernel"),
            Fate::Returned => f.write_str("given back to the kernel"),
            Fate::Dropped(reason) => write!(f, "dropped as {}", reason.name()),
            Fate::Sent(frames) => {
                let frames: Vec<String> = frames.iter().map(Seen::to_string).collect();
                f.write_str(&frames.join(" and "))
            }
        }
    }
}

impl Gateway {
    /// A gateway that this cluster has no address of, with endpoints behind its second link and
    /// room for so many connections.
    pub fn new(
        cluster: &Cluster,
        endpoints: BTreeSet<IpAddr>,
        connections: usize,
    ) -> Result<Self, String> {
        let own = |ipv4| cluster.free(ipv4, SIDES.len());
        let (v4, v6) = (own(true), own(false));
        let network = network(&v4, &v6, &endpoints)?;
        let capacity = u32::try_from(connections.clamp(64, 1 << 18)).unwrap_or(1 << 18);
        let settings = RigSettings {
            capacity: capacity.next_power_of_two(),
            ..RigSettings::default()
        };
        Ok(Self {
            rig: Rig::on(&settings, network.clone(), &[]),
            filter: Filter::new(&ServiceTable::default(), &network, &settings.source_nat),
            own: v4.into_iter().chain(v6).collect(),
            network,
            settings,
            endpoints,
        })
    }

    /// Puts a table in force; what left meanwhile.
    pub fn apply(&mut self, table: &ServiceTable) -> Result<Vec<Seen>, String> {
        self.filter = Filter::new(table, &self.network, &self.settings.source_nat);
        let refused = |error| format!("the dataplane refuses the table: {error}");
        self.rig.push_table(table.clone()).map_err(refused)?;
        for _ in 0..self.settings.capacity.div_ceil(REVIEWED) + 1 {
            self.rig.turn(0);
        }
        let sent = self.rig.run();
        sent.iter().map(|sent| self.read(sent)).collect()
    }

    /// Lets time pass.
    pub fn pass(&mut self, seconds: u64) {
        self.rig.pass(Duration::from_secs(seconds));
    }

    /// Whether it is an address of the gateway itself.
    pub fn has(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The frame of a packet as it arrives here.
    pub fn frame(&self, packet: &Packet) -> Vec<u8> {
        let side = self.side(packet.from.ip());
        packet.frame(router(side), mac(side))
    }

    /// A packet arrives.
    pub fn send(&mut self, packet: &Packet) -> Result<Fate, String> {
        let headers = Headers {
            source: packet.from.ip(),
            destination: packet.to.ip(),
            protocol: packet.protocol.number(),
            ports: Some((packet.from.port(), packet.to.port())),
        };
        if !self.filter.owns(&headers) {
            return Ok(Fate::Left);
        }
        let frame = self.frame(packet);
        let before = self.rig.drops();
        let sent = self.rig.send(self.side(packet.from.ip()), &frame);
        let dropped = self
            .rig
            .drops()
            .into_iter()
            .find(|now| !before.contains(now));
        if self.rig.outstanding() > 0 {
            return Err("a frame was lost in the gateway".to_owned());
        }
        match (self.rig.to_kernel().as_slice(), dropped, sent.as_slice()) {
            ([packet], None, []) if packet == wire::packet_of(&frame) => Ok(Fate::Returned),
            ([_], None, []) => Err("the packet was changed on its way to the kernel".to_owned()),
            ([], Some((reason, _)), []) => Ok(Fate::Dropped(reason)),
            ([], _, [_, ..]) => {
                let seen = sent.iter().map(|sent| self.read(sent));
                Ok(Fate::Sent(seen.collect::<Result<_, _>>()?))
            }
            _ => Err("the packet vanished without a reason, or had two fates".to_owned()),
        }
    }

    /// Reads a frame that left, and judges where and to whom.
    fn read(&self, (interface, frame): &Sent) -> Result<Seen, String> {
        let seen = wire::read(frame).map_err(|what| format!("what left is {what}"))?;
        let side = self.side(seen.receiver());
        let ethernet = [router(side).0, mac(side).0].concat();
        if *interface != side || !frame.starts_with(&ethernet) {
            let link = interface.0;
            return Err(format!(
                "{seen} left by link {link} or to a wrong Ethernet address"
            ));
        }
        Ok(seen)
    }

    fn side(&self, address: IpAddr) -> InterfaceId {
        match self.endpoints.contains(&address) {
            true => BACKENDS,
            false => CLIENTS,
        }
    }
}

const fn mac(side: InterfaceId) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, side.0 as u8])
}

const fn router(side: InterfaceId) -> MacAddress {
    MacAddress([2, 0, 0, 0, 2, side.0 as u8])
}

fn network(v4: &[IpAddr], v6: &[IpAddr], endpoints: &BTreeSet<IpAddr>) -> Result<Network, String> {
    let mut links = Vec::new();
    for (side, (v4, v6)) in SIDES.into_iter().zip(v4.iter().zip(v6)) {
        links.push(Link {
            mac: mac(side),
            v4: [v4].into_iter().filter_map(|ip| v4_of(*ip)).collect(),
            v6: [v6].into_iter().filter_map(|ip| v6_of(*ip)).collect(),
            mtu: 1500,
            up: true,
            ..Link::default()
        });
    }
    if links.len() < SIDES.len() {
        return Err("the case uses every address that the gateway could have".to_owned());
    }
    // Link-local addresses: no case routes them.
    let router4 = |side: InterfaceId| Ipv4Addr::new(169, 254, 0, side.0 as u8 + 1);
    let router6 = |side: InterfaceId| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, side.0 + 1);
    let routes4 = endpoints.iter().filter_map(|ip| v4_of(*ip));
    let routes6 = endpoints.iter().filter_map(|ip| v6_of(*ip));
    Ok(Network::new(
        links,
        routing((Ipv4Addr::UNSPECIFIED, 32), routes4, router4),
        routing((Ipv6Addr::UNSPECIFIED, 128), routes6, router6),
    ))
}

/// Everything by the router on the clients' side, endpoints by the other one.
fn routing<A: sluice_dataplane::flow::Address>(
    (everything, host): (A, u8),
    endpoints: impl Iterator<Item = A>,
    by: impl Fn(InterfaceId) -> A,
) -> Routing<A> {
    let route = |destination, prefix_len, interface| Route {
        destination,
        prefix_len,
        interface,
        gateway: Some(by(interface)),
        source: None,
        metric: 0,
    };
    let endpoints = endpoints.map(|endpoint| route(endpoint, host, BACKENDS));
    let routes: Vec<_> = endpoints.chain([route(everything, 0, CLIENTS)]).collect();
    let neighbours = SIDES.map(|side| ((side, by(side)), router(side)));
    Routing::new(routes, HashMap::from(neighbours))
}

fn v4_of(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

fn v6_of(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    }
}
