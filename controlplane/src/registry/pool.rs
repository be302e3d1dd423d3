//! Numbers that are given out once: by request or automatically, in two bands.
//!
//! Automatic allocation draws from the upper band and falls back to the lower one, which is kept
//! for requests as long as possible (KEP-3070 for addresses, KEP-3668 for node ports). Where it
//! starts is the caller's choice.

use std::ops::RangeInclusive;

use super::runs::Runs;

/// A range of numbers, and which of them are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    range: RangeInclusive<u128>,
    band: u128,
    /// May hold numbers outside the range: those of Services from before the range was changed.
    taken: Runs,
    used: u64,
    counters: Counters,
}

/// What a pool has been asked for since it was made; counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests for a number that were granted.
    pub requested: u64,
    /// Numbers given automatically.
    pub automatic: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Automatic allocations that found every number taken.
    pub exhausted: u64,
}

/// Why a number is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not one of the pool's.
    OutOfRange,
    /// Somebody has it.
    Taken,
}

impl Pool {
    /// A pool of which nothing is taken; its lowest `band` numbers are given automatically only
    /// when the others are taken. An empty range gives a pool that is always full.
    pub fn new(range: RangeInclusive<u128>, band: u128) -> Self {
        Self {
            range,
            band,
            taken: Runs::default(),
            used: 0,
            counters: Counters::default(),
        }
    }

    /// How many numbers the range has; at most `u64::MAX` is told.
    pub fn len(&self) -> u64 {
        distance(&self.range)
    }

    /// Whether the range has no number.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// How many numbers of the range are taken.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// How many numbers of the range are free; at most `u64::MAX` is told.
    pub fn free(&self) -> u64 {
        self.len() - self.used
    }

    /// How many numbers the upper band has; at most `u64::MAX` is told.
    pub fn upper_len(&self) -> u64 {
        distance(&self.upper())
    }

    /// What it has been asked for.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The numbers that are taken, in order.
    pub fn taken(&self) -> impl Iterator<Item = u128> {
        self.taken.iter()
    }

    /// Whether a number is taken.
    pub fn contains(&self, number: u128) -> bool {
        self.taken.contains(number)
    }

    /// Takes a number on request.
    ///
    /// # Errors
    /// The number is outside the range, or taken.
    pub fn allocate(&mut self, number: u128) -> Result<(), Refusal> {
        let granted = match self.range.contains(&number) {
            true => self.adopt(number),
            false => Err(Refusal::OutOfRange),
        };
        match granted {
            Ok(()) => self.counters.requested += 1,
            Err(_) => self.counters.refused += 1,
        }
        granted
    }

    /// Takes the first free number of the upper band from its number `start` on, then from its
    /// first, then of the lower band. A start beyond the band counts as 0. `None` when all are
    /// taken.
    pub fn allocate_next(&mut self, start: u64) -> Option<u128> {
        let upper = self.upper();
        let (first, last) = (*upper.start(), *upper.end());
        let start = first.checked_add(start.into()).filter(|n| *n <= last);
        let found = start
            .and_then(|start| self.taken.first_missing(start..=last))
            .or_else(|| self.taken.first_missing(upper))
            .or_else(|| self.taken.first_missing(self.range.clone()));
        match found {
            Some(number) => {
                self.counters.automatic += 1;
                self.mark(number);
            }
            None => self.counters.exhausted += 1,
        }
        found
    }

    /// Takes a number that was given in an earlier life, wherever the range is now.
    ///
    /// # Errors
    /// The number is taken.
    pub fn adopt(&mut self, number: u128) -> Result<(), Refusal> {
        match self.mark(number) {
            true => Ok(()),
            false => Err(Refusal::Taken),
        }
    }

    /// Gives a number back; nothing happens when it is free.
    pub fn release(&mut self, number: u128) {
        if self.taken.remove(number) && self.range.contains(&number) {
            self.used -= 1;
        }
    }

    fn mark(&mut self, number: u128) -> bool {
        let new = self.taken.insert(number);
        if new && self.range.contains(&number) {
            self.used += 1;
        }
        new
    }

    fn upper(&self) -> RangeInclusive<u128> {
        self.range.start().saturating_add(self.band)..=*self.range.end()
    }
}

/// How many of `values` numbers are the lower band of addresses (pkg/registry/core/service/
/// ipallocator, `calculateRangeOffset`; KEP-3070).
pub fn address_band(values: u128) -> u128 {
    band(values, 16, 256)
}

/// How many of `values` numbers are the lower band of node ports (pkg/registry/core/service/
/// portallocator, `calculateRangeOffset`; KEP-3668).
pub fn port_band(values: u128) -> u128 {
    band(values, 32, 128)
}

fn band(values: u128, part: u128, most: u128) -> u128 {
    /// Smallest band; a range that is not larger has none.
    const LEAST: u128 = 16;
    match values <= LEAST {
        true => 0,
        false => (values / part).clamp(LEAST, most),
    }
}

fn distance(range: &RangeInclusive<u128>) -> u64 {
    match range.is_empty() {
        true => 0,
        false => {
            let beyond_first = range.end() - range.start();
            u64::try_from(beyond_first).map_or(u64::MAX, |n| n.saturating_add(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_band_is_given_when_the_upper_is_taken() {
        let mut pool = Pool::new(100..=109, 4);
        let given: Vec<_> = std::iter::from_fn(|| pool.allocate_next(2)).collect();
        assert_eq!(
            given,
            [106, 107, 108, 109, 104, 105, 100, 101, 102, 103],
            "from the start on, around, then below"
        );
        assert_eq!((pool.free(), pool.used()), (0, 10));
        let counters = pool.counters();
        assert_eq!((counters.automatic, counters.exhausted), (10, 1));
        pool.release(102);
        pool.release(102);
        assert_eq!(pool.allocate(102), Ok(()));
        assert_eq!(pool.allocate(102), Err(Refusal::Taken));
        assert_eq!(pool.allocate(110), Err(Refusal::OutOfRange));
        assert_eq!(pool.counters().refused, 2);
    }

    #[test]
    fn a_number_of_an_earlier_range_is_kept_but_not_counted() {
        let mut pool = Pool::new(100..=101, 0);
        assert_eq!(pool.adopt(50), Ok(()));
        assert_eq!(pool.adopt(50), Err(Refusal::Taken));
        assert_eq!((pool.free(), pool.used()), (2, 0));
        pool.release(50);
        assert_eq!((pool.free(), pool.used()), (2, 0));
        assert_eq!(pool.allocate(50), Err(Refusal::OutOfRange));
    }

    #[test]
    fn a_pool_of_all_addresses_is_as_cheap_as_a_small_one() {
        let mut pool = Pool::new(0..=u128::MAX, 256);
        assert_eq!((pool.len(), pool.upper_len()), (u64::MAX, u64::MAX));
        assert_eq!(
            pool.allocate_next(u64::MAX),
            Some(256 + u128::from(u64::MAX))
        );
        let mut none = Pool::new(std::ops::RangeInclusive::new(1, 0), 0);
        assert!(none.is_empty());
        assert_eq!((none.len(), none.allocate_next(0)), (0, None));
    }
}
