//! What is ours: which frames the XDP program sends to the workers.
//!
//! A [`Filter`] is a plain value computed from the service table, the network and the settings:
//! equal inputs give equal filters, in any order. [`crate::xdp::Steering`] writes it into the
//! program's maps. [`Filter::owns`] decides as the program does, from the same value, and tests hold
//! the two against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_conf::service::{Forwarding, Frontend, Protocol, Service};
use sluice_conf::settings::dataplane::{self, PortRange};
use sluice_conf::table::{Networks, ServiceTable};

use crate::neighbour::Network;

/// An address, a port and a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port; of a backend, 0 is every port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// An address and several ports in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointRange {
    /// Address.
    pub address: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// What the headers of a packet say, as far as it matters to a [`Filter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Who sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// Protocol of its payload (IANA "Assigned Internet Protocol Numbers"), behind IPv6 extension
    /// headers.
    pub protocol: u8,
    /// Source and destination port; `None` for a fragment that is not the first, and for protocols
    /// without ports.
    pub ports: Option<(u16, u16)>,
}

/// Which frames are ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Addresses that are wholly ours: every packet to them, ARP and neighbour solicitations for
    /// them.
    pub vips: BTreeSet<IpAddr>,
    /// Networks of Services: every packet to an address in them that the host does not have.
    pub networks: BTreeSet<IpNet>,
    /// Node ports: packets to them.
    pub node_ports: BTreeSet<Endpoint>,
    /// Node ports in a row.
    pub node_port_ranges: BTreeSet<EndpointRange>,
    /// Addresses and ports that replies to masqueraded connections come to.
    pub masquerade: BTreeMap<IpAddr, PortRange>,
    /// Backends of connections that keep the client's address: packets from them are replies or
    /// belong to direct connections, and so do packets to them.
    pub backends: BTreeSet<Endpoint>,
    /// The host's own addresses: packets between it and a backend are the host's.
    pub host_addresses: BTreeSet<IpAddr>,
}

impl Filter {
    /// The filter for this table on this network.
    ///
    /// A masquerade address from the settings that the host does not have is nobody's but ours, so
    /// it is a Vip too: without an answer for it no reply would find the way back.
    pub fn new(table: &ServiceTable, network: &Network, source_nat: &dataplane::SourceNat) -> Self {
        let services = table.services.iter().map(|service| &**service);
        Self::of(&table.networks, services, network, source_nat)
    }

