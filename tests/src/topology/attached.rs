//! A host on a link of its own with the gateway.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Host, Topology, add_addresses, add_default_routes, link};
use crate::family;
use crate::netns::Netns;

impl Topology {
    /// Makes a host that is alone on network `net` with the gateway, whose interface there is `device`:
    /// the gateway is number 1 of it, the host number 10.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    pub fn attach(&self, name: &str, device: &str, net: u8) -> Result<Host> {
        let namespace = Netns::create(name)?;
        link(1, (&self.gateway, device), (&namespace, "eth0"))?;
        add_addresses(&self.gateway, device, net, 1)?;
        add_addresses(&namespace, "eth0", net, 10)?;
        add_default_routes(&namespace, net, 1)?;
        Ok(Host {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 0, net, 10),
            address6: family::ipv6(net, 10),
            namespace,
        })
    }
}
