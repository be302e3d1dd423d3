//! Addresses that clients use, and how they are answered for.

use std::net::IpAddr;

use foldhash::{HashMap as FastMap, HashSet as FastSet};
use sluice_conf::{Frontend, Ping};

use super::CompiledService;

/// An address that is wholly the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vip {
    /// Whether some Service on it can serve.
    ready: bool,
    /// The most generous policy of its Services.
    ping: Option<Ping>,
}

impl Vip {
    /// Whether a ping is answered now.
    pub fn answers_ping(self) -> bool {
        match self.ping {
            Some(Ping::Always) => true,
            Some(Ping::Ready) => self.ready,
            Some(Ping::Never) | None => false,
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Vips {
    vips: FastMap<IpAddr, Vip>,
    node_addresses: FastSet<IpAddr>,
}

impl Vips {
    pub(super) fn add(&mut self, frontend: &Frontend, service: &CompiledService) {
        if !frontend.kind.is_vip() {
            self.node_addresses.insert(frontend.address);
            return;
        }
        let vip = self.vips.entry(frontend.address).or_default();
        vip.ready |= service.is_ready(frontend.address);
        vip.ping = vip.ping.max(Some(service.entry.ping));
    }

    /// The Vip of this address, if it is one.
    pub fn get(&self, address: IpAddr) -> Option<Vip> {
        self.vips.get(&address).copied()
    }

    /// Whether clients send to this address: a Vip, or an address that serves node ports.
    pub fn is_used(&self, address: IpAddr) -> bool {
        self.vips.contains_key(&address) || self.node_addresses.contains(&address)
    }
}
