//! When the probes of a target are sent, so that they do not all go at once.

use std::time::Duration;

/// Periods are kept within these bounds, whatever a policy says.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// First probes of targets that come together are spread so far apart on average.
const SPACING: Duration = Duration::from_millis(1);

/// Spreads probes over time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    seed: u64,
    start: Duration,
}

impl Pace {
    /// Two gateways with different seeds probe at different moments.
    pub(super) fn new(seed: u64, start: Duration) -> Self {
        Self { seed, start }
    }

    /// How long a target that comes with others, `count` in all, waits for its first probe. In
    /// the first period after the start, when all targets come, that is anywhere in a period (as
    /// in pkg/kubelet/prober/worker.go, `run`); later it is soon.
    pub(super) fn first(&self, id: u64, period: Duration, count: usize, now: Duration) -> Duration {
        let period = period.clamp(SHORTEST, LONGEST);
        let starting = now.saturating_sub(self.start) < period;
        let apart = SPACING.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let window = if starting { period } else { period.min(apart) };
        window.mul_f64(self.fraction(id, 0))
    }

    /// From the start of a target's probe to the start of its next: the period, off by at most
    /// `jitter_percent` of it.
    pub(super) fn next(
        &self,
        id: u64,
        round: u64,
        period: Duration,
        jitter_percent: u8,
    ) -> Duration {
        let period = period.clamp(SHORTEST, LONGEST);
        let jitter = f64::from(jitter_percent.min(100)) / 100.0;
        let factor = 1.0 + jitter * (2.0 * self.fraction(id, round) - 1.0);
        period.mul_f64(factor).max(SHORTEST)
    }

    /// Evenly spread in [0, 1): SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn fraction(&self, id: u64, round: u64) -> f64 {
        const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.seed ^ id.rotate_left(32).wrapping_add(round);
        z = z.wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);

    #[test]
    fn first_probes_are_spread_over_the_period() {
        let pace = Pace::new(7, Duration::ZERO);
        let mut tenths = [0; 10];
        for id in 0..10_000 {
            let wait = pace.first(id, PERIOD, 1, Duration::ZERO);
            tenths[(wait.as_millis() / 500) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (900..1100).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn targets_that_come_later_are_probed_soon() {
        let pace = Pace::new(7, Duration::ZERO);
        let later = PERIOD * 2;
        for id in 0..1000 {
            assert!(pace.first(id, PERIOD, 3, later) < Duration::from_millis(3));
            assert!(pace.first(id, PERIOD, usize::MAX, later) < PERIOD);
        }
    }

    #[test]
    fn periods_differ_by_the_jitter_and_keep_their_mean() {
        let pace = Pace::new(7, Duration::ZERO);
        let waits: Vec<Duration> = (1..=1000)
            .map(|round| pace.next(3, round, PERIOD, 10))
            .collect();
        let (low, high) = (Duration::from_millis(4500), Duration::from_millis(5500));
        assert!(waits.iter().all(|wait| (low..high).contains(wait)));
        let mean = waits.iter().sum::<Duration>() / 1000;
        let near = Duration::from_millis(4950)..Duration::from_millis(5050);
        assert!(near.contains(&mean), "{mean:?}");
        assert_eq!(pace.next(3, 1, PERIOD, 0), PERIOD);
    }

    #[test]
    fn no_period_is_too_short_or_too_long_for_the_clock() {
        let pace = Pace::new(7, Duration::ZERO);
        for round in 0..1000 {
            assert!(pace.next(1, round, Duration::ZERO, 200) >= SHORTEST);
            assert!(pace.next(1, round, Duration::MAX, 200) <= LONGEST * 2);
        }
    }
}
