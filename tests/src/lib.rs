//! What Sluice's end-to-end tests and its demo stand on: network namespaces wired as a client, a
//! gateway and backends, the daemons as children in the gateway, real clients and real software
//! behind them.
//!
//! ```text
//!   client --- c0 [gateway] b0 --- bridge --- backend-1, backend-2, backend-3
//! ```
//!
//! Beside them stands the conformance runner, which needs none of it: see [`conformance`].
//!
//! Guarantees: nothing outside namespaces and folders that this process made is touched; what was
//! made goes away with its guard, and what a killed run left behind goes away with the next run.
//! Nothing waits without a deadline. A machine that cannot do what a test needs fails the test with
//! a sentence; nothing is skipped.
#![forbid(unsafe_code)]

pub mod clock;
pub mod process;

pub mod family;
pub mod netns;
pub mod topology;

pub mod inside;
pub mod peer;

pub mod capture;
pub mod checksums;
pub mod craft;
pub mod packets;

pub mod dns;
pub mod names;
pub mod nginx;
pub mod traffic;

pub mod alone;
pub mod control;
pub mod daemon;
pub mod kubernetes;
pub mod manifests;
pub mod scene;

pub mod conformance;
pub mod differential;
