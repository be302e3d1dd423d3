//! Addresses that clients use, and how they are answered for.

use std::net::IpAddr;

use foldhash::{HashMap as FastMap, HashSet as FastSet};
use sluice_conf::{Frontend, Ping};

use super::CompiledService;

/// An address that is wholly the gateway's. Of each kind, how many frontends on it are of Services
/// like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vip {
    /// That can serve.
    ready: u32,
    /// Whose policy is [`Ping::Ready`].
    ping_ready: u32,
    /// Whose policy is [`Ping::Always`].
    ping_always: u32,
}

impl Vip {
    /// Whether a ping is answered now: the most generous policy of its Services decides.
    pub fn answers_ping(self) -> bool {
        self.ping_always > 0 || self.ping_ready > 0 && self.ready > 0
    }

    fn count(&mut self, frontend: &Frontend, service: &CompiledService, by: impl Fn(&mut u32)) {
        if service.is_ready(frontend.address) {
            by(&mut self.ready);
        }
        match service.entry.ping {
            Ping::Never => {}
            Ping::Ready => by(&mut self.ping_ready),
            Ping::Always => by(&mut self.ping_always),
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Vips {
    vips: FastMap<IpAddr, Vip>,
    node_addresses: FastSet<IpAddr>,
}

impl Vips {
    pub(super) fn add(&mut self, service: &CompiledService) {
        for frontend in &service.entry.frontends {
            if frontend.kind.is_vip() {
                let vip = self.vips.entry(frontend.address).or_default();
                vip.count(frontend, service, |count| *count += 1);
            } else {
                self.node_addresses.insert(frontend.address);
            }
        }
    }

    /// Puts another form of a Service with the same frontends in its place.
    pub(super) fn replace(&mut self, old: &CompiledService, new: &CompiledService) {
        for frontend in new.entry.frontends.iter().filter(|f| f.kind.is_vip()) {
            if let Some(vip) = self.vips.get_mut(&frontend.address) {
                vip.count(frontend, old, |count| *count -= 1);
                vip.count(frontend, new, |count| *count += 1);
            }
        }
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
