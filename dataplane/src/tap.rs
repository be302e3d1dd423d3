//! Live packets with what became of them, copied out of the workers for one operator at a time.
//!
//! ```text
//!   worker: Tapping --filled records--> bounded queue --> Session (a control thread) --> client
//!              ^------empty records---- bounded queue <-----'
//! ```
//!
//! Off, it costs a worker one relaxed load a burst. On, a worker allocates nothing for a packet and
//! waits for nobody: it fills records that were made beforehand, and where none is left it counts
//! the packet as lost. The tap is off again when its [`Session`] is dropped.

mod headers;
mod record;
mod session;
mod tapping;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;
use sluice_conf::message::dataplane::tap::{MAX_SNAP_LEN, TapFilter, TapSettings};

pub use session::{Around, Session};
pub use tapping::Tapping;

use record::Record;

/// Records between the workers and the operator: with whole frames 8 MiB.
const RECORDS: usize = 2048;

/// The switch that all workers look at.
#[derive(Debug, Default)]
pub struct Tap {
    is_on: AtomicBool,
    job: ArcSwapOption<Job>,
}

/// What is tapped.
#[derive(Debug)]
struct Job {
    filter: TapFilter,
    sample: u32,
    snap_len: usize,
    empty: ArrayQueue<Box<Record>>,
    filled: ArrayQueue<Box<Record>>,
    lost: AtomicU64,
}

impl Job {
    fn new(settings: &TapSettings) -> Self {
        let snap_len = usize::from(settings.snap_len.min(MAX_SNAP_LEN));
        let empty = ArrayQueue::new(RECORDS);
        for _ in 0..RECORDS {
            // There is room for exactly so many.
            let _ = empty.push(Box::new(Record::with_room(snap_len)));
        }
        Self {
            filter: settings.filter,
            sample: settings.sample.max(1),
            snap_len,
            empty,
            filled: ArrayQueue::new(RECORDS),
            lost: AtomicU64::new(0),
        }
    }
}

impl Tap {
    /// Switches the tap on; `None` when somebody has it already.
    pub fn start(self: &Arc<Self>, settings: &TapSettings) -> Option<Session> {
        let job = Arc::new(Job::new(settings));
        let none: Option<Arc<Job>> = None;
        let before = self.job.compare_and_swap(&none, Some(Arc::clone(&job)));
        if before.is_some() {
            return None;
        }
        self.is_on.store(true, Ordering::Release);
        Some(Session::new(Arc::clone(self), job))
    }

    fn stop(&self) {
        self.is_on.store(false, Ordering::Relaxed);
        self.job.store(None);
    }
}

#[cfg(test)]
mod tests;
