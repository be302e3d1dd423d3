//! When a worker that finds nothing to do lets its core sleep.

use std::time::Duration;

use sluice_conf::settings::dataplane::Polling;

use crate::clock::Time;

/// How long a worker looks for frames in vain when the last ones came rarely.
const SHORT: Duration = Duration::from_micros(20);

/// How long when the last sleep was too short to be worth it. Sleeping costs a wake-up, which is
/// about so long on a processor that was halted.
const LONG: Duration = Duration::from_micros(200);

/// Decides between looking on and sleeping, as the kernel decides between polling and halting
/// (Documentation/virt/kvm/halt-polling.rst): whoever was woken early looks on for longer.
#[derive(Debug)]
pub(super) struct Rest {
    polling: Polling,
    last_busy: Time,
    /// How long to look on after `last_busy`.
    patience: Duration,
    /// Whether there was a sleep since `last_busy`.
    slept: bool,
}

impl Rest {
    pub(super) const fn new(polling: Polling, now: Time) -> Self {
        Self {
            polling,
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
            Polling::Adaptive => now >= self.last_busy.after(self.patience),
            Polling::Busy => false,
            Polling::Interrupt => !busy,
        };
        self.slept |= is_due;
        is_due
    }

    fn note_work(&mut self, now: Time) {
        if std::mem::take(&mut self.slept) {
            self.patience = if now < self.last_busy.after(LONG) {
                LONG
            } else {
                SHORT
            };
        }
        self.last_busy = now;
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
        let woken = START.after(LONG / 2);
        assert!(!rest.is_due(true, woken));
        assert!(!sleeps(&mut rest, woken, LONG / 2));
        assert!(sleeps(&mut rest, woken, LONG));
    }

    #[test]
    fn after_a_long_sleep_it_sleeps_soon_again() {
        let mut rest = Rest::new(Polling::Adaptive, START);
        assert!(sleeps(&mut rest, START, SHORT));
        let early = START.after(LONG / 2);
        assert!(!rest.is_due(true, early));
        assert!(sleeps(&mut rest, early, LONG));
        let late = early.after(LONG * 2);
        assert!(!rest.is_due(true, late));
        assert!(sleeps(&mut rest, late, SHORT));
    }

    #[test]
    fn frames_that_come_while_it_looks_on_change_nothing() {
        let mut rest = Rest::new(Polling::Adaptive, START);
        let mut now = START;
        for _ in 0..100 {
            now = now.after(SHORT / 2);
            assert!(!rest.is_due(true, now));
        }
        assert!(sleeps(&mut rest, now, SHORT));
    }
}
