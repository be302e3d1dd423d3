//! The sink: an XDP program that verifies and counts the generator's frames where they arrive.
//!
//! Guarantees: frames of other runs and of others are neither counted nor dropped. Latency counts
//! from the time at which a frame was due. New connections beside a run's flows are counted apart;
//! [`Sighting`] tells when they arrive at an address.

pub mod histogram;
pub mod program;
pub mod sighting;

pub use histogram::Histogram;
pub use program::{Action, Expectation, Sink, Tally};
pub use sighting::Sighting;
