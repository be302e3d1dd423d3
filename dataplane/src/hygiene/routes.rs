//! Blackhole routes of the gateway's own: while no worker takes the packets for a Vip, the kernel
//! drops them instead of sending them on in a circle.

use std::collections::BTreeSet;
use std::io;

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::netlink::socket::{Requests, family_of};
use crate::netlink::{NetlinkError, PROTOCOL};

/// Any other route of the same prefix is preferred.
const METRIC: u32 = u32::MAX;

/// The routes that are set.
pub(super) struct Routes {
    kernel: Requests,
    held: BTreeSet<IpNet>,
}

impl Routes {
    /// Nothing is set yet, and nothing is left of a process that was killed.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let mut kernel = Requests::open()?;
        if let Err(error) = sweep(&mut kernel) {
            tracing::warn!(%error, "routes of an earlier run cannot be removed; `ip route flush proto {PROTOCOL}` and `ip -6 route flush proto {PROTOCOL}` do it by hand");
        }
        Ok(Self {
            kernel,
            held: BTreeSet::new(),
        })
    }

    /// Makes the routes those of `wanted`; what fails is tried again the next time.
    pub(super) fn set(&mut self, wanted: &BTreeSet<IpNet>) {
        let new: Vec<IpNet> = wanted.difference(&self.held).copied().collect();
        let old: Vec<IpNet> = self.held.difference(wanted).copied().collect();
        let mut failed = None;
        for prefix in new {
            match self.kernel.add_route(blackhole(prefix)) {
                Ok(()) => _ = self.held.insert(prefix),
                Err(error) => failed = Some((prefix, error)),
            }
        }
        for prefix in old {
            match self.kernel.remove_route(blackhole(prefix)) {
                Ok(()) => _ = self.held.remove(&prefix),
                Err(error) => failed = Some((prefix, error)),
            }
        }
        if let Some((prefix, error)) = failed {
            tracing::warn!(%prefix, %error, "a blackhole route cannot be set or removed; while the dataplane is away, the kernel may route packets for a Vip in a circle");
        }
    }
}

fn sweep(kernel: &mut Requests) -> io::Result<()> {
    for route in kernel.routes_by(PROTOCOL)? {
        kernel.remove_route(route)?;
    }
    Ok(())
}

fn blackhole(prefix: IpNet) -> RouteMessage {
    let mut route = RouteMessage::default();
    let network = prefix.network();
    route.header.address_family = family_of(network);
    route.header.destination_prefix_length = prefix.prefix_len();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::from(PROTOCOL);
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::BlackHole;
    route.attributes = vec![
        RouteAttribute::Destination(network.into()),
        RouteAttribute::Priority(METRIC),
    ];
    route
}
