//! The XDP program in the kernel: loading, attaching, telling it what is ours.
//!
//! Guarantees: nothing stays attached when the process ends, however it ends, because each
//! attachment is a link that the kernel closes with the process. A change of the filter never
//! passes through a state in which a frame that is ours before and after goes to the kernel.
//!
//! Order of a start: [`Steering::load`], [`Steering::attach`], open the sockets,
//! [`Steering::register`] each, [`Steering::extend`]. Until the first `extend` every frame passes.
//! Order of a change: [`Steering::extend`] before workers take up the new table,
//! [`Steering::shrink`] after they have.

mod entries;
mod maps;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;

use aya::Ebpf;
use aya::programs::{Xdp, XdpFlags};
use sluice_conf::settings::dataplane::{Interface, XdpMode};

use crate::interface::{self, InterfaceError};
use crate::netlink::tags_of;
use crate::steer::Filter;
use maps::{Maps, QUEUES_PER_INTERFACE};

/// Compiled by `build.rs`.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// Where the program got attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the generic hook, after the kernel has made its own packet of the frame: slower.
    Generic,
}

impl AttachedMode {
    /// The word used in settings, logs and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttachedMode::Native => "native",
            AttachedMode::Generic => "generic",
        }
    }
}

/// What the program has counted since it was loaded, on all CPUs and interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SteerStats {
    /// Frames sent to a socket. The socket may still drop one for want of room, see
    /// [`crate::io::RingStats`].
    pub redirected: u64,
    /// Frames left to the kernel.
    pub passed: u64,
    /// Frames that are ours and were dropped because their queue has no socket.
    pub redirect_failed: u64,
}

/// Why steering does not work.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The process may not.
    #[error(
        "the XDP program cannot be {what}: no permission; run as root or with the capabilities \
         CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON and CAP_IPC_LOCK"
    )]
    Permission {
        /// What was tried.
        what: &'static str,
    },
    /// The kernel or the loader refuses the program.
    #[error("the XDP program cannot be loaded: {0}")]
    Load(String),
    /// No such interface.
    #[error("interface {0}: does not exist on this host; `ip link` lists what does")]
    NoInterface(String),
    /// Somebody else's program is in the way.
    #[error(
        "interface {0}: another XDP program is attached already; `ip link show dev {0}` names \
         it and `ip link set dev {0} xdp off` or stopping its owner removes it"
    )]
    Occupied(String),
    /// The driver cannot, or refuses now.
    #[error("interface {interface}: XDP in {} mode is refused: {source}", .mode.as_str())]
    Attach {
        /// Interface.
        interface: String,
        /// Mode that was tried last.
        mode: AttachedMode,
        /// What the kernel says.
        source: io::Error,
    },
    /// `register` without `attach`.
    #[error("interface {0}: XDP is not attached")]
    NotAttached(String),
    /// A queue beyond the map.
    #[error(
        "interface {interface}: queue {queue} is one too many; at most {max} queues of an \
         interface are possible",
        max = QUEUES_PER_INTERFACE
    )]
    TooManyQueues {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
    },
    /// A map has no room for more.
    #[error("no room for more {what}: at most {limit} are possible")]
    Full {
        /// What the map holds.
        what: &'static str,
        /// Its size.
        limit: u32,
    },
    /// A map cannot be read or written.
    #[error("the XDP program's map of {what} cannot be used: {reason}")]
    Map {
        /// What the map holds.
        what: &'static str,
        /// What the kernel says.
        reason: String,
    },
}

/// The loaded program with its maps. Dropping it detaches it everywhere.
pub struct Steering {
    ebpf: Ebpf,
    maps: Maps,
    bases: HashMap<String, u32>,
}

impl Steering {
    /// Loads the program into the kernel; it is attached nowhere yet and nothing is ours.
    ///
    /// # Errors
    /// No permission, or a kernel without what the program needs.
    pub fn load() -> Result<Self, XdpError> {
        let mut ebpf = Ebpf::load(PROGRAM).map_err(|error| load_error(&error))?;
        program(&mut ebpf)?
            .load()
            .map_err(|error| load_error(&error))?;
        let maps = Maps::take(&mut ebpf)?;
        Ok(Self {
            ebpf,
            maps,
            bases: HashMap::new(),
        })
    }

