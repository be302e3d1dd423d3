//! How fast Sluice is: what the benchmarks share.
//!
//! ```text
//!   traffic: who talks to whom --> slots: frames in place --> lane: the real engine of a gateway
//!   order: in which order                                        |
//!                        harness: clock on --- process ----------'--- clock off
//!                                                |
//!          statistics: median and spread <-------'-------> report: beside goals and calibration
//! ```
//!
//! Beside it stand the tools that measure a gateway from outside, in the kernel and on real
//! interfaces: `loadgen`, `bench-wire`, and for the control plane `bench-control` and `bench-dns`.
//!
//! ```text
//!   generator: frames, numbered and stamped --> a gateway --> sink: verifies, counts, measures
//!       trial: both together    search: the highest rate    wire: Sluice and its peers, in turns
//! ```
//!
//! The benchmarks in memory are the folders of `benches/benches/`: they run in memory and need
//! neither root nor a device, so their figures are free of the kernel's noise. Everything they
//! measure is the dataplane's public interface; the only stand-in is [`slots::SlotIo`] in the place
//! of AF_XDP sockets.
//!
//! Absolute figures depend on the machine and on its neighbours. Compare only runs of one machine,
//! taken in turns.

#![deny(unsafe_code)]

pub mod calibration;
pub mod callgrind;
pub mod gateway;
pub mod harness;
pub mod lane;
pub mod order;
pub mod process;
pub mod program;
pub mod report;
pub mod sharing;
pub mod slots;
pub mod statistics;
pub mod topology;
pub mod traffic;

#[cfg(feature = "rig")]
pub mod control;
pub mod cpu;
pub mod generator;
#[cfg(feature = "rig")]
pub mod names;
pub mod namespace;
pub mod plot;
pub mod rate;
pub mod search;
pub mod sink;
pub mod trial;
#[cfg(feature = "rig")]
pub mod wire;
pub mod xdp_socket;
