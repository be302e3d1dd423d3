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
//! The benchmarks themselves are the folders of `benches/benches/`: they run in memory and need
//! neither root nor a device, so their figures are free of the kernel's noise. Everything they
//! measure is the dataplane's public interface; the only stand-in is [`slots::SlotIo`] in the place
//! of AF_XDP sockets.
//!
//! Absolute figures depend on the machine and on its neighbours. Compare only runs of one machine,
//! taken in turns.

#![forbid(unsafe_code)]

pub mod calibration;
pub mod callgrind;
pub mod gateway;
pub mod harness;
pub mod lane;
pub mod order;
pub mod process;
pub mod report;
pub mod sharing;
pub mod slots;
pub mod statistics;
pub mod topology;
pub mod traffic;
