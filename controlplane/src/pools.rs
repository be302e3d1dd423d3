//! Addresses of Services of type LoadBalancer, by the rules of MetalLB
//! (metallb/metallb internal/allocator).
//!
//! Guarantees: the same pools and claims in the same order give the same addresses, the first free
//! one of the first pool; two Services get one address only if both allow it; a Service keeps its
//! address as long as it asks for nothing else, also when its pool changes or goes, which is
//! reported. Memory grows with the addresses that are held, never with the size of pools. Pure:
//! what is held outlives a restart only by [`Pools::adopt`].
//!
//! Other than with MetalLB, each family has its own pool: two pools of one family each serve a
//! dual-stack Service.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::core::SelectorExt;

use crate::kinds::pool::PoolSpec;
use crate::object::NamespacedName;

mod claim;
mod holdings;
mod runs;
mod search;
#[cfg(test)]
mod tests;
mod usage;

pub use claim::{Claim, Sharing};
use holdings::{Held, Holdings, Source};
pub use usage::Usage;

/// What a Service got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Its addresses in the order of its families, or as it wrote them; empty: it is pending.
    pub addresses: Vec<IpAddr>,
    /// Why it is pending, or why it has other addresses than it should; a sentence for an event.
    pub problem: Option<String>,
}

/// How addresses are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Whether a Service may write an address that no pool holds although there are pools. Without
    /// any pool every address that is written is taken.
    pub outside_pools: bool,
}

/// All pools and what is held of them.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    options: Options,
    pools: BTreeMap<String, PoolSpec>,
    /// Names in the order of use: by priority, then pools for some before pools for all, then by
    /// name.
    order: Vec<String>,
    holdings: Holdings,
}

impl Pools {
    /// No pools, nothing held.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Replaces all pools. Nothing is taken away; [`Pools::assign`] of each Service tells what is
    /// held against the new pools, and serves those that were pending.
    pub fn set_pools(&mut self, pools: BTreeMap<String, PoolSpec>) {
        let mut order: Vec<&String> = pools.keys().collect();
        order.sort_by_key(|name| {
            let pool = pools.get(*name);
            let for_some =
                |p: &PoolSpec| !p.namespaces.is_empty() || !p.service_selectors.is_empty();
            (
                pool.map(|pool| pool.priority),
                Reverse(pool.is_some_and(for_some)),
                *name,
            )
        });
        self.order = order.into_iter().cloned().collect();
        self.pools = pools;
    }

    /// Gives a Service what it claims, or says why not. Called again for every change of the
    /// Service or of the pools; without a change it gives the same again. A Service that asks for
    /// what cannot be given keeps what it has, unless that would take something from another.
    pub fn assign(&mut self, claim: &Claim) -> Outcome {
        let held = self.holdings.keepable(claim);
        let found = match claim.addresses.is_empty() {
            true => self.automatic(claim, &held),
            false => self.written(claim, &held),
        };
        let (held, problem) = match found {
            Ok(found) => {
                let problem = found.iter().find_map(|held| self.complaint(held, claim));
                (found, problem)
            }
            Err(reason) => (still_asked(claim, held), Some(reason)),
        };
        let addresses = held.iter().map(|held| held.address).collect();
        self.holdings.replace(claim, held);
        Outcome { addresses, problem }
    }

    /// Takes over what a Service had before a restart. To be called for all Services before the
    /// first [`Pools::assign`]; what another Service has and does not share is left out.
    pub fn adopt(&mut self, claim: &Claim, addresses: &[IpAddr]) {
        let mut held: Vec<Held> = Vec::new();
        for &address in addresses {
            let conflict = self.holdings.conflict(claim, address);
            if conflict.is_some() || held.iter().any(|held| held.address == address) {
                continue;
            }
            let source = match self.pool_with(claim, address) {
                Some(pool) => Source::Pool(pool.clone()),
                None if claim.addresses.contains(&address) => Source::Hand,
                None => Source::Pool(claim.pool.clone().unwrap_or_default()),
            };
            held.push(Held { address, source });
        }
        self.holdings.replace(claim, held);
    }

    /// Frees what a Service holds, when it is gone or no longer of type LoadBalancer.
    pub fn release(&mut self, service: &NamespacedName) {
        self.holdings.release(service);
    }

    /// What a Service holds.
    pub fn held(&self, service: &NamespacedName) -> Vec<IpAddr> {
        let held = self.holdings.of(service).iter();
        held.map(|held| held.address).collect()
    }

    /// Whether there are no pools.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// The pools that a Service may use, in the order of use.
    fn permitted<'a>(
        &'a self,
        claim: &'a Claim,
    ) -> impl Iterator<Item = (&'a String, &'a PoolSpec)> {
        self.order
            .iter()
            .filter(|name| claim.pool.as_ref().is_none_or(|wanted| wanted == *name))
            .filter_map(|name| self.pools.get_key_value(name))
            .filter(|(_, pool)| is_for(pool, claim))
    }

    /// The pool that a Service may use and that has this address.
    fn pool_with<'a>(&'a self, claim: &'a Claim, address: IpAddr) -> Option<&'a String> {
        let mut pools = self.permitted(claim);
        let (name, _) = pools.find(|(_, pool)| search::holds(pool, address))?;
        Some(name)
    }

    /// What is wrong with an address that a Service has.
    fn complaint(&self, held: &Held, claim: &Claim) -> Option<String> {
        let by_hand = self.options.outside_pools || self.pools.is_empty();
        if self.pool_with(claim, held.address).is_some() || (held.source == Source::Hand && by_hand)
        {
            return None;
        }
        let address = held.address;
        Some(format!(
            "{address} is kept, but no AddressPool for this Service holds it any more; \
             put it back into a pool, or create the Service anew to move it"
        ))
    }
}

/// What a Service keeps that cannot be given what it asks for. An address that it wrote itself goes
/// once it writes none.
fn still_asked(claim: &Claim, mut held: Vec<Held>) -> Vec<Held> {
    held.retain(|held| held.source != Source::Hand || !claim.addresses.is_empty());
    held
}

/// Whether a pool is for a Service, by namespace and labels.
fn is_for(pool: &PoolSpec, claim: &Claim) -> bool {
    let namespaces = &pool.namespaces;
    let mut selectors = pool.service_selectors.iter();
    (namespaces.is_empty() || namespaces.contains(&claim.name.namespace))
        && (pool.service_selectors.is_empty() || selectors.any(|s| s.matches(&claim.labels)))
}
