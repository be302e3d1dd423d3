//! Opening: one memory, one socket for every interface and queue, slots for every worker.

use std::error::Error;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use sluice_conf::settings::dataplane::{CopyMode, Frames};
use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};
use xsk_rs::{FrameDesc, Socket, Umem};

use super::options::raise_limits;
use super::port::Port;
use super::{BATCH, SparePool, XskIo};
use crate::io::InterfaceId;

/// The kernel releases the queue of a socket that was closed (or whose process died) a little
/// later; so long is waited for it.
const BUSY_RETRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Huge pages are 2 MiB here, and a mapping of them is whole.
const HUGE_PAGE: usize = 2 << 20;

/// An interface to open sockets on.
#[derive(Debug, Clone)]
pub struct Device {
    /// Name.
    pub name: String,
    /// How frames get from the driver to the workers.
    pub copy: CopyMode,
    /// Whether XDP is attached in the driver; in the generic hook there is no zero-copy.
    pub native: bool,
}

/// How frames get from the driver to the workers, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameMode {
    /// The driver uses our memory.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

impl FrameMode {
    /// The word used in settings, logs and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            FrameMode::ZeroCopy => "zero-copy",
            FrameMode::Copy => "copy",
        }
    }
}

/// A socket, to be registered with [`crate::xdp::Steering::register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketInfo {
    /// Interface.
    pub interface: InterfaceId,
    /// Queue, which is also the number of the worker.
    pub queue: u32,
    /// Mode it got.
    pub mode: FrameMode,
    /// Its descriptor, open as long as the worker's I/O exists.
    pub fd: RawFd,
}

/// What [`open`] has opened.
#[derive(Debug)]
pub struct Opened {
    /// The I/O of worker `n` at place `n`.
    pub workers: Vec<XskIo>,
    /// All sockets.
    pub sockets: Vec<SocketInfo>,
    /// The pool that balances slots among workers.
    pub spare: Arc<SparePool>,
    /// All slots there are.
    pub slots: usize,
}

/// Why sockets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// The process may not.
    #[error(
        "AF_XDP sockets cannot be opened: no permission; run as root or with the capabilities \
         CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK"
    )]
    Permission,
    /// The memory cannot be had.
    #[error(
        "no frame memory of {slots} slots of {size} bytes: {reason}; lower frames.ring or raise \
         the limit of locked memory (`LimitMEMLOCK=infinity` in a systemd unit)"
    )]
    Memory {
        /// Slots asked for.
        slots: usize,
        /// Bytes of each.
        size: u32,
        /// What the system says.
        reason: String,
    },
    /// One interface is to be copied and another not.
    #[error(
        "interface {copied} cannot do zero-copy (xdp = \"generic\" or copy = \"copy\") and \
         interface {zero_copy} must; all share one memory and so one mode"
    )]
    Mixed {
        /// The one to be copied.
        copied: String,
        /// The one to be zero-copy.
        zero_copy: String,
    },
    /// A queue is taken.
    #[error("interface {interface} queue {queue}: another AF_XDP socket is bound to it")]
    Busy {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
    },
    /// A socket is refused.
    #[error(
        "interface {interface} queue {queue}: no AF_XDP socket in {} mode: {reason}",
        .mode.as_str()
    )]
    Socket {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// Mode that was tried last.
        mode: FrameMode,
        /// What the system says.
        reason: String,
    },
}

/// Opens a socket for each of `workers` queues of every device. `handover` is how many frames may
/// wait between two workers: there are slots for them on top.
///
/// # Errors
/// The first thing that is refused; nothing stays open then.
pub fn open(
    devices: &[Device],
    workers: u32,
    frames: &Frames,
    handover: usize,
) -> Result<Opened, XskError> {
    // Best effort: with CAP_IPC_LOCK there is no limit anyway, and without it the bind tells.
    let _ = setrlimit(
        Resource::Memlock,
        Rlimit {
            current: None,
            maximum: None,
        },
    );
    let (mode, fallback) = modes(devices)?;
    match (open_as(devices, workers, frames, handover, mode), fallback) {
        (Err(error @ XskError::Socket { .. }), Some(fallback)) => {
            tracing::info!(reason = %error, "no zero-copy, frames are copied");
            open_as(devices, workers, frames, handover, fallback)
        }
        (result, _) => result,
    }
}

/// The mode to try first, and what to fall back to.
fn modes(devices: &[Device]) -> Result<(FrameMode, Option<FrameMode>), XskError> {
    let copied = devices
        .iter()
        .find(|device| !device.native || device.copy == CopyMode::Copy);
    let zero_copy = devices
        .iter()
        .find(|device| device.copy == CopyMode::ZeroCopy);
    match (copied, zero_copy) {
        (Some(copied), Some(zero_copy)) => Err(XskError::Mixed {
            copied: copied.name.clone(),
            zero_copy: zero_copy.name.clone(),
        }),
        (None, Some(_)) => Ok((FrameMode::ZeroCopy, None)),
        (Some(_), None) => Ok((FrameMode::Copy, None)),
        (None, None) => Ok((FrameMode::ZeroCopy, Some(FrameMode::Copy))),
    }
}

