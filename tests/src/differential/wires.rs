//! The ends of the wires: packet sockets, and the marks that tell when all has come out.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use super::Side;
use crate::netns::Netns;

/// How long a mark may take; only a broken setup takes longer than microseconds.
const LIMIT_SECONDS: i64 = 10;
const LONGEST: usize = 65_536;

/// Fixed beginning of a mark: a UDP packet of IPv4 without a checksum that is no Service's.
const MARKS: [(Side, [u8; 42]); 2] = [
    (
        Side::Clients,
        mark(
            [2, 0, 0, 0, 0, 1],
            [2, 0, 0, 0, 0, 0x0c],
            [10, 0, 1, 99],
            [10, 0, 2, 11],
        ),
    ),
    (
        Side::Backends,
        mark(
            [2, 0, 0, 0, 0, 2],
            [2, 0, 0, 0, 2, 11],
            [10, 0, 2, 99],
            [10, 0, 1, 10],
        ),
    ),
];
/// Where the ports of a packet without options are; those of a mark are both 9, "discard".
const PORTS: std::ops::Range<usize> = 34..38;

const fn mark(to: [u8; 6], from: [u8; 6], source: [u8; 4], destination: [u8; 4]) -> [u8; 42] {
    let mut frame = [0; 42];
    let mut at = 0;
    while at < 6 {
        (frame[at], frame[6 + at]) = (to[at], from[at]);
        at += 1;
    }
    frame[12] = 8;
    (frame[14], frame[17], frame[22], frame[23]) = (0x45, 28, 64, 17);
    at = 0;
    while at < 4 {
        (frame[26 + at], frame[30 + at]) = (source[at], destination[at]);
        at += 1;
    }
    (frame[35], frame[37], frame[39]) = (9, 9, 8);
    let mut sum = 0u32;
    at = 14;
    while at < 34 {
        sum += (frame[at] as u32) << 8 | frame[at + 1] as u32;
        at += 2;
    }
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    (frame[24], frame[25]) = ((sum >> 8) as u8, sum as u8);
    frame
}

/// Both wires.
#[derive(Debug)]
pub(super) struct Wires {
    clients: OwnedFd,
    backends: OwnedFd,
    buffer: Vec<u8>,
}

impl Wires {
    /// Opens the wires' ends, and stays on one processor from now on.
    pub(super) fn open(peers: &Netns) -> Result<Self> {
        let namespace = File::open(format!("/run/netns/{}", peers.name()))?;
        let opener = thread::spawn(move || -> Result<_> {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            Ok((open("client")?, open("backend")?))
        });
        let sockets = opener.join().map_err(|_| anyhow!("opening the wires"))?;
        let (clients, backends) = sockets?;
        stay()?;
        Ok(Self {
            clients,
            backends,
            buffer: vec![0; LONGEST],
        })
    }

    pub(super) fn exchange(&mut self, side: Side, frame: &[u8]) -> Result<Vec<(Side, Vec<u8>)>> {
        transmit(self.socket(side), frame)?;
        for (side, mark) in &MARKS {
            transmit(self.socket(*side), mark)?;
        }
        let mut came = Vec::new();
        for side in [Side::Clients, Side::Backends] {
            while let Some(frame) = self.next(side)? {
                came.push((side, frame));
            }
        }
        Ok(came)
    }

    /// The next frame of interest; `None` for the mark.
    fn next(&mut self, side: Side) -> Result<Option<Vec<u8>>> {
        loop {
            let socket = match side {
                Side::Clients => &self.clients,
                Side::Backends => &self.backends,
            };
            let len = match recv(socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(len) => len,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => bail!("no mark came out on the side of {side:?}"),
                Err(error) => return Err(error.into()),
            };
            let frame = &self.buffer[..len];
            if frame.get(PORTS) == Some(&[0, 9, 0, 9]) {
                return Ok(None);
            }
            if !is_housekeeping(frame) {
                return Ok(Some(frame.to_vec()));
            }
        }
    }

    fn socket(&self, side: Side) -> &OwnedFd {
        match side {
            Side::Clients => &self.clients,
            Side::Backends => &self.backends,
        }
    }
}

/// ARP, and what a kernel says about itself in IPv6: multicast listener reports, neighbour and
/// router discovery (ICMPv6 130 to 143).
fn is_housekeeping(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 6]) => true,
        Some([0x86, 0xdd]) => match frame.get(20) {
            Some(0) => true,
            Some(58) => matches!(frame.get(54), Some(130..=143)),
            _ => false,
        },
        _ => false,
    }
}

/// A packet socket on an interface of this thread's namespace, for every protocol.
fn open(interface: &str) -> Result<OwnedFd> {
    let address = getifaddrs()?
        .filter(|each| each.interface_name == interface)
        .find_map(|each| each.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {interface}"))?;
    let (family, protocol) = (AddressFamily::Packet, SockProtocol::EthAll);
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        .context("a packet socket needs CAP_NET_RAW")?;
    bind(socket.as_raw_fd(), &address)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(LIMIT_SECONDS, 0))?;
    Ok(socket)
}

fn transmit(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    let sent = send(socket.as_raw_fd(), frame, MsgFlags::empty()).context("sending a frame")?;
    match sent == frame.len() {
        true => Ok(()),
        false => bail!("{sent} of {} bytes were sent", frame.len()),
    }
}

/// Keeps this thread on the first processor that it may use.
fn stay() -> Result<()> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own)?;
    let mut processors = 0..CpuSet::count();
    let first = processors.find(|number| allowed.is_set(*number).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.context("no processor")?)?;
    sched_setaffinity(own, &one)?;
    Ok(())
}
