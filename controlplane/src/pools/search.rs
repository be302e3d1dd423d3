//! The search for addresses.

use std::net::IpAddr;

use super::{Claim, Held, Pools, Source};
use crate::address::Family;
use crate::kinds::pool::{AddressRange, PoolSpec, next};

impl Pools {
    /// One address of each family: what is held, or the first that can be had.
    pub(super) fn automatic(&self, claim: &Claim, held: &[Held]) -> Result<Vec<Held>, String> {
        let mut found = Vec::new();
        let mut missing = None;
        for family in &claim.families {
            let mut own = held.iter().filter(|h| Family::of(h.address) == *family);
            let own = own.find(|held| self.suits(held, claim));
            match own.cloned().or_else(|| self.first(claim, *family)) {
                Some(held) => found.push(held),
                None => missing = missing.or(Some(*family)),
            }
        }
        match missing {
            Some(family) if found.is_empty() || !claim.one_is_enough => {
                Err(self.why_none(claim, family))
            }
            _ => Ok(found),
        }
    }

    /// The addresses that the Service writes.
    pub(super) fn written(&self, claim: &Claim, held: &[Held]) -> Result<Vec<Held>, String> {
        let own = |address| held.iter().find(|held| held.address == address).cloned();
        let addresses = claim.addresses.iter();
        addresses
            .map(|&address| own(address).map_or_else(|| self.place(claim, address), Ok))
            .collect()
    }

    fn place(&self, claim: &Claim, address: IpAddr) -> Result<Held, String> {
        if let Some(pool) = self.pool_with(claim, address) {
            let source = Source::Pool(pool.clone());
            return match self.holdings.conflict(claim, address) {
                Some(conflict) => Err(conflict),
                None => Ok(Held { address, source }),
            };
        }
        if self.pools.is_empty() || (self.options.outside_pools && claim.pool.is_none()) {
            let source = Source::Hand;
            return Ok(Held { address, source });
        }
        Err(match &claim.pool {
            Some(pool) => self
                .why_not(claim, pool)
                .unwrap_or_else(|| format!("{address} is not in AddressPool {pool}")),
            None => format!(
                "{address} is in no AddressPool for this Service; add it to one, or remove it to be given another"
            ),
        })
    }

    /// Whether a Service that writes no address may keep this one.
    fn suits(&self, held: &Held, claim: &Claim) -> bool {
        let asked = match (&held.source, &claim.pool) {
            (Source::Pool(_), None) => true,
            (Source::Pool(pool), Some(wanted)) => pool == wanted,
            (Source::Hand, _) => false,
        };
        asked || self.pool_with(claim, held.address).is_some()
    }

    /// The first address that the Service can have of a family.
    fn first(&self, claim: &Claim, family: Family) -> Option<Held> {
        let mut pools = self.automatic_pools(claim);
        pools.find_map(|(name, pool)| {
            let mut ranges = pool.ranges.iter();
            let address = ranges.find_map(|range| self.first_of(claim, family, pool, range))?;
            let source = Source::Pool(name.clone());
            Some(Held { address, source })
        })
    }

    /// The pools that may be used without an address being written.
    fn automatic_pools<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> impl Iterator<Item = (&'a String, &'a PoolSpec)> {
        let named = claim.pool.is_some();
        let pools = self.permitted(claim);
        pools.filter(move |(_, pool)| pool.auto_assign || named)
    }

    fn first_of(
        &self,
        claim: &Claim,
        family: Family,
        pool: &PoolSpec,
        range: &AddressRange,
    ) -> Option<IpAddr> {
        let (mut from, last) = (range.first(), range.last());
        if Family::of(from) != family {
            return None;
        }
        let mut shared = self.holdings.shared(claim, from, last);
        let shared = shared.find(|address| {
            holds(pool, *address) && self.holdings.conflict(claim, *address).is_none()
        });
        let free = loop {
            match self.holdings.free(from, last) {
                Some(free) if pool.avoid_buggy_ips && is_buggy(free) => match next(free) {
                    Some(after) if after <= last => from = after,
                    _ => break None,
                },
                free => break free,
            }
        };
        shared.into_iter().chain(free).min()
    }

    /// Why no pool has an address for a Service.
    fn why_none(&self, claim: &Claim, family: Family) -> String {
        if let Some(why) = claim
            .pool
            .as_ref()
            .and_then(|pool| self.why_not(claim, pool))
        {
            return why;
        }
        let names: Vec<&str> = self
            .automatic_pools(claim)
            .map(|(name, _)| name.as_str())
            .collect();
        if self.pools.is_empty() {
            let annotation = crate::annotations::LOAD_BALANCER_IPS;
            return format!(
                "there is no AddressPool; create one, or write an address by {annotation}"
            );
        }
        if names.is_empty() {
            return "no AddressPool with autoAssign is for this Service; see their namespaces and serviceSelectors".to_owned();
        }
        format!(
            "no {family} address is free in AddressPool {}; add addresses",
            names.join(", ")
        )
    }

    /// Why a Service cannot use the pool that it names.
    fn why_not(&self, claim: &Claim, pool: &str) -> Option<String> {
        let Some(spec) = self.pools.get(pool) else {
            return Some(format!(
                "there is no AddressPool {pool}; create it or name another"
            ));
        };
        let excluded = !super::is_for(spec, claim);
        excluded.then(|| {
            format!("AddressPool {pool} is not for this Service; see its namespaces and serviceSelectors")
        })
    }
}

/// Whether a pool has an address to give.
pub(super) fn holds(pool: &PoolSpec, address: IpAddr) -> bool {
    pool.ranges.iter().any(|range| range.contains(address))
        && !(pool.avoid_buggy_ips && is_buggy(address))
}

/// Whether old firmware may take `address` for a network's own or its broadcast address.
fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [_, _, _, 0 | 255]),
        IpAddr::V6(_) => false,
    }
}
