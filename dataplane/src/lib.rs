//! Sluice's dataplane: frames in, translated frames out.
//!
//! ```text
//!   NIC queue --> XDP program (bpf/, steer, xdp) --ours--> io --> worker --> pipeline --> io
//!                                                           |                   |
//!                            another worker's: handover <---'                   |
//!                                                                               v
//!      wire: parse, rewrite, answer     conntrack: who talks to whom     verdict: what becomes
//!      service, maglev: which backend   nat: which source                of the frame
//!      neighbour: where next
//!
//!   control socket --> service map --.
//!   netlink --> network -------------'--> snapshot --> every worker, between two bursts
//! ```
//!
//! The modules stand in the order of the path; a module uses only those above it. The engine
//! ([`pipeline`]) is pure; all I/O of packets sits behind [`io::PacketIo`].

#![deny(unsafe_code)]

pub mod clock;
pub mod verdict;

pub mod io;

pub mod neighbour;

pub mod interface;
pub mod netlink;
pub mod steer;
pub mod xdp;

mod prefetch;

#[cfg(any(test, feature = "testutil"))]
pub mod testutil;

pub mod wire;

pub mod flow;

pub mod control;
pub mod daemon;
pub mod gateway;
pub mod metrics;

pub mod conntrack;
pub mod handover;
pub mod listing;
pub mod maglev;
pub mod nat;
pub mod pipeline;
pub mod service;
pub mod snapshot;
pub mod stats;
pub mod waiting;
pub mod worker;
