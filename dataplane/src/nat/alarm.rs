//! Says that source ports run out before they have.

use crate::stats::{PerWorker, WorkerCounters};
use crate::verdict::DropReason;

/// Logs when connections begin to have trouble finding a source port, and again when some find
/// none; once until it is over.
#[derive(Debug, Default)]
pub struct PortAlarm {
    scarce: u64,
    exhausted: u64,
    /// Readings since the last trouble; none before the first.
    quiet: Option<u32>,
}

/// What a reading tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Nothing,
    Scarce,
    Exhausted,
}

/// Readings without trouble after which it counts as over.
const OVER: u32 = 60;

impl PortAlarm {
    /// Looks at the counters; to be called regularly.
    pub fn look(&mut self, counters: &PerWorker<WorkerCounters>) {
        let scarce = counters.iter().map(|c| c.source_ports_scarce.get()).sum();
        let exhausted = counters
            .iter()
            .map(|c| c.drops(DropReason::SourcePortsExhausted))
            .sum();
        match self.read(scarce, exhausted) {
            Finding::Nothing => {}
            Finding::Scarce => tracing::warn!(
                "source ports towards some backend are getting scarce; more backends, or a wider \
                 source_nat.ports, before connections are refused"
            ),
            Finding::Exhausted => tracing::error!(
                "no source port was free towards some backend and connections were dropped \
                 (source_ports_exhausted); add backends or widen source_nat.ports"
            ),
        }
    }

    fn read(&mut self, scarce: u64, exhausted: u64) -> Finding {
        let was_quiet = self.quiet.is_none_or(|readings| readings >= OVER);
        let finding = match (exhausted > self.exhausted, scarce > self.scarce) {
            (true, _) if was_quiet || self.exhausted == 0 => Finding::Exhausted,
            (false, true) if was_quiet => Finding::Scarce,
            _ => Finding::Nothing,
        };
        let troubled = exhausted > self.exhausted || scarce > self.scarce;
        self.quiet = match (troubled, self.quiet) {
            (true, _) => Some(0),
            (false, Some(readings)) => Some(readings.saturating_add(1)),
            (false, None) => None,
        };
        (self.scarce, self.exhausted) = (scarce, exhausted);
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_before_it_is_bad_and_once_while_it_lasts() {
        let mut alarm = PortAlarm::default();
        assert_eq!(alarm.read(0, 0), Finding::Nothing);
        assert_eq!(alarm.read(3, 0), Finding::Scarce);
        assert_eq!(alarm.read(9, 0), Finding::Nothing);
        assert_eq!(alarm.read(9, 2), Finding::Exhausted);
        assert_eq!(alarm.read(20, 5), Finding::Nothing);
        for _ in 0..OVER {
            assert_eq!(alarm.read(20, 5), Finding::Nothing);
        }
        assert_eq!(alarm.read(21, 5), Finding::Scarce);
    }
}
