//! The bare forwarder: takes frames from one AF_XDP socket and gives them to another, unread. What
//! it forwards is the most that any AF_XDP gateway can on the same machine, so it is tuned as hard
//! as Sluice.
#![expect(
    unsafe_code,
    reason = "frames of an AF_XDP socket are shared with the kernel"
)]

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use aya::Ebpf;
use aya::maps::{MapData, XskMap};
use aya::programs::{Xdp, XdpFlags};
use sluice_dataplane::io::xsk::raise_limits;
use sluice_dataplane::memory::prefetch;
use xsk_rs::config::{BindFlags, FrameSize, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use crate::cpu;
use crate::namespace::Namespace;
use crate::xdp_socket::{busy_poll, patiently, prefer_busy_poll};

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/forward.bpf.o"));

const RING: usize = 2048;
const FRAME_BYTES: u32 = 2048;
const BATCH: usize = 64;

/// A forwarder at work. Dropping it stops it.
pub struct Forwarder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What a forwarder is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its interfaces are.
    pub namespace: Namespace,
    /// The two interfaces.
    pub interfaces: [String; 2],
    /// The CPU that it keeps busy.
    pub cpu: usize,
    /// Frames that NAPI may take at once when the forwarder runs NAPI itself; None: others do.
    pub busy_poll: Option<u32>,
}

impl Forwarder {
    /// Starts it; frames are forwarded when this returns.
    ///
    /// # Errors
    /// The sockets cannot be opened.
    pub fn start(settings: Settings) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, wait) = mpsc::channel();
        let work = move || {
            settings.namespace.enter()?;
            cpu::claim(settings.cpu)?;
            let ports = Ports::open(&settings)?;
            // Nobody waits any more when the caller has given up.
            let _ = ready.send(());
            ports.forward(&stopped);
            Ok(())
        };
        let thread = thread::Builder::new()
            .name("forwarder".into())
            .spawn(work)?;
        let mut forwarder = Self {
            stop,
            thread: Some(thread),
        };
        // The sender is dropped when the thread ends with an error.
        if wait.recv().is_err() {
            forwarder.end()?;
            bail!("the forwarder ended at once");
        }
        Ok(forwarder)
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result.context("the bare forwarder"),
            Some(Err(_)) => bail!("the forwarder's thread died"),
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

struct Ports {
    umem: Umem,
    ports: [Port; 2],
    free: Vec<FrameDesc>,
    busy_poll: bool,
}

impl Ports {
    fn open(settings: &Settings) -> Result<Self> {
        let ring = QueueSize::new(RING as u32)?;
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_BYTES)?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()?;
        let frames = NonZeroU32::new(4 * RING as u32 + 256).context("frames")?;
        let (umem, free) = Umem::new(config, frames, false).map_err(|error| anyhow!("{error}"))?;
        let [first, second] = &settings.interfaces;
        let mut ports = [Port::open(&umem, first)?, Port::open(&umem, second)?];
        for (port, interface) in ports.iter_mut().zip(&settings.interfaces) {
            let fd = port.rx.fd().as_raw_fd();
            // SAFETY: the descriptor is open as long as `port`.
            let socket = unsafe { BorrowedFd::borrow_raw(fd) };
            raise_limits(interface, socket, RING as u32);
            if let Some(budget) = settings.busy_poll {
                prefer_busy_poll(socket, budget)?;
            }
        }
        Ok(Self {
            umem,
            ports,
            free,
            busy_poll: settings.busy_poll.is_some(),
        })
    }

    fn forward(mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            for from in [0, 1] {
                let [first, second] = &mut self.ports;
                let (from, to) = if from == 0 {
                    (first, second)
                } else {
                    (second, first)
                };
                if self.busy_poll {
                    from.poll();
                }
                from.receive(&self.umem, &mut to.queued);
                to.send(&mut self.free);
                from.refill(&mut self.free);
            }
        }
    }
}

/// A socket with its rings. A frame is free, queued, or on one of the rings.
struct Port {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    queued: Vec<FrameDesc>,
    /// What a ring gives, on its way to where it belongs: written before it is read.
    taken: Box<[FrameDesc; BATCH]>,
    receiving: usize,
    sending: usize,
    /// Keeps the program attached.
    _ebpf: Ebpf,
}

