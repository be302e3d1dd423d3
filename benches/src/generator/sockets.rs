//! The generator outside the kernel: this process writes frames, an AF_XDP socket sends them. Slower
//! than [`super::live`], but its frames reach the device as the kernel's own packets (skb) do.
#![expect(
    unsafe_code,
    reason = "frames of an AF_XDP socket are shared with the kernel"
)]

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use rustix::time::{ClockId, clock_gettime};
use sluice_dataplane::io::xsk::raise_limits;
use xsk_rs::config::{BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FrameDesc, Socket, TxQueue, Umem};

use super::frame::Writer;
use super::live::Seat;
use super::pace::{Pace, Turn};
use super::plan::{Plan, Share};
use super::state::Progress;
use crate::cpu;
use crate::xdp_socket::patiently;

const FRAMES: u32 = 4096;
const RING: u32 = 2048;
const FRAME_BYTES: u32 = 2048;
/// Frames that are handed to the kernel together.
const BATCH: usize = 64;

/// Time since the machine was started, ns; the clock of BPF programs.
pub fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[derive(Debug, Default)]
struct Counters {
    start: AtomicU64,
    sent: AtomicU64,
    flooded: AtomicU64,
    bytes: AtomicU64,
    left_out: AtomicU64,
    finished: AtomicBool,
    stop: AtomicBool,
}

/// A generator at work. Dropping it stops it.
pub struct Sockets {
    counters: Arc<Counters>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sockets {
    /// Starts to send `share` of `plan` on queue `share.index`.
    ///
    /// # Errors
    /// The plan does not fit together.
    pub fn start(plan: &Plan, share: Share, seat: &Seat) -> Result<Self> {
        plan.check()?;
        let counters = Arc::new(Counters::default());
        let (plan, seat, told) = (plan.clone(), seat.clone(), Arc::clone(&counters));
        let work = move || {
            seat.namespace.enter()?;
            if let Some(cpu) = seat.cpu {
                cpu::claim(cpu)?;
            }
            let mut port = Port::open(&seat.interface.name, share.index)?;
            send(&plan, share, &mut port, &told);
            port.drain(&told.stop);
            told.finished.store(true, Relaxed);
            Ok(())
        };
        let thread = thread::Builder::new().name("loadgen".into()).spawn(work)?;
        Ok(Self {
            counters,
            thread: Some(thread),
        })
    }

    /// How far it is.
    ///
    /// # Errors
    /// It ended with an error.
    pub fn progress(&mut self) -> Result<Progress> {
        let counters = &self.counters;
        let progress = Progress {
            finished: counters.finished.load(Relaxed),
            start: counters.start.load(Relaxed),
            sent: counters.sent.load(Relaxed),
            bytes: counters.bytes.load(Relaxed),
            left_out: counters.left_out.load(Relaxed),
            failed: 0,
            flooded: counters.flooded.load(Relaxed),
        };
        if !progress.finished && self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.stop()?;
        }
        Ok(progress)
    }

