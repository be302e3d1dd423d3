//! The addresses and ports that one change of a Service takes from the pools: all of them, or none
//! (pkg/registry/core/service/storage/alloc.go).
//!
//! Where an automatic allocation starts to search is a hash of what it is for, not a random number:
//! two gateways that know the same Services, or one that starts anew, mostly choose the same. The
//! choice differs where Services came in another order and their hashes lead to one number.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::networks;
use super::pool::Refusal;
use super::pools::{Held, Pools};
use super::shape;
use crate::address::Family;
use crate::address::address;
use crate::field::{FieldError, Reason};
use crate::object::NamespacedName;

/// A change that is not decided yet.
pub(super) struct Claim<'a> {
    pools: &'a mut Pools,
    holders: &'a BTreeMap<NamespacedName, Held>,
    name: &'a NamespacedName,
    before: Held,
    taken_addresses: Vec<IpAddr>,
    taken_ports: Vec<i32>,
    errors: Vec<FieldError>,
}

impl<'a> Claim<'a> {
    pub(super) fn new(
        pools: &'a mut Pools,
        holders: &'a BTreeMap<NamespacedName, Held>,
        name: &'a NamespacedName,
    ) -> Self {
        Self {
            pools,
            holders,
            name,
            before: holders.get(name).cloned().unwrap_or_default(),
            taken_addresses: Vec::new(),
            taken_ports: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Takes what the fields ask for and writes into them what is given. `update` is whether there
    /// was a Service before.
    pub(super) fn fill(&mut self, spec: &mut ServiceSpec, update: bool) {
        if !shape::is_external_name(spec) && !shape::is_headless(spec) {
            self.fill_addresses(spec);
        }
        if shape::has_node_ports(spec) {
            self.take_requested_ports(spec, update);
        }
        if shape::wants_node_ports(spec) {
            self.fill_ports(spec);
        }
        if shape::has_health_check(spec) {
            self.fill_health_check(spec);
        }
    }

    /// Takes all that a stored Service holds, wherever the ranges are now.
    pub(super) fn adopt(&mut self, held: &Held) {
        for address in &held.addresses {
            let pool = self.pools.addresses_mut(Family::of(*address));
            match pool.adopt(networks::number(*address)) {
                Ok(()) => self.taken_addresses.push(*address),
                Err(_) => self.address_taken("spec.clusterIPs", *address),
            }
        }
        for port in held.ports() {
            let number = u128::try_from(port).map_err(|_| Refusal::OutOfRange);
            match number.and_then(|number| self.pools.ports_mut().adopt(number)) {
                Ok(()) => self.taken_ports.push(port),
                Err(refusal) => self.port_refused("spec.ports", port, refusal),
            }
        }
    }

    /// What could not be taken.
    pub(super) fn errors(&mut self) -> Vec<FieldError> {
        std::mem::take(&mut self.errors)
    }

    /// Gives everything back that was taken.
    pub(super) fn revert(self) {
        for address in self.taken_addresses {
            self.pools.release_address(address);
        }
        for port in self.taken_ports {
            self.pools.release_port(port);
        }
    }

    /// Keeps what was taken, gives back what the Service held and does not hold `now`.
    pub(super) fn keep(self, now: &Held) {
        for address in self.before.addresses.difference(&now.addresses) {
            self.pools.release_address(*address);
        }
        for port in self.before.ports().difference(&now.ports()) {
            self.pools.release_port(*port);
        }
    }

    // === Addresses ===

    fn fill_addresses(&mut self, spec: &mut ServiceSpec) {
        let families = spec.ip_families.iter().flatten();
        let families: Vec<_> = families.filter_map(|name| Family::parse(name)).collect();
        let ips = spec.cluster_ips.get_or_insert_default();
        for (index, ip) in ips.iter().enumerate() {
            self.take_address(ip, index);
        }
        // A gateway without a cluster has no ClusterIPs but those that are written.
        let given = if self.pools.has_networks() {
            ips.len()
        } else {
            families.len()
        };
        for family in families.into_iter().skip(given) {
            match self.next_address(family) {
                Some(address) => ips.push(address.to_string()),
                None => break,
            }
        }
        spec.cluster_ip = ips.first().cloned();
    }

    fn take_address(&mut self, ip: &str, index: usize) {
        let field = format!("spec.clusterIPs[{index}]");
        let Some(address) = address(ip).filter(|ip| !self.before.addresses.contains(ip)) else {
            return;
        };
        let family = Family::of(address);
        let pool = self.pools.addresses_mut(family);
        match pool.allocate(networks::number(address)) {
            Ok(()) => self.taken_addresses.push(address),
            Err(Refusal::Taken) => self.address_taken(&field, address),
            Err(Refusal::OutOfRange) => {
                let network = self.pools.network(family).map(|net| net.to_string());
                let network = network.unwrap_or_else(|| family.name().to_owned());
                self.refuse(
                    field,
                    format!(
                        "{address} is none of the addresses that {network} has for Services \
                         (cluster.service_networks)"
                    ),
                );
            }
        }
    }

    fn next_address(&mut self, family: Family) -> Option<IpAddr> {
        let Some(network) = self.pools.network(family) else {
            let kind = family.name();
            let message = format!(
                "there is no network of {kind} addresses to give one from; name an address in \
                 spec.clusterIP, or set cluster.service_networks"
            );
            self.exhausted("spec.clusterIPs", message);
            return None;
        };
        let start = self.start(family.name(), self.pools.addresses(family).upper_len());
        let number = self.pools.addresses_mut(family).allocate_next(start);
        let address = number.and_then(|number| networks::address(family, number));
        match address {
            Some(address) => self.taken_addresses.push(address),
            None => {
                let message = format!(
                    "every address of {network} is in use; delete a Service, or give more in \
                     cluster.service_networks"
                );
                self.exhausted("spec.clusterIPs", message);
            }
        }
        address
    }

    // === Node ports ===

    fn take_requested_ports(&mut self, spec: &ServiceSpec, update: bool) {
        let ports = shape::ports(spec);
        for (index, port) in ports.iter().enumerate() {
            let Some(number) = port.node_port else {
                continue;
            };
            let same = |other: &&ServicePort| other.node_port == Some(number);
            match ports[..index].iter().find(same) {
                None if self.before.node_ports.contains(&number) => {}
                None => self.take_port(format!("spec.ports[{index}].nodePort"), number),
                // A Service may come to share a node port by an update of its port numbers.
                Some(first) if update || first.port == port.port => {}
                Some(first) => self.refuse(
                    format!("spec.ports[{index}].nodePort"),
                    format!(
                        "{number} is that of port {} of this Service already",
                        first.port
                    ),
                ),
            }
        }
    }

    /// The protocols of one port number share a node port.
    fn fill_ports(&mut self, spec: &mut ServiceSpec) {
        let ports = shape::ports_mut(spec);
        for index in 0..ports.len() {
            let port = &ports[index];
            if port.node_port.is_some() {
                continue;
            }
            let shares = |other: &&ServicePort| {
                other.port == port.port && shape::protocol(other) != shape::protocol(port)
            };
            let shared = ports
                .iter()
                .filter(shares)
                .find_map(|other| other.node_port);
            let purpose = format!("port {}", port.port);
            let field = format!("spec.ports[{index}].nodePort");
            ports[index].node_port = shared.or_else(|| self.next_port(&purpose, &field));
        }
    }

    fn fill_health_check(&mut self, spec: &mut ServiceSpec) {
        let field = "spec.healthCheckNodePort".to_owned();
        match spec.health_check_node_port {
            Some(number) if self.before.health_check == Some(number) => {}
            Some(number) => self.take_port(field, number),
            None => spec.health_check_node_port = self.next_port("health check", &field),
        }
    }

    fn next_port(&mut self, purpose: &str, field: &str) -> Option<i32> {
        let start = self.start(purpose, self.pools.ports().upper_len());
        let number = self.pools.ports_mut().allocate_next(start);
        let port = number.and_then(|number| i32::try_from(number).ok());
        match port {
            Some(port) => self.taken_ports.push(port),
            None => {
                let range = self.pools.node_ports();
                let message = format!(
                    "every node port of {}-{} is in use; delete a Service, or widen \
                     cluster.node_ports",
                    range.start(),
                    range.end()
                );
                self.exhausted(field, message);
            }
        }
        port
    }

    fn take_port(&mut self, field: String, port: i32) {
        let number = u128::try_from(port).map_err(|_| Refusal::OutOfRange);
        match number.and_then(|number| self.pools.ports_mut().allocate(number)) {
            Ok(()) => self.taken_ports.push(port),
            Err(refusal) => self.port_refused(&field, port, refusal),
        }
    }

    // === What is wrong ===

    fn refuse(&mut self, field: impl Into<String>, message: String) {
        self.errors
            .push(FieldError::new(field, Reason::Invalid, message));
    }

    fn exhausted(&mut self, field: &str, message: String) {
        self.errors
            .push(FieldError::new(field, Reason::Internal, message));
    }

    fn address_taken(&mut self, field: &str, address: IpAddr) {
        let holder = self.holder(|held| held.addresses.contains(&address));
        self.refuse(field, format!("{address} is in use by {holder}"));
    }

    fn port_refused(&mut self, field: &str, port: i32, refusal: Refusal) {
        let range = self.pools.node_ports();
        let message = match refusal {
            Refusal::Taken => {
                let holder = self.holder(|held| held.ports().contains(&port));
                format!("{port} is in use by {holder}")
            }
            Refusal::OutOfRange => format!(
                "{port} is not in {}-{}, the range of node ports (cluster.node_ports)",
                range.start(),
                range.end()
            ),
        };
        self.refuse(field, message);
    }

    /// Who holds something that is taken: another Service, or this one for something else.
    fn holder(&self, holds: impl Fn(&Held) -> bool) -> String {
        let mut holders = self.holders.iter();
        match holders.find(|(name, held)| *name != self.name && holds(held)) {
            Some((name, _)) => format!("Service {name}; choose another, or leave it out"),
            None => "this Service already; choose another, or leave it out".to_owned(),
        }
    }

    /// Where to start to search among `len` numbers.
    fn start(&self, purpose: &str, len: u64) -> u64 {
        let text = format!("{}/{purpose}", self.name);
        fnv1a(text.as_bytes()).checked_rem(len).unwrap_or(0)
    }
}

/// FNV-1a of 64 bits (draft-eastlake-fnv, section 2): stable over releases, which the standard
/// library's hashes are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}
