//! How much of the pools is taken.

use std::net::IpAddr;

use super::{Pools, search};
use crate::address::Family;
use crate::kinds::pool::{AddressRange, PoolSpec};

/// The addresses of one family in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Name of the pool.
    pub pool: String,
    /// The family.
    pub family: Family,
    /// Addresses that can be given; [`u128::MAX`] stands for more.
    pub total: u128,
    /// Addresses of them that Services have, each once.
    pub used: usize,
    /// Whether a Service gets one without asking for it.
    pub auto_assign: bool,
    /// The ranges.
    pub ranges: Vec<AddressRange>,
}

impl Pools {
    /// How much of each pool is taken, in the order of use, IPv4 first; families that a pool has no
    /// address of are left out.
    pub fn usage(&self) -> Vec<Usage> {
        let pools = self
            .order
            .iter()
            .filter_map(|name| self.pools.get_key_value(name));
        let families = [Family::V4, Family::V6];
        pools
            .flat_map(|(name, pool)| families.map(|family| self.usage_of(name, pool, family)))
            .filter(|usage| !usage.ranges.is_empty())
            .collect()
    }

    fn usage_of(&self, name: &str, pool: &PoolSpec, family: Family) -> Usage {
        let of_family = |range: &&AddressRange| Family::of(range.first()) == family;
        let ranges: Vec<AddressRange> = pool.ranges.iter().filter(of_family).copied().collect();
        let total = ranges.iter().map(|range| size(range, pool.avoid_buggy_ips));
        let held = ranges
            .iter()
            .flat_map(|range| self.holdings.between(range.first(), range.last()));
        Usage {
            pool: name.to_owned(),
            family,
            total: total.fold(0, u128::saturating_add),
            used: held.filter(|address| search::holds(pool, *address)).count(),
            auto_assign: pool.auto_assign,
            ranges,
        }
    }
}

fn size(range: &AddressRange, avoid_buggy_ips: bool) -> u128 {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, end) = (u64::from(first.to_bits()), u64::from(last.to_bits()) + 1);
            let left_out = match avoid_buggy_ips {
                true => buggy_below(end) - buggy_below(first),
                false => 0,
            };
            u128::from(end - first - left_out)
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            (last.to_bits() - first.to_bits()).saturating_add(1)
        }
        // A range is of one family.
        _ => 0,
    }
}

/// IPv4 addresses below `end` that end in .0 or .255.
const fn buggy_below(end: u64) -> u64 {
    let begun = if end.is_multiple_of(256) { 0 } else { 1 };
    end / 256 * 2 + begun
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(range: &str, avoid_buggy_ips: bool) -> u128 {
        size(&AddressRange::parse(range).unwrap(), avoid_buggy_ips)
    }

    #[test]
    fn a_range_is_counted_without_the_addresses_that_are_left_out() {
        for (range, all, fewer) in [
            ("203.0.113.0/28", 16, 15),
            ("203.0.113.0/24", 256, 254),
            ("203.0.113.250-203.0.114.5", 12, 10),
            ("203.0.113.255", 1, 0),
            ("203.0.113.7", 1, 1),
            ("2001:db8::/120", 256, 256),
            ("::/0", u128::MAX, u128::MAX),
        ] {
            assert_eq!(counted(range, false), all, "{range}");
            assert_eq!(counted(range, true), fewer, "{range}");
        }
    }
}
