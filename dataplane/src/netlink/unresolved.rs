//! Next hops to resolve: from whoever has a packet for one to the thread that follows the kernel.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::neighbour::Neighbour;
use crate::wake::Wake;

/// A queue for so many next hops.
///
/// # Errors
/// The process has no file descriptor left.
pub fn unresolved(capacity: usize) -> std::io::Result<(Resolve, Unresolved)> {
    let (sender, queue) = bounded(capacity);
    let wake = Arc::new(Wake::new()?);
    let resolve = Resolve {
        queue: sender,
        wake: Arc::clone(&wake),
    };
    Ok((resolve, Unresolved { queue, wake }))
}

/// The end of those who have packets.
#[derive(Debug, Clone)]
pub struct Resolve {
    queue: Sender<Neighbour>,
    wake: Arc<Wake>,
}

impl Resolve {
    /// Asks for a next hop, without ever waiting. False when the queue is full: whoever still needs
    /// it asks again.
    pub fn ask(&self, next_hop: Neighbour) -> bool {
        let is_queued = self.queue.try_send(next_hop).is_ok();
        self.wake.ring();
        is_queued
    }
}

/// The end of the thread that asks the kernel.
#[derive(Debug)]
pub struct Unresolved {
    queue: Receiver<Neighbour>,
    wake: Arc<Wake>,
}

impl Unresolved {
    /// Next hops that were asked for, as many as fit into the queue at most.
    pub fn take(&self) -> impl Iterator<Item = Neighbour> + '_ {
        let most = self.queue.capacity().unwrap_or(usize::MAX);
        self.queue.try_iter().take(most)
    }

    /// Calls `sleep` unless there is a next hop, or `busy` says that there is work. What it is
    /// given becomes readable when one comes, or when the wake is rung.
    pub(super) fn wait(&self, busy: impl FnOnce() -> bool, sleep: impl FnOnce(BorrowedFd<'_>)) {
        self.wake.sleep(|| !self.queue.is_empty() || busy(), sleep);
    }

    /// What wakes who waits.
    pub(super) fn wake(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }
}
