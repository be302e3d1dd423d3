//! A five-tuple as the connection table compares and hashes it: as it stands in a packet.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_conf::Protocol;

use super::{Address, End, FiveTuple, K0, K1, K2, K3, mix};

/// Addresses and ports of a packet as they stand in it: every number has its bytes in the order of the
/// wire. When the IP header has neither options nor extensions they also stand together like this:
/// source and destination address, source and destination port.
pub trait Ends<A>: Copy + Eq + fmt::Debug + Send + Sync + 'static {
    /// Of these ends.
    fn of(source: End<A>, destination: End<A>) -> Self;

    /// Who sends.
    fn source(&self) -> End<A>;

    /// Who is to receive.
    #[inline]
    fn destination(&self) -> End<A> {
        self.swapped().source()
    }

    /// Of the answer.
    #[must_use]
    fn swapped(self) -> Self;

    /// Both addresses folded to 64 bits that nobody without the secret can foresee.
    fn addresses(&self, secret: Secret) -> u64;

    /// Both ports.
    fn ports(&self) -> u32;

    /// What a checksum sums up of the addresses, and of the ports.
    fn words(&self) -> (impl Iterator<Item = u32>, u32);
}

/// Of IPv4. Packed, for a record to fit a cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Ends4 {
    addresses: u64,
    ports: u32,
}

/// Of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Ends6 {
    addresses: [u64; 4],
    ports: u32,
}

fn halves(address: Ipv6Addr) -> [u64; 2] {
    let octets = address.octets();
    let halves = octets.as_chunks::<8>().0;
    [u64::from_ne_bytes(halves[0]), u64::from_ne_bytes(halves[1])]
}

/// The number whose bytes are these two, in their order in memory.
fn ports(source: u16, destination: u16) -> u32 {
    u32::from_ne_bytes((u32::from(source) << 16 | u32::from(destination)).to_be_bytes())
}

/// The first of both ports.
fn first(ports: u32) -> u16 {
    let [high, low, ..] = ports.to_ne_bytes();
    u16::from_be_bytes([high, low])
}

impl Ends4 {
    /// Of the bytes of a packet.
    #[inline(always)]
    pub fn read(addresses: [u8; 8], ports: [u8; 4]) -> Self {
        Self {
            addresses: u64::from_ne_bytes(addresses),
            ports: u32::from_ne_bytes(ports),
        }
    }

    /// The bytes of a packet.
    #[inline(always)]
    pub fn bytes(self) -> ([u8; 8], [u8; 4]) {
        (self.addresses.to_ne_bytes(), self.ports.to_ne_bytes())
    }
}

impl Ends<Ipv4Addr> for Ends4 {
    #[inline]
    fn of(source: End<Ipv4Addr>, destination: End<Ipv4Addr>) -> Self {
        let [[a, b, c, d], [e, f, g, h]] = [source, destination].map(|end| end.address.octets());
        Self {
            addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ports: ports(source.port, destination.port),
        }
    }

    #[inline]
    fn source(&self) -> End<Ipv4Addr> {
        let [a, b, c, d, ..] = self.addresses.to_ne_bytes();
        End::new(Ipv4Addr::new(a, b, c, d), first(self.ports))
    }

    #[inline(always)]
    fn swapped(self) -> Self {
        Self {
            addresses: self.addresses.rotate_left(32),
            ports: self.ports.rotate_left(16),
        }
    }

    #[inline(always)]
    fn addresses(&self, secret: Secret) -> u64 {
        self.addresses ^ secret.0
    }

    #[inline(always)]
    fn ports(&self) -> u32 {
        self.ports
    }

    #[inline(always)]
    fn words(&self) -> (impl Iterator<Item = u32>, u32) {
        let addresses = self.addresses;
        let words = [addresses as u32, (addresses >> 32) as u32];
        (words.into_iter(), self.ports)
    }
}

impl Ends6 {
    /// Of the bytes of a packet.
    #[inline(always)]
    pub fn read(addresses: &[[u8; 8]; 4], ports: [u8; 4]) -> Self {
        Self {
            addresses: addresses.map(u64::from_ne_bytes),
            ports: u32::from_ne_bytes(ports),
        }
    }

