//! Bytes on the wire: what a frame says, and how it is changed in place.
//!
//! [`parse`] is the only place that trusts no byte. What it returns are offsets that hold for the
//! frame it has read, so [`rewrite`], [`icmp`], [`reset`] and [`arp`] index without checks of their
//! own as long as the frame has not been resized in between; on a frame that breaks the promise
//! they return false instead of panicking.

pub mod arp;
pub mod checksum;
pub mod icmp;
pub mod parse;
pub mod reset;
pub mod rewrite;
