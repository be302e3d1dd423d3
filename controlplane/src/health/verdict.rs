//! From probes in a row to a verdict: the kubelet's thresholds (pkg/kubelet/prober/worker.go,
//! `resultRun`), as a pure state machine.

use std::fmt;
use std::time::Duration;

use super::failure::{Failure, Outcome};
use super::probe::Timing;

/// Whether a target is fit to be used, since when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is fit to be used.
    pub healthy: bool,
    /// What led to this.
    pub reason: Reason,
    /// When `healthy` became what it is, by the control plane's clock.
    pub since: Duration,
}

/// What led to a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is known yet, which is taken for the best.
    Trusted,
    /// Nothing is known yet, which is waited for.
    Pending,
    /// Enough probes in a row passed.
    Passed,
    /// Enough probes in a row failed, the last one for this.
    Failed(Failure),
    /// So many connections in a row failed; out of use for this time.
    Ejected {
        /// Connections in a row that failed.
        failures: u32,
        /// For how long.
        pause: Duration,
    },
    /// The time out of use is over.
    Returned,
}

impl Reason {
    /// Whether nothing has decided yet.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Trusted | Self::Pending)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted => f.write_str("trusted until a verdict"),
            Self::Pending => f.write_str("waits for a verdict"),
            Self::Passed => f.write_str("probe passed"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Ejected { failures, pause } => write!(
                f,
                "{failures} connections in a row failed, out of use for {} s",
                pause.as_secs_f64()
            ),
            Self::Returned => f.write_str("in use again after failed connections"),
        }
    }
}

/// What is thought of a target that nothing is known of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Initial {
    /// It is used until the first verdict, so that a gateway that starts serves at once.
    #[default]
    Trusted,
    /// It is not used until the first verdict.
    Pending,
}

impl Initial {
    /// The verdict on such a target.
    pub fn verdict(self, now: Duration) -> Verdict {
        let (healthy, reason) = match self {
            Self::Trusted => (true, Reason::Trusted),
            Self::Pending => (false, Reason::Pending),
        };
        Verdict {
            healthy,
            reason,
            since: now,
        }
    }
}

/// Counts outcomes of the same kind in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    passing: bool,
    run: u32,
}

impl Tally {
    /// Counts one outcome and brings `verdict` up to date. Says whether the target became healthy
    /// or unhealthy. What says nothing about the target changes nothing.
    pub fn record(
        &mut self,
        verdict: &mut Verdict,
        outcome: Outcome,
        timing: &Timing,
        now: Duration,
    ) -> bool {
        if outcome.as_ref().is_err_and(|failure| !failure.judges()) {
            return false;
        }
        let passed = outcome.is_ok();
        self.run = match passed == self.passing {
            true => self.run.saturating_add(1),
            false => 1,
        };
        self.passing = passed;
        let enough = if passed {
            timing.success
        } else {
            timing.failure
        };
        let turns = verdict.healthy != passed;
        if self.run < enough || !(turns || verdict.reason.is_open()) {
            return false;
        }
        verdict.healthy = passed;
        verdict.reason = outcome.map_or_else(Reason::Failed, |()| Reason::Passed);
        if turns {
            verdict.since = now;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timing(success: u32, failure: u32) -> Timing {
        Timing {
            success,
            failure,
            ..Timing::default()
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Feeds outcomes one second apart, the first at one second.
    fn judge(initial: Initial, timing: &Timing, outcomes: &[Outcome]) -> (Verdict, Vec<u64>) {
        let mut verdict = initial.verdict(Duration::ZERO);
        let (mut tally, mut turns) = (Tally::default(), Vec::new());
        for (second, outcome) in (1..).zip(outcomes) {
            if tally.record(&mut verdict, outcome.clone(), timing, seconds(second)) {
                turns.push(second);
            }
        }
        (verdict, turns)
    }

    const REFUSED: Outcome = Err(Failure::Refused);

    #[test]
    fn three_failures_in_a_row_and_not_two_make_a_target_unhealthy() {
        let outcomes = [REFUSED, REFUSED, Ok(()), REFUSED, REFUSED, REFUSED, REFUSED];
        let (verdict, turns) = judge(Initial::Trusted, &timing(1, 3), &outcomes);
        assert_eq!(turns, [6]);
        assert_eq!(
            verdict,
            Verdict {
                healthy: false,
                reason: Reason::Failed(Failure::Refused),
                since: seconds(6),
            }
        );
        assert_eq!(verdict.reason.to_string(), "connection refused");
    }

    #[test]
    fn a_pending_target_is_used_after_enough_successes() {
        let (verdict, turns) = judge(Initial::Pending, &timing(2, 3), &[Ok(()), Ok(())]);
        assert_eq!(turns, [2]);
        assert_eq!((verdict.healthy, verdict.reason), (true, Reason::Passed));
    }

    #[test]
    fn the_first_verdict_on_a_trusted_target_is_no_change_of_its_health() {
        let (verdict, turns) = judge(Initial::Trusted, &timing(1, 3), &[Ok(())]);
        assert_eq!(turns, Vec::<u64>::new());
        assert_eq!(verdict.reason, Reason::Passed);
        assert_eq!(verdict.since, Duration::ZERO);
    }

    #[test]
    fn a_probe_that_could_not_be_sent_breaks_no_row() {
        let ours: Outcome = Err(Failure::Ours("too many open files".into()));
        let outcomes = [REFUSED, ours.clone(), REFUSED, ours.clone(), ours, REFUSED];
        let (_, turns) = judge(Initial::Trusted, &timing(1, 3), &outcomes);
        assert_eq!(turns, [6]);
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            4 => Just(Ok(())),
            3 => Just(REFUSED),
            2 => (400u16..600).prop_map(|status| Err(Failure::Status(status))),
            1 => Just(Err(Failure::Ours("no file left".into()))),
        ]
    }

    proptest! {
        /// The model looks back over all outcomes after each one: a target turns when the last so
        /// many that count were all of one kind.
        #[test]
        fn thresholds_agree_with_looking_back(
            outcomes in prop::collection::vec(outcome(), 0..60),
            success in 0u32..5,
            failure in 0u32..5,
            trusted in any::<bool>(),
        ) {
            let initial = if trusted { Initial::Trusted } else { Initial::Pending };
            let timing = timing(success, failure);
            let (mut healthy, mut since, mut open) = (trusted, Duration::ZERO, true);
            let mut reason = initial.verdict(Duration::ZERO).reason;
            let mut counted: Vec<Outcome> = Vec::new();
            let mut turns = Vec::new();
            for (second, outcome) in (1..).zip(&outcomes) {
                if matches!(outcome, Err(Failure::Ours(_))) {
                    continue;
                }
                counted.push(outcome.clone());
                let passed = outcome.is_ok();
                let enough = if passed { success } else { failure }.max(1) as usize;
                let row = counted.iter().rev().take_while(|o| o.is_ok() == passed).count();
                if row < enough || (healthy == passed && !open) {
                    continue;
                }
                reason = match outcome {
                    Ok(()) => Reason::Passed,
                    Err(failure) => Reason::Failed(failure.clone()),
                };
                if healthy != passed {
                    since = seconds(second);
                    turns.push(second);
                }
                (healthy, open) = (passed, false);
            }
            let expected = Verdict { healthy, reason, since };
            prop_assert_eq!(judge(initial, &timing, &outcomes), (expected, turns));
        }
    }
}
