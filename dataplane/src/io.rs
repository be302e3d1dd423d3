//! Frames in, frames out: the one seam between the engine and the world.
//!
//! [`PacketIo`] is what a worker sees of its queue on every interface. It has two implementations:
//! [`xsk`] on AF_XDP sockets and [`memory`] on plain vectors, so that every packet behaviour is
//! tested without root, a device or a sleep.
//!
//! A frame is an owned token for one slot of frame memory: it cannot be copied, so each slot is in
//! exactly one place (a ring, a worker's hand, a hand-over ring or a free list). Every frame that
//! [`PacketIo::receive`] hands out must come back by [`PacketIo::transmit`] or
//! [`PacketIo::recycle`], to the same worker's or to another worker's I/O.

pub mod memory;
#[expect(
    unsafe_code,
    reason = "rings and UMEM: xsk-rs leaves their invariants to the caller"
)]
pub mod xsk;

use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Number of an interface: its place in the settings, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u16);

impl InterfaceId {
    /// No interface of the settings.
    pub const UNSERVED: Self = Self(u16::MAX);
}

/// Counters that the kernel or the rings keep; all since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingStats {
    /// Frames that the kernel dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Frames that the kernel dropped because the fill ring was empty.
    pub fill_ring_empty: u64,
    /// Frames that the kernel dropped for another reason (for example longer than a slot).
    pub rx_dropped: u64,
    /// Transmit descriptors that the kernel refused.
    pub tx_invalid: u64,
    /// Descriptors on the fill ring now.
    pub fill_ring: u64,
    /// Frames handed to the kernel for transmission and not yet completed.
    pub tx_outstanding: u64,
}

/// Where the slots of one worker are, as far as its I/O can know. What is missing to the share of
/// all workers is in the spare pool or in hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// On fill rings, in the driver, or received and not yet taken.
    pub receiving: usize,
    /// Queued, on transmit rings, in the driver, or transmitted and not yet taken back.
    pub transmitting: usize,
    /// On the free list.
    pub free: usize,
}

impl Census {
    /// All slots that it counts.
    pub fn total(self) -> usize {
        self.receiving + self.transmitting + self.free
    }
}

/// A worker's queue on every interface.
pub trait PacketIo {
    /// Owned token of one slot with the frame in it.
    type Frame: Send;

    /// Appends at most `max` received frames to `frames`, taking turns among the interfaces.
    fn receive(&mut self, frames: &mut Vec<Self::Frame>, max: usize);

    /// The interface that the frame came in by.
    fn interface(&self, frame: &Self::Frame) -> InterfaceId;

    /// The frame from its Ethernet header on, without frame check sequence.
    fn bytes<'a>(&'a self, frame: &'a Self::Frame) -> &'a [u8];

    /// Bytes of the frame, without a look at them.
    fn len(&self, frame: &Self::Frame) -> usize {
        self.bytes(frame).len()
    }

    /// As [`PacketIo::bytes`], to change it in place.
    fn bytes_mut<'a>(&'a mut self, frame: &'a mut Self::Frame) -> &'a mut [u8];

    /// Makes the frame `len` bytes long. Bytes that are added hold anything. False, and nothing
    /// changed, when the slot has no room for `len` bytes.
    #[must_use]
    fn resize(&mut self, frame: &mut Self::Frame, len: usize) -> bool;

    /// Moves the start of the frame by so many bytes: a positive number makes room in front, which
    /// holds anything; a negative one takes bytes away there. False, and nothing changed, when the
    /// slot has no room, or the frame fewer bytes.
    #[must_use]
    fn shift(&mut self, frame: &mut Self::Frame, by: isize) -> bool {
        let len = self.len(frame);
        let Some(longer) = len.checked_add_signed(by) else {
            return false;
        };
        let distance = by.unsigned_abs();
        if by < 0 {
            self.bytes_mut(frame).copy_within(distance.., 0);
            return self.resize(frame, longer);
        }
        if !self.resize(frame, longer) {
            return false;
        }
        self.bytes_mut(frame).copy_within(..len, distance);
        true
    }

    /// A free slot as a frame of `len` bytes that hold anything, to be transmitted or recycled; `None`
    /// when no slot is free or `len` is too long.
    fn allocate(&mut self, len: usize) -> Option<Self::Frame>;

    /// Queues the frame for transmission on `interface`; it leaves at the next
    /// [`PacketIo::flush`] at the latest.
    ///
    /// # Errors
    /// The frame comes back when the transmit ring is full.
    fn transmit(&mut self, frame: Self::Frame, interface: InterfaceId) -> Result<(), Self::Frame>;

    /// Gives the slot back for receiving.
    fn recycle(&mut self, frame: Self::Frame);

    /// Ends a burst: has the kernel transmit what is queued, takes back what it has transmitted
    /// and refills the fill rings. Called also when nothing was received, as long as frames are
    /// outstanding.
    fn flush(&mut self);

    /// Returns when a frame may have arrived, when `wake` becomes readable or after `timeout`. May
    /// return early.
    fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Duration) {
        let _ = (wake, timeout);
    }

    /// Where the worker's slots are now.
    fn census(&self) -> Census;

    /// Counters of one interface's rings.
    fn ring_stats(&self, interface: InterfaceId) -> RingStats;
}
