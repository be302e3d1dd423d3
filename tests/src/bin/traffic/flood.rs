//! Raw Ethernet frames through `eth0`: datagrams from many source ports, and garbage among them.
//!
//! The garbage is deterministic, so that a failure can be repeated.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};

use sluice_tests::craft::Random;

use crate::raw;

const INTERFACE: &str = "eth0";

/// Sends the frames and prints how many.
pub fn run(
    gateway: &str,
    from: Ipv4Addr,
    to: SocketAddrV4,
    count: u32,
    garbage_per_cent: u32,
) -> Result<()> {
    let (socket, own) = raw::open(INTERFACE)?;
    let mut random = Random::default();
    let mut header = link_address(gateway)?.to_vec();
    header.extend(own);
    header.extend([0x08, 0x00]);
    for number in 0..count {
        let port = 20_000 + (number % 8_000) as u16;
        let mut frame = datagram(&header, from, port, to);
        if random.below(100) < garbage_per_cent {
            spoil(&mut frame, &mut random);
        }
        raw::transmit(&socket, &frame)?;
        if number % raw::BURST == raw::BURST - 1 {
            raw::pause();
        }
    }
    println!("{count}");
    Ok(())
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