    /// Stops it.
    ///
    /// # Errors
    /// With what it ended before.
    pub fn stop(&mut self) -> Result<()> {
        self.counters.stop.store(true, Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the generator's thread died"),
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn send(plan: &Plan, share: Share, port: &mut Port, counters: &Counters) {
    let mut writer = Writer::new(plan);
    let mut pace = Pace::new(plan.step(share), plan.duration, plan.burst);
    let (mut sent, mut bytes, mut left_out, mut flooded) = (0, 0, 0, 0);
    let mut over = false;
    while !over && !counters.stop.load(Relaxed) {
        while port.queued.len() < BATCH && port.has_room() {
            let now = monotonic();
            match pace.turn(now) {
                Turn::Send(number, due) => {
                    let number = u64::from(share.index) + number * u64::from(share.of);
                    let size = port.queue(|room| writer.write(number, due, room));
                    if plan.floods(number) {
                        flooded += u64::from(size > 0);
                    } else {
                        sent += u64::from(size > 0);
                        bytes += size as u64;
                    }
                }
                Turn::Leave(frames) => left_out += frames,
                Turn::Wait => break,
                Turn::Finished => {
                    over = true;
                    break;
                }
            }
        }
        port.flush();
        counters.start.store(pace.start(), Relaxed);
        counters.sent.store(sent, Relaxed);
        counters.bytes.store(bytes, Relaxed);
        counters.left_out.store(left_out, Relaxed);
        counters.flooded.store(flooded, Relaxed);
    }
}

/// The sending half of an AF_XDP socket. A frame is free, queued, or with the kernel.
struct Port {
    umem: Umem,
    tx: TxQueue,
    completion: CompQueue,
    free: Vec<FrameDesc>,
    queued: Vec<FrameDesc>,
    outstanding: usize,
}

impl Port {
    fn open(interface: &str, queue: u32) -> Result<Self> {
        let ring = QueueSize::new(RING)?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_BYTES)?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()?;
        let frames = NonZeroU32::new(FRAMES).context("frames")?;
        let (umem, free) = Umem::new(config, frames, false).map_err(|error| anyhow!("{error}"))?;
        let config = SocketConfig::builder()
            .tx_queue_size(ring)
            .rx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let name = interface
            .parse()
            .map_err(|_| anyhow!("interface {interface}"))?;
        // SAFETY: loading of libxdp's own program is inhibited, and this is the memory's only socket.
        let opened = patiently(|| unsafe { Socket::new(config, &umem, &name, queue) });
        let (tx, _, rings) =
            opened.map_err(|error| anyhow!("AF_XDP socket on {interface}: {error}"))?;
        let (_, completion) = rings.context("the rings of the memory's first socket")?;
        let fd = tx.fd().as_raw_fd();
        // SAFETY: the descriptor is open as long as `tx`.
        raise_limits(interface, unsafe { BorrowedFd::borrow_raw(fd) }, RING);
        Ok(Self {
            umem,
            tx,
            completion,
            free,
            queued: Vec::with_capacity(BATCH),
            outstanding: 0,
        })
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() && self.outstanding + self.queued.len() < RING as usize
    }

    /// Queues a frame that `write` writes; returns its size.
    fn queue(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let Some(mut desc) = self.free.pop() else {
            return 0;
        };
        // SAFETY: the frame is free, so the kernel does not use it.
        let mut data = unsafe { self.umem.data_mut(&mut desc) };
        let mut cursor = data.cursor();
        let whole = cursor.buf_len();
        cursor.set_pos(whole);
        let size = write(data.contents_mut());
        data.cursor().set_pos(size);
        match size {
            0 => self.free.push(desc),
            _ => self.queued.push(desc),
        }
        size
    }

    fn flush(&mut self) {
        if !self.queued.is_empty() {
            // SAFETY: queued frames are nobody else's, and leave the queue.
            let count = unsafe { self.tx.produce(&self.queued) };
            self.queued.drain(..count);
            self.outstanding += count;
        }
        if self.outstanding > 0 {
            // What the kernel does not take now, it takes at the next call.
            let _ = self.tx.wakeup();
            self.complete();
        }
    }

    fn complete(&mut self) {
        let mut descs = [FrameDesc::default(); BATCH];
        loop {
            // SAFETY: the ring belongs to this memory's only socket; the kernel has given up what
            // stands on it.
            let count = unsafe { self.completion.consume(&mut descs) };
            self.free.extend_from_slice(&descs[..count]);
            self.outstanding -= count;
            if count < BATCH {
                return;
            }
        }
    }

    /// Waits until the kernel has sent everything, at most until it is told to stop.
    fn drain(&mut self, stop: &AtomicBool) {
        while (self.outstanding > 0 || !self.queued.is_empty()) && !stop.load(Relaxed) {
            self.flush();
        }
    }
}
