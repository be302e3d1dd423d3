//! Where the Services of one map are in the next.

use std::ops::Range;

use super::draft::Step;

/// Costs no more than there are differences between the two maps.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Services of the map before.
    before: usize,
    gaps: Vec<Gap>,
}

#[derive(Debug)]
struct Gap {
    /// Places in the map before of what is not the same any more.
    gone: Range<usize>,
    /// Place in the next map of what follows.
    next: usize,
}

impl Moves {
    /// From a map of so many Services.
    pub fn of(before: usize, steps: &[Step]) -> Self {
        let (mut old, mut new) = (0, 0);
        let gap = |step: &Step| {
            new += step.gone.start - old + step.added.len();
            old = step.gone.end;
            Gap {
                gone: step.gone.clone(),
                next: new,
            }
        };
        let gaps = steps.iter().map(gap).collect();
        Self { before, gaps }
    }

    /// Where a Service is now that was at `place`; `None` when it is not the same any more.
    pub fn find(&self, place: u32) -> Option<u32> {
        let old = usize::try_from(place).ok()?;
        if old >= self.before {
            return None;
        }
        let begun = self.gaps.partition_point(|gap| gap.gone.start <= old);
        match begun.checked_sub(1).and_then(|last| self.gaps.get(last)) {
            Some(gap) => u32::try_from(old.checked_sub(gap.gone.end)? + gap.next).ok(),
            None => Some(place),
        }
    }
}
