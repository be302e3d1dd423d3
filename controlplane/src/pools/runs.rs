//! A set of addresses as runs of neighbours, so that the next address that is not in it is found
//! at once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kinds::pool::{next, previous};

/// First and last address of every run; no two runs touch.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs(BTreeMap<IpAddr, IpAddr>);

impl Runs {
    /// The first address from `from` on, in its family, that is not in the set.
    pub(super) fn free(&self, from: IpAddr) -> Option<IpAddr> {
        match self.run(from) {
            Some((_, last)) => next(last),
            None => Some(from),
        }
    }

    pub(super) fn insert(&mut self, address: IpAddr) {
        if self.run(address).is_some() {
            return;
        }
        let before = previous(address).and_then(|before| self.run(before));
        let after = next(address).and_then(|after| self.run(after));
        let first = before.map_or(address, |(first, _)| first);
        let last = after.map_or(address, |(_, last)| last);
        if let Some((first, _)) = after {
            self.0.remove(&first);
        }
        self.0.insert(first, last);
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        let Some((first, last)) = self.run(address) else {
            return;
        };
        self.0.remove(&first);
        if let Some(before) = previous(address).filter(|before| *before >= first) {
            self.0.insert(first, before);
        }
        if let Some(after) = next(address).filter(|after| *after <= last) {
            self.0.insert(after, last);
        }
    }

    /// The run that has `address`.
    fn run(&self, address: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (first, last) = self.0.range(..=address).next_back()?;
        (address <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> IpAddr {
        // Both ends of the address space, where there is no neighbour.
        let bits = match number {
            0..10 => u32::from(number),
            _ => u32::MAX - u32::from(20 - number),
        };
        IpAddr::V4(bits.into())
    }

    proptest! {
        #[test]
        fn runs_are_a_set(changes in prop::collection::vec((any::<bool>(), 0u8..21), 0..200)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (insert, number) in changes {
                let changed = address(number);
                if insert {
                    runs.insert(changed);
                    set.insert(changed);
                } else {
                    runs.remove(changed);
                    set.remove(&changed);
                }
                for number in 0..21 {
                    let mut free = Some(address(number));
                    while let Some(taken) = free.filter(|free| set.contains(free)) {
                        free = next(taken);
                    }
                    prop_assert_eq!(runs.free(address(number)), free);
                }
                let mut last: Option<IpAddr> = None;
                for (first, end) in &runs.0 {
                    prop_assert!(first <= end);
                    prop_assert!(last.is_none_or(|last| next(last).unwrap() < *first));
                    last = Some(*end);
                }
            }
        }
    }
}
