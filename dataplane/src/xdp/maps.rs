//! The XDP program's maps, in the bytes that `bpf/steer.h` lays down.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, XskMap};
use aya::{Ebpf, Pod};

use super::{SteerStats, XdpError};
use crate::interface;
use crate::steer::{Endpoint, Filter};

/// `QUEUES_PER_INTERFACE` of `bpf/steer.h`.
pub(super) const QUEUES_PER_INTERFACE: u32 = 64;

/// `struct address`.
type AddressKey = [u8; 16];
/// `struct endpoint`.
type EndpointKey = [u8; 20];
/// `struct port_range`.
type RangeValue = [u16; 2];

/// One hash map and what an error calls its contents.
#[derive(Debug)]
struct Table<K, V> {
    what: &'static str,
    limit: u32,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    fn take(ebpf: &mut Ebpf, name: &str, what: &'static str) -> Result<Self, XdpError> {
        let map = take(ebpf, name)?;
        let limit = match &map {
            aya::maps::Map::HashMap(data) => data.info().map_or(0, |info| info.max_entries()),
            _ => 0,
        };
        let map = HashMap::try_from(map).map_err(|error| map_error(what, &error))?;
        Ok(Self { what, limit, map })
    }

    fn insert(&mut self, key: K, value: V) -> Result<(), XdpError> {
        self.map
            .insert(key, value, 0)
            .map_err(|error| match os_code(&error) {
                Some(libc::E2BIG) => XdpError::Full {
                    what: self.what,
                    limit: self.limit,
                },
                _ => map_error(self.what, &error),
            })
    }

    fn remove(&mut self, key: K) -> Result<(), XdpError> {
        match self.map.remove(&key) {
            Err(error) if os_code(&error) != Some(libc::ENOENT) => {
                Err(map_error(self.what, &error))
            }
            _ => Ok(()),
        }
    }
}

