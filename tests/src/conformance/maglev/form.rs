//! How the file writes things down; see its header for what they mean.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::conformance::flows::form::nullable;

/// Walks that are given, and their table.
#[derive(Debug, Deserialize)]
pub struct Given {
    /// Rows.
    pub table_size: usize,
    /// Who takes turns, in order.
    #[serde(default, deserialize_with = "nullable")]
    pub backends: Vec<Walker>,
    /// Names by row.
    pub table: Vec<String>,
    /// Another case.
    pub compared_with: Option<String>,
    /// Rows that had belonged to a backend that is here no more.
    pub entries_moved_from_removed: Option<usize>,
    /// Rows that moved although their backend is still here.
    pub entries_moved_between_survivors: Option<usize>,
}

/// A backend with its walk.
#[derive(Debug, Deserialize)]
pub struct Walker {
    /// Name.
    pub name: String,
    /// First row.
    pub offset: usize,
    /// Step.
    pub skip: usize,
    /// The whole walk.
    pub permutation: Option<Vec<usize>>,
}

/// Properties of walks.
#[derive(Debug, Deserialize)]
pub struct Permutations {
    /// Rows.
    pub table_size: usize,
    /// How many backends.
    pub backends: Option<usize>,
    /// Which backends.
    pub keys: Option<Vec<u64>>,
    /// Threads.
    #[serde(default, deserialize_with = "nullable")]
    pub workers: Vec<usize>,
    /// Properties in words.
    #[serde(default, deserialize_with = "nullable")]
    pub expect: Vec<String>,
}

/// How many rows each backend gets.
#[derive(Debug, Deserialize)]
pub struct Distribution {
    /// Rows.
    pub table_size: usize,
    /// Backends.
    pub backends: Backends,
    /// What is expected.
    pub expect: Map<String, Value>,
    /// How weights are honoured.
    pub weighting: Option<String>,
}

/// A list of backends, or so many alike.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "is neither a list of backends nor {count, weight}"
)]
pub enum Backends {
    /// In order.
    Listed(Vec<Weighted>),
    /// So many alike.
    Alike {
        /// How many.
        count: usize,
        /// Weight of each.
        #[serde(default = "one")]
        weight: u16,
        /// Key of the backend at `index`.
        key: Option<String>,
    },
}

/// A backend of a list.
#[derive(Debug, Deserialize)]
pub struct Weighted {
    /// Key.
    pub id: Option<u64>,
    /// Name; decides nothing where keys do.
    #[serde(rename = "name")]
    pub _name: Option<String>,
    /// Weight.
    #[serde(default = "one")]
    pub weight: u16,
}

const fn one() -> u16 {
    1
}

/// Rows of backends that are all alike.
#[derive(Debug, Deserialize)]
pub struct EqualWeights {
    /// How many.
    pub backends: usize,
    /// Rows.
    pub table_size: usize,
    /// Fewest rows of a backend.
    pub min_count: Option<usize>,
    /// Most rows of a backend.
    pub max_count: Option<usize>,
    /// How many have the most.
    pub backends_with_max_count: Option<usize>,
}

/// One backend leaves.
#[derive(Debug, Deserialize)]
pub struct Disruption {
    /// Rows.
    pub table_size: usize,
    /// Backends.
    pub backends: Backends,
    /// Key of the one that leaves, or `last`.
    pub remove: Value,
    /// What is expected.
    pub expect: Map<String, Value>,
}

/// Rules.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    /// In words.
    pub rule: Option<String>,
    /// Rows.
    #[serde(default, deserialize_with = "nullable")]
    pub table_sizes: Vec<usize>,
    /// Backends.
    pub backends: Option<usize>,
    /// What another project takes unless told otherwise.
    #[serde(rename = "default")]
    pub _default: Option<Value>,
}
