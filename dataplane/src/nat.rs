//! Source address translation: which source a backend gets to see.

pub mod ports;
