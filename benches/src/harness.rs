//! How a figure is taken: work in batches of which only one part is timed, and repetitions of all
//! figures in turns.
//!
//! A batch is prepared with the clock off and worked on with the clock on. Two readings of the
//! clock cost some 50 ns, which [`BATCH`] items share. A batch is short enough to fall between two
//! disturbances by neighbours of the machine; figures that are to be compared take turns, so that
//! what lasts longer falls on all of them.

use sluice_dataplane::clock::Clock;
use sluice_dataplane::pipeline::MAX_BURST;

use crate::statistics::median;

/// Items between two readings of the clock: four full bursts.
pub const BATCH: usize = 4 * MAX_BURST;

/// Batches of one repetition.
pub const BATCHES: usize = 64;

/// Measures how long work takes.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Clock);

impl Default for Stopwatch {
    fn default() -> Self {
        Self(Clock::start())
    }
}

impl Stopwatch {
    /// Nanoseconds that `work` takes, with what it makes.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> (f64, T) {
        let start = self.0.now();
        let made = work();
        ((self.0.now().0 - start.0) as f64, made)
    }

    /// Nanoseconds of one item in one repetition: `timed` works on [`BATCH`] items, `prepare` makes
    /// them ready with the clock off. The median of [`BATCHES`] batches: one in which another
    /// process had the core does not count.
    pub fn items<S>(
        &self,
        state: &mut S,
        mut prepare: impl FnMut(&mut S),
        mut timed: impl FnMut(&mut S),
    ) -> f64 {
        let mut batches = [0.0; BATCHES];
        for batch in &mut batches {
            prepare(state);
            *batch = self.time(|| timed(state)).0 / BATCH as f64;
        }
        median(&batches)
    }
}

/// Takes a reading of every case in each round, in turns; returns each case's readings. A first
/// round is thrown away: it finds cold caches and branches that nobody has predicted.
pub fn in_turns<C>(
    rounds: usize,
    cases: &mut [C],
    mut read: impl FnMut(&mut C) -> f64,
) -> Vec<Vec<f64>> {
    let mut readings = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..=rounds {
        for (case, readings) in cases.iter_mut().zip(&mut readings) {
            let reading = read(case);
            if round > 0 {
                readings.push(reading);
            }
        }
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_take_turns_and_the_first_round_does_not_count() {
        let mut order = Vec::new();
        let readings = in_turns(2, &mut ["a", "b"], |case| {
            order.push(*case);
            order.len() as f64
        });
        assert_eq!(order, ["a", "b", "a", "b", "a", "b"]);
        assert_eq!(readings, [[3.0, 5.0], [4.0, 6.0]]);
    }

    #[test]
    fn every_batch_is_prepared_before_it_is_worked_on() {
        let mut state = (0, 0);
        Stopwatch::default().items(
            &mut state,
            |(prepared, _)| *prepared += 1,
            |(prepared, worked)| {
                *worked += 1;
                assert_eq!(prepared, worked);
            },
        );
        assert_eq!(state, (BATCHES, BATCHES));
    }
}
