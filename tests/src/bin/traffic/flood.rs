//! Raw Ethernet frames through `eth0`: datagrams from many source ports, and garbage among them.
//!
//! The garbage is deterministic, so that a failure can be repeated.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

const INTERFACE: &str = "eth0";
/// Frames sent between two pauses; below the 256 frames of a veth's ring.
const BURST: u32 = 64;
const PAUSE: Duration = Duration::from_micros(200);

/// Sends the frames and prints how many.
pub fn run(
    gateway: &str,
    from: Ipv4Addr,
    to: SocketAddrV4,
    count: u32,
    garbage_per_cent: u32,
) -> Result<()> {
    let (socket, own) = open()?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut header = link_address(gateway)?.to_vec();
    header.extend(own);
    header.extend([0x08, 0x00]);
    for number in 0..count {
        let port = 20_000 + (number % 8_000) as u16;
        let mut frame = datagram(&header, from, port, to);
        if random.below(100) < garbage_per_cent {
            spoil(&mut frame, &mut random);
        }
        transmit(&socket, &frame)?;
        if number % BURST == BURST - 1 {
            thread::sleep(PAUSE);
        }
    }
    println!("{count}");
    Ok(())
}

/// A packet socket bound to the interface, without a protocol: it sends and never receives.
fn open() -> Result<(OwnedFd, [u8; 6])> {
    let address = getifaddrs()?
        .filter(|each| each.interface_name == INTERFACE)
        .find_map(|each| each.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {INTERFACE}"))?;
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

fn transmit(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    loop {
        match send(socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => thread::sleep(PAUSE),
            Err(error) => return Err(error).context("sending a frame"),
        }
    }
}

fn link_address(text: &str) -> Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    let bytes = bytes.with_context(|| format!("{text} is not a link-layer address"))?;
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("{text} is not a link-layer address"))
}

/// A datagram without a UDP checksum, which RFC 768 allows.
fn datagram(ethernet: &[u8], from: Ipv4Addr, port: u16, to: SocketAddrV4) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.ip().octets());
    let total: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let mut frame = ethernet.to_vec();
    frame.extend(ip);
    frame.extend(port.to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend([0, 26, 0, 0]);
    frame.extend(b"sluice flood frame");
    frame
}

/// Cuts the frame, fills it with noise behind the Ethernet header, or turns some bits over.
fn spoil(frame: &mut Vec<u8>, random: &mut Random) {
    match random.below(4) {
        0 => frame.truncate(14 + random.below(28) as usize),
        1 => {
            let length = random.below(1000) as usize;
            frame.truncate(14);
            frame.extend((0..length).map(|_| random.below(256) as u8));
        }
        // Past the addresses: what still reaches the gateway and its parser.
        2 => frame[14] = random.below(256) as u8,
        _ => {
            for _ in 0..4 {
                let at = 12 + random.below(frame.len() as u32 - 12) as usize;
                frame[at] ^= 1 << random.below(8);
            }
        }
    }
}

/// xorshift64 (Marsaglia, 2003): enough to spread garbage, and the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % bound
    }
}
