//! What the processes say to each other over their control sockets.
//!
//! Each daemon listens on its own Unix socket; a client sends one request at a time and reads one
//! reply for each. The control plane is a client of the dataplane, `sluicectl` is a client of both.

pub mod controlplane;
pub mod dataplane;

use serde::{Deserialize, Serialize};

/// First message of every client: who it is, for the other side's log and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Name of the program, for example `sluicectl`.
    pub program: String,
    /// Its release.
    pub release: String,
}
