//! When a worker that finds nothing to do lets its core sleep.

use std::time::Duration;

use sluice_conf::settings::dataplane::Polling;

use crate::clock::Time;

/// How long a worker looks for frames in vain when they come rarely.
const SHORT: Duration = Duration::from_micros(20);

/// How long when the last sleep was shorter than this: it was not worth its wake-up, which costs
/// up to 50 microseconds on a processor that was halted.
const MEDIUM: Duration = Duration::from_micros(200);

/// How long at most, after work for as long: a sender that loses its processor under load goes on
/// after some time slices of 3 to 4 milliseconds, and a sleeper's rings fill until it is awake.
const LONG: Duration = Duration::from_millis(20);

/// Decides between looking on and sleeping, much as the kernel decides between polling and halting
/// (Documentation/virt/kvm/halt-polling.rst): whoever was woken early, or had work for long, looks
/// on for longer. Looking on costs at most as much as the work before it, and [`MEDIUM`].
#[derive(Debug)]
pub(super) struct Rest {
    polling: Polling,
    /// When the first work after the last sleep was found.
    busy_since: Time,
    last_busy: Time,
    /// How long to look on after `last_busy` at least.
    patience: Duration,
    /// Whether there was a sleep since `last_busy`.
    slept: bool,
}

impl Rest {
    pub(super) const fn new(polling: Polling, now: Time) -> Self {
        Self {
            polling,
            busy_since: now,
            last_busy: now,
            patience: SHORT,
            slept: false,
        }
    }

    /// Notes a turn that began at `now` and whether it found something to do. Whether to sleep
    /// before the next one.
    pub(super) fn is_due(&mut self, busy: bool, now: Time) -> bool {
        if busy {
            self.note_work(now);
        }
        let is_due = match self.polling {
            Polling::Adaptive => !busy && now >= self.end_of_patience(),
            Polling::Busy => false,
            Polling::Interrupt => !busy,
        };
        self.slept |= is_due;
        is_due
    }

    fn note_work(&mut self, now: Time) {
        if std::mem::take(&mut self.slept) {
            let was_early = now < self.last_busy.after(MEDIUM);
            self.patience = if was_early { MEDIUM } else { SHORT };
            self.busy_since = now;
        }
        self.last_busy = now;
    }

    fn end_of_patience(&self) -> Time {
        let worked = Duration::from_nanos(self.last_busy.0 - self.busy_since.0);
        self.last_busy.after(self.patience.max(worked.min(LONG)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);

    /// Whether it sleeps after nothing was found for `idle`.
    fn sleeps(rest: &mut Rest, from: Time, idle: Duration) -> bool {
        rest.is_due(false, from.after(idle))
    }

    #[test]
    fn a_worker_sleeps_as_its_polling_says() {
        let naps = |polling| {
            let mut rest = Rest::new(polling, START);
            assert!(!rest.is_due(true, START));
            [SHORT / 2, SHORT].map(|idle| sleeps(&mut rest, START, idle))
        };
        assert_eq!(naps(Polling::Adaptive), [false, true]);
        assert_eq!(naps(Polling::Busy), [false, false]);
        assert_eq!(naps(Polling::Interrupt), [true, true]);
    }

    #[test]
    fn a_worker_that_is_woken_early_looks_on_for_longer() {
        let mut rest = Rest::new(Polling::Adaptive, START);
        assert!(sleeps(&mut rest, START, SHORT));
        let woken = START.after(MEDIUM / 2);
        assert!(!rest.is_due(true, woken));
        assert!(!sleeps(&mut rest, woken, MEDIUM / 2));
        assert!(sleeps(&mut rest, woken, MEDIUM));
    }

    #[test]
    fn after_a_long_sleep_it_sleeps_soon_again() {
        let mut rest = Rest::new(Polling::Adaptive, START);
        assert!(sleeps(&mut rest, START, SHORT));
        let early = START.after(MEDIUM / 2);
        assert!(!rest.is_due(true, early));
        assert!(sleeps(&mut rest, early, MEDIUM));
        let late = early.after(MEDIUM * 2);
        assert!(!rest.is_due(true, late));
        assert!(sleeps(&mut rest, late, SHORT));
    }

    #[test]
    fn after_work_it_looks_on_for_as_long_within_bounds() {
        for (work, patience) in [(MEDIUM, MEDIUM), (LONG / 2, LONG / 2), (LONG * 9, LONG)] {
            let mut rest = Rest::new(Polling::Adaptive, START);
            let mut now = START;
            while now < START.after(work) {
                now = now.after(SHORT / 2);
                assert!(!rest.is_due(true, now));
            }
            assert!(!sleeps(&mut rest, now, patience - SHORT));
            assert!(sleeps(&mut rest, now, patience));
        }
    }
}
