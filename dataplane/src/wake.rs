//! Waking a thread that sleeps until something comes for it: for a worker frames of others and new
//! tables, for the thread that follows the kernel next hops to resolve.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one thread.
#[derive(Debug)]
pub struct Wake {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Wake {
    /// A wake whose thread is awake.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            event,
            asleep: AtomicBool::new(false),
        })
    }

    /// Wakes the thread if it sleeps. Costs a load when it does not.
    pub fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            // A full counter wakes as well, so there is nothing to do about an error.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Calls `sleep` unless `busy` says at the last moment that there is work. A ring that comes
    /// in between is seen: the flag is up before `busy` looks.
    pub fn sleep(&self, busy: impl FnOnce() -> bool, sleep: impl FnOnce(BorrowedFd<'_>)) {
        self.asleep.store(true, Ordering::SeqCst);
        if !busy() {
            sleep(self.event.as_fd());
        }
        self.asleep.store(false, Ordering::SeqCst);
        let mut count = [0u8; 8];
        // Nothing to read when nobody rang.
        let _ = rustix::io::read(&self.event, &mut count);
    }
}
