//! What every AF_XDP socket here is set to, so that all peers are tuned alike.
#![expect(unsafe_code, reason = "no library knows the socket options of AF_XDP")]

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_socket_send_buffer_size_force;

/// `SOL_XDP` and `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h; the latter since kernel 6.17.
const SOL_XDP: i32 = 283;
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// Frames that one transmit call may copy, as Sluice sets it.
const SEND_BUDGET: u32 = 256;

/// Lets one transmit call send 256 frames instead of 32, and `bytes` wait in the device.
///
/// # Errors
/// The send buffer cannot be raised. A kernel without the budget keeps its own.
pub fn raise_limits(socket: BorrowedFd<'_>, bytes: u32) -> Result<()> {
    set_socket_send_buffer_size_force(socket, bytes as usize).context("SO_SNDBUFFORCE")?;
    let _ = set_option(socket, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, SEND_BUDGET);
    Ok(())
}

/// Lets this socket's owner run NAPI: SO_PREFER_BUSY_POLL, SO_BUSY_POLL, SO_BUSY_POLL_BUDGET.
///
/// # Errors
/// The kernel does not know one of them.
pub fn prefer_busy_poll(socket: BorrowedFd<'_>, budget: u32) -> Result<()> {
    for (option, value) in [
        (libc::SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, 20),
        (libc::SO_BUSY_POLL_BUDGET, budget),
    ] {
        set_option(socket, libc::SOL_SOCKET, option, value).context("preferred busy polling")?;
    }
    Ok(())
}

/// Has the kernel poll the device for this socket, without waiting.
pub fn busy_poll(socket: BorrowedFd<'_>) {
    let nowhere = std::ptr::null_mut();
    // SAFETY: the call is given no buffers and no addresses.
    unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            nowhere,
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
    }
}

fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: u32) -> std::io::Result<()> {
    // SAFETY: the value is alive during the call and its size is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<u32>() as u32,
        )
    };
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
