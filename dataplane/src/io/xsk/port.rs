//! One socket with its four rings: what a worker does on one interface.
//!
//! Descriptors enter only from the free list, from a frame in hand or from the kernel, and each
//! leaves before it is handed on. That is the invariant behind every unsafe call here.

use std::os::fd::{AsRawFd, RawFd};

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::{BATCH, XskFrame};
use crate::io::{InterfaceId, RingStats};

#[derive(Debug)]
pub(super) struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    ring: usize,
    zero_copy: bool,
    /// Accepted for transmission, not yet on the ring.
    queued: Vec<FrameDesc>,
    /// What a ring gives, on its way to where it belongs: written before it is read.
    taken: Box<[FrameDesc; BATCH]>,
    /// Given to the kernel for receiving and not received yet: at most `ring`, so that the receive
    /// ring cannot overflow.
    receiving: usize,
    /// Given to the kernel for transmission and not completed yet: at most `ring`, so that the
    /// completion ring cannot overflow.
    sending: usize,
}

impl Port {
    pub(super) fn new(
        rx: RxQueue,
        tx: TxQueue,
        fill: FillQueue,
        completion: CompQueue,
        ring: usize,
        zero_copy: bool,
    ) -> Self {
        let queued = Vec::with_capacity(ring);
        Self {
            rx,
            tx,
            fill,
            completion,
            ring,
            zero_copy,
            queued,
            taken: Box::new([FrameDesc::default(); BATCH]),
            receiving: 0,
            sending: 0,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    pub(super) fn receiving(&self) -> usize {
        self.receiving
    }

    pub(super) fn transmitting(&self) -> usize {
        self.queued.len() + self.sending
    }

    /// How many descriptors the fill ring could take.
    pub(super) fn missing(&self) -> usize {
        self.ring - self.receiving
    }

    /// How many must be missing for a refill to be worth it.
    pub(super) fn batch(&self) -> usize {
        BATCH.min(self.ring / 4)
    }

    pub(super) fn has_room(&self) -> bool {
        self.transmitting() < self.ring
    }

    pub(super) fn receive(
        &mut self,
        interface: InterfaceId,
        frames: &mut Vec<XskFrame>,
        max: usize,
    ) {
        let mut left = max;
        while left > 0 {
            let wanted = left.min(BATCH);
            // SAFETY: every socket of this process is on the one UMEM that the descriptors will
            // be used with, and the kernel has given up the slots that it puts on this ring.
            let count = unsafe { self.rx.consume(&mut self.taken[..wanted]) };
            let taken = self.taken[..count].iter();
            frames.extend(taken.map(|&desc| XskFrame { desc, interface }));
            self.receiving -= count;
            left -= count;
            if count < wanted {
                break;
            }
        }
    }

    /// Moves at most `missing` descriptors from the tail of `free`, the hottest in the cache, to
    /// the fill ring.
    pub(super) fn fill(&mut self, free: &mut Vec<FrameDesc>, missing: usize) {
        let room = self.fill.nb_free_exact() as usize;
        let keep = free.len() - missing.min(free.len()).min(room);
        // SAFETY: slots on the free list are nobody else's, and they leave it below.
        let count = unsafe { self.fill.produce(&free[keep..]) };
        if count > 0 {
            free.truncate(keep);
            self.receiving += count;
        }
    }

    /// Tells a driver that ran out of slots and went to sleep that there are some. Never needed
    /// where frames are copied.
    pub(super) fn wake_receive(&mut self) {
        if self.zero_copy && self.fill.needs_wakeup() {
            // An interrupted or failed poll is repeated at the next round, the flag stays set.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
    }

    #[inline]
    pub(super) fn queue(&mut self, desc: FrameDesc) {
        self.queued.push(desc);
    }

    /// Puts queued frames on the transmit ring and has the kernel look at it.
    pub(super) fn send(&mut self) {
        if !self.queued.is_empty() {
            // The kernel publishes what it has consumed after it has completed it, so that the
            // ring may look fuller than `sending` says.
            let room = self.tx.nb_free_exact() as usize;
            let count = self.queued.len().min(room);
            // SAFETY: queued slots were in hand until `queue` took the token, and they leave the
            // queue below.
            let count = unsafe { self.tx.produce(&self.queued[..count]) };
            self.queued.drain(..count);
            self.sending += count;
        }
        self.kick();
    }

    /// Copying, a kick transmits until the kernel's budget or the socket's buffer is used up, so
    /// it is repeated as long as descriptors disappear from the ring. What stays (the device is
    /// busy) is kicked again at the next flush. A driver with zero-copy goes on by itself.
    fn kick(&mut self) {
        if !self.tx.needs_wakeup() {
            return;
        }
        if self.zero_copy {
            let _ = self.tx.wakeup();
            return;
        }
        let mut waiting = self.waiting();
        while waiting > 0 {
            // EAGAIN, EBUSY, ENOBUFS and ENETDOWN are successes of `wakeup`. Another error means
            // that the interface is gone; netlink reports that.
            if self.tx.wakeup().is_err() {
                return;
            }
            let left = self.waiting();
            if left >= waiting {
                return;
            }
            waiting = left;
        }
    }

    /// Whether the kernel has not yet looked at all that is to be transmitted. Copying, it does
    /// only when it is pushed.
    pub(super) fn needs_push(&mut self) -> bool {
        !self.queued.is_empty() || (!self.zero_copy && self.waiting() > 0)
    }

    /// Descriptors on the transmit ring that the kernel has not consumed.
    fn waiting(&mut self) -> usize {
        self.ring - self.tx.nb_free_exact() as usize
    }

    /// Takes back what was transmitted.
    pub(super) fn complete(&mut self, free: &mut Vec<FrameDesc>) {
        while self.sending > 0 {
            // SAFETY: as in `receive`: one UMEM, and the kernel has given up what it puts here.
            let count = unsafe { self.completion.consume(&mut self.taken[..]) };
            free.extend_from_slice(&self.taken[..count]);
            self.sending -= count;
            if count < BATCH {
                break;
            }
        }
    }

    pub(super) fn stats(&self) -> RingStats {
        let kernel = self.rx.fd().xdp_statistics().unwrap_or_default();
        // Where frames are copied, one that finds the fill ring empty counts as dropped as well.
        let dropped = kernel
            .rx_dropped()
            .saturating_sub(kernel.rx_fill_ring_empty_descs());
        RingStats {
            rx_ring_full: kernel.rx_ring_full(),
            fill_ring_empty: kernel.rx_fill_ring_empty_descs(),
            rx_dropped: dropped + kernel.rx_invalid_descs(),
            tx_invalid: kernel.tx_invalid_descs(),
            fill_ring: self.receiving as u64,
            tx_outstanding: self.transmitting() as u64,
        }
    }
}
