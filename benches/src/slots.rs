//! Frames in preallocated slots: the I/O of the benchmarks.
//!
//! A benchmark writes its frames into the slots with the clock off and gives them to the engine, or
//! lets them arrive at a worker; translating rewrites them, so they are written anew before the
//! next batch. Slots lie as far apart as in a UMEM, with the same headroom, because that
//! decides which sets of the cache the headers share. Having just been written, they are in the
//! cache as behind the kernel's copy into the UMEM.

use std::collections::VecDeque;

use sluice_dataplane::io::{Census, InterfaceId, PacketIo, RingStats};

/// Bytes from one slot to the next, as in the UMEM.
const SLOT: usize = 2048;

/// Bytes in front of a frame (the kernel's `XDP_PACKET_HEADROOM`).
const HEADROOM: usize = 256;

/// Alignment of the first slot: a page.
const PAGE: usize = 4096;

/// Token of one slot with the frame in it.
#[derive(Debug)]
pub struct Slot {
    start: usize,
    len: usize,
}

/// Slots of frame memory.
#[derive(Debug)]
pub struct SlotIo {
    memory: Box<[u8]>,
    arrived: VecDeque<Slot>,
    left: Vec<Slot>,
}

impl SlotIo {
    /// I/O with so many slots, and a token for each.
    pub fn new(slots: usize) -> (Self, Vec<Slot>) {
        let memory = vec![0; slots * SLOT + PAGE].into_boxed_slice();
        let first = memory.as_ptr().align_offset(PAGE) + HEADROOM;
        let tokens = (0..slots).map(|number| Slot {
            start: first + number * SLOT,
            len: 0,
        });
        let tokens = tokens.collect();
        let io = Self {
            memory,
            arrived: VecDeque::with_capacity(slots),
            left: Vec::with_capacity(slots),
        };
        (io, tokens)
    }

    /// The frame in a slot.
    pub fn frame(&self, slot: &Slot) -> &[u8] {
        &self.memory[slot.start..slot.start + slot.len]
    }

    /// Replaces the frame in a slot.
    pub fn write(&mut self, slot: &mut Slot, frame: &[u8]) {
        slot.len = frame.len();
        self.bytes_mut(slot).copy_from_slice(frame);
    }

    /// Has the frame in a slot be received next.
    pub fn arrive(&mut self, slot: Slot) {
        self.arrived.push_back(slot);
    }

    /// The frames that were transmitted since the last call.
    pub fn take_left(&mut self) -> Vec<Slot> {
        self.left.drain(..).collect()
    }
}

impl PacketIo for SlotIo {
    type Frame = Slot;

    fn receive(&mut self, frames: &mut Vec<Slot>, max: usize) {
        for _ in 0..max.min(self.arrived.len()) {
            frames.extend(self.arrived.pop_front());
        }
    }

    fn interface(&self, _frame: &Slot) -> InterfaceId {
        InterfaceId(0)
    }

    fn bytes<'a>(&'a self, frame: &'a Slot) -> &'a [u8] {
        self.frame(frame)
    }

    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Slot) -> &'a mut [u8] {
        &mut self.memory[frame.start..frame.start + frame.len]
    }

    fn resize(&mut self, frame: &mut Slot, len: usize) -> bool {
        let fits = len <= SLOT - HEADROOM;
        if fits {
            frame.len = len;
        }
        fits
    }

    fn allocate(&mut self, _len: usize) -> Option<Slot> {
        None
    }

    fn transmit(&mut self, frame: Slot, _interface: InterfaceId) -> Result<(), Slot> {
        self.left.push(frame);
        Ok(())
    }

    fn recycle(&mut self, _frame: Slot) {}

    fn flush(&mut self) {}

    fn census(&self) -> Census {
        Census::default()
    }

    fn ring_stats(&self, _interface: InterfaceId) -> RingStats {
        RingStats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_hold_their_own_frames() {
        let (mut io, mut slots) = SlotIo::new(3);
        for (slot, byte) in slots.iter_mut().zip(1..) {
            io.write(slot, &[byte; SLOT - HEADROOM]);
        }
        for (slot, byte) in slots.iter().zip(1u8..) {
            assert!(io.bytes(slot).iter().all(|b| *b == byte));
        }
    }
}
