//! Source address translation: which source a backend gets to see.

pub mod alarm;
pub mod ports;
