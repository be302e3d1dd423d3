//! Past tables.

use serde::{Deserialize, Serialize};

use crate::table::Generation;

/// One table of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRow {
    /// Its generation.
    pub generation: Generation,
    /// When it was recorded, in seconds since 1970.
    pub unix_seconds: u64,
    /// In what it differs from the one recorded before, in a line.
    pub summary: String,
    /// Whether the table in force is this one.
    pub in_force: bool,
    /// The generation that it was rolled back to, if it was.
    pub rolled_back_to: Option<Generation>,
}

/// Whether the table in force follows the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Force {
    /// The generation in force.
    pub generation: Generation,
    /// The generation of which it is a copy, if it is pinned: it then stays as it is whatever
    /// happens to objects, health and drains.
    pub pinned: Option<Generation>,
}
