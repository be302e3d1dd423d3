//! Which flow a packet belongs to, and the one hash that table, Maglev and hand-over share.

mod key;

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sluice_conf::Protocol;

pub use key::{Ends, Ends4, Ends6, Key, Secret};

/// An address of one family, as packets and connections hold it.
pub trait Address:
    Copy + Eq + Ord + Hash + fmt::Debug + fmt::Display + Into<IpAddr> + Send + Sync + 'static
{
    /// What a record holds before it is used.
    const UNSPECIFIED: Self;

    /// Bits of an address.
    const BITS: u8;

    /// Addresses and ports of a packet.
    type Ends: Ends<Self>;

    /// Has what holds it begin with a cache line, where that saves one.
    type Line: Copy + Default + fmt::Debug + Send + Sync + 'static;

    /// The address folded to 64 bits for hashing.
    fn bits(self) -> u64;

    /// The address of this family; `None` when it is of the other one.
    fn of(address: IpAddr) -> Option<Self>;

    /// The network address of the prefix of `length` bits that it lies in.
    #[must_use]
    fn network(self, length: u8) -> Self;

    /// Whether a packet can come from it: it is a unicast address of some network (RFC 1122
    /// section 3.2.1.3, RFC 4291 section 2.5).
    fn is_sender(self) -> bool;
}

/// Nothing, at the start of a cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub struct WholeLine;

impl Address for Ipv4Addr {
    const UNSPECIFIED: Self = Ipv4Addr::UNSPECIFIED;
    const BITS: u8 = 32;
    type Ends = Ends4;
    type Line = WholeLine;

    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }
    }

    fn network(self, length: u8) -> Self {
        let shift = u32::from(<Self as Address>::BITS.saturating_sub(length));
        let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
        Self::from_bits(self.to_bits() & mask)
    }

    fn is_sender(self) -> bool {
        !(self.octets()[0] == 0 || self.is_loopback() || self.is_multicast() || self.is_broadcast())
    }
}

impl Address for Ipv6Addr {
    const UNSPECIFIED: Self = Ipv6Addr::UNSPECIFIED;
    const BITS: u8 = 128;
    type Ends = Ends6;
    type Line = ();

    fn bits(self) -> u64 {
        let bits = self.to_bits();
        mix((bits >> 64) as u64 ^ K0, bits as u64 ^ K1)
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6),
        }
    }

    fn network(self, length: u8) -> Self {
        let shift = u32::from(<Self as Address>::BITS.saturating_sub(length));
        let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
        Self::from_bits(self.to_bits() & mask)
    }

    fn is_sender(self) -> bool {
        // An IPv4 address in IPv6 clothes is nobody's on the wire (RFC 4942 section 2.2).
        !(self.is_unspecified()
            || self.is_loopback()
            || self.is_multicast()
            || self.to_ipv4_mapped().is_some())
    }
}

/// Direction of a packet within its connection, netfilter's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first packet: from the client.
    Original,
    /// The other way: from the backend.
    Reply,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    /// The opposite direction.
    pub const fn reverse(self) -> Self {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}

/// Address and port of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End<A> {
    /// Address.
    pub address: A,
    /// Port.
    pub port: u16,
}

impl<A: Address> fmt::Display for End<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl<A: Address> From<End<A>> for SocketAddr {
    fn from(end: End<A>) -> Self {
        SocketAddr::new(end.address.into(), end.port)
    }
}

impl<A: Address> End<A> {
    /// An end.
    pub const fn new(address: A, port: u16) -> Self {
        Self { address, port }
    }

    /// 64 well-mixed bits of the end alone: what decides which worker owns a client's flow.
    pub fn hash(self) -> u64 {
        mix(mix(self.address.bits() ^ K0, u64::from(self.port) ^ K1), K2)
    }
}