    /// The bytes of a packet.
    #[inline(always)]
    pub fn bytes(self) -> ([[u8; 8]; 4], [u8; 4]) {
        let addresses = self.addresses;
        (addresses.map(u64::to_ne_bytes), self.ports.to_ne_bytes())
    }
}

impl Ends<Ipv6Addr> for Ends6 {
    #[inline]
    fn of(source: End<Ipv6Addr>, destination: End<Ipv6Addr>) -> Self {
        let ([a, b], [c, d]) = (halves(source.address), halves(destination.address));
        Self {
            addresses: [a, b, c, d],
            ports: ports(source.port, destination.port),
        }
    }

    #[inline]
    fn source(&self) -> End<Ipv6Addr> {
        let [a, b, ..] = self.addresses;
        let mut address = [0; 16];
        address[..8].copy_from_slice(&a.to_ne_bytes());
        address[8..].copy_from_slice(&b.to_ne_bytes());
        End::new(address.into(), first(self.ports))
    }

    #[inline(always)]
    fn swapped(self) -> Self {
        let [a, b, c, d] = self.addresses;
        Self {
            addresses: [c, d, a, b],
            ports: self.ports.rotate_left(16),
        }
    }

    #[inline(always)]
    fn addresses(&self, secret: Secret) -> u64 {
        let [a, b, c, d] = self.addresses;
        let from = mix(b ^ secret.0, a ^ secret.1 ^ K1);
        let to = mix(d ^ secret.1, c ^ secret.0 ^ K2);
        from ^ to.rotate_left(32)
    }

    #[inline(always)]
    fn ports(&self) -> u32 {
        self.ports
    }

    #[inline(always)]
    fn words(&self) -> (impl Iterator<Item = u32>, u32) {
        let addresses = self.addresses;
        let words = addresses.into_iter();
        let words = words.flat_map(|long| [long as u32, (long >> 32) as u32]);
        (words, self.ports)
    }
}

/// A five-tuple as the connection table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<A: Address> {
    /// Addresses and ports.
    pub ends: A::Ends,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl<A: Address> Key<A> {
    /// 64 well-mixed bits under a secret, so that nobody outside can aim at one bucket of a table.
    /// Cheaper than [`FiveTuple::hash`], and worth nothing beyond this process.
    #[inline(always)]
    pub fn hash(&self, secret: Secret) -> u64 {
        let ports = u64::from(self.ends.ports()) << 8 | u64::from(self.protocol.number());
        let all = mix(self.ends.addresses(secret), ports ^ secret.1);
        mix(all ^ K0, K1)
    }

    /// As the rest of the engine knows it.
    #[inline]
    pub fn tuple(&self) -> FiveTuple<A> {
        FiveTuple {
            source: self.ends.source(),
            destination: self.ends.destination(),
            protocol: self.protocol,
        }
    }
}

impl<A: Address> From<&FiveTuple<A>> for Key<A> {
    #[inline]
    fn from(tuple: &FiveTuple<A>) -> Self {
        Self {
            ends: A::Ends::of(tuple.source, tuple.destination),
            protocol: tuple.protocol,
        }
    }
}

/// What the hash of a [`Key`] depends on beside the tuple.
#[derive(Debug, Clone, Copy)]
pub struct Secret(u64, u64);

