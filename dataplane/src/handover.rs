//! Frames from the worker that received them to the worker that owns their flow.
//!
//! Each worker has one bounded ring that all others push to; a frame moves as its token, never
//! its bytes, together with what was found out about it. A full ring gives the frame back: the giver counts the drop.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::wake::Wake;

/// One worker's end of all rings.
#[derive(Debug)]
pub struct Handover<Frame> {
    worker: usize,
    rings: Arc<[ArrayQueue<Frame>]>,
    wakes: Arc<[Arc<Wake>]>,
    /// Workers that were given something since the last [`Handover::ring`], and whether any was.
    given: Vec<bool>,
    has_given: bool,
}

impl<Frame> Handover<Frame> {
    /// One end for each worker, with rings of `capacity` frames.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new(workers: u16, capacity: usize) -> std::io::Result<Vec<Self>> {
        let rings: Arc<[ArrayQueue<Frame>]> = (0..workers)
            .map(|_| ArrayQueue::new(capacity.max(1)))
            .collect();
        let wakes: Arc<[Arc<Wake>]> = (0..workers)
            .map(|_| Wake::new().map(Arc::new))
            .collect::<Result<_, _>>()?;
        let end = |worker| Self {
            worker,
            rings: Arc::clone(&rings),
            wakes: Arc::clone(&wakes),
            given: vec![false; usize::from(workers)],
            has_given: false,
        };
        Ok((0..usize::from(workers)).map(end).collect())
    }

    /// Gives a frame to another worker.
    ///
    /// # Errors
    /// The frame comes back when that worker's ring is full.
    pub fn give(&mut self, worker: u16, frame: Frame) -> Result<(), Frame> {
        let Some(ring) = self.rings.get(usize::from(worker)) else {
            return Err(frame);
        };
        ring.push(frame)?;
        self.given[usize::from(worker)] = true;
        self.has_given = true;
        Ok(())
    }

    /// Wakes those that were given something.
    #[inline]
    pub fn ring(&mut self) {
        if std::mem::take(&mut self.has_given) {
            self.wake_given();
        }
    }

    fn wake_given(&mut self) {
        for (given, wake) in self.given.iter_mut().zip(&*self.wakes) {
            if std::mem::take(given) {
                wake.ring();
            }
        }
    }

    /// The next frame that another worker gave to this one.
    pub fn take(&mut self) -> Option<Frame> {
        self.rings.get(self.worker)?.pop()
    }

    /// Frames that wait to be taken.
    pub fn len(&self) -> usize {
        self.rings.get(self.worker).map_or(0, ArrayQueue::len)
    }

    /// Whether nothing waits to be taken.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rings.get(self.worker).is_none_or(ArrayQueue::is_empty)
    }

    /// This worker's wake.
    pub fn wake(&self) -> Option<Arc<Wake>> {
        self.wakes.get(self.worker).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_full_ring_gives_the_frame_back() {
        let mut ends = Handover::new(2, 1).unwrap();
        assert_eq!(ends[0].give(1, "first"), Ok(()));
        assert_eq!(ends[0].give(1, "second"), Err("second"));
        assert_eq!(ends[0].take(), None);
        assert_eq!(ends[1].take(), Some("first"));
    }

    #[test]
    fn a_sleeper_is_woken_by_a_frame() {
        let mut ends = Handover::new(2, 8).unwrap();
        let (mut sleeper, mut giver) = (ends.pop().unwrap(), ends.pop().unwrap());
        let slept = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let wake = sleeper.wake().unwrap();
                while sleeper.take().is_none() {
                    wake.sleep(
                        || !sleeper.is_empty(),
                        |event| {
                            slept.fetch_add(1, Ordering::SeqCst);
                            let mut fds = [rustix::event::PollFd::new(
                                &event,
                                rustix::event::PollFlags::IN,
                            )];
                            rustix::event::poll(&mut fds, None).unwrap();
                        },
                    );
                }
            });
            while slept.load(Ordering::SeqCst) == 0 {
                std::hint::spin_loop();
            }
            giver.give(1, 7).unwrap();
            giver.ring();
        });
    }
}
