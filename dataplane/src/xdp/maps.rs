//! The XDP program's maps, and what they hold.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::{Ebpf, Pod};

use super::entries::{self, AddressKey, AddressUse, EndpointKey, Prefix};
use super::{SteerStats, XdpError};
use crate::neighbour::Tags;
use crate::steer::Filter;

/// `QUEUES_PER_INTERFACE` of `bpf/steer.h`.
pub(super) const QUEUES_PER_INTERFACE: u32 = 64;

/// `struct interface`.
type InterfaceValue = [u16; 3];

/// A map of the kernel that single entries are written to.
trait Store: TryFrom<Map, Error = MapError> {
    type Key: Ord + Copy;
    type Value: Copy;

    fn put(&mut self, key: Self::Key, value: Self::Value) -> Result<(), MapError>;
    fn delete(&mut self, key: Self::Key) -> Result<(), MapError>;
}

impl<K: Pod + Ord, V: Pod> Store for HashMap<MapData, K, V> {
    type Key = K;
    type Value = V;

    fn put(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.insert(key, value, 0)
    }

    fn delete(&mut self, key: K) -> Result<(), MapError> {
        self.remove(&key)
    }
}

impl<K: Pod + Ord, V: Pod> Store for LpmTrie<MapData, K, V> {
    type Key = Prefix<K>;
    type Value = V;

    fn put(&mut self, (bits, data): Prefix<K>, value: V) -> Result<(), MapError> {
        self.insert(&Key::new(bits, data), value, 0)
    }

    fn delete(&mut self, (bits, data): Prefix<K>) -> Result<(), MapError> {
        self.remove(&Key::new(bits, data))
    }
}

/// What an entry says, so that two can be joined.
trait Flags: Copy + PartialEq {
    /// Everything that either says.
    fn union(self, other: Self) -> Self;
    /// What both say.
    fn intersection(self, other: Self) -> Self;
}

impl Flags for u8 {
    fn union(self, other: Self) -> Self {
        self | other
    }

    fn intersection(self, other: Self) -> Self {
        self & other
    }
}

/// The masquerade ports come from the settings: they never change, but may come and go.
impl Flags for AddressUse {
    fn union(self, other: Self) -> Self {
        let ports = if other[2] == 0 { self } else { other };
        [self[0] | other[0], ports[1], ports[2]]
    }

    fn intersection(self, other: Self) -> Self {
        let ports = if self[2] == 0 { self } else { other };
        [self[0] & other[0], ports[1], ports[2]]
    }
}

/// One map, what it holds, and what an error calls it.
struct Table<S: Store> {
    what: &'static str,
    limit: u32,
    map: S,
    held: BTreeMap<S::Key, S::Value>,
}

impl<S: Store<Value: Flags>> Table<S> {
    fn take(ebpf: &mut Ebpf, name: &str, what: &'static str) -> Result<Self, XdpError> {
        let map = take(ebpf, name)?;
        let limit = match &map {
            Map::HashMap(data) | Map::LpmTrie(data) => {
                data.info().map_or(0, |info| info.max_entries())
            }
            _ => 0,
        };
        let map = S::try_from(map).map_err(|error| map_error(what, &error))?;
        let held = BTreeMap::new();
        Ok(Self {
            what,
            limit,
            map,
            held,
        })
    }

    fn put(&mut self, key: S::Key, value: S::Value) -> Result<(), XdpError> {
        let Self { what, limit, .. } = *self;
        self.map
            .put(key, value)
            .map_err(|error| match os_code(&error) {
                // A trie says ENOSPC where a hash map says E2BIG.
                Some(libc::E2BIG | libc::ENOSPC) => XdpError::Full { what, limit },
                _ => map_error(what, &error),
            })?;
        self.held.insert(key, value);
        Ok(())
    }

    fn delete(&mut self, key: S::Key) -> Result<(), XdpError> {
        match self.map.delete(key) {
            Err(error) if os_code(&error) != Some(libc::ENOENT) => {
                return Err(map_error(self.what, &error));
            }
            _ => self.held.remove(&key),
        };
        Ok(())
    }

    /// Adds what is wanted and not held.
    fn extend(&mut self, wanted: &BTreeMap<S::Key, S::Value>) -> Result<(), XdpError> {
        for (&key, &value) in wanted {
            let held = self.held.get(&key).copied();
            let joined = held.map_or(value, |held| held.union(value));
            if held != Some(joined) {
                self.put(key, joined)?;
            }
        }
        Ok(())
    }