/// Protocol and both ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple<A> {
    /// Who sent it.
    pub source: End<A>,
    /// Whom it is for.
    pub destination: End<A>,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl<A: Address> FiveTuple<A> {
    /// What a record holds before it is used.
    pub const UNSPECIFIED: Self = Self {
        source: End::new(A::UNSPECIFIED, 0),
        destination: End::new(A::UNSPECIFIED, 0),
        protocol: Protocol::Tcp,
    };

    /// The tuple of the answer to this packet.
    #[must_use]
    pub const fn invert(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
        }
    }

    /// Source and destination port.
    pub const fn ports(&self) -> (u16, u16) {
        (self.source.port, self.destination.port)
    }

    /// 64 well-mixed bits of the tuple. The value is part of the contract between gateways: two of
    /// them must choose the same backend for a flow.
    pub fn hash(&self) -> u64 {
        let (from, to) = (self.source.address.bits(), self.destination.address.bits());
        let addresses = mix(from ^ K0, to ^ K1);
        let all = mix(addresses ^ K2, self.rest() ^ K3);
        // Without this the low bits would hang on constants alone: the ports stand too far left.
        mix(all ^ K0, K1)
    }

    /// Ports and protocol.
    fn rest(&self) -> u64 {
        u64::from(self.source.port) << 32
            | u64::from(self.destination.port) << 16
            | u64::from(self.protocol.number())
    }
}

impl<A: Address> fmt::Display for FiveTuple<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} -> {}",
            self.protocol, self.source, self.destination
        )
    }
}

// Constants of wyhash (public domain, github.com/wangyi-fudan/wyhash): odd, with 32 bits set.
const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;
const K2: u64 = 0x8ebc_6af0_9c88_c6e3;
const K3: u64 = 0x5899_65cc_7537_4cc3;

/// Multiplies to 128 bits and folds: wyhash's mixing step, two instructions on x86-64.
#[inline]
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Maps a hash to `0..count` without division, evenly (Lemire, "Fast random integer generation in
/// an interval").
pub(crate) fn scale(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FiveTuple<Ipv4Addr> {
        FiveTuple {
            source: End::new(Ipv4Addr::new(10, 0, 1, 10), port),
            destination: End::new(Ipv4Addr::new(203, 0, 113, 10), 80),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn the_hash_is_fixed_for_all_gateways() {
        // A change of these values moves every new flow of a rolling upgrade to another backend.
        assert_eq!(tuple(40_000).hash(), tuple(40_000).hash());
        assert_ne!(tuple(40_000).hash(), tuple(40_001).hash());
        assert_ne!(tuple(40_000).hash(), tuple(40_000).invert().hash());
    }

    #[test]
    fn sequential_ports_spread_evenly() {
        let mut counts = [0u32; 16];
        for port in 1024..=u16::MAX {
            counts[scale(tuple(port).hash(), 16)] += 1;
        }
        let mean = (65_536 - 1024) / 16;
        for count in counts {
            assert!(count.abs_diff(mean) < mean / 10, "{counts:?}");
        }
    }

    #[test]
    fn all_bits_of_the_hash_depend_on_the_ports() {
        for shift in [0, 24, 48] {
            let mut seen = [false; 256];
            for port in 1000..6000 {
                seen[(tuple(port).hash() >> shift) as usize & 0xff] = true;
            }
            assert!(seen.iter().all(|seen| *seen), "bits from {shift}");
        }
    }

    #[test]
    fn a_prefix_keeps_the_leading_bits() {
        let v4 = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(v4.network(24), Ipv4Addr::new(10, 1, 2, 0));
        assert_eq!(v4.network(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(v4.network(32), v4);
        let v6: Ipv6Addr = "2001:db8:1:2::3".parse().unwrap();
        assert_eq!(v6.network(48), "2001:db8:1::".parse::<Ipv6Addr>().unwrap());
        assert_eq!(v6.network(0), Ipv6Addr::UNSPECIFIED);
        assert_eq!(v6.network(128), v6);
    }

    #[test]
    fn inverting_twice_is_the_tuple_itself() {
        assert_eq!(tuple(5).invert().invert(), tuple(5));
    }
}
