//! First packets that have to wait: a new connection costs many times what a packet of an
//! established one costs, so a flood of them must not take the turns of the others.
//!
//! As long as more frames come than a worker keeps up with, it opens only so many connections of a
//! burst; the first packets of others wait here, in order. What waits is a share of each next burst.

use std::collections::VecDeque;

/// Most frames that wait at one worker.
const ROOM: usize = 512;

/// The frames of one worker that wait.
#[derive(Debug)]
pub struct Lobby<Frame>(VecDeque<Frame>);

impl<Frame> Default for Lobby<Frame> {
    fn default() -> Self {
        Self(VecDeque::with_capacity(ROOM))
    }
}

impl<Frame> Lobby<Frame> {
    /// Frames that wait now.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has a frame wait.
    ///
    /// # Errors
    /// The frame comes back when too many wait already.
    pub fn enter(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.0.len() >= ROOM {
            return Err(frame);
        }
        self.0.push_back(frame);
        Ok(())
    }

    /// Takes up to `most` of those that have waited longest.
    pub fn leave(&mut self, most: usize) -> impl Iterator<Item = Frame> + '_ {
        self.0.drain(..most.min(self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_longest_leaves_first_and_nobody_enters_when_it_is_full() {
        let mut lobby = Lobby::default();
        assert!((0..ROOM).all(|frame| lobby.enter(frame).is_ok()));
        assert_eq!(lobby.enter(7), Err(7));
        assert_eq!(lobby.leave(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(lobby.len(), ROOM - 3);
        assert_eq!(lobby.leave(ROOM).next(), Some(3));
        assert!(lobby.is_empty());
    }
}
