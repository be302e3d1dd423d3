//! What the dataplane sees of connections to a backend, and what follows from it where no probe
//! asks: consecutive failures take it out of use for a limited time, as Envoy's outlier detection
//! does (`consecutive_gateway_failure`, `base_ejection_time`, `max_ejection_time`).

use std::time::Duration;

/// Connections to a backend since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// First packets that were never answered.
    pub unanswered: u32,
    /// First packets that were answered with a reset.
    pub resets: u32,
    /// Connections that came about.
    pub answered: u32,
}

impl Evidence {
    /// Connections that failed.
    pub fn failures(&self) -> u32 {
        self.unanswered.saturating_add(self.resets)
    }
}

/// When connections that fail take a backend out of use that is not probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Passive {
    /// Failures in a row that do; 0 means never.
    pub failures: u32,
    /// How long the first time; the n-th time n times as long. Each such time in use takes one back.
    pub pause: Duration,
    /// How long at most.
    pub longest: Duration,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_secs(30),
            longest: Duration::from_secs(300),
        }
    }
}

/// What is remembered of one backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ejection {
    run: u32,
    times: u32,
    returned: Duration,
    until: Option<Duration>,
}

/// A backend was taken out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// Failures in a row that led to it.
    pub failures: u32,
    /// For how long.
    pub pause: Duration,
}

impl Ejection {
    /// Until when the backend is out of use, if it is.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Takes in a report; says so if the backend is now taken out of use. Failures of a report in
    /// which connections came about as well are not in a row.
    pub fn observe(
        &mut self,
        evidence: Evidence,
        passive: &Passive,
        now: Duration,
    ) -> Option<Ejected> {
        if self.until.is_some() || passive.failures == 0 {
            return None;
        }
        if evidence.answered > 0 {
            self.run = 0;
            return None;
        }
        self.run = self.run.saturating_add(evidence.failures());
        if self.run < passive.failures {
            return None;
        }
        let in_use = now.saturating_sub(self.returned).as_millis();
        let healed = in_use / passive.pause.as_millis().max(1);
        let healed = u32::try_from(healed).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(healed).saturating_add(1);
        let pause = passive.pause.saturating_mul(self.times);
        let pause = pause.min(passive.longest.max(passive.pause));
        let failures = std::mem::take(&mut self.run);
        self.until = Some(now.saturating_add(pause));
        Some(Ejected { failures, pause })
    }

    /// Takes the backend back into use.
    pub fn release(&mut self, now: Duration) {
        self.until = None;
        self.returned = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Evidence = Evidence {
        unanswered: 1,
        resets: 1,
        answered: 0,
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn eject(ejection: &mut Ejection, passive: &Passive, now: Duration) -> Duration {
        let five = Evidence {
            resets: 5,
            ..Evidence::default()
        };
        let ejected = ejection.observe(five, passive, now).unwrap();
        assert_eq!(ejection.until(), Some(now + ejected.pause));
        ejection.release(now + ejected.pause);
        ejected.pause
    }

    #[test]
    fn five_failures_in_a_row_take_a_backend_out_of_use() {
        let (mut ejection, passive) = (Ejection::default(), Passive::default());
        assert_eq!(ejection.observe(FAILED, &passive, seconds(1)), None);
        assert_eq!(ejection.observe(FAILED, &passive, seconds(2)), None);
        let ejected = ejection.observe(FAILED, &passive, seconds(3)).unwrap();
        assert_eq!((ejected.failures, ejected.pause), (6, seconds(30)));
        assert_eq!(ejection.until(), Some(seconds(33)));
        assert_eq!(ejection.observe(FAILED, &passive, seconds(4)), None);
    }

    #[test]
    fn a_connection_that_comes_about_ends_the_row() {
        let (mut ejection, passive) = (Ejection::default(), Passive::default());
        let mixed = Evidence {
            unanswered: 9,
            resets: 9,
            answered: 1,
        };
        for second in 0..20 {
            assert_eq!(ejection.observe(FAILED, &passive, seconds(second)), None);
            assert_eq!(ejection.observe(FAILED, &passive, seconds(second)), None);
            assert_eq!(ejection.observe(mixed, &passive, seconds(second)), None);
        }
    }

    #[test]
    fn each_time_is_longer_up_to_the_longest_and_time_in_use_heals() {
        let (mut ejection, passive) = (Ejection::default(), Passive::default());
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = eject(&mut ejection, &passive, now);
            now += pause;
            pauses.push(pause.as_secs());
        }
        let grown = [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300];
        assert_eq!(pauses, grown);
        now += seconds(30 * 10);
        assert_eq!(eject(&mut ejection, &passive, now), seconds(90));
        now += seconds(100_000);
        assert_eq!(eject(&mut ejection, &passive, now), seconds(30));
    }

    #[test]
    fn without_a_number_of_failures_nothing_is_taken_out_of_use() {
        let mut ejection = Ejection::default();
        let never = Passive {
            failures: 0,
            ..Passive::default()
        };
        let many = Evidence {
            unanswered: u32::MAX,
            resets: u32::MAX,
            answered: 0,
        };
        assert_eq!(many.failures(), u32::MAX);
        assert_eq!(ejection.observe(many, &never, seconds(1)), None);
    }
}
