//! Who holds which address.
//!
//! Guarantees: the three views (by Service, by address, by key) and the runs of held addresses
//! always tell the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::runs::Runs;
use super::{Claim, Sharing};
use crate::object::NamespacedName;

/// Where a Service has an address from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Its own writing.
    Hand,
    /// The pool of this name.
    Pool(String),
}

/// An address that a Service has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) address: IpAddr,
    pub(super) source: Source,
}

/// What one Service has, and what it said about sharing when it got it.
#[derive(Debug, Clone)]
struct Holding {
    sharing: Sharing,
    held: Vec<Held>,
}

/// All that is held.
#[derive(Debug, Clone, Default)]
pub(super) struct Holdings {
    services: BTreeMap<NamespacedName, Holding>,
    holders: BTreeMap<IpAddr, BTreeSet<NamespacedName>>,
    keys: BTreeMap<String, BTreeSet<IpAddr>>,
    runs: Runs,
}

impl Holdings {
    pub(super) fn of(&self, service: &NamespacedName) -> &[Held] {
        let holding = self.services.get(service);
        holding.map(|holding| &holding.held[..]).unwrap_or_default()
    }

    /// What a Service has and may keep: all of it unless it changed what it says about sharing.
    pub(super) fn keepable(&self, claim: &Claim) -> Vec<Held> {
        let Some(holding) = self.services.get(&claim.name) else {
            return Vec::new();
        };
        let unchanged = holding.sharing == claim.sharing;
        let fits = |held: &&Held| {
            unchanged || held.source == Source::Hand || self.conflict(claim, held.address).is_none()
        };
        holding.held.iter().filter(fits).cloned().collect()
    }

    /// Why a Service cannot have an address: another one has it and they cannot share.
    pub(super) fn conflict(&self, claim: &Claim, address: IpAddr) -> Option<String> {
        let holders = self.holders.get(&address)?.iter();
        holders
            .filter(|holder| **holder != claim.name)
            .find_map(|holder| {
                let other = self.services.get(holder)?;
                let reason = claim.sharing.refusal(&other.sharing)?;
                Some(format!("{address} is used by Service {holder}: {reason}"))
            })
    }

    /// The first address from `first` to `last` that nobody has.
    pub(super) fn free(&self, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        self.runs.free(first).filter(|free| *free <= last)
    }

    /// Addresses from `first` to `last` that somebody has.
    pub(super) fn between(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.holders
            .range(first..=last)
            .map(|(address, _)| *address)
    }

    /// Addresses from `first` to `last` whose holders have the Service's key.
    pub(super) fn shared(
        &self,
        claim: &Claim,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = IpAddr> {
        let key = claim.sharing.key.as_ref();
        let addresses = key.and_then(|key| self.keys.get(key));
        addresses
            .into_iter()
            .flat_map(move |a| a.range(first..=last))
            .copied()
    }

    /// Puts `held` in the place of what the Service had.
    pub(super) fn replace(&mut self, claim: &Claim, held: Vec<Held>) {
        self.release(&claim.name);
        if held.is_empty() {
            return;
        }
        for Held { address, .. } in &held {
            let holders = self.holders.entry(*address).or_default();
            holders.insert(claim.name.clone());
            self.runs.insert(*address);
            if let Some(key) = &claim.sharing.key {
                self.keys.entry(key.clone()).or_default().insert(*address);
            }
        }
        let sharing = claim.sharing.clone();
        self.services
            .insert(claim.name.clone(), Holding { sharing, held });
    }

    pub(super) fn release(&mut self, service: &NamespacedName) {
        let Some(holding) = self.services.remove(service) else {
            return;
        };
        for Held { address, .. } in &holding.held {
            if let Some(holders) = self.holders.get_mut(address) {
                holders.remove(service);
                if holders.is_empty() {
                    self.holders.remove(address);
                    self.runs.remove(*address);
                }
            }
            if let Some(key) = &holding.sharing.key {
                self.forget_key(key, *address);
            }
        }
    }

    /// Forgets that an address has a key, once none of its holders has it.
    fn forget_key(&mut self, key: &str, address: IpAddr) {
        let mut holders = self.holders.get(&address).into_iter().flatten();
        let has_key = |holder: &NamespacedName| {
            let holding = self.services.get(holder);
            holding.is_some_and(|holding| holding.sharing.key.as_deref() == Some(key))
        };
        if holders.any(has_key) {
            return;
        }
        if let Some(addresses) = self.keys.get_mut(key) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.keys.remove(key);
            }
        }
    }
}
