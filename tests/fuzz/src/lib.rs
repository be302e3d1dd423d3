//! Sluice's fuzz targets: everything that reads bytes from a network, a socket or a file.
//!
//! Each module has a `run` that takes any bytes and panics when something that must hold does not.
//! The fuzzer calls it (`make fuzz`), and so do ordinary tests (`tests/tests/fuzz.rs`) with the
//! kept corpus and with pseudo-random bytes.
#![deny(unsafe_code)]

pub mod fragments;
pub mod frames;
pub mod manifests;
pub mod messages;
pub mod names;
pub mod settings;
pub mod tables;
pub mod wire;

/// A target: its name, which is its folder in the corpus too, and what it does with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("fragments", fragments::run),
    ("frames", frames::run),
    ("manifests", manifests::run),
    ("messages", messages::run),
    ("names", names::run),
    ("settings", settings::run),
    ("tables", tables::run),
    ("wire", wire::run),
];
