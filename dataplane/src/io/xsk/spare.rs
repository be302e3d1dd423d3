//! Slots that no worker needs now.

use crossbeam::queue::ArrayQueue;
use xsk_rs::FrameDesc;

/// Slots that move at once: one queue operation for all of them.
const CHUNK: usize = 32;

/// Balances slots among workers. Lock-free and bounded by the number of slots.
#[derive(Debug)]
pub struct SparePool {
    chunks: ArrayQueue<[FrameDesc; CHUNK]>,
}

impl SparePool {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            chunks: ArrayQueue::new(slots.div_ceil(CHUNK).max(1)),
        }
    }

    /// Slots in the pool.
    pub fn slots(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Moves a chunk out of `free`; false when `free` holds less.
    pub(super) fn give(&self, free: &mut Vec<FrameDesc>) -> bool {
        let Some(chunk) = free.last_chunk().copied() else {
            return false;
        };
        if self.chunks.push(chunk).is_err() {
            return false;
        }
        free.truncate(free.len() - CHUNK);
        true
    }

    /// Moves a chunk into `free`; false when the pool is empty.
    pub(super) fn take(&self, free: &mut Vec<FrameDesc>) -> bool {
        self.chunks
            .pop()
            .map(|chunk| free.extend_from_slice(&chunk))
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_are_given_are_taken_again() {
        let pool = SparePool::new(100);
        let mut free = vec![FrameDesc::default(); 70];
        while pool.give(&mut free) {}
        assert_eq!((free.len(), pool.slots()), (6, 64));
        assert!(pool.take(&mut free));
        assert_eq!((free.len(), pool.slots()), (38, 32));
        assert!(pool.take(&mut free));
        assert!(!pool.take(&mut free));
        assert_eq!((free.len(), pool.slots()), (70, 0));
    }
}
