//! The in-memory twin of [`super::xsk`]: frames come from [`MemoryIo::inject`] and leave into
//! [`MemoryIo::take_output`].
//!
//! Guarantees: slots are conserved as on AF_XDP. Every frame takes one slot of a [`MemoryPool`]
//! that several workers may share; the slot is free again only when the frame was transmitted and
//! flushed, or recycled. A frame that is dropped as a Rust value instead stays
//! [`MemoryPool::outstanding`] for ever, so that a test that counts finds the leak.
//!
//! Does not model: the kernel's budget of a transmit call, wake-ups, lengths of the receive rings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Census, InterfaceId, PacketIo, RingStats};

/// Frame memory that several [`MemoryIo`] share, as workers share one UMEM.
#[derive(Debug, Clone)]
pub struct MemoryPool {
    slots: usize,
    room: usize,
    free: Arc<AtomicUsize>,
}

impl MemoryPool {
    /// A pool of `slots` slots with room for `room` bytes of frame each.
    pub fn new(slots: usize, room: usize) -> Self {
        Self {
            slots,
            room,
            free: Arc::new(AtomicUsize::new(slots)),
        }
    }

    /// A worker's I/O on interfaces 0 to `interfaces - 1`.
    pub fn io(&self, interfaces: u16) -> MemoryIo {
        MemoryIo {
            pool: self.clone(),
            interfaces: (0..interfaces).map(|_| Queue::default()).collect(),
            turn: 0,
            transmit_limit: usize::MAX,
            transmit_held: false,
            output: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// All slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Slots that hold no frame.
    pub fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Slots that hold a frame: injected and not received, in hand, handed over, or queued for
    /// transmission. 0 after everything was handled, or a frame has leaked.
    pub fn outstanding(&self) -> usize {
        self.slots - self.free()
    }

    fn take(&self) -> bool {
        let less_one = |free: usize| free.checked_sub(1);
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less_one)
            .is_ok()
    }

    fn give_back(&self, slots: usize) {
        self.free.fetch_add(slots, Ordering::Relaxed);
    }
}

/// A frame in a slot; its memory travels with it from worker to worker.
#[derive(Debug)]
pub struct MemoryFrame {
    slot: Box<[u8]>,
    len: usize,
    interface: InterfaceId,
}

/// One interface's rings.
#[derive(Debug, Default)]
struct Queue {
    input: VecDeque<MemoryFrame>,
    transmit: Vec<MemoryFrame>,
    refused: u64,
}

/// A worker's queue on every interface, in memory.
#[derive(Debug)]
pub struct MemoryIo {
    pool: MemoryPool,
    interfaces: Vec<Queue>,
    turn: usize,
    transmit_limit: usize,
    transmit_held: bool,
    output: Vec<(InterfaceId, Vec<u8>)>,
    /// Memory to use again, so that a benchmark does not measure the allocator.
    spare: Vec<Box<[u8]>>,
}

impl MemoryIo {
    /// The I/O of a lone worker with a pool of its own.
    pub fn new(slots: usize, room: usize, interfaces: u16) -> Self {
        MemoryPool::new(slots, room).io(interfaces)
    }

    /// Lets `frame` arrive by `interface`. False, and the frame is lost, when no slot is free, when
    /// the frame is longer than a slot, or when there is no such interface.
    pub fn inject(&mut self, interface: InterfaceId, frame: &[u8]) -> bool {
        let room = self.pool.room;
        let Some(queue) = self.interfaces.get_mut(usize::from(interface.0)) else {
            return false;
        };
        if frame.len() > room || !self.pool.take() {
            queue.refused += 1;
            return false;
        }
        let mut slot = self
            .spare
            .pop()
            .unwrap_or_else(|| vec![0; room].into_boxed_slice());
        slot[..frame.len()].copy_from_slice(frame);
        queue.input.push_back(MemoryFrame {
            slot,
            len: frame.len(),
            interface,
        });
        true
    }

