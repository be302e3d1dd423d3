//! Fragments that wait until the first one of their packet has come: few, and not for long.

use std::collections::VecDeque;
use std::time::Duration;

use sluice_conf::settings::dataplane::Fragments;

use crate::clock::Time;
use crate::verdict::PacketKey;

/// Most fragments that wait for one packet: what fits the longest packet at the smallest MTU that
/// IPv6 allows.
const LIMIT_PER_PACKET: usize = 52;

#[derive(Debug)]
struct Entry<Frame> {
    frame: Frame,
    packet: PacketKey,
    deadline: Time,
}

/// The fragments of one worker that wait, oldest first.
#[derive(Debug)]
pub struct Assembling<Frame> {
    entries: VecDeque<Entry<Frame>>,
    limit: usize,
    patience: Duration,
}

impl<Frame> Assembling<Frame> {
    /// Room for as many as the settings say.
    pub fn new(settings: &Fragments) -> Self {
        let limit = settings.waiting as usize;
        Self {
            entries: VecDeque::with_capacity(limit),
            limit,
            patience: Duration::from_secs(settings.timeout.into()),
        }
    }

    /// Fragments that wait now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no fragment waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Has a fragment wait for the first one of its packet.
    ///
    /// # Errors
    /// The frame comes back when too many wait already.
    pub fn hold(&mut self, frame: Frame, packet: PacketKey, now: Time) -> Result<(), Frame> {
        let same = self.entries.iter().filter(|entry| entry.packet == packet);
        if self.entries.len() >= self.limit || same.count() >= LIMIT_PER_PACKET {
            return Err(frame);
        }
        self.entries.push_back(Entry {
            frame,
            packet,
            deadline: now.after(self.patience),
        });
        Ok(())
    }

    /// Takes out the fragments of a packet, oldest first.
    pub fn release(&mut self, packet: PacketKey) -> impl Iterator<Item = Frame> {
        let (go, stay) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| entry.packet == packet);
        self.entries = stay;
        let go: VecDeque<Entry<Frame>> = go;
        go.into_iter().map(|entry| entry.frame)
    }

    /// Takes out one fragment that has waited too long.
    pub fn overdue(&mut self, now: Time) -> Option<Frame> {
        let oldest = self.entries.front()?;
        if oldest.deadline > now {
            return None;
        }
        self.entries.pop_front().map(|entry| entry.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Fragments = Fragments {
        packets: 16,
        timeout: 30,
        waiting: 60,
    };

    #[test]
    fn the_fragments_of_a_packet_go_on_in_their_order() {
        let mut assembling = Assembling::new(&SETTINGS);
        for (frame, packet) in [("a1", 1), ("b1", 2), ("a2", 1)] {
            assembling.hold(frame, PacketKey(packet), Time(0)).unwrap();
        }
        assert_eq!(
            assembling.release(PacketKey(1)).collect::<Vec<_>>(),
            ["a1", "a2"]
        );
        assert_eq!(assembling.len(), 1);
    }

    #[test]
    fn no_more_wait_than_the_settings_and_one_packet_allow() {
        let mut assembling = Assembling::new(&SETTINGS);
        let mut held = |packet| {
            (0..100)
                .filter(|n| assembling.hold(*n, PacketKey(packet), Time(0)).is_ok())
                .count()
        };
        assert_eq!(held(1), LIMIT_PER_PACKET);
        assert_eq!(held(2), 60 - LIMIT_PER_PACKET);
    }

    #[test]
    fn who_waits_too_long_gives_up() {
        let mut assembling = Assembling::new(&SETTINGS);
        assembling.hold("a", PacketKey(1), Time(0)).unwrap();
        assert_eq!(
            assembling.overdue(Time(0).after(Duration::from_secs(29))),
            None
        );
        assert_eq!(
            assembling.overdue(Time(0).after(Duration::from_secs(30))),
            Some("a")
        );
        assert!(assembling.is_empty());
    }
}
