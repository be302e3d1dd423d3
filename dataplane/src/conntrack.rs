//! Connection tracking: one record for each connection, found by either direction's tuple.
//!
//! Guarantees: a connection is in the table with both directions or not at all; memory is reserved
//! once, for the capacity of the settings; time is an argument, in whole seconds. It decides
//! nothing about Services: a record remembers what the pipeline has decided.

use std::num::NonZeroU32;

mod bucket;
pub mod connection;
pub mod expiry;
mod index;
pub mod records;
pub mod sctp;
pub mod table;
mod tags;
pub mod tcp;

pub use bucket::Entry;
pub use connection::{Binding, Connection, Handling, State, Value};
pub use records::Shortcut;
pub use sctp::SctpState;
pub use table::{ConnId, ConnTable, InsertError};
pub use tcp::{Progress, ResetWorth, TcpState};

/// A second that something must have ended by. A record has no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(NonZeroU32);

impl Deadline {
    /// This second, or the first when it is none.
    pub fn at(seconds: Seconds) -> Self {
        Self(NonZeroU32::new(seconds.0).unwrap_or(NonZeroU32::MIN))
    }

    /// The second.
    pub const fn seconds(self) -> Seconds {
        Seconds(self.0.get())
    }
}

/// Seconds since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seconds(pub u32);
