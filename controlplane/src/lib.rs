//! Sluice's control plane: Kubernetes objects in, one service table out.
//!
//! ```text
//!   folder of manifests
//!        | notices, scans                                            sluicectl
//!   source::folder -> source::scan -> source::manifest                   | control, view
//!        | apply / delete / report / synced                              |
//!   engine: index (last good version, problems) -> compile -> tables (generation) -> push
//!              ^ service, endpoints: checks                                            |
//!                                                                               the dataplane
//! ```
//!
//! Guarantees: what served goes on serving, whatever is written into the folder, until a good
//! version replaces it or its file is gone; the same objects always compile to the same table.
//! It does not move packets, and it does not outlive its memory: after a restart only what the
//! files hold is known.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod client;
pub mod clock;
pub mod compile;
pub mod control;
pub mod daemon;
pub mod endpoints;
pub mod engine;
pub mod framing;
pub mod index;
pub mod listener;
pub mod metrics;
pub mod object;
pub mod push;
pub mod service;
pub mod source;
pub mod tables;
#[cfg(test)]
mod testing;
pub mod view;
