//! A [`Filter`] in the bytes of the program's maps, as `bpf/steer.h` lays them down. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::steer::{Endpoint, EndpointRange, Filter};

/// `struct address`.
pub(super) type AddressKey = [u8; 16];
/// `struct address_use`.
pub(super) type AddressUse = [u16; 3];
/// `struct endpoint`.
pub(super) type EndpointKey = [u8; 20];
/// The bits of a prefix and what they are counted in.
pub(super) type Prefix<K> = (u32, K);

/// `enum address_flag`.
const VIP: u16 = 1;
const HOST: u16 = 2;
const PORTS: u16 = 4;
const RANGES: u16 = 8;
const BACKEND: u16 = 16;

/// `enum endpoint_flag`.
const FRONTEND_END: u8 = 1;
const BACKEND_END: u8 = 2;

const ADDRESS_BITS: u32 = 128;
const ENDPOINT_BITS: u32 = 160;
const PORT_BITS: u32 = 16;

/// What each address is.
pub(super) fn addresses(filter: &Filter) -> BTreeMap<AddressKey, AddressUse> {
    let Filter {
        vips,
        node_ports,
        node_port_ranges,
        masquerade,
        backends,
        host_addresses,
        networks: _,
    } = filter;
    let flags = vips
        .iter()
        .map(|address| (address, VIP))
        .chain(host_addresses.iter().map(|address| (address, HOST)))
        .chain(masquerade.keys().map(|address| (address, PORTS)))
        .chain(node_ports.iter().map(|end| (&end.address, PORTS)))
        .chain(
            node_port_ranges
                .iter()
                .map(|ends| (&ends.address, PORTS | RANGES)),
        )
        .chain(backends.iter().map(|end| (&end.address, BACKEND)));
    let mut uses = BTreeMap::<AddressKey, AddressUse>::new();
    for (address, flag) in flags {
        let [flags, first, last] = uses.entry(address_key(address)).or_default();
        *flags |= flag;
        if let Some(range) = masquerade.get(address) {
            (*first, *last) = (range.first, range.last);
        }
    }
    uses
}

/// What each single endpoint is.
pub(super) fn endpoints(filter: &Filter) -> BTreeMap<EndpointKey, u8> {
    let node_ports = filter.node_ports.iter().map(|end| (end, FRONTEND_END));
    let backends = filter.backends.iter().map(|end| (end, BACKEND_END));
    let mut kinds = BTreeMap::new();
    for (end, kind) in node_ports.chain(backends) {
        *kinds.entry(endpoint_key(end)).or_default() |= kind;
    }
    kinds
}

/// Node ports in a row, as prefixes.
pub(super) fn port_ranges(filter: &Filter) -> BTreeMap<Prefix<EndpointKey>, u8> {
    let prefixes = filter.node_port_ranges.iter().flat_map(|ends| {
        let &EndpointRange {
            address,
            protocol,
            first,
            last,
        } = ends;
        port_prefixes(first, last)
            .into_iter()
            .map(move |(port, bits)| {
                let key = endpoint_key(&Endpoint {
                    address,
                    port,
                    protocol,
                });
                ((ENDPOINT_BITS - PORT_BITS + bits, key), 1)
            })
    });
    prefixes.collect()
}

/// Networks of Services.
pub(super) fn networks(filter: &Filter) -> BTreeMap<Prefix<AddressKey>, u8> {
    let prefixes = filter.networks.iter().map(|network| {
        let bits = match network {
            IpNet::V4(v4) => ADDRESS_BITS - 32 + u32::from(v4.prefix_len()),
            IpNet::V6(v6) => u32::from(v6.prefix_len()),
        };
        ((bits, address_key(&network.network())), 1)
    });
    prefixes.collect()
}

/// The fewest prefixes (a port and how many of its bits count) that hold the ports from `first` to
/// `last` and no other; at most 30.
fn port_prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let mut prefixes = Vec::new();
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    while next < end {
        let aligned = next.trailing_zeros().min(PORT_BITS);
        let size = aligned.min((end - next).ilog2());
        prefixes.push((next as u16, PORT_BITS - size));
        next += 1 << size;
    }
    prefixes
}

fn address_key(address: &IpAddr) -> AddressKey {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn endpoint_key(endpoint: &Endpoint) -> EndpointKey {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&address_key(&endpoint.address));
    key[16] = endpoint.protocol.number();
    key[18..].copy_from_slice(&endpoint.port.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_conf::service::Protocol;
    use sluice_conf::settings::dataplane::PortRange;

    use super::*;

    #[test]
    fn keys_have_the_bytes_of_the_header() {
        let address = "192.0.2.1".parse().unwrap();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        assert_eq!(address_key(&address), mapped);
        let key = endpoint_key(&Endpoint {
            address,
            port: 0x1234,
            protocol: Protocol::Udp,
        });
        assert_eq!(key[..16], mapped);
        assert_eq!(key[16..], [17, 0, 0x12, 0x34]);
    }

    #[test]
    fn an_address_carries_everything_that_it_is() {
        let address: IpAddr = "10.0.1.1".parse().unwrap();
        let backend = Endpoint {
            address,
            port: 80,
            protocol: Protocol::Tcp,
        };
        let ports = PortRange {
            first: 1024,
            last: 2047,
        };
        let filter = Filter {
            host_addresses: [address].into(),
            masquerade: [(address, ports)].into(),
            backends: [backend].into(),
            node_ports: [backend].into(),
            ..Filter::default()
        };
        let expected = [HOST | PORTS | BACKEND, 1024, 2047];
        assert_eq!(
            addresses(&filter),
            [(address_key(&address), expected)].into()
        );
        let both = FRONTEND_END | BACKEND_END;
        assert_eq!(endpoints(&filter), [(endpoint_key(&backend), both)].into());
    }

    #[test]
    fn a_network_of_ipv4_is_a_prefix_of_mapped_addresses() {
        let filter = Filter {
            networks: ["10.96.0.0/12", "fd00::/108"]
                .map(|text| text.parse().unwrap())
                .into(),
            ..Filter::default()
        };
        let bits: Vec<u32> = networks(&filter)
            .into_keys()
            .map(|(bits, _)| bits)
            .collect();
        assert_eq!(bits, [108, 108]);
    }

    proptest! {
        #[test]
        fn prefixes_hold_the_ports_of_their_range_and_no_other(a in any::<u16>(), b in any::<u16>()) {
            let (first, last) = (a.min(b), a.max(b));
            let prefixes = port_prefixes(first, last);
            prop_assert!(prefixes.len() <= 30);
            for port in 0..=u16::MAX {
                let holds = |&(prefix, bits): &(u16, u32)| {
                    u32::from(port ^ prefix) >> (PORT_BITS - bits) == 0
                };
                let count = prefixes.iter().filter(|prefix| holds(prefix)).count();
                prop_assert_eq!(count, usize::from((first..=last).contains(&port)));
            }
        }
    }
}