/// All maps, and the filter that they hold.
pub(super) struct Maps {
    vips: Table<AddressKey, u8>,
    node_ports: Table<EndpointKey, u8>,
    masquerade: Table<AddressKey, RangeValue>,
    backends: Table<EndpointKey, u8>,
    host_addresses: Table<AddressKey, u8>,
    interfaces: Table<u32, u32>,
    sockets: XskMap<MapData>,
    stats: PerCpuArray<MapData, u64>,
    filter: Filter,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            vips: Table::take(ebpf, "vips", "Vips")?,
            node_ports: Table::take(ebpf, "node_ports", "node ports")?,
            masquerade: Table::take(ebpf, "masquerade", "masquerade addresses")?,
            backends: Table::take(
                ebpf,
                "backends",
                "backends of Services that keep the client's address",
            )?,
            host_addresses: Table::take(ebpf, "host_addresses", "host addresses")?,
            interfaces: Table::take(ebpf, "interfaces", "interfaces")?,
            sockets: XskMap::try_from(take(ebpf, "xsks")?)
                .map_err(|error| map_error("sockets", &error))?,
            stats: PerCpuArray::try_from(take(ebpf, "steer_stats")?)
                .map_err(|error| map_error("counters", &error))?,
            filter: Filter::default(),
        })
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Gives the `place`th interface its part of the socket map and returns where it begins.
    pub(super) fn add_interface(&mut self, name: &str, place: usize) -> Result<u32, XdpError> {
        let facts = interface::facts(name).map_err(|_| XdpError::NoInterface(name.to_owned()))?;
        let base = place as u32 * QUEUES_PER_INTERFACE;
        self.interfaces.insert(facts.ifindex, base)?;
        Ok(base)
    }

    pub(super) fn set_socket(&mut self, place: u32, socket: RawFd) -> Result<(), XdpError> {
        self.sockets
            .set(place, socket, 0)
            .map_err(|error| map_error("sockets", &error))
    }

    pub(super) fn extend(&mut self, wanted: &Filter) -> Result<(), XdpError> {
        let Self {
            vips,
            node_ports,
            masquerade,
            backends,
            host_addresses,
            filter: held,
            ..
        } = self;
        // Host addresses first: a backend that is ours before them would take the host's packets.
        add(
            host_addresses,
            &mut held.host_addresses,
            &wanted.host_addresses,
            address_key,
        )?;
        add(vips, &mut held.vips, &wanted.vips, address_key)?;
        add(
            node_ports,
            &mut held.node_ports,
            &wanted.node_ports,
            endpoint_key,
        )?;
        add(backends, &mut held.backends, &wanted.backends, endpoint_key)?;
        for (&address, &range) in &wanted.masquerade {
            if held.masquerade.get(&address) != Some(&range) {
                masquerade.insert(address_key(&address), [range.first, range.last])?;
                held.masquerade.insert(address, range);
            }
        }
        Ok(())
    }

    pub(super) fn shrink(&mut self, wanted: &Filter) -> Result<(), XdpError> {
        let Self {
            vips,
            node_ports,
            masquerade,
            backends,
            host_addresses,
            filter: held,
            ..
        } = self;
        cut(backends, &mut held.backends, &wanted.backends, endpoint_key)?;
        cut(
            node_ports,
            &mut held.node_ports,
            &wanted.node_ports,
            endpoint_key,
        )?;
        cut(vips, &mut held.vips, &wanted.vips, address_key)?;
        cut(
            host_addresses,
            &mut held.host_addresses,
            &wanted.host_addresses,
            address_key,
        )?;
        for address in gone(&held.masquerade, &wanted.masquerade) {
            masquerade.remove(address_key(&address))?;
            held.masquerade.remove(&address);
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> Result<SteerStats, XdpError> {
        let total = |index: u32| match self.stats.get(&index, 0) {
            Ok(values) => Ok(values.iter().sum()),
            Err(error) => Err(map_error("counters", &error)),
        };
        // The order of `enum steer_stat`.
        Ok(SteerStats {
            redirected: total(0)?,
            passed: total(1)?,
            redirect_failed: total(2)?,
        })
    }
}

fn add<T: Ord + Copy, K: Pod>(
    table: &mut Table<K, u8>,
    held: &mut BTreeSet<T>,
    wanted: &BTreeSet<T>,
    key: impl Fn(&T) -> K,
) -> Result<(), XdpError> {
    let new: Vec<T> = wanted.difference(held).copied().collect();
    for item in new {
        table.insert(key(&item), 1)?;
        held.insert(item);
    }
    Ok(())
}

fn cut<T: Ord + Copy, K: Pod>(
    table: &mut Table<K, u8>,
    held: &mut BTreeSet<T>,
    wanted: &BTreeSet<T>,
    key: impl Fn(&T) -> K,
) -> Result<(), XdpError> {
    let old: Vec<T> = held.difference(wanted).copied().collect();
    for item in old {
        table.remove(key(&item))?;
        held.remove(&item);
    }
    Ok(())
}

fn gone<V>(held: &BTreeMap<IpAddr, V>, wanted: &BTreeMap<IpAddr, V>) -> Vec<IpAddr> {
    held.keys()
        .filter(|address| !wanted.contains_key(address))
        .copied()
        .collect()
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
    key[16..18].copy_from_slice(&endpoint.port.to_be_bytes());
    key[18] = endpoint.protocol.number();
    key
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, XdpError> {
    ebpf.take_map(name)
        .ok_or_else(|| XdpError::Load(format!("the object holds no map `{name}`")))
}

fn map_error(what: &'static str, error: &MapError) -> XdpError {
    XdpError::Map {
        what,
        reason: super::sentence(error),
    }
}

fn os_code(error: &MapError) -> Option<i32> {
    super::os_error(error).and_then(io::Error::raw_os_error)
}

#[cfg(test)]
mod tests {
    use sluice_conf::service::Protocol;

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
        assert_eq!(key[16..], [0x12, 0x34, 17, 0]);
        let header = include_str!("../bpf/steer.h");
        let queues = format!("#define QUEUES_PER_INTERFACE {QUEUES_PER_INTERFACE}\n");
        assert!(header.contains(&queues));
    }
}
