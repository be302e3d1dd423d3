//! Source ports of masqueraded connections, shared out among the workers.
//!
//! The range is cut into one block for each worker, so the destination port of a reply names the
//! worker that owns its connection. There is no pool to keep: a port is free towards a backend
//! when the connection table says so (as in netfilter), and the same port can serve several
//! backends at once.

use sluice_conf::settings::dataplane::PortRange;

use crate::flow::{mix, scale};

/// Candidates that are tried for one connection before the ports count as exhausted.
const ATTEMPTS: u32 = 64;

/// The whole range, cut for so many workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortBlocks {
    range: PortRange,
    workers: u16,
}

impl PortBlocks {
    /// Cuts the range; `workers` is at least 1. Ports that do not divide evenly go to the last
    /// worker.
    pub fn new(range: PortRange, workers: u16) -> Self {
        Self {
            range,
            workers: workers.max(1),
        }
    }

    /// Whether the port belongs to any worker.
    pub fn contains(&self, port: u16) -> bool {
        self.range.ports().contains(&port)
    }

    /// The worker that a port belongs to.
    pub fn owner(&self, port: u16) -> Option<u16> {
        let offset = self
            .range
            .ports()
            .contains(&port)
            .then(|| port - self.range.first)?;
        Some(
            offset
                .checked_div(self.block_len())
                .unwrap_or(0)
                .min(self.workers - 1),
        )
    }

    /// The ports of a worker.
    pub fn block(&self, worker: u16) -> PortRange {
        let first = self.range.first + self.block_len() * worker.min(self.workers - 1);
        let last = if worker + 1 >= self.workers {
            self.range.last
        } else {
            first + self.block_len() - 1
        };
        PortRange { first, last }
    }

    fn block_len(&self) -> u16 {
        (self.range.count() / usize::from(self.workers)) as u16
    }
}

/// Steps that a worker chooses from.
const STEPS: usize = 64;

/// Chooses ports of one worker's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picker {
    first: u16,
    count: u32,
    /// Each without a common divisor with `count`: such a step visits every port before it comes
    /// round.
    steps: Box<[u32]>,
}

impl Picker {
    /// Chooses from `block`.
    pub fn new(block: PortRange) -> Self {
        let count = block.count().max(1);
        let step = |n: usize| {
            let mut from = 1 + n * count / STEPS..;
            from.find(|step| are_coprime(*step, count)).unwrap_or(1)
        };
        Self {
            first: block.first,
            count: count as u32,
            steps: (0..STEPS).map(|n| (step(n) % count) as u32).collect(),
        }
    }

    /// Ports to try for a connection, all different, starting at a place and going on in steps that
    /// `random` decides: an outsider must not be able to guess the next source port (RFC 6056
    /// section 3.3), and steps of one would pile up ports next to each other.
    pub fn candidates(&self, random: u64) -> impl Iterator<Item = u16> + use<> {
        let step = mix(random ^ 0x9e37_79b9_7f4a_7c15, 0x2545_f491_4f6c_dd1d);
        let (first, count) = (self.first, self.count);
        let mut place = self.start(random);
        let step = self.steps[scale(step, self.steps.len())];
        (0..count.min(ATTEMPTS)).map(move |_| {
            let port = first + place as u16;
            place += step;
            if place >= count {
                place -= count;
            }
            port
        })
    }

    /// The first of the candidates.
    pub fn first(&self, random: u64) -> u16 {
        self.first + self.start(random) as u16
    }

    fn start(&self, random: u64) -> u32 {
        let place = mix(random ^ 0x2545_f491_4f6c_dd1d, 0x9e37_79b9_7f4a_7c15);
        scale(place, self.count as usize) as u32
    }
}

fn are_coprime(mut a: usize, mut b: usize) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_port_has_one_owner_and_lies_in_its_block(
            first in 1024u16..60_000, length in 64u16..5000, workers in 1u16..17,
        ) {
            let range = PortRange { first, last: first + length };
            let blocks = PortBlocks::new(range, workers);
            for port in range.ports() {
                let owner = blocks.owner(port).unwrap();
                prop_assert!(owner < workers);
                prop_assert!(blocks.block(owner).ports().contains(&port));
            }
            let total: usize = (0..workers).map(|w| blocks.block(w).count()).sum();
            prop_assert_eq!(total, range.count());
            prop_assert_eq!(blocks.owner(first - 1), None);
        }

        #[test]
        fn candidates_are_distinct_and_of_the_block(random in any::<u64>(), length in 0u16..200) {
            let block = PortRange { first: 20_000, last: 20_000 + length };
            let picker = Picker::new(block);
            let ports: Vec<u16> = picker.candidates(random).collect();
            prop_assert_eq!(ports.first(), Some(&picker.first(random)));
            let distinct: std::collections::HashSet<_> = ports.iter().collect();
            prop_assert_eq!(distinct.len(), ports.len());
            prop_assert_eq!(ports.len(), block.count().min(ATTEMPTS as usize));
            prop_assert!(ports.iter().all(|p| block.ports().contains(p)));
        }
    }

    #[test]
    fn first_candidates_spread_over_the_block() {
        let block = PortRange {
            first: 20_000,
            last: 20_999,
        };
        let picker = Picker::new(block);
        let mut seen = std::collections::HashSet::new();
        for random in 0..10_000u64 {
            seen.extend(
                picker
                    .candidates(mix(random ^ 1, 0x9e37_79b9_7f4a_7c15))
                    .take(1),
            );
        }
        assert!(seen.len() > 990, "{}", seen.len());
    }
}
