//! Frames that wait until the kernel has resolved their next hop: few, and not for long.

use std::time::Duration;

use crate::clock::Time;
use crate::neighbour::{Neighbour, Network};

/// Most frames that wait at one worker.
const LIMIT: usize = 256;

/// A next hop may always have so many of them (as Linux had once: unres_qlen) ...
const LEAST_PER_HOP: usize = 3;

/// ... and beyond that one part in so many of the places that are left: what comes at once for a host
/// that is about to answer finds room, and dead hosts leave some to the others.
const SHARE: usize = 4;

/// How long a frame waits: about as long as the kernel asks (three ARP requests, a second apart).
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Entry<Frame> {
    frame: Frame,
    hop: Neighbour,
    deadline: Time,
}

/// The frames of one worker that wait, oldest first.
#[derive(Debug)]
pub struct Waiting<Frame> {
    entries: Vec<Entry<Frame>>,
}

impl<Frame> Default for Waiting<Frame> {
    fn default() -> Self {
        Self {
            entries: Vec::with_capacity(LIMIT),
        }
    }
}

impl<Frame> Waiting<Frame> {
    /// Frames that wait now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Has a frame wait for `hop`.
    ///
    /// # Errors
    /// The frame comes back when too many wait already.
    pub fn hold(&mut self, frame: Frame, hop: Neighbour, now: Time) -> Result<(), Frame> {
        let same = self.entries.iter().filter(|entry| entry.hop == hop).count();
        let free = LIMIT - self.entries.len();
        if free == 0 || same >= (free / SHARE).max(LEAST_PER_HOP) {
            return Err(frame);
        }
        self.entries.push(Entry {
            frame,
            hop,
            deadline: now.after(PATIENCE),
        });
        Ok(())
    }

    /// Takes out the frames whose next hop is resolved now, oldest first.
    pub fn resolved<'a>(&'a mut self, network: &'a Network) -> impl Iterator<Item = Frame> + 'a {
        self.entries
            .extract_if(.., |entry| network.is_resolved(&entry.hop))
            .map(|entry| entry.frame)
    }

    /// Takes out one frame that has waited too long.
    pub fn overdue(&mut self, now: Time) -> Option<Frame> {
        let oldest = self.entries.first()?;
        (oldest.deadline <= now).then(|| self.entries.remove(0).frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::InterfaceId;
    use crate::neighbour::{Link, MacAddress, Routing};
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    const ALIVE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 8);

    fn hop(last: u8) -> Neighbour {
        Neighbour {
            interface: InterfaceId(0),
            address: Ipv4Addr::new(10, 0, 2, last).into(),
        }
    }

    /// How many of a thousand frames for `hop` find room.
    fn held(waiting: &mut Waiting<u32>, hop: Neighbour) -> usize {
        (0..1000)
            .filter(|n| waiting.hold(*n, hop, Time(0)).is_ok())
            .count()
    }

    #[test]
    fn what_comes_at_once_for_one_next_hop_finds_room() {
        assert!(held(&mut Waiting::default(), hop(9)) >= 50);
    }

    #[test]
    fn dead_next_hops_leave_room_for_the_others() {
        let mut waiting = Waiting::default();
        for dead in 10..26 {
            assert!(held(&mut waiting, hop(dead)) >= LEAST_PER_HOP);
        }
        assert_eq!(waiting.hold(7, hop(8), Time(0)), Ok(()));
    }

    #[test]
    fn no_more_wait_than_there_are_places() {
        let mut waiting = Waiting::default();
        let all: usize = (0..200).map(|dead| held(&mut waiting, hop(dead))).sum();
        assert_eq!((all, waiting.len()), (LIMIT, LIMIT));
    }

    #[test]
    fn only_the_resolved_go_on_and_the_overdue_give_up() {
        let mut waiting = Waiting::default();
        waiting.hold("dead", hop(9), Time(0)).unwrap();
        waiting.hold("alive", hop(8), Time(0)).unwrap();
        let neighbours = HashMap::from([((InterfaceId(0), ALIVE), MacAddress([2; 6]))]);
        let v4 = Routing::new([], neighbours);
        let network = Network::new(vec![Link::default()], v4, Routing::default());
        assert_eq!(waiting.resolved(&network).collect::<Vec<_>>(), ["alive"]);
        assert_eq!(waiting.overdue(Time(0).after(PATIENCE / 2)), None);
        assert_eq!(waiting.overdue(Time(0).after(PATIENCE)), Some("dead"));
        assert!(waiting.is_empty());
    }
}