    /// Frames that were flushed since the last call, in the order of transmission on each
    /// interface.
    pub fn take_output(&mut self) -> Vec<(InterfaceId, Vec<u8>)> {
        std::mem::take(&mut self.output)
    }

    /// Limits each interface's transmit ring to `frames` between two flushes.
    pub fn limit_transmit(&mut self, frames: usize) {
        self.transmit_limit = frames;
    }

    /// While held, a flush transmits nothing, as a device that does not complete.
    pub fn hold_transmit(&mut self, held: bool) {
        self.transmit_held = held;
    }

    /// The pool, to count its slots.
    pub fn pool(&self) -> &MemoryPool {
        &self.pool
    }

    /// All slots of the pool.
    pub fn slots(&self) -> usize {
        self.pool.slots()
    }

    /// Slots of the pool that hold no frame.
    pub fn free(&self) -> usize {
        self.pool.free()
    }

    /// Slots of the pool that hold a frame; see [`MemoryPool::outstanding`].
    pub fn outstanding(&self) -> usize {
        self.pool.outstanding()
    }
}

impl PacketIo for MemoryIo {
    type Frame = MemoryFrame;

    fn receive(&mut self, frames: &mut Vec<MemoryFrame>, max: usize) {
        let count = self.interfaces.len();
        let mut left = max;
        for step in 0..count {
            let input = &mut self.interfaces[(self.turn + step) % count].input;
            let taken = left.min(input.len());
            frames.extend(input.drain(..taken));
            left -= taken;
        }
        self.turn = (self.turn + 1) % count.max(1);
    }

    fn interface(&self, frame: &MemoryFrame) -> InterfaceId {
        frame.interface
    }