    /// Attaches the program to an interface; in [`XdpMode::Auto`] to the generic hook when the
    /// driver cannot, with a line in the log. Frames with other VLAN tags than the interface's pass.
    ///
    /// # Errors
    /// The interface does not exist, has another XDP program, or refuses every mode allowed.
    pub fn attach(&mut self, served: &Interface) -> Result<AttachedMode, XdpError> {
        let interface = served.name.as_str();
        let attached = match served.xdp {
            XdpMode::Native => self.attach_as(interface, AttachedMode::Native)?,
            XdpMode::Generic => self.attach_as(interface, AttachedMode::Generic)?,
            XdpMode::Auto => match self.attach_as(interface, AttachedMode::Native) {
                Err(XdpError::Attach { source, .. }) => {
                    tracing::warn!(
                        interface,
                        reason = %source,
                        "XDP in the driver is refused, using the slower generic hook"
                    );
                    self.attach_as(interface, AttachedMode::Generic)?
                }
                other => other?,
            },
        };
        let facts = interface::facts(interface)
            .map_err(|_: InterfaceError| XdpError::NoInterface(interface.to_owned()))?;
        let place = self.bases.len();
        let tags = tags_of(served);
        let base = self.maps.add_interface(facts.ifindex, tags, place)?;
        self.bases.insert(interface.to_owned(), base);
        Ok(attached)
    }

    fn attach_as(&mut self, interface: &str, mode: AttachedMode) -> Result<AttachedMode, XdpError> {
        let flags = match mode {
            AttachedMode::Native => XdpFlags::DRV_MODE,
            AttachedMode::Generic => XdpFlags::SKB_MODE,
        };
        match program(&mut self.ebpf)?.attach(interface, flags) {
            Ok(_) => Ok(mode),
            Err(aya::programs::ProgramError::UnknownInterface { name }) => {
                Err(XdpError::NoInterface(name))
            }
            Err(error) => Err(attach_error(interface, mode, &error)),
        }
    }

    /// Makes frames of an interface's queue go to an AF_XDP socket. The socket leaves the map by
    /// itself when it is closed.
    ///
    /// # Errors
    /// The interface is not attached, the queue is beyond the map, or `socket` is no bound socket.
    pub fn register(&mut self, interface: &str, queue: u32, socket: RawFd) -> Result<(), XdpError> {
        let base = *self
            .bases
            .get(interface)
            .ok_or_else(|| XdpError::NotAttached(interface.to_owned()))?;
        if queue >= QUEUES_PER_INTERFACE {
            return Err(XdpError::TooManyQueues {
                interface: interface.to_owned(),
                queue,
            });
        }
        self.maps.set_socket(base + queue, socket)
    }

    /// Makes ours what is in `filter` and was not, and takes nothing away.
    ///
    /// # Errors
    /// A map is full or refuses. What was added before stays, and a repetition goes on from there.
    pub fn extend(&mut self, filter: &Filter) -> Result<(), XdpError> {
        self.maps.extend(filter)
    }

    /// Takes away what is no longer in `filter`, and adds nothing.
    ///
    /// # Errors
    /// A map refuses. What was removed before stays so, and a repetition goes on from there.
    pub fn shrink(&mut self, filter: &Filter) -> Result<(), XdpError> {
        self.maps.shrink(filter)
    }

    /// What the program has counted.
    ///
    /// # Errors
    /// The kernel does not let the counters be read.
    pub fn stats(&self) -> Result<SteerStats, XdpError> {
        self.maps.stats()
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, XdpError> {
    let missing = || XdpError::Load("the object holds no XDP program `steer`".into());
    ebpf.program_mut("steer")
        .ok_or_else(missing)?
        .try_into()
        .map_err(|_| missing())
}

fn load_error(error: &(dyn std::error::Error + 'static)) -> XdpError {
    match os_error(error).map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => XdpError::Permission { what: "loaded" },
        _ => XdpError::Load(sentence(error)),
    }
}

fn attach_error(
    interface: &str,
    mode: AttachedMode,
    error: &(dyn std::error::Error + 'static),
) -> XdpError {
    let code = os_error(error).and_then(io::Error::raw_os_error);
    match code {
        Some(libc::EPERM | libc::EACCES) => XdpError::Permission { what: "attached" },
        // EBUSY: a program in the same hook; EEXIST: one in the other hook (net/core/dev.c).
        Some(libc::EBUSY | libc::EEXIST) => XdpError::Occupied(interface.to_owned()),
        Some(code) => XdpError::Attach {
            interface: interface.to_owned(),
            mode,
            source: io::Error::from_raw_os_error(code),
        },
        None => XdpError::Load(sentence(error)),
    }
}

/// The operating system's error behind a loader's error. Some of the loader's errors hide it in
/// a field instead of naming it as source, hence the search by type.
fn os_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(os) = error.downcast_ref::<io::Error>() {
            return Some(os);
        }
        next = error.source();
    }
    None
}

/// The error with all its causes, without repeating one that its effect already tells.
fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
