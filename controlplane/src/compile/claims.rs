//! Who may have an address: one Service each frontend, and no address is a Service's and an
//! endpoint's at once.

use std::collections::HashMap;
use std::net::IpAddr;

use sluice_conf::{Frontend, Protocol};

use super::id_of_slice;
use super::rules::Rules;
use crate::index::Index;
use crate::object::ObjectId;

/// Ports of one address and protocol that Services have.
#[derive(Default)]
struct Ports {
    single: HashMap<u16, ObjectId>,
    ranges: Vec<(u16, u16, ObjectId)>,
}

/// What is taken.
pub(super) struct Claims {
    node_addresses: Vec<IpAddr>,
    /// Every Vip of every Service, and when the first of its Services was known: none of them can
    /// be a backend (the Endpoints API forbids it).
    vips: HashMap<IpAddr, u64>,
    /// Every endpoint that was known before a Service with the same address.
    endpoints: HashMap<IpAddr, ObjectId>,
    ports: HashMap<(IpAddr, Protocol), Ports>,
}

impl Claims {
    pub(super) fn new(index: &Index, rules: &Rules) -> Self {
        let mut vips: HashMap<IpAddr, u64> = HashMap::new();
        for service in index.services() {
            for vip in service.object.vips.iter().filter(|vip| rules.allows(vip)) {
                let first = vips.entry(vip.address).or_insert(service.order);
                *first = service.order.min(*first);
            }
        }
        let mut endpoints: HashMap<IpAddr, (u64, ObjectId)> = HashMap::new();
        for slice in index.slices() {
            for endpoint in &slice.object.endpoints {
                let address = endpoint.address;
                if vips.get(&address).is_none_or(|vip| *vip < slice.order) {
                    continue;
                }
                let first = endpoints.get(&address);
                if first.is_none_or(|(order, _)| slice.order < *order) {
                    endpoints.insert(address, (slice.order, id_of_slice(&slice.object)));
                }
            }
        }
        // What was an endpoint first stays one, or a typing error in a new Service would take the
        // backends of others.
        vips.retain(|address, _| !endpoints.contains_key(address));
        let endpoints = endpoints
            .into_iter()
            .map(|(address, (_, id))| (address, id));
        Self {
            node_addresses: rules.node_addresses.clone(),
            vips,
            endpoints: endpoints.collect(),
            ports: HashMap::new(),
        }
    }

    /// Whether the address is a Service's.
    pub(super) fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains_key(&address)
    }

    /// Gives the frontend to `owner`, or tells why it cannot have it.
    pub(super) fn claim(
        &mut self,
        owner: &ObjectId,
        frontend: &Frontend,
        protocol: Protocol,
    ) -> Result<(), String> {
        let address = frontend.address;
        if frontend.kind.is_vip() && self.node_addresses.contains(&address) {
            return Err(format!(
                "{address} is the gateway's own address (node_ports.addresses) and cannot be \
                 a Service's; {owner} does not get it"
            ));
        }
        let endpoint = self.endpoints.get(&address);
        if let Some(slice) = endpoint.filter(|_| frontend.kind.is_vip()) {
            return Err(format!(
                "{address} is an endpoint of {slice} already and cannot be a Service's; {owner} \
                 does not get it"
            ));
        }
        let ports = self.ports.entry((address, protocol)).or_default();
        ports.claim(owner, frontend).map_err(|(taken, first)| {
            format!(
                "{address} {taken}/{protocol} is served by {first} already; {owner} does not get \
                 it"
            )
        })
    }
}

impl Ports {
    /// A port wins over a range that holds it, so only like and like exclude each other.
    fn claim(&mut self, owner: &ObjectId, frontend: &Frontend) -> Result<(), (String, ObjectId)> {
        let (first, last) = (frontend.port, frontend.last_port);
        if !frontend.is_range() {
            if let Some(other) = self.single.get(&first) {
                return Err((format!("port {first}"), other.clone()));
            }
            self.single.insert(first, owner.clone());
            return Ok(());
        }
        let overlaps = |(low, high, _): &&(u16, u16, ObjectId)| *low <= last && first <= *high;
        if let Some((low, high, other)) = self.ranges.iter().find(overlaps) {
            return Err((format!("ports {low}-{high}"), other.clone()));
        }
        self.ranges.push((first, last, owner.clone()));
        Ok(())
    }
}
