//! The worker's side of the tap.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::record::{Fate, Record, Snap};
use super::{Job, Tap, headers};
use crate::clock::Time;
use crate::io::InterfaceId;
use crate::pipeline::MAX_BURST;
use crate::verdict::{DropReason, Verdict};

/// What a worker holds of the tap.
#[derive(Debug)]
pub struct Tapping {
    tap: Arc<Tap>,
    worker: u16,
    /// `None` while the tap is off.
    job: Option<Arc<Job>>,
    now: Time,
    /// The frames of the burst, as they came in.
    before: Vec<Snap>,
    /// The packet that is being carried out.
    pending: Option<Box<Record>>,
    /// Whether a packet is being carried out, shown or not.
    in_hand: bool,
    matched: u32,
}

impl Tapping {
    /// The side of this worker.
    pub fn new(tap: Arc<Tap>, worker: u16) -> Self {
        Self {
            tap,
            worker,
            job: None,
            now: Time(0),
            before: Vec::new(),
            pending: None,
            in_hand: false,
            matched: 0,
        }
    }

    /// Looks at the switch; once a burst. Whether the tap is on.
    #[inline]
    pub fn begin(&mut self, now: Time) -> bool {
        let is_on = self.tap.is_on.load(Ordering::Relaxed);
        (is_on || self.job.is_some()) && self.follow(is_on, now)
    }

    /// Follows the switch, which is on, or was at the last look.
    fn follow(&mut self, is_on: bool, now: Time) -> bool {
        if !is_on {
            (self.job, self.before) = (None, Vec::new());
            return false;
        }
        let job = self.tap.job.load_full();
        let is_same = match (&job, &self.job) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (new, _) => new.is_none(),
        };
        if !is_same && let Some(job) = &job {
            // Once for each operator, so that nothing is allocated for a packet.
            let snaps = std::iter::repeat_with(|| Snap::with_room(job.snap_len));
            self.before = snaps.take(MAX_BURST).collect();
            self.matched = 0;
        }
        (self.job, self.now) = (job, now);
        self.job.is_some()
    }

    /// Whether it was on at the last look.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.job.is_some()
    }

    /// Notes a frame of the burst before it is processed.
    pub fn came(&mut self, place: usize, interface: InterfaceId, frame: &[u8]) {
        if let Some(snap) = self.before.get_mut(place) {
            snap.take(interface, frame);
        }
    }

    /// Notes what was decided about it and what it has become; call [`Tapping::done`] when that
    /// has been carried out.
    pub fn decided(&mut self, place: usize, verdict: Verdict, frame: &[u8]) {
        self.in_hand = true;
        let leaves = match verdict {
            Verdict::Forward(interface) | Verdict::Reply(interface) => Some(interface),
            _ => None,
        };
        let Some(job) = &self.job else { return };
        let Some(before) = self.before.get(place) else {
            return;
        };
        let after = leaves.and_then(|_| headers::read(frame));
        let is_wanted = headers::matches(&job.filter, before.headers.as_ref())
            || after.is_some() && headers::matches(&job.filter, after.as_ref());
        if !is_wanted {
            return;
        }
        let Some(mut record) = empty(job, &mut self.matched) else {
            return;
        };
        record.before.copy(before);
        match leaves {
            Some(interface) => record.after.take(interface, frame),
            None => record.after.clear(),
        }
        (record.time, record.worker) = (self.now, self.worker);
        record.fate = fate(verdict);
        self.pending = Some(record);
    }

    /// A frame was dropped: the one that is being carried out, or one that has waited for long.
    pub fn dropped(&mut self, reason: DropReason, interface: InterfaceId, frame: &[u8]) {
        let fate = Fate::Drop(reason);
        match &mut self.pending {
            Some(record) => {
                record.fate = fate;
                record.after.clear();
            }
            None if self.in_hand => {}
            None => self.alone(fate, interface, frame),
        }
    }

    /// The gateway sends a frame of its own accord.
    pub fn sent(&mut self, interface: InterfaceId, frame: &[u8]) {
        self.alone(Fate::Sent, interface, frame);
    }

    /// What was decided has been carried out.
    pub fn done(&mut self) {
        self.in_hand = false;
        if let (Some(record), Some(job)) = (self.pending.take(), &self.job) {
            // There are never more records than places.
            let _ = job.filled.push(record);
        }
    }

    /// Notes a frame that no burst brought.
    fn alone(&mut self, fate: Fate, interface: InterfaceId, frame: &[u8]) {
        let Some(job) = &self.job else { return };
        if !headers::matches(&job.filter, headers::read(frame).as_ref()) {
            return;
        }
        let Some(mut record) = empty(job, &mut self.matched) else {
            return;
        };
        let Record { before, after, .. } = &mut *record;
        let (there, none) = match fate {
            Fate::Sent => (after, before),
            _ => (before, after),
        };
        there.take(interface, frame);
        none.clear();
        (record.time, record.worker, record.fate) = (self.now, self.worker, fate);
        let _ = job.filled.push(record);
    }
}

/// A record for a packet that matched, if it is one to be shown.
fn empty(job: &Job, matched: &mut u32) -> Option<Box<Record>> {
    *matched = matched.wrapping_add(1);
    if !matched.is_multiple_of(job.sample) {
        return None;
    }
    let record = job.empty.pop();
    if record.is_none() {
        job.lost.fetch_add(1, Ordering::Relaxed);
    }
    record
}

fn fate(verdict: Verdict) -> Fate {
    match verdict {
        Verdict::Forward(_) => Fate::Forward,
        Verdict::Reply(_) => Fate::Reply,
        Verdict::HandOver { worker, .. } => Fate::HandOver(worker),
        Verdict::Hold { .. } => Fate::Hold,
        Verdict::Wait(_) | Verdict::Later => Fate::Wait,
        Verdict::Kernel { .. } => Fate::Kernel,
        Verdict::Drop(reason) => Fate::Drop(reason),
    }
}
