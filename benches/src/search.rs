//! The highest rate at which hardly anything is lost, by bisection.
//!
//! A shared machine loses frames now and then for reasons of its own. So a rate has failed only
//! when it failed in most of its trials (RFC 2544, section 26.1, knows one trial and zero loss).

use crate::rate::Rate;

/// How to search.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// First rate to be tried.
    pub from: Rate,
    /// No higher rate is tried.
    pub to: Rate,
    /// Share of frames that may be lost.
    pub loss: f64,
    /// The search ends when the answer is known to this share of itself.
    pub precision: f64,
    /// Trials of one rate, of which most must pass; odd.
    pub repeats: u32,
}

/// A search under way. Ask for [`Search::next_rate`], try it, [`Search::record`] what it lost.
#[derive(Debug, Clone)]
pub struct Search {
    limits: Limits,
    passed: Option<f64>,
    failed: Option<f64>,
    rate: f64,
    passes: u32,
    failures: u32,
}

impl Search {
    /// A search at its beginning.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            passed: None,
            failed: None,
            rate: limits.from.0.min(limits.to.0),
            passes: 0,
            failures: 0,
        }
    }

    /// The rate to be tried next; None when the answer is known.
    pub fn next_rate(&self) -> Option<Rate> {
        let over = match (self.passed, self.failed) {
            (Some(passed), Some(failed)) => failed - passed <= failed * self.limits.precision,
            (Some(passed), None) => passed >= self.limits.to.0,
            // Below a packet a second there is nothing to find.
            (None, Some(failed)) => failed <= 1.0,
            (None, None) => false,
        };
        (!over).then_some(Rate(self.rate))
    }

    /// The highest rate that has passed so far.
    pub fn best(&self) -> Option<Rate> {
        self.passed.map(Rate)
    }

    /// Takes down the share of frames that a trial of [`Search::next_rate`] has lost.
    pub fn record(&mut self, loss: f64) {
        if loss <= self.limits.loss {
            self.passes += 1;
        } else {
            self.failures += 1;
        }
        let most = self.limits.repeats / 2 + 1;
        if self.passes >= most {
            self.passed = Some(self.rate);
        } else if self.failures >= most {
            self.failed = Some(self.rate);
        } else {
            return;
        }
        (self.passes, self.failures) = (0, 0);
        self.rate = match (self.passed, self.failed) {
            (Some(passed), Some(failed)) => (passed + failed) / 2.0,
            (Some(passed), None) => (passed * 2.0).min(self.limits.to.0),
            (None, Some(failed)) => failed / 2.0,
            (None, None) => self.rate,
        };
    }

    /// Gives up the highest rate that passed: a longer trial has refuted it. The search goes on
    /// below.
    pub fn refute(&mut self) {
        if let Some(passed) = self.passed.take() {
            self.failed = Some(passed);
            self.rate = passed * (1.0 - 2.0 * self.limits.precision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(from: f64) -> Limits {
        Limits {
            from: Rate(from),
            to: Rate(2e7),
            loss: 0.001,
            precision: 0.02,
            repeats: 3,
        }
    }

    /// Searches a path that loses nothing up to `capacity` and the rest above.
    fn search(mut search: Search, capacity: f64) -> (Option<f64>, u32) {
        let mut trials = 0;
        while let Some(rate) = search.next_rate() {
            trials += 1;
            assert!(trials < 200, "it does not end");
            search.record((1.0 - capacity / rate.0).max(0.0));
        }
        (search.best().map(|rate| rate.0), trials)
    }

    proptest! {
        #[test]
        fn the_capacity_is_found_from_wherever_it_starts(
            capacity in 1e3f64..1.9e7, from in 1e3f64..2e7,
        ) {
            let (best, _) = search(Search::new(limits(from)), capacity);
            let best = best.unwrap();
            prop_assert!(best <= capacity * 1.002, "{best}");
            prop_assert!(best >= capacity * 0.97, "{best}");
        }
    }

    #[test]
    fn a_path_without_a_limit_is_as_fast_as_the_highest_rate() {
        let (best, trials) = search(Search::new(limits(1e5)), f64::INFINITY);
        assert_eq!(best, Some(2e7));
        assert_eq!(trials, 2 * 9);
    }

    #[test]
    fn a_path_that_loses_everything_has_no_rate() {
        assert_eq!(search(Search::new(limits(1e5)), 0.0).0, None);
    }

    #[test]
    fn one_bad_trial_of_three_is_forgiven() {
        let mut search = Search::new(limits(1e5));
        search.record(0.5);
        search.record(0.0);
        assert_eq!(search.next_rate(), Some(Rate(1e5)));
        search.record(0.001);
        assert_eq!(search.best(), Some(Rate(1e5)));
        assert_eq!(search.next_rate(), Some(Rate(2e5)));
    }

    #[test]
    fn a_refuted_rate_is_followed_by_lower_ones() {
        let mut one = Search::new(limits(1e5));
        for _ in 0..2 {
            one.record(0.0);
        }
        one.refute();
        assert_eq!(one.best(), None);
        let (best, _) = search(one, 9.9e4);
        assert!((9.6e4..=9.92e4).contains(&best.unwrap()), "{best:?}");
    }
}
