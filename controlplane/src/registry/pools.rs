//! All that a cluster has to give: addresses of both families and node ports.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ServiceSpec;

use super::Cluster;
use super::networks;
use super::pool::{self, Pool};
use super::shape;
use crate::address::Family;
use crate::address::address;

/// What one Service holds of the pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Node ports of its ports.
    pub(super) node_ports: BTreeSet<i32>,
    pub(super) health_check: Option<i32>,
}

impl Held {
    /// What the fields of a complete Service say that it holds.
    pub(super) fn of(spec: &ServiceSpec) -> Self {
        let mut held = Self::default();
        if !shape::is_external_name(spec) {
            let ips = shape::cluster_ips(spec).iter();
            held.addresses = ips.filter_map(|ip| address(ip)).collect();
        }
        if shape::has_node_ports(spec) {
            held.node_ports = shape::node_ports(spec);
        }
        if shape::has_health_check(spec) {
            held.health_check = spec.health_check_node_port;
        }
        held
    }

    /// All numbers that it has of the node ports.
    pub(super) fn ports(&self) -> BTreeSet<i32> {
        self.node_ports
            .iter()
            .chain(&self.health_check)
            .copied()
            .collect()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Pools {
    networks: Vec<IpNet>,
    v4: Pool,
    v6: Pool,
    node_ports: RangeInclusive<u16>,
    ports: Pool,
}

impl Pools {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let networks = &cluster.services;
        let addresses = |family: Family| {
            let network = networks.iter().find(|net| Family::of(net.addr()) == family);
            network.map_or_else(|| networks::whole(family), |net| networks::pool(*net))
        };
        let (first, last) = cluster.node_ports.clone().into_inner();
        let (first, last) = (u128::from(first), u128::from(last));
        let values = (last + 1).saturating_sub(first);
        Self {
            networks: networks.clone(),
            v4: addresses(Family::V4),
            v6: addresses(Family::V6),
            node_ports: cluster.node_ports.clone(),
            ports: Pool::new(first..=last, pool::port_band(values)),
        }
    }

    /// Whether there is anything to give ClusterIPs from.
    pub(super) fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    /// The network that a family's addresses are given from.
    pub(super) fn network(&self, family: Family) -> Option<IpNet> {
        let mut networks = self.networks.iter();
        networks
            .find(|net| Family::of(net.addr()) == family)
            .copied()
    }

    /// The family of Services that ask for none.
    pub(super) fn primary(&self) -> Family {
        let first = self.networks.first();
        first.map_or(Family::V4, |network| Family::of(network.addr()))
    }

    /// Whether Services may have addresses of a family. Without any network they may bring those
    /// of both.
    pub(super) fn serves(&self, family: Family) -> bool {
        self.networks.is_empty() || self.network(family).is_some()
    }

    /// Whether Services may have addresses of both families.
    pub(super) fn is_dual(&self) -> bool {
        self.serves(Family::V4) && self.serves(Family::V6)
    }

    /// The range of node ports.
    pub(super) fn node_ports(&self) -> &RangeInclusive<u16> {
        &self.node_ports
    }

    pub(super) fn addresses(&self, family: Family) -> &Pool {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(super) fn addresses_mut(&mut self, family: Family) -> &mut Pool {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    pub(super) fn ports(&self) -> &Pool {
        &self.ports
    }

    pub(super) fn ports_mut(&mut self) -> &mut Pool {
        &mut self.ports
    }

    pub(super) fn release_address(&mut self, address: IpAddr) {
        let pool = self.addresses_mut(Family::of(address));
        pool.release(networks::number(address));
    }

    pub(super) fn release_port(&mut self, port: i32) {
        if let Ok(number) = u128::try_from(port) {
            self.ports.release(number);
        }
    }
}
