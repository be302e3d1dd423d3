//! What AF_XDP sockets of the benchmarks have in common: they are opened again and again on the same
//! queues, and some use preferred busy polling, where the owner of a socket runs NAPI itself
//! (Documentation/networking/napi.rst).

use std::error::Error;
use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{RecvFlags, recv};
use sluice_dataplane::io::xsk::set_option;
use xsk_rs::socket::SocketCreateError;

/// The kernel lets go of a queue some time after its socket was closed.
const BUSY_RETRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Opens a socket; tries again for a second while the queue belongs to one that was just closed.
///
/// # Errors
/// As `open`.
pub fn patiently<T>(
    mut open: impl FnMut() -> Result<T, SocketCreateError>,
) -> Result<T, SocketCreateError> {
    for _ in 0..BUSY_RETRIES {
        match open() {
            Err(error) if is_busy(&error) => thread::sleep(BUSY_PAUSE),
            done => return done,
        }
    }
    open()
}

fn is_busy(error: &SocketCreateError) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.and_then(io::Error::raw_os_error) == Some(libc::EBUSY)
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
    let mut nothing = [0u8; 0];
    // An AF_XDP socket gives no bytes this way; the call itself is what counts.
    let _ = recv(socket, &mut nothing[..], RecvFlags::DONTWAIT);
}
