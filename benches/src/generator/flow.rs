//! Which client a flow is: a keyed permutation of addresses and ports, so that neither hash tables
//! nor receive queues meet a pattern.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

/// First port (and echo identifier) of clients.
pub const FIRST_PORT: u16 = 32768;
/// Every client has this many bits of ports.
pub const PORT_BITS: u32 = 15;
/// Rounds of the permutation.
pub const ROUNDS: usize = 4;
/// Most bits of clients: with the ports a flow has 32.
const MAX_CLIENT_BITS: u32 = 32 - PORT_BITS;

/// Key of the permutation.
pub type Key = [u32; ROUNDS];

/// A key from a number.
pub fn key(seed: u64) -> Key {
    let mut state = seed;
    std::array::from_fn(|_| splitmix(&mut state) as u32)
}

/// The next number of a well-mixed sequence (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", OOPSLA 2014).
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn mix(value: u32, key: u32) -> u32 {
    let mut mixed = (value ^ key).wrapping_mul(0x9e37_79b1);
    mixed ^= mixed >> 15;
    mixed = mixed.wrapping_mul(0x85eb_ca77);
    mixed ^ (mixed >> 13)
}

/// A permutation of the numbers below 2^bits; `bits` is at most 32.
pub fn permute(value: u32, bits: u32, key: &Key) -> u32 {
    let mask = |width: u32| (1u64 << width).wrapping_sub(1) as u32;
    let (mut low_bits, mut high_bits) = (bits / 2, bits - bits / 2);
    let mut low = value & mask(low_bits);
    let mut high = (u64::from(value) >> low_bits) as u32;
    for round in key {
        (low, high) = (high ^ (mix(low, *round) & mask(high_bits)), low);
        (low_bits, high_bits) = (high_bits, low_bits);
    }
    (u64::from(high) << low_bits) as u32 | low
}

/// The addresses that clients have: a network of at most 2^17 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clients {
    first: IpAddr,
    bits: u32,
}

impl Clients {
    /// The network of `address` and `prefix` bits.
    ///
    /// # Errors
    /// It is larger than 2^17 addresses, or `address` is not its first one.
    pub fn new(address: IpAddr, prefix: u32) -> Result<Self> {
        let (whole, host) = match address {
            IpAddr::V4(address) => (32u32, u128::from(u32::from(address))),
            IpAddr::V6(address) => (128, u128::from(address)),
        };
        let Some(bits) = whole
            .checked_sub(prefix)
            .filter(|bits| *bits <= MAX_CLIENT_BITS)
        else {
            bail!(
                "clients {address}/{prefix}: a network of at most 2^{MAX_CLIENT_BITS} addresses is possible"
            );
        };
        if host & ((1 << bits) - 1) != 0 {
            bail!("clients {address}/{prefix}: the address has bits behind the prefix");
        }
        Ok(Self {
            first: address,
            bits,
        })
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Bits in which addresses differ.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// How many flows there can be: every port of every client.
    pub fn most_flows(&self) -> u64 {
        1 << (self.bits + PORT_BITS)
    }

    /// Client and port of a flow.
    pub fn of(&self, flow: u32, key: &Key) -> (IpAddr, u16) {
        let tuple = permute(flow, self.bits + PORT_BITS, key);
        let (client, port) = (tuple >> PORT_BITS, tuple & ((1 << PORT_BITS) - 1));
        let address = match self.first {
            IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) | client).into(),
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) | u128::from(client)).into(),
        };
        (address, FIRST_PORT | port as u16)
    }
}

/// `count` flows below `flows` drawn by Zipf's law: the n-th flow as often as n^-exponent says.
pub fn zipf(flows: u64, exponent: f64, count: usize, seed: u64) -> Vec<u32> {
    let mut total = 0.0;
    let ladder: Vec<f64> = (1..=flows)
        .map(|rank| {
            total += (rank as f64).powf(-exponent);
            total
        })
        .collect();
    let mut state = seed;
    std::iter::repeat_with(|| {
        let part = (splitmix(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
        let rank = ladder.partition_point(|step| *step < part * total);
        rank.min(ladder.len().saturating_sub(1)) as u32
    })
    .take(count)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_two_numbers_are_permuted_to_one(bits in 2u32..=16, seed in any::<u64>()) {
            let key = key(seed);
            let mut seen = vec![false; 1 << bits];
            for value in 0..1u32 << bits {
                let place = permute(value, bits, &key) as usize;
                prop_assert!(place < seen.len());
                prop_assert!(!std::mem::replace(&mut seen[place], true));
            }
        }

        #[test]
        fn with_all_bits_different_numbers_stay_different(
            a in any::<u32>(), b in any::<u32>(), seed in any::<u64>(),
        ) {
            let key = key(seed);
            prop_assert_eq!(a == b, permute(a, 32, &key) == permute(b, 32, &key));
        }
    }

    #[test]
    fn ports_do_not_follow_one_another() {
        let clients = Clients::new(Ipv4Addr::new(10, 64, 0, 0).into(), 15).unwrap();
        let key = key(1);
        let ports: Vec<u16> = (0..1000).map(|flow| clients.of(flow, &key).1).collect();
        let neighbours = ports
            .windows(2)
            .filter(|pair| pair[0].abs_diff(pair[1]) <= 4);
        assert!(neighbours.count() < 5);
    }

    #[test]
    fn clients_stay_in_their_network() {
        let key = key(7);
        let clients = Clients::new(Ipv4Addr::new(192, 0, 2, 128).into(), 25).unwrap();
        assert_eq!(clients.most_flows(), 128 << 15);
        let mut seen = std::collections::HashSet::new();
        for flow in 0..100_000 {
            let (address, port) = clients.of(flow, &key);
            let IpAddr::V4(address) = address else {
                panic!("{address} is of another family");
            };
            assert_eq!(address.octets()[..3], [192, 0, 2]);
            assert!(address.octets()[3] >= 128 && port >= FIRST_PORT);
            assert!(seen.insert((address, port)));
        }
        let six = Clients::new("2001:db8::".parse().unwrap(), 111).unwrap();
        assert_eq!(six.most_flows(), 1 << 32);
        let (address, _) = six.of(u32::MAX, &key);
        assert!(address.to_string().starts_with("2001:db8::"), "{address}");
    }

    #[test]
    fn networks_that_clients_cannot_have_are_refused() {
        for (address, prefix) in [
            ("10.0.0.0", 14),
            ("10.0.0.1", 24),
            ("10.0.0.0", 33),
            ("::", 110),
        ] {
            assert!(
                Clients::new(address.parse().unwrap(), prefix).is_err(),
                "{address}"
            );
        }
    }

    #[test]
    fn zipf_draws_the_first_flow_most_often() {
        let draws = zipf(1000, 1.1, 100_000, 3);
        let share = |flow| draws.iter().filter(|draw| **draw == flow).count() as f64 / 100_000.0;
        let total: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-1.1)).sum();
        assert!((share(0) - 1.0 / total).abs() < 0.01);
        assert!((share(1) - 2f64.powf(-1.1) / total).abs() < 0.01);
        assert!(draws.iter().all(|draw| *draw < 1000));
    }
}