    /// Takes away what is held and not wanted.
    fn shrink(&mut self, wanted: &BTreeMap<S::Key, S::Value>) -> Result<(), XdpError> {
        let less = |(&key, &held): (&S::Key, &S::Value)| {
            let left = wanted.get(&key).map(|&wanted| held.intersection(wanted));
            (left != Some(held)).then_some((key, left))
        };
        let changes: Vec<_> = self.held.iter().filter_map(less).collect();
        for (key, left) in changes {
            match left {
                Some(value) => self.put(key, value)?,
                None => self.delete(key)?,
            }
        }
        Ok(())
    }
}

/// All maps.
pub(super) struct Maps {
    addresses: Table<HashMap<MapData, AddressKey, AddressUse>>,
    endpoints: Table<HashMap<MapData, EndpointKey, u8>>,
    port_ranges: Table<LpmTrie<MapData, EndpointKey, u8>>,
    networks: Table<LpmTrie<MapData, AddressKey, u8>>,
    interfaces: HashMap<MapData, u32, InterfaceValue>,
    sockets: XskMap<MapData>,
    stats: PerCpuArray<MapData, u64>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            addresses: Table::take(ebpf, "addresses", "Vips, backends and host addresses")?,
            endpoints: Table::take(ebpf, "endpoints", "node ports and backends' ports")?,
            port_ranges: Table::take(ebpf, "port_ranges", "ranges of node ports")?,
            networks: Table::take(ebpf, "networks", "networks of Services")?,
            interfaces: HashMap::try_from(take(ebpf, "interfaces")?)
                .map_err(|error| map_error("interfaces", &error))?,
            sockets: XskMap::try_from(take(ebpf, "xsks")?)
                .map_err(|error| map_error("sockets", &error))?,
            stats: PerCpuArray::try_from(take(ebpf, "steer_stats")?)
                .map_err(|error| map_error("counters", &error))?,
        })
    }

    /// Gives the `place`th interface its part of the socket map and returns where it begins.
    pub(super) fn add_interface(
        &mut self,
        ifindex: u32,
        tags: Tags,
        place: usize,
    ) -> Result<u32, XdpError> {
        let base = place as u32 * QUEUES_PER_INTERFACE;
        let [outer, inner] = tags.0;
        self.interfaces
            .insert(ifindex, [base as u16, outer, inner], 0)
            .map_err(|error| map_error("interfaces", &error))?;
        Ok(base)
    }

    #[cfg(test)]
    pub(super) fn forget_interface(&mut self, ifindex: u32) {
        self.interfaces.remove(&ifindex).unwrap();
    }

    pub(super) fn set_socket(&mut self, place: u32, socket: RawFd) -> Result<(), XdpError> {
        self.sockets
            .set(place, socket, 0)
            .map_err(|error| map_error("sockets", &error))
    }

    pub(super) fn extend(&mut self, wanted: &Filter) -> Result<(), XdpError> {
        // Addresses first: a backend's port that is ours before the host's addresses are known
        // would take the host's packets.
        self.addresses.extend(&entries::addresses(wanted))?;
        self.endpoints.extend(&entries::endpoints(wanted))?;
        self.port_ranges.extend(&entries::port_ranges(wanted))?;
        self.networks.extend(&entries::networks(wanted))
    }

    pub(super) fn shrink(&mut self, wanted: &Filter) -> Result<(), XdpError> {
        self.networks.shrink(&entries::networks(wanted))?;
        self.port_ranges.shrink(&entries::port_ranges(wanted))?;
        self.endpoints.shrink(&entries::endpoints(wanted))?;
        self.addresses.shrink(&entries::addresses(wanted))
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

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, XdpError> {
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
    use super::*;

    #[test]
    fn the_header_has_the_same_number_of_queues() {
        let header = include_str!("../bpf/steer.h");
        let queues = format!("#define QUEUES_PER_INTERFACE {QUEUES_PER_INTERFACE}\n");
        assert!(header.contains(&queues));
    }

    #[test]
    fn what_an_address_is_grows_and_shrinks_by_what_is_wanted() {
        let (host, both) = ([2, 0, 0], [6, 1024, 2047]);
        assert_eq!(host.union(both), both);
        assert_eq!(both.union(host), both);
        assert_eq!(both.intersection(host), host);
        assert_eq!(host.intersection(both), host);
    }
}
