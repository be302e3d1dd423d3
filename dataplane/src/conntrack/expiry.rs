//! When to look at a connection again: a hashed timer wheel of whole seconds.
//!
//! An entry is a number; the wheel keeps the entries of each second in a list that is linked
//! through a table of its own, so scheduling, moving and taking out cost the same for one entry as
//! for ten million. Deadlines beyond the horizon are looked at early: the owner schedules again.

use super::Seconds;
use crate::memory::{prefetch, reserved};

const NONE: u32 = u32::MAX;

/// Seconds that the wheel can look ahead. A connection with a longer timeout is looked at once in
/// this time.
const HORIZON: u32 = 1024;

#[derive(Debug, Clone, Copy)]
struct Links {
    next: u32,
    /// The entry before; of the first of a list, [`HEADS`] and the slot of the wheel.
    previous: u32,
}

/// In place of the entry before: the entry is on no list.
const UNSCHEDULED: u32 = u32::MAX;

/// Numbers from here on are no entries.
const HEADS: u32 = UNSCHEDULED - HORIZON;

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    heads: Box<[u32]>,
    links: Box<[Links]>,
    /// The second whose entries are taken next.
    cursor: u32,
}

impl Wheel {
    /// A wheel for entries `0..capacity` that starts at second `now`.
    pub fn new(capacity: usize, now: Seconds) -> Self {
        Self {
            heads: vec![NONE; HORIZON as usize].into(),
            links: reserved(
                Links {
                    next: NONE,
                    previous: UNSCHEDULED,
                },
                capacity,
            ),
            cursor: now.0,
        }
    }

    /// Has the processor fetch what an entry needs.
    pub fn prefetch(&self, entry: u32) {
        if let Some(links) = self.links.get(entry as usize) {
            prefetch(links);
        }
    }

    /// Has the entry come up at `deadline`, or earlier when that is beyond the horizon. Moves it
    /// when it is scheduled already.
    pub fn schedule(&mut self, entry: u32, deadline: Seconds) {
        self.cancel(entry);
        // Never in the past: the cursor would pass it by for a whole turn.
        let due = deadline
            .0
            .clamp(self.cursor, self.cursor.saturating_add(HORIZON - 1));
        let slot = due % HORIZON;
        let head = std::mem::replace(&mut self.heads[slot as usize], entry);
        if let Some(links) = self.links.get_mut(head as usize) {
            links.previous = entry;
        }
        self.links[entry as usize] = Links {
            next: head,
            previous: HEADS + slot,
        };
    }

    /// Takes the entry out, if it is scheduled.
    pub fn cancel(&mut self, entry: u32) {
        let Links { next, previous } = self.links[entry as usize];
        if previous == UNSCHEDULED {
            return;
        }
        self.links[entry as usize].previous = UNSCHEDULED;
        if let Some(links) = self.links.get_mut(next as usize) {
            links.previous = previous;
        }
        match self.links.get_mut(previous as usize) {
            Some(links) => links.next = next,
            None => self.heads[(previous - HEADS) as usize] = next,
        }
    }

    /// Takes out one entry that is due at `now`; `None` when there is none. A second is passed
    /// only when its list is empty, so any number of calls a second keeps up in the end.
    pub fn due(&mut self, now: Seconds) -> Option<u32> {
        while self.cursor <= now.0 {
            let entry = self.heads[(self.cursor % HORIZON) as usize];
            if entry != NONE {
                self.cancel(entry);
                return Some(entry);
            }
            if self.cursor == now.0 {
                return None;
            }
            self.cursor += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn all_due(wheel: &mut Wheel, now: u32) -> Vec<u32> {
        let mut entries: Vec<u32> = std::iter::from_fn(|| wheel.due(Seconds(now))).collect();
        entries.sort_unstable();
        entries
    }

    #[test]
    fn an_entry_comes_up_at_its_second_and_only_once() {
        let mut wheel = Wheel::new(4, Seconds(100));
        wheel.schedule(1, Seconds(105));
        assert_eq!(all_due(&mut wheel, 104), []);
        assert_eq!(all_due(&mut wheel, 105), [1]);
        assert_eq!(all_due(&mut wheel, 3000), []);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_comes_up_early() {
        let mut wheel = Wheel::new(4, Seconds(0));
        wheel.schedule(0, Seconds(432_000));
        assert_eq!(all_due(&mut wheel, 1022), []);
        assert_eq!(all_due(&mut wheel, 1023), [0]);
    }

    #[test]
    fn a_deadline_in_the_past_comes_up_at_once() {
        let mut wheel = Wheel::new(4, Seconds(50));
        wheel.schedule(2, Seconds(3));
        assert_eq!(all_due(&mut wheel, 50), [2]);
    }

    #[test]
    fn a_long_pause_loses_nobody() {
        let mut wheel = Wheel::new(4, Seconds(0));
        wheel.schedule(0, Seconds(10));
        wheel.schedule(1, Seconds(900));
        assert_eq!(all_due(&mut wheel, 5000), [0, 1]);
    }

    proptest! {
        #[test]
        fn it_does_what_a_sorted_map_does(
            steps in proptest::collection::vec((0u32..16, 0u32..1000, 0u32..5), 1..200),
        ) {
            let mut wheel = Wheel::new(16, Seconds(0));
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            let mut now = 0;
            for (entry, ahead, pass) in steps {
                if ahead % 7 == 0 {
                    wheel.cancel(entry);
                    model.remove(&entry);
                } else {
                    wheel.schedule(entry, Seconds(now + ahead));
                    model.insert(entry, now + ahead);
                }
                now += pass;
                let expected: Vec<u32> = model.iter().filter(|(_, d)| **d <= now).map(|(e, _)| *e).collect();
                model.retain(|_, deadline| *deadline > now);
                prop_assert_eq!(all_due(&mut wheel, now), expected);
            }
        }
    }
}