impl Port {
    fn open(umem: &Umem, interface: &str) -> Result<Self> {
        let mut ebpf = Ebpf::load(PROGRAM)?;
        let map = ebpf.take_map("sockets").context("no BPF map `sockets`")?;
        let mut sockets: XskMap<MapData> = XskMap::try_from(map)?;
        attach(&mut ebpf, "forward", interface)?;
        let ring = QueueSize::new(RING as u32)?;
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let name = interface
            .parse()
            .map_err(|_| anyhow!("interface {interface}"))?;
        // SAFETY: loading of libxdp's own program is inhibited, and no queue is opened twice.
        let opened = patiently(|| unsafe { Socket::new(config, umem, &name, 0) });
        let (tx, rx, rings) =
            opened.map_err(|error| anyhow!("AF_XDP socket on {interface}: {error}"))?;
        let (fill, completion) = rings.context("no rings for a queue of its own")?;
        sockets.set(0, rx.fd().as_raw_fd(), 0)?;
        Ok(Self {
            rx,
            tx,
            fill,
            completion,
            queued: Vec::with_capacity(RING),
            taken: Box::new([FrameDesc::default(); BATCH]),
            receiving: 0,
            sending: 0,
            _ebpf: ebpf,
        })
    }

    fn poll(&self) {
        // SAFETY: the descriptor is open as long as `self`.
        busy_poll(unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) });
    }

    fn receive(&mut self, umem: &Umem, queued: &mut Vec<FrameDesc>) {
        let room = BATCH.min(RING - queued.len());
        // SAFETY: both sockets use one memory; the kernel has given up what stands on the ring.
        let count = unsafe { self.rx.consume(&mut self.taken[..room]) };
        for desc in &self.taken[..count] {
            // The kernel reads it soon, to copy it.
            // SAFETY: the frame is of this memory and in hand only.
            if let Some(first) = unsafe { umem.data(desc) }.contents().first() {
                prefetch(first);
            }
        }
        queued.extend_from_slice(&self.taken[..count]);
        self.receiving -= count;
    }

    /// Sends what is queued until the kernel takes no more, and takes back what it has sent.
    fn send(&mut self, free: &mut Vec<FrameDesc>) {
        if !self.queued.is_empty() {
            let room = self.queued.len().min(self.tx.nb_free_exact() as usize);
            // SAFETY: queued frames are nobody else's, and leave the queue.
            let count = unsafe { self.tx.produce(&self.queued[..room]) };
            self.queued.drain(..count);
            self.sending += count;
        }
        let mut waiting = self.waiting();
        while waiting > 0 && self.tx.wakeup().is_ok() {
            let left = self.waiting();
            if left >= waiting {
                break;
            }
            waiting = left;
        }
        while self.sending > 0 {
            // SAFETY: as in `receive`.
            let count = unsafe { self.completion.consume(&mut self.taken[..]) };
            free.extend_from_slice(&self.taken[..count]);
            self.sending -= count;
            if count < BATCH {
                break;
            }
        }
    }

    /// Frames that the kernel has not taken from the ring.
    fn waiting(&mut self) -> usize {
        if self.sending == 0 {
            return 0;
        }
        RING - self.tx.nb_free_exact() as usize
    }

    fn refill(&mut self, free: &mut Vec<FrameDesc>) {
        let missing = (RING - self.receiving).min(free.len());
        if missing < BATCH {
            return;
        }
        let keep = free.len() - missing;
        // SAFETY: free frames are nobody else's, and leave the list.
        let count = unsafe { self.fill.produce(&free[keep..]) };
        free.truncate(free.len() - count);
        self.receiving += count;
    }
}

/// Attaches one of the programs of forward.bpf.c to an interface of this thread's namespace.
fn attach(ebpf: &mut Ebpf, program: &str, interface: &str) -> Result<()> {
    let found = ebpf.program_mut(program);
    let program: &mut Xdp = found.context("no such BPF program")?.try_into()?;
    program.load()?;
    let attached = program.attach(interface, XdpFlags::DRV_MODE);
    attached
        .with_context(|| format!("XDP on {interface}"))
        .map(drop)
}

/// Leaves all frames of an interface to the kernel, but lets frames come in that have no skb. Ends
/// with the guard.
///
/// # Errors
/// The program cannot be attached.
pub fn pass(namespace: &Namespace, interface: &str) -> Result<Pass> {
    let mut ebpf = Ebpf::load(PROGRAM)?;
    namespace.within(|| attach(&mut ebpf, "pass", interface))?;
    Ok(Pass { _ebpf: ebpf })
}

/// The guard of [`pass`].
pub struct Pass {
    _ebpf: Ebpf,
}