fn open_as(
    devices: &[Device],
    workers: u32,
    frames: &Frames,
    handover: usize,
    mode: FrameMode,
) -> Result<Opened, XskError> {
    let ring = frames.ring as usize;
    let share = share(devices.len(), ring, handover);
    let (umem, mut slots) = memory(share * workers as usize, frames)?;
    let total = slots.len();
    let spare = Arc::new(SparePool::new(total));
    let mut opened = Opened {
        workers: Vec::new(),
        sockets: Vec::new(),
        spare,
        slots: total,
    };
    for queue in 0..workers {
        let mut ports = Vec::with_capacity(devices.len());
        for (interface, device) in (0..).map(InterfaceId).zip(devices) {
            let port = socket(&umem, device, queue, frames, mode)?;
            opened.sockets.push(SocketInfo {
                interface,
                queue,
                mode,
                fd: port.fd(),
            });
            ports.push(port);
        }
        let from = if queue + 1 == workers {
            0
        } else {
            slots.len() - share
        };
        // Room for every slot there is: a free list must never allocate while frames flow.
        let mut free: Vec<FrameDesc> = Vec::with_capacity(total);
        free.extend(slots.drain(from..));
        let spare = Arc::clone(&opened.spare);
        opened
            .workers
            .push(XskIo::new(umem.clone(), ports, free, spare));
    }
    Ok(opened)
}

/// Slots of one worker: every fill ring and every transmit ring full at once, frames that wait at
/// other workers, and some bursts in hand.
fn share(interfaces: usize, ring: usize, handover: usize) -> usize {
    interfaces * 2 * ring + handover + 4 * BATCH
}

fn memory(slots: usize, frames: &Frames) -> Result<(Umem, Vec<FrameDesc>), XskError> {
    let size = frames.size;
    let failed = |reason: String| XskError::Memory {
        slots,
        size,
        reason,
    };
    let ring = QueueSize::new(frames.ring).map_err(|error| failed(error.to_string()))?;
    let frame_size = FrameSize::new(size).map_err(|error| failed(error.to_string()))?;
    let config = UmemConfig::builder()
        .frame_size(frame_size)
        .fill_queue_size(ring)
        .comp_queue_size(ring)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    // A mapping that is whole huge pages is also whole small ones, which the kernel asks for.
    let slots = slots.next_multiple_of(HUGE_PAGE / size as usize);
    let count = u32::try_from(slots).ok().and_then(NonZeroU32::new);
    let count = count.ok_or_else(|| failed("too many slots".into()))?;
    if frames.huge_pages {
        match Umem::new(config, count, true) {
            Ok(memory) => return Ok(memory),
            Err(error) => tracing::warn!(
                reason = reason(&error),
                "no huge pages for frames (raise vm.nr_hugepages), using small ones"
            ),
        }
    }
    Umem::new(config, count, false).map_err(|error| match os_code(&error) {
        Some(libc::EPERM | libc::EACCES) => XskError::Permission,
        _ => failed(reason(&error)),
    })
}

fn socket(
    umem: &Umem,
    device: &Device,
    queue: u32,
    frames: &Frames,
    mode: FrameMode,
) -> Result<Port, XskError> {
    let refused = |reason: String| XskError::Socket {
        interface: device.name.clone(),
        queue,
        mode,
        reason,
    };
    let name: Interface = device
        .name
        .parse()
        .map_err(|_| refused("bad name".into()))?;
    let ring = QueueSize::new(frames.ring).map_err(|error| refused(error.to_string()))?;
    let copying = match mode {
        FrameMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        FrameMode::Copy => BindFlags::XDP_COPY,
    };
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(copying | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let mut retries = BUSY_RETRIES;
    let (tx, rx, own) = loop {
        // SAFETY: loading of libxdp's own program is inhibited, which is the condition for
        // sharing the UMEM, and no interface and queue is opened twice.
        match unsafe { Socket::new(config, umem, &name, queue) } {
            Ok(opened) => break opened,
            Err(error) => match os_code(&error) {
                Some(libc::EBUSY) if retries > 0 => {
                    retries -= 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                Some(libc::EBUSY) => {
                    return Err(XskError::Busy {
                        interface: device.name.clone(),
                        queue,
                    });
                }
                Some(libc::EPERM | libc::EACCES) => return Err(XskError::Permission),
                _ => return Err(refused(reason(&error))),
            },
        }
    };
    let (fill, completion) = own.ok_or_else(|| refused("the queue is opened twice".into()))?;
    // SAFETY: `rx` holds the socket open for longer than the call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) };
    raise_limits(&device.name, descriptor, frames.ring);
    let zero_copy = mode == FrameMode::ZeroCopy;
    Ok(Port::new(
        rx,
        tx,
        fill,
        completion,
        frames.ring as usize,
        zero_copy,
    ))
}

fn os_code(error: &(dyn Error + 'static)) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

fn reason(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(copy: CopyMode, native: bool) -> Device {
        Device {
            name: "eth1".into(),
            copy,
            native,
        }
    }

    #[test]
    fn zero_copy_is_tried_first_where_nothing_forbids_it() {
        let auto = device(CopyMode::Auto, true);
        let modes = modes(&[auto.clone(), auto]).unwrap();
        assert_eq!(modes, (FrameMode::ZeroCopy, Some(FrameMode::Copy)));
    }

    #[test]
    fn one_copied_interface_makes_all_copied() {
        let auto = device(CopyMode::Auto, true);
        let copy = device(CopyMode::Copy, true);
        let generic = device(CopyMode::Auto, false);
        assert_eq!(
            modes(&[auto.clone(), copy]).unwrap(),
            (FrameMode::Copy, None)
        );
        assert_eq!(modes(&[auto, generic]).unwrap(), (FrameMode::Copy, None));
    }

    #[test]
    fn zero_copy_that_is_demanded_is_not_given_up_silently() {
        let demanded = device(CopyMode::ZeroCopy, true);
        let auto = device(CopyMode::Auto, true);
        assert_eq!(
            modes(&[auto, demanded.clone()]).unwrap(),
            (FrameMode::ZeroCopy, None)
        );
        assert!(modes(&[demanded, device(CopyMode::Auto, false)]).is_err());
    }
}
