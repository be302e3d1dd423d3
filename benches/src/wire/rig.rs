//! The rig: three namespaces, the sink, and the plan of what is sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use sluice_tests::netns::{CONFIGURE, Netns};

use super::peer::FORGET_SECONDS;
use crate::generator::flow::{self, Clients};
use crate::generator::live::Seat;
use crate::generator::plan::Plan;
use crate::namespace::Namespace;
use crate::sink::Sink;

/// The gateway's interfaces: towards the generator, towards the sink.
pub const INTERFACES: [&str; 2] = ["wa", "wb"];
/// CPU of the generator.
pub const GENERATOR_CPU: usize = 0;
/// CPU of the peer.
pub const PEER_CPU: usize = 1;
/// Port of the first Service.
pub const PORT: u16 = 80;
/// Port of all backends.
pub const BACKEND_PORT: u16 = 8080;
/// Backends of each Service.
pub const BACKENDS: u8 = 4;
/// Backends more that are there to be added while a peer runs.
pub const SPARES: u8 = 28;
/// The gateway's address on the sink's link.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const CLIENT_PREFIX: u32 = 15;
const NEAR_MAC: [&str; 2] = ["02:00:00:00:0a:01", "02:00:00:00:0a:02"];
const FAR_MAC: [&str; 2] = ["02:00:00:00:0b:01", "02:00:00:00:0b:02"];
/// What must be off so that every frame has a whole checksum and is one frame.
const OFFLOADS: [&str; 4] = ["tx", "tso", "gso", "gro"];

/// Three namespaces, wired, with a sink at the end.
pub struct Rig {
    /// Where the peers live.
    pub gateway: Netns,
    /// The sink.
    pub sink: Sink,
    /// Where replies arrive.
    pub returns: Sink,
    /// Where the generator sits.
    pub seat: Seat,
    /// What is sent: UDP to Service 0, unless changed.
    pub plan: Plan,
    /// Seconds for which peers that are started keep connections that a backend has answered.
    pub kept: u32,
    /// Where the generator and clients live.
    pub near: Netns,
    /// Where the sink and servers live.
    pub far: Netns,
    flows: u32,
}

/// Address of a Service's Vip: 203.0.0.0/15 has room for all.
pub fn vip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(203, 0, 0, 10)) + service)
}

/// A backend's address.
pub fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, 11 + number)
}

impl Rig {
    /// Makes it, with `flows` flows.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    pub fn build(flows: u32) -> Result<Self> {
        let (near, gateway, far) = (
            Netns::create("wireg")?,
            Netns::create("wire")?,
            Netns::create("wires")?,
        );
        let [a, b] = INTERFACES;
        link(&near, "g0", &gateway, a, NEAR_MAC)?;
        link(&gateway, b, &far, "s0", FAR_MAC)?;
        near.ip_batch("address add 10.1.0.2/24 dev g0\n")?;
        far.ip_batch("address add 10.2.0.2/24 dev s0\nroute add default via 10.2.0.1\n")?;
        gateway.ip_batch(&format!(
            "address add 10.1.0.1/24 dev {a}\naddress add {GATEWAY}/24 dev {b}\n\
             route add {CLIENTS}/{CLIENT_PREFIX} via 10.1.0.2\n\
             neigh replace 10.1.0.2 lladdr {} dev {a} nud permanent\n",
            NEAR_MAC[0]
        ))?;
        for number in 0..BACKENDS + SPARES {
            let address = backend(number);
            far.ip_batch(&format!("address add {address}/24 dev s0\n"))?;
            gateway.ip_batch(&format!(
                "neigh replace {address} lladdr {} dev {b} nud permanent\n",
                FAR_MAC[1]
            ))?;
        }
        let sink = Sink::attach(&Namespace::named(far.name()), "s0", flows)?;
        let namespace = Namespace::named(near.name());
        let returns = Sink::attach(&namespace, "g0", 1)?;
        let interface = namespace.interface("g0")?;
        let target_mac = Namespace::named(gateway.name()).interface(a)?.mac;
        let clients = Clients::new(CLIENTS.into(), CLIENT_PREFIX)?;
        let target = SocketAddr::new(IpAddr::V4(vip(0)), PORT);
        let mut plan = Plan::new(interface.mac, target_mac, clients, vec![target]);
        plan.flows = u64::from(flows);
        plan.key = flow::key(7);
        // Longer than a shared machine keeps the peer from answering.
        plan.pause = Duration::from_millis(10);
        Ok(Self {
            gateway,
            sink,
            returns,
            seat: Seat {
                namespace,
                interface,
                cpu: Some(GENERATOR_CPU),
                batch: 64,
            },
            plan,
            kept: FORGET_SECONDS,
            near,
            far,
            flows,
        })
    }

    /// Makes it anew, in other namespaces, for the same plan, with connections kept as long.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn renew(&mut self) -> Result<()> {
        let (plan, kept) = (self.plan.clone(), self.kept);
        *self = Self {
            plan,
            kept,
            ..Self::build(self.flows)?
        };
        Ok(())
    }

    /// Spreads flows over so many Services.
    pub fn aim(&mut self, services: u32) {
        let vips = (0..services).map(|service| SocketAddr::new(vip(service).into(), PORT));
        self.plan.targets = vips.collect();
    }

    /// The gateway's namespace, for threads of this process.
    pub fn inside(&self) -> Namespace {
        Namespace::named(self.gateway.name())
    }
}

fn link(one: &Netns, a: &str, other: &Netns, b: &str, macs: [&str; 2]) -> Result<()> {
    let queues = "numtxqueues 1 numrxqueues 1";
    one.ip_batch(&format!(
        "link add {a} address {} {queues} type veth peer name {b} address {} {queues} netns {}\n",
        macs[0],
        macs[1],
        other.name()
    ))?;
    for (namespace, name) in [(one, a), (other, b)] {
        let mut words = vec!["ethtool", "-K", name];
        for feature in OFFLOADS {
            words.extend([feature, "off"]);
        }
        namespace.run(&words, CONFIGURE)?;
        namespace.ip_batch(&format!("link set {name} up\n"))?;
    }
    Ok(())
}
