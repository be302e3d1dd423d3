//! Raw Ethernet frames through an interface.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

/// Frames sent between two pauses; below the 256 frames of a veth's ring.
pub const BURST: u32 = 64;
const PAUSE: Duration = Duration::from_micros(200);

/// Sends the frames of a file, each behind its length in two bytes, `rounds` times.
pub fn run(interface: &str, file: &Path, rounds: u32) -> Result<()> {
    let bytes = fs::read(file)?;
    let (socket, _) = open(interface)?;
    let mut sent = 0;
    for _ in 0..rounds {
        let mut rest = bytes.as_slice();
        while let Some((length, behind)) = rest.split_at_checked(2) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let (frame, others) = behind
                .split_at_checked(length)
                .context("a frame is cut off")?;
            transmit(&socket, frame)?;
            rest = others;
            sent += 1;
            if sent % BURST == 0 {
                pause();
            }
        }
    }
    println!("{sent}");
    Ok(())
}

/// Lets the other end of the link keep up.
pub fn pause() {
    thread::sleep(PAUSE);
}

/// A packet socket bound to the interface, without a protocol: it sends and never receives.
pub fn open(interface: &str) -> Result<(OwnedFd, [u8; 6])> {
    let address = getifaddrs()?
        .filter(|each| each.interface_name == interface)
        .find_map(|each| each.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {interface}"))?;
    let own = address.addr().context("no link-layer address")?;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        None,
    )
    .context("a packet socket needs CAP_NET_RAW")?;
    bind(socket.as_raw_fd(), &address)?;
    Ok((socket, own))
}

pub fn transmit(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    loop {
        match send(socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => pause(),
            Err(error) => return Err(error).context("sending a frame"),
        }
    }
}
