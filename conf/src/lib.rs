//! The only contract that Sluice's processes share: what an operator writes (settings), what the
//! control plane decides (the service table) and how both sides talk about it (messages).
//!
//! ```text
//!   dataplane.toml ----> settings::Dataplane        controlplane.toml ----> settings::Controlplane
//!
//!   Service, Frontend, Backend --> ServiceTable(Generation) --> message --> codec --> bytes
//!                         from one table to the next: TableChange --'
//! ```
//!
//! Guarantees: no I/O, no clock, no unsafe code, no panic on any input; decoding allocates at most
//! in proportion to the bytes that really arrived. It does not decide anything about traffic: the
//! dataplane does, from the table alone.
#![forbid(unsafe_code)]

pub mod change;
pub mod codec;
pub mod message;
pub mod service;
pub mod settings;
pub mod table;

pub use change::{ChangeError, Edit, TableChange};
pub use service::{
    Access, Backend, BackendGone, BackendState, Forwarding, Frontend, FrontendKind, Ping, Pool,
    Protocol, Refusal, Service, ServiceName, SourceNat,
};
pub use table::{Claims, Generation, Networks, ServiceTable, TableError};