    fn bytes<'a>(&'a self, frame: &'a MemoryFrame) -> &'a [u8] {
        &frame.slot[..frame.len]
    }

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut MemoryFrame) -> &'a mut [u8] {
        &mut frame.slot[..frame.len]
    }

    fn resize(&mut self, frame: &mut MemoryFrame, len: usize) -> bool {
        if len > frame.slot.len() {
            return false;
        }
        frame.len = len;
        true
    }

    fn allocate(&mut self, len: usize) -> Option<MemoryFrame> {
        if len > self.pool.room || !self.pool.take() {
            return None;
        }
        let slot = self
            .spare
            .pop()
            .unwrap_or_else(|| vec![0; self.pool.room].into_boxed_slice());
        Some(MemoryFrame {
            slot,
            len,
            interface: InterfaceId(0),
        })
    }

    fn transmit(&mut self, frame: MemoryFrame, interface: InterfaceId) -> Result<(), MemoryFrame> {
        match self.interfaces.get_mut(usize::from(interface.0)) {
            Some(queue) if queue.transmit.len() < self.transmit_limit => {
                queue.transmit.push(frame);
                Ok(())
            }
            _ => Err(frame),
        }
    }

    fn recycle(&mut self, frame: MemoryFrame) {
        self.pool.give_back(1);
        self.spare.push(frame.slot);
    }

    fn flush(&mut self) {
        if self.transmit_held {
            return;
        }
        for (id, queue) in (0..).map(InterfaceId).zip(&mut self.interfaces) {
            self.pool.give_back(queue.transmit.len());
            for frame in queue.transmit.drain(..) {
                self.output.push((id, frame.slot[..frame.len].to_vec()));
                self.spare.push(frame.slot);
            }
        }
    }

    fn census(&self) -> Census {
        Census {
            receiving: self.interfaces.iter().map(|queue| queue.input.len()).sum(),
            transmitting: self
                .interfaces
                .iter()
                .map(|queue| queue.transmit.len())
                .sum(),
            free: self.pool.free(),
        }
    }

    fn ring_stats(&self, interface: InterfaceId) -> RingStats {
        let Some(queue) = self.interfaces.get(usize::from(interface.0)) else {
            return RingStats::default();
        };
        RingStats {
            fill_ring_empty: queue.refused,
            tx_outstanding: queue.transmit.len() as u64,
            ..RingStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: InterfaceId = InterfaceId(0);
    const B: InterfaceId = InterfaceId(1);

    fn received(io: &mut MemoryIo, max: usize) -> Vec<MemoryFrame> {
        let mut frames = Vec::new();
        io.receive(&mut frames, max);
        frames
    }

    #[test]
    fn a_frame_goes_from_one_interface_to_the_other_and_its_slot_is_free_again() {
        let mut io = MemoryIo::new(2, 64, 2);
        assert!(io.inject(A, b"frame"));
        let mut frame = received(&mut io, 64).pop().unwrap();
        assert_eq!((io.interface(&frame), io.outstanding()), (A, 1));
        io.bytes_mut(&mut frame)[0] = b'F';
        assert!(io.transmit(frame, B).is_ok());
        assert_eq!(io.take_output(), []);
        io.flush();
        assert_eq!(io.take_output(), [(B, b"Frame".to_vec())]);
        assert_eq!((io.free(), io.outstanding()), (2, 0));
    }

    #[test]
    fn without_a_free_slot_nothing_is_received() {
        let mut io = MemoryIo::new(1, 64, 1);
        assert!(io.inject(A, b"one"));
        assert!(!io.inject(A, b"two"));
        assert_eq!(io.ring_stats(A).fill_ring_empty, 1);
        let frame = received(&mut io, 64).pop().unwrap();
        io.recycle(frame);
        assert!(io.inject(A, b"three"));
    }

    #[test]
    fn a_forgotten_frame_stays_outstanding() {
        let mut io = MemoryIo::new(2, 64, 1);
        assert!(io.inject(A, b"lost"));
        drop(received(&mut io, 64));
        io.flush();
        assert_eq!(io.outstanding(), 1);
    }

    #[test]
    fn a_full_transmit_ring_gives_the_frame_back() {
        let mut io = MemoryIo::new(4, 64, 1);
        io.limit_transmit(1);
        assert!(io.inject(A, b"one") && io.inject(A, b"two"));
        let mut frames = received(&mut io, 64);
        let second = frames.pop().unwrap();
        assert!(io.transmit(frames.pop().unwrap(), A).is_ok());
        io.hold_transmit(true);
        io.flush();
        let second = io.transmit(second, A).unwrap_err();
        assert_eq!(io.bytes(&second), b"two");
        io.hold_transmit(false);
        io.flush();
        assert!(io.transmit(second, A).is_ok());
    }

    #[test]
    fn a_frame_of_one_worker_is_usable_and_recycled_at_another() {
        let pool = MemoryPool::new(2, 64);
        let (mut one, mut two) = (pool.io(1), pool.io(1));
        assert!(one.inject(A, b"handed over"));
        let mut frame = received(&mut one, 64).pop().unwrap();
        two.bytes_mut(&mut frame)[0] = b'H';
        assert_eq!(two.bytes(&frame), b"Handed over");
        two.recycle(frame);
        assert_eq!(pool.outstanding(), 0);
    }

    #[test]
    fn interfaces_take_turns_and_no_burst_exceeds_its_limit() {
        let mut io = MemoryIo::new(8, 64, 2);
        for byte in 0..3u8 {
            assert!(io.inject(A, &[byte]) && io.inject(B, &[byte]));
        }
        let order: Vec<u16> = (0..3)
            .flat_map(|_| received(&mut io, 2))
            .map(|frame| frame.interface.0)
            .collect();
        assert_eq!(order, [0, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn a_frame_grows_up_to_its_slot() {
        let mut io = MemoryIo::new(1, 8, 1);
        assert!(io.inject(A, b"abc"));
        let mut frame = received(&mut io, 64).pop().unwrap();
        assert!(io.resize(&mut frame, 8));
        assert!(!io.resize(&mut frame, 9));
        assert_eq!(io.bytes(&frame).len(), 8);
    }
}
