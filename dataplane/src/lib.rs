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
//! The modules stand in the order of the path; a module uses only those above it, but for [`io`],
//! whose sockets and twin use nothing else. The engine ([`pipeline`]) is pure; all I/O of packets
//! sits behind [`io::PacketIo`].
#![deny(unsafe_code)]

pub mod memory;

pub mod flow;
pub mod io;
pub mod neighbour;
pub mod verdict;

pub mod wire;

pub mod affinity;
pub mod conntrack;
pub mod fragments;

pub mod clock;
pub mod stats;

pub mod maglev;
pub mod service;

pub mod nat;

pub mod handover;
pub mod snapshot;
pub mod wake;

pub mod pipeline;

pub mod interface;
pub mod netlink;

pub mod hygiene;
pub mod tun;

pub mod assembling;
pub mod kernel;
pub mod listing;
pub mod lobby;
pub mod tap;
pub mod waiting;
pub mod worker;

pub mod steer;
pub mod xdp;

pub mod gateway;

pub mod control;
pub mod metrics;

pub mod daemon;

#[cfg(any(test, feature = "testutil"))]
pub mod testutil;
