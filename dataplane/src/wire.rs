//! Bytes on the wire: what a frame says, and how it is changed in place. Nothing here decides.
//!
//! [`parse`](mod@parse) is the only place that trusts no byte. What it returns are offsets that hold
//! for the frame it has read, so the others index by them as long as the frame has not been resized
//! in between; on a frame that breaks the promise they return false instead of panicking. What
//! differs between IPv4 and IPv6 stands in [`Family`].

pub mod arp;
pub mod checksum;
pub mod complaint;
pub mod crc32c;
pub mod extension;
mod family;
pub mod icmp;
pub mod mss;
pub mod ndp;
pub mod parse;
pub mod plain;
pub mod reset;
pub mod rewrite;
pub mod tags;

pub use family::{Family, IcmpKind, Quote};

/// Hop limit of packets that the gateway itself sends (IANA "IP Time to Live Parameter").
const OWN_HOP_LIMIT: u8 = 64;
