//! [`PacketIo`] on AF_XDP sockets: the four rings of a queue on every interface, and the memory
//! that all sockets of all workers share.
//!
//! Guarantees: a slot is in exactly one place: a fill ring, a receive ring, a frame in hand, a
//! transmit ring, a completion ring, a worker's free list or the spare pool ([`SparePool`]). A
//! worker that runs out of slots is served from the pool as soon as another has more than it needs,
//! because a frame that was handed over is recycled by the worker that it was handed to.
//!
//! Does not guarantee an order among interfaces, nor that a frame that was accepted for
//! transmission reaches the wire: a device may still drop it.
//!
//! All sockets share one UMEM, and the kernel gives every socket of a shared UMEM the mode of the
//! first: either all are zero-copy or all are copied (`xp_assign_dev_shared`, net/xdp).
//!
//! Frames of one [`open`] must not be given to the I/O of another: they name slots of its memory.

mod open;
mod options;
mod port;
mod spare;

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xsk_rs::{FrameDesc, Umem};

use super::{Census, InterfaceId, PacketIo, RingStats};
use crate::memory::prefetch;
pub use open::{Device, FrameMode, Opened, SocketInfo, XskError, open};
pub use options::{raise_limits, set_option};
use port::Port;
pub use spare::SparePool;

/// Descriptors that move between a ring and a worker at once.
const BATCH: usize = 64;

/// How long a wait lasts at most while no frame may come to end it: the device was busy and needs
/// another push to transmit, or all slots are elsewhere and none is left to receive with.
const RETRY: Duration = Duration::from_micros(50);

/// A slot with a frame in it.
#[derive(Debug)]
pub struct XskFrame {
    desc: FrameDesc,
    interface: InterfaceId,
}

/// A worker's queue on every interface.
#[derive(Debug)]
pub struct XskIo {
    umem: Umem,
    ports: Vec<Port>,
    free: Vec<FrameDesc>,
    spare: Arc<SparePool>,
    /// Free slots above this go to the spare pool.
    enough: usize,
    turn: usize,
}

impl XskIo {
    fn new(umem: Umem, ports: Vec<Port>, free: Vec<FrameDesc>, spare: Arc<SparePool>) -> Self {
        let enough = free.len() / 4;
        let mut io = Self {
            umem,
            ports,
            free,
            spare,
            enough,
            turn: 0,
        };
        io.refill();
        io
    }

    /// The sockets, in the order of the interfaces, to wait on when there is nothing to do.
    fn sockets(&self) -> impl Iterator<Item = RawFd> {
        self.ports.iter().map(Port::fd)
    }

    /// The place of the interface whose turn is next.
    fn after(&self, place: usize) -> usize {
        // No division: this is done in every turn, frames or not.
        match place + 1 {
            next if next < self.ports.len() => next,
            _ => 0,
        }
    }

    fn refill(&mut self) {
        for port in &mut self.ports {
            let missing = port.missing();
            if missing < port.batch() {
                continue;
            }
            while self.free.len() < missing && self.spare.take(&mut self.free) {}
            port.fill(&mut self.free, missing);
        }
        while self.free.len() > self.enough && self.spare.give(&mut self.free) {}
    }
}

impl PacketIo for XskIo {
    type Frame = XskFrame;

    fn receive(&mut self, frames: &mut Vec<XskFrame>, max: usize) {
        let before = frames.len();
        let mut place = self.turn;
        for _ in 0..self.ports.len() {
            let left = max - (frames.len() - before);
            self.ports[place].receive(InterfaceId(place as u16), frames, left);
            place = self.after(place);
        }
        self.turn = self.after(self.turn);
        for frame in &frames[before..] {
            if let Some(first) = self.bytes(frame).first() {
                prefetch(first);
            }
        }
    }

    #[inline]
    fn interface(&self, frame: &XskFrame) -> InterfaceId {
        frame.interface
    }

    #[inline]
    fn bytes<'a>(&'a self, frame: &'a XskFrame) -> &'a [u8] {
        // SAFETY: the descriptor came from a ring of this UMEM with the length that the kernel
        // wrote or `resize` checked, and the slot is in hand only: the token is neither Copy nor
        // Clone and leaves every ring before it exists, so nobody writes while it is borrowed.
        unsafe { self.umem.data(&frame.desc) }.contents()
    }

    #[inline]
    fn len(&self, frame: &XskFrame) -> usize {
        frame.desc.lengths().data()
    }

    #[inline]
    fn bytes_mut<'a>(&'a mut self, frame: &'a mut XskFrame) -> &'a mut [u8] {
        let len = frame.desc.lengths().data();
        // SAFETY: as in `bytes`, and the token is borrowed mutably.
        let data = unsafe { self.umem.data_mut(&mut frame.desc) }
            .contents_mut()
            .as_mut_ptr();
        // SAFETY: `data` points to `len` bytes of a slot that is in hand only, and the token is
        // borrowed mutably for as long as the slice lives, so nothing else refers to them.
        unsafe { std::slice::from_raw_parts_mut(data, len) }
    }

    fn resize(&mut self, frame: &mut XskFrame, len: usize) -> bool {
        // SAFETY: as in `bytes`; the borrow ends before this function does.
        let mut data = unsafe { self.umem.data_mut(&mut frame.desc) };
        let mut cursor = data.cursor();
        if len > cursor.buf_len() {
            return false;
        }
        cursor.set_pos(len);
        true
    }

    fn allocate(&mut self, len: usize) -> Option<XskFrame> {
        let desc = self.free.pop()?;
        let mut frame = XskFrame {
            desc,
            interface: InterfaceId(0),
        };
        if self.resize(&mut frame, len) {
            return Some(frame);
        }
        self.recycle(frame);
        None
    }

    #[inline]
    fn transmit(&mut self, frame: XskFrame, interface: InterfaceId) -> Result<(), XskFrame> {
        match self.ports.get_mut(usize::from(interface.0)) {
            Some(port) if port.has_room() => {
                port.queue(frame.desc);
                Ok(())
            }
            _ => Err(frame),
        }
    }

    #[inline]
    fn recycle(&mut self, frame: XskFrame) {
        self.free.push(frame.desc);
    }

    fn flush(&mut self) {
        for port in &mut self.ports {
            if port.transmitting() > 0 {
                port.send();
                port.complete(&mut self.free);
            }
        }
        self.refill();
        self.ports.iter_mut().for_each(Port::wake_receive);
    }

    fn census(&self) -> Census {
        Census {
            receiving: self.ports.iter().map(Port::receiving).sum(),
            transmitting: self.ports.iter().map(Port::transmitting).sum(),
            free: self.free.len(),
        }
    }

    fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Duration) {
        let is_stuck = |port: &mut Port| port.needs_push() || port.missing() >= port.batch();
        let timeout = match self.ports.iter_mut().any(is_stuck) {
            true => timeout.min(RETRY),
            false => timeout,
        };
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        for fd in self.sockets() {
            // SAFETY: the descriptor is open as long as the port whose queues hold its socket,
            // and `self` is borrowed for longer than `fds` lives.
            let socket = unsafe { BorrowedFd::borrow_raw(fd) };
            fds.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        }
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // Interrupted or not, the caller looks at its rings next.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn ring_stats(&self, interface: InterfaceId) -> RingStats {
        let Some(port) = self.ports.get(usize::from(interface.0)) else {
            return RingStats::default();
        };
        port.stats()
    }
}
