//! When new connections arrive at one address: how long a change of endpoints takes to be seen.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::Result;
use aya::maps::{Array, Map, MapData};

use super::program::{host, network_bytes};

/// `struct sighting` of sink.h.
const SIGHTING_BYTES: usize = 32;

/// A watch for new connections at one address. Times are of CLOCK_MONOTONIC, in ns.
pub struct Sighting {
    map: Array<MapData, [u8; SIGHTING_BYTES]>,
    address: [u8; 16],
}

impl Sighting {
    pub(super) fn new(map: OwnedFd) -> Result<Self> {
        Ok(Self {
            map: Array::try_from(Map::Array(MapData::from_fd(map)?))?,
            address: [0; 16],
        })
    }

    /// Forgets what was seen and watches for `address`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn watch(&mut self, address: IpAddr) -> Result<()> {
        (self.address, _) = network_bytes(Some(host(address)));
        let mut bytes = [0; SIGHTING_BYTES];
        bytes[..16].copy_from_slice(&self.address);
        Ok(self.map.set(0, bytes, 0)?)
    }

    /// When the first one arrived and when the last one; None as long as there is none.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn seen(&self) -> Result<Option<(u64, u64)>> {
        let bytes = self.map.get(&0, 0)?;
        let time = |from: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[from..from + 8]);
            u64::from_ne_bytes(word)
        };
        let (first, last) = (time(16), time(24));
        Ok((first > 0).then_some((first, last)))
    }
}
