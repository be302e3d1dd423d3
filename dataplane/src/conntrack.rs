//! Connection tracking: one record for each connection, found by either direction's tuple.
//!
//! Guarantees: a connection is in the table with both directions or not at all; memory is reserved
//! once, for the capacity of the settings; time is an argument, in whole seconds. It decides
//! nothing about Services: a record remembers what the pipeline has decided.

pub mod connection;
pub mod expiry;
pub mod sctp;
pub mod table;
pub mod tcp;

pub use connection::{Binding, Connection, Handling, State, Value, Ways};
pub use sctp::SctpState;
pub use table::{ConnId, ConnTable, InsertError};
pub use tcp::{Progress, ResetWorth, TcpState};

/// Seconds since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seconds(pub u32);
