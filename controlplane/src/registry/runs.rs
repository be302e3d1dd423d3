//! A set of numbers, kept as runs of neighbours.
//!
//! Guarantees: every operation costs the logarithm of the number of runs, whatever the numbers; so
//! the next free number of an IPv6 /64 is found as fast as that of a /24.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// First number of each run, and its last; runs neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(BTreeMap<u128, u128>);

impl Runs {
    pub(super) fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    /// Adds a number; whether it is new.
    pub(super) fn insert(&mut self, number: u128) -> bool {
        if self.contains(number) {
            return false;
        }
        let before = number.checked_sub(1).and_then(|left| self.around(left));
        let after = number.checked_add(1).and_then(|right| self.around(right));
        let first = before.map_or(number, |(first, _)| first);
        let last = after.map_or(number, |(_, last)| last);
        if let Some((first, _)) = after {
            self.0.remove(&first);
        }
        self.0.insert(first, last);
        true
    }

    /// Removes a number; whether it was there.
    pub(super) fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.around(number) else {
            return false;
        };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
        true
    }

    /// The smallest number of `within` that is not in the set.
    pub(super) fn first_missing(&self, within: RangeInclusive<u128>) -> Option<u128> {
        let candidate = match self.around(*within.start()) {
            Some((_, last)) => last.checked_add(1)?,
            None => *within.start(),
        };
        within.contains(&candidate).then_some(candidate)
    }

    /// All numbers, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u128> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The run that holds a number.
    fn around(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_number_is_a_number_like_others() {
        let mut runs = Runs::default();
        for number in [u128::MAX, 0, u128::MAX - 1] {
            assert!(runs.insert(number));
        }
        assert_eq!(runs.first_missing(u128::MAX - 1..=u128::MAX), None);
        assert_eq!(runs.first_missing(0..=u128::MAX), Some(1));
        assert!(runs.remove(u128::MAX));
        assert_eq!(
            runs.first_missing(u128::MAX - 1..=u128::MAX),
            Some(u128::MAX)
        );
        assert!(!runs.remove(u128::MAX));
    }

    proptest! {
        #[test]
        fn runs_hold_what_a_set_holds(
            steps in prop::collection::vec((any::<bool>(), 0_u128..40), 0..200),
            from in 0_u128..40,
        ) {
            let mut runs = Runs::default();
            let mut model = BTreeSet::new();
            for (add, number) in steps {
                match add {
                    true => prop_assert_eq!(runs.insert(number), model.insert(number)),
                    false => prop_assert_eq!(runs.remove(number), model.remove(&number)),
                }
                prop_assert!(runs.iter().eq(model.iter().copied()));
            }
            let missing = (from..=39).find(|number| !model.contains(number));
            prop_assert_eq!(runs.first_missing(from..=39), missing);
            let runs: Vec<_> = runs.0.into_iter().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