impl Secret {
    /// Made of a random number.
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed ^ K0, K1), mix(seed ^ K2, K3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::scale;
    use proptest::prelude::*;

    fn tuple<A: Address>(from: &str, to: &str) -> FiveTuple<A> {
        let end = |text: &str| {
            let socket: std::net::SocketAddr = text.parse().unwrap();
            End::new(A::of(socket.ip()).unwrap(), socket.port())
        };
        FiveTuple {
            source: end(from),
            destination: end(to),
            protocol: Protocol::Udp,
        }
    }

    fn of_v4(port: u16) -> Key<Ipv4Addr> {
        Key::from(&tuple(&format!("10.0.1.10:{port}"), "203.0.113.10:80"))
    }

    fn of_v6(port: u16) -> Key<Ipv6Addr> {
        let from = format!("[2001:db8:1::10]:{port}");
        Key::from(&tuple(&from, "[2001:db8:9::10]:80"))
    }

    fn is_what_it_was_made_of<A: Address>(tuple: &FiveTuple<A>) -> Result<(), TestCaseError> {
        let key = Key::from(tuple);
        prop_assert_eq!(&key.tuple(), tuple);
        let answer = Key {
            ends: key.ends.swapped(),
            ..key
        };
        prop_assert_eq!(answer.tuple(), tuple.invert());
        Ok(())
    }

    proptest! {
        #[test]
        fn a_key_is_what_it_was_made_of_and_swapped_that_of_the_answer(
            addresses in any::<(u128, u128)>(), ports in any::<(u16, u16)>(),
        ) {
            let (from, to) = addresses;
            let protocol = Protocol::Tcp;
            is_what_it_was_made_of(&FiveTuple {
                source: End::new(Ipv6Addr::from_bits(from), ports.0),
                destination: End::new(Ipv6Addr::from_bits(to), ports.1),
                protocol,
            })?;
            is_what_it_was_made_of(&FiveTuple {
                source: End::new(Ipv4Addr::from_bits(from as u32), ports.0),
                destination: End::new(Ipv4Addr::from_bits(to as u32), ports.1),
                protocol,
            })?;
        }
    }

    #[test]
    fn a_key_holds_the_bytes_of_a_packet() {
        let (addresses, ports) = of_v4(0x1234).ends.bytes();
        assert_eq!(addresses, [10, 0, 1, 10, 203, 0, 113, 10]);
        assert_eq!(ports, [0x12, 0x34, 0, 80]);
        assert_eq!(Ends4::read(addresses, ports), of_v4(0x1234).ends);
        let (addresses, ports) = of_v6(0x1234).ends.bytes();
        assert_eq!(addresses[0], [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0]);
        assert_eq!(addresses[3], [0, 0, 0, 0, 0, 0, 0, 0x10]);
        assert_eq!(ports, [0x12, 0x34, 0, 80]);
        assert_eq!(Ends6::read(&addresses, ports), of_v6(0x1234).ends);
    }

    #[test]
    fn all_bits_of_the_hash_depend_on_the_ports_whatever_the_secret() {
        for seed in [
            0,
            1,
            3_595_203_076_124_895_740,
            11_692_614_708_730_466_338,
            u64::MAX,
        ] {
            let secret = Secret::new(seed);
            for shift in [0, 24, 48] {
                let mut seen = [[false; 256]; 2];
                for port in 1000..6000 {
                    let hashes = [of_v4(port).hash(secret), of_v6(port).hash(secret)];
                    for (seen, hash) in seen.iter_mut().zip(hashes) {
                        seen[(hash >> shift) as usize & 0xff] = true;
                    }
                }
                assert!(
                    seen.as_flattened().iter().all(|s| *s),
                    "seed {seed}, bits from {shift}"
                );
            }
        }
    }

    #[test]
    fn addresses_and_protocol_change_the_hash_evenly() {
        let secret = Secret::new(7);
        let mut counts = [0u32; 64];
        for third in 0..=255 {
            for fourth in 0..=255 {
                let mut tuple = of_v4(40_000).tuple();
                tuple.source.address = Ipv4Addr::new(10, 0, third, fourth);
                counts[scale(Key::from(&tuple).hash(secret), 64)] += 1;
            }
        }
        for count in counts {
            assert!(count.abs_diff(1024) < 1024 / 5, "{counts:?}");
        }
        let udp = of_v4(40_000);
        let tcp = Key {
            protocol: Protocol::Tcp,
            ..udp
        };
        let answer = Key {
            ends: udp.ends.swapped(),
            ..udp
        };
        assert_ne!(udp.hash(secret), tcp.hash(secret));
        assert_ne!(udp.hash(secret), answer.hash(secret));
        assert_ne!(udp.hash(secret), udp.hash(Secret::new(8)));
    }
}
