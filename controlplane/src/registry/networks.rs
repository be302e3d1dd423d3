//! Which addresses of a network are given to Services, and addresses as numbers of a pool.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::pool::{Pool, address_band};
use crate::address::Family;

/// The number of an address among those of its family.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of a number; `None` when the family has no such number.
pub fn address(family: Family, number: u128) -> Option<IpAddr> {
    match family {
        Family::V4 => u32::try_from(number)
            .ok()
            .map(|bits| Ipv4Addr::from_bits(bits).into()),
        Family::V6 => Some(Ipv6Addr::from_bits(number).into()),
    }
}

/// A pool of the addresses that Services may have: all but the network's own and, of IPv4, the
/// broadcast address.
pub fn pool(network: IpNet) -> Pool {
    let (first, last) = (number(network.network()), number(network.broadcast()));
    let values = (last - first).saturating_add(1);
    Pool::new(usable(network), address_band(values))
}

/// A pool of all addresses of a family.
pub(super) fn whole(family: Family) -> Pool {
    let last = match family {
        Family::V4 => u32::MAX.into(),
        Family::V6 => u128::MAX,
    };
    Pool::new(0..=last, 0)
}

fn usable(network: IpNet) -> RangeInclusive<u128> {
    let (first, last) = (number(network.network()), number(network.broadcast()));
    let reserved_last = u128::from(network.network().is_ipv4());
    match last - first <= reserved_last {
        true => RangeInclusive::new(1, 0),
        false => first + 1..=last - reserved_last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ipv6_only_the_first_address_is_kept_back() {
        for (network, first, last) in [
            ("10.0.0.0/30", "10.0.0.1", "10.0.0.2"),
            ("fd00::/126", "fd00::1", "fd00::3"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ] {
            let network: IpNet = network.parse().unwrap();
            let usable = usable(network);
            let family = Family::of(network.addr());
            let text = |number: u128| address(family, number).unwrap().to_string();
            assert_eq!(text(*usable.start()), first);
            assert_eq!(text(*usable.end()), last);
        }
        for none in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/128"] {
            assert!(pool(none.parse().unwrap()).is_empty(), "{none}");
        }
        assert_eq!(pool("::/0".parse().unwrap()).len(), u64::MAX);
        assert_eq!(address(Family::V4, 1 << 32), None);
    }
}