    /// As [`Filter::new`], of the parts of a table.
    pub fn of<'a>(
        networks: &Networks,
        services: impl IntoIterator<Item = &'a Service>,
        network: &Network,
        source_nat: &dataplane::SourceNat,
    ) -> Self {
        let mut filter = Self {
            host_addresses: network.host_addresses().collect(),
            networks: networks.services.iter().map(IpNet::trunc).collect(),
            ..Self::default()
        };
        filter.add_masquerade(source_nat);
        for service in services {
            for frontend in &service.frontends {
                filter.add_frontend(frontend, service.name.protocol);
            }
            filter.add_backends(service);
        }
        filter
    }

    fn add_masquerade(&mut self, source_nat: &dataplane::SourceNat) {
        let fixed = [
            source_nat.address.map(IpAddr::V4),
            source_nat.address6.map(IpAddr::V6),
        ];
        for address in fixed.into_iter().flatten() {
            self.masquerade.insert(address, source_nat.ports);
            if !self.host_addresses.contains(&address) {
                self.vips.insert(address);
            }
        }
        let is_fixed = |host: &IpAddr| match host {
            IpAddr::V4(_) => source_nat.address.is_some(),
            IpAddr::V6(_) => source_nat.address6.is_some(),
        };
        for host in &self.host_addresses {
            if !is_fixed(host) && !is_link_local(host) {
                self.masquerade.insert(*host, source_nat.ports);
            }
        }
    }

    fn add_frontend(&mut self, frontend: &Frontend, protocol: Protocol) {
        let (address, first, last) = (frontend.address, frontend.port, frontend.last_port);
        // An address that the host has keeps its ARP and its other ports, ssh among them, whatever
        // a manifest calls it.
        if frontend.kind.is_vip() && !self.host_addresses.contains(&address) {
            self.vips.insert(address);
        } else if frontend.is_range() {
            self.node_port_ranges.insert(EndpointRange {
                address,
                protocol,
                first,
                last,
            });
        } else {
            self.node_ports.insert(Endpoint {
                address,
                port: first,
                protocol,
            });
        }
    }

    /// Backends of direct return answer past the gateway.
    fn add_backends(&mut self, service: &Service) {
        if !service.preserves() || service.forwarding == Forwarding::DirectReturn {
            return;
        }
        let backends = service.backends.iter();
        self.retain_backends(backends.map(|backend| Endpoint {
            address: backend.address,
            port: backend.port,
            protocol: service.name.protocol,
        }));
    }

    /// Keeps `extra` backends ours: those that left the table and still serve connections.
    pub fn retain_backends(&mut self, extra: impl IntoIterator<Item = Endpoint>) {
        self.backends.extend(extra);
    }

    /// Whether a packet that arrives for the gateway's Ethernet address is ours; of ICMP errors,
    /// only whether the addresses already tell, see [`Filter::owns_error`].
    pub fn owns(&self, packet: &Headers) -> bool {
        let to = packet.destination;
        if self.vips.contains(&to) {
            return true;
        }
        if !self.is_host(&to) && self.networks.iter().any(|network| network.contains(&to)) {
            return true;
        }
        self.owns_between(packet, self.is_host(&to))
    }

    /// Whether an ICMP error to `receiver` about the packet `quoted` is ours.
    pub fn owns_error(&self, receiver: IpAddr, quoted: &Headers) -> bool {
        // What an answer to the quoted packet would be.
        let answer = Headers {
            source: quoted.destination,
            destination: quoted.source,
            protocol: quoted.protocol,
            ports: quoted.ports.map(|(from, to)| (to, from)),
        };
        let error = Headers {
            destination: receiver,
            protocol: 1,
            ports: None,
            ..answer
        };
        let for_host = self.is_host(&receiver) || self.is_host(&answer.destination);
        self.owns(&error) || answer.ports.is_some() && self.owns_between(&answer, for_host)
    }

    /// Whether the two ends of a packet make it ours; `for_host`: whether the host gets it.
    fn owns_between(&self, packet: &Headers, for_host: bool) -> bool {
        let Some(protocol) = protocol_of(packet.protocol) else {
            return false;
        };
        let (from, to) = (packet.source, packet.destination);
        let (is_port, is_backend) = match packet.ports {
            Some((source, destination)) => (
                self.has_port(to, protocol, destination),
                self.has_backend(from, protocol, source)
                    || self.has_backend(to, protocol, destination),
            ),
            None => (
                self.has_some_port(to),
                self.has_some_backend(from) || self.has_some_backend(to),
            ),
        };
        is_port || is_backend && !for_host && !self.is_host(&from)
    }

    fn is_host(&self, address: &IpAddr) -> bool {
        self.host_addresses.contains(address)
    }

    fn has_port(&self, address: IpAddr, protocol: Protocol, port: u16) -> bool {
        let in_range = |range: &EndpointRange| {
            (range.address, range.protocol) == (address, protocol)
                && (range.first..=range.last).contains(&port)
        };
        let masquerade = self.masquerade.get(&address);
        let node_port = Endpoint {
            address,
            port,
            protocol,
        };
        masquerade.is_some_and(|range| range.ports().contains(&port))
            || self.node_ports.contains(&node_port)
            || self.node_port_ranges.iter().any(in_range)
    }

    fn has_some_port(&self, address: IpAddr) -> bool {
        self.masquerade.contains_key(&address)
            || self.node_ports.iter().any(|end| end.address == address)
            || self
                .node_port_ranges
                .iter()
                .any(|range| range.address == address)
    }

    fn has_backend(&self, address: IpAddr, protocol: Protocol, port: u16) -> bool {
        [port, 0].into_iter().any(|port| {
            self.backends.contains(&Endpoint {
                address,
                port,
                protocol,
            })
        })
    }

    fn has_some_backend(&self, address: IpAddr) -> bool {
        self.backends.iter().any(|end| end.address == address)
    }
}

/// IPv6 addresses of one link (RFC 4291 section 2.5.6) are no way back for what was routed.
fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn protocol_of(number: u8) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter().find(|protocol| protocol.number() == number)
}

#[cfg(test)]
mod tests;
