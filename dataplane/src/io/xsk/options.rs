//! Options of AF_XDP sockets that no library knows; the benchmarks set their sockets alike.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `SOL_XDP` and `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h; the latter since kernel 6.17.
const SOL_XDP: i32 = 283;
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// Frames that one transmit call may copy. More does not make it faster and lets one interface
/// hold up the others.
const SEND_BUDGET: u32 = 256;

/// Most memory that a frame takes up in the kernel while it is being transmitted.
const SEND_BYTES: u32 = 4096;

/// Lifts two limits of copied transmission on a socket with a ring of `ring` frames: bytes in
/// flight and frames a call. Both fail softly, it is slower then and the log says so; `interface`
/// is named there.
pub fn raise_limits(interface: &str, socket: BorrowedFd<'_>, ring: u32) {
    let bytes = ring.saturating_mul(SEND_BYTES).min(i32::MAX as u32 / 2);
    let forced = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes);
    if let Err(error) =
        forced.or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes))
    {
        tracing::warn!(interface, reason = %error, "the send buffer stays small");
    }
    let budget = ring.min(SEND_BUDGET);
    if let Err(error) = set_option(socket, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget) {
        tracing::info!(
            interface,
            reason = %error,
            "32 frames a transmit call (more needs kernel 6.17)"
        );
    }
}

/// Sets an option whose value is a number of 32 bits, as setsockopt(2).
///
/// # Errors
/// The kernel refuses it.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: u32) -> io::Result<()> {
    let value: *const u32 = &value;
    let size = size_of::<u32>() as libc::socklen_t;
    // SAFETY: `value` points to `size` readable bytes for the whole call, and the kernel keeps no
    // pointer. `socket` is open: it is borrowed.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
