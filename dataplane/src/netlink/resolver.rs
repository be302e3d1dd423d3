//! Which next hops the kernel is to be asked to resolve, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::neighbour::Neighbour;

/// Most next hops that are remembered; the one that was asked longest ago makes room.
pub(super) const CAPACITY: usize = 4096;

/// Least time between two questions for one address. The kernel itself repeats its ARP requests
/// once a second (`retrans_time_ms`) in between.
const REPEAT: Duration = Duration::from_secs(1);

/// Least time between two confirmations of one address: the kernel waits 5 s
/// (`delay_first_probe_time`) before it probes.
const CONFIRM: Duration = Duration::from_secs(5);

/// How well the kernel knows a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Not at all.
    Unknown,
    /// It did, some time ago.
    Stale,
    /// Confirmed, or the kernel is about to.
    Known,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// A worker waits for it.
    wanted: bool,
    last: Option<Instant>,
}

/// Remembers what was requested.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    asked: BTreeMap<Neighbour, Asked>,
}

impl Resolver {
    pub(super) fn request(&mut self, request: Neighbour) {
        if self.asked.len() >= CAPACITY && !self.asked.contains_key(&request) {
            let oldest = self
                .asked
                .iter()
                .min_by_key(|(_, asked)| (asked.wanted, asked.last));
            if let Some(oldest) = oldest.map(|(request, _)| *request) {
                self.asked.remove(&oldest);
            }
        }
        self.asked
            .entry(request)
            .or_insert(Asked {
                wanted: true,
                last: None,
            })
            .wanted = true;
    }

    /// Remembers next hops to be kept confirmed, as far as there is room.
    pub(super) fn keep(&mut self, next_hops: impl Iterator<Item = Neighbour>) {
        for next_hop in next_hops {
            if self.asked.len() < CAPACITY {
                self.asked.entry(next_hop).or_insert(Asked {
                    wanted: false,
                    last: None,
                });
            }
        }
    }

    /// What the kernel is to be asked now: what a worker waits for, and what is remembered and has
    /// got stale.
    pub(super) fn due(
        &mut self,
        now: Instant,
        freshness: impl Fn(Neighbour) -> Freshness,
    ) -> Vec<Neighbour> {
        let mut due = Vec::new();
        for (&request, asked) in &mut self.asked {
            let pause = match (freshness(request), asked.wanted) {
                (Freshness::Unknown, true) => REPEAT,
                (Freshness::Stale, _) => CONFIRM,
                (Freshness::Unknown, false) => continue,
                (Freshness::Known, _) => {
                    asked.wanted = false;
                    continue;
                }
            };
            if asked
                .last
                .is_none_or(|last| now.duration_since(last) >= pause)
            {
                asked.last = Some(now);
                asked.wanted = false;
                due.push(request);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::io::InterfaceId;

    const NEXT: Neighbour = neighbour(Ipv4Addr::new(10, 0, 0, 9));

    const fn neighbour(address: Ipv4Addr) -> Neighbour {
        Neighbour {
            interface: InterfaceId(0),
            address: IpAddr::V4(address),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn due(resolver: &mut Resolver, now: Instant, freshness: Freshness) -> usize {
        resolver.due(now, |_| freshness).len()
    }

    #[test]
    fn a_next_hop_is_asked_for_at_once_and_then_once_a_second_while_it_is_wanted() {
        let (mut resolver, start) = (Resolver::default(), start());
        resolver.request(NEXT);
        assert_eq!(due(&mut resolver, start, Freshness::Unknown), 1);
        resolver.request(NEXT);
        assert_eq!(
            due(&mut resolver, start + REPEAT / 2, Freshness::Unknown),
            0
        );
        assert_eq!(due(&mut resolver, start + REPEAT, Freshness::Unknown), 1);
        assert_eq!(
            due(&mut resolver, start + REPEAT * 9, Freshness::Unknown),
            0
        );
    }

    #[test]
    fn what_was_asked_for_is_confirmed_when_it_gets_stale() {
        let (mut resolver, start) = (Resolver::default(), start());
        resolver.request(NEXT);
        assert_eq!(due(&mut resolver, start, Freshness::Known), 0);
        assert_eq!(due(&mut resolver, start, Freshness::Stale), 1);
        assert_eq!(due(&mut resolver, start + CONFIRM / 2, Freshness::Stale), 0);
        assert_eq!(due(&mut resolver, start + CONFIRM, Freshness::Stale), 1);
    }

    #[test]
    fn a_stale_gateway_is_confirmed_without_a_request() {
        let (mut resolver, start) = (Resolver::default(), start());
        resolver.keep([NEXT].into_iter());
        assert_eq!(resolver.due(start, |_| Freshness::Unknown), []);
        assert_eq!(resolver.due(start, |_| Freshness::Stale), [NEXT]);
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let mut resolver = Resolver::default();
        for number in 0..2 * CAPACITY as u32 {
            resolver.request(neighbour(Ipv4Addr::from_bits(number)));
        }
        assert_eq!(resolver.asked.len(), CAPACITY);
        assert!(
            resolver
                .asked
                .contains_key(&neighbour(Ipv4Addr::from_bits(8191)))
        );
    }
}
