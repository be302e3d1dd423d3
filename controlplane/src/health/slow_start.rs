//! How much of its weight a backend gets while it warms up.

use std::time::Duration;

/// Steps of a ramp: each is a change of the service table.
const STEPS: u32 = 10;

/// A ramp: from a share of the weight to all of it, linear in time, in ten steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlowStart {
    /// Share at the beginning, in percent.
    pub from: u8,
    /// How long until the whole weight.
    pub length: Duration,
}

/// A place on a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Share of the weight, in percent.
    pub percent: u8,
    /// How long until the next step, unless this is the last.
    pub next: Option<Duration>,
}

impl Share {
    /// This share of `weight`; never nothing of something.
    pub fn of(&self, weight: u32) -> u32 {
        let part = u64::from(weight) * u64::from(self.percent) / 100;
        let part = u32::try_from(part).unwrap_or(weight);
        part.max(weight.min(1))
    }
}

impl SlowStart {
    /// The share of a backend that has been ready for so long.
    pub fn share(&self, ready_for: Duration) -> Share {
        let from = u32::from(self.from.min(100));
        let step = (1..=STEPS).find(|step| self.at(*step) > ready_for);
        let Some(step) = step else {
            return Share {
                percent: 100,
                next: None,
            };
        };
        let percent = from + (100 - from) * (step - 1) / STEPS;
        Share {
            percent: u8::try_from(percent).unwrap_or(100),
            next: Some(self.at(step).saturating_sub(ready_for)),
        }
    }

    /// When `step` is reached; never before its time.
    fn at(&self, step: u32) -> Duration {
        let nanoseconds = self.length.as_nanos() * u128::from(step);
        Duration::from_nanos_u128(nanoseconds.div_ceil(STEPS.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RAMP: SlowStart = SlowStart {
        from: 10,
        length: Duration::from_secs(30),
    };

    #[test]
    fn a_ramp_rises_in_ten_steps() {
        let mut ready_for = Duration::ZERO;
        let mut shares = Vec::new();
        loop {
            let share = RAMP.share(ready_for);
            shares.push((ready_for.as_secs(), share.percent));
            match share.next {
                Some(next) => ready_for += next,
                None => break,
            }
        }
        let expected: Vec<(u64, u8)> = (0..=10)
            .map(|step| (step * 3, 10 + step as u8 * 9))
            .collect();
        assert_eq!(shares, expected);
    }

    #[test]
    fn a_share_of_something_is_something() {
        let share = RAMP.share(Duration::ZERO);
        assert_eq!(
            [0, 1, 5, 100, 1000].map(|weight| share.of(weight)),
            [0, 1, 1, 10, 100]
        );
        let whole = RAMP.share(Duration::MAX);
        assert_eq!(whole.of(u32::MAX), u32::MAX);
    }

    proptest! {
        #[test]
        fn a_share_never_falls_and_holds_until_its_next_step(
            from in 0u8..=120,
            length in 0u64..10_000_000_000,
            moments in prop::collection::vec(0u64..12_000_000_000, 1..30),
        ) {
            let ramp = SlowStart { from, length: Duration::from_nanos(length) };
            let mut moments = moments;
            moments.sort_unstable();
            let mut before = from.min(100);
            for moment in moments {
                let ready_for = Duration::from_nanos(moment);
                let share = ramp.share(ready_for);
                prop_assert!(share.percent >= before && share.percent <= 100);
                before = share.percent;
                prop_assert_eq!(share.next.is_none(), ready_for >= ramp.length);
                let Some(next) = share.next else { continue };
                prop_assert!(next > Duration::ZERO);
                let just_before = ready_for + next - Duration::from_nanos(1);
                prop_assert_eq!(ramp.share(just_before).percent, share.percent);
                let linear = f64::from(from.min(100))
                    + f64::from(100 - from.min(100)) * moment as f64 / length as f64;
                let percent = f64::from(share.percent);
                prop_assert!(percent <= linear + 0.01 && percent > linear - 12.0, "{percent} {linear}");
            }
        }
    }
}
