//! Preferred busy polling: the owner of an AF_XDP socket runs NAPI itself
//! (Documentation/networking/napi.rst).

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use rustix::net::{RecvFlags, recv};
use sluice_dataplane::io::xsk::set_option;

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
    let mut nothing = [0u8; 0];
    // An AF_XDP socket gives no bytes this way; the call itself is what counts.
    let _ = recv(socket, &mut nothing[..], RecvFlags::DONTWAIT);
}
