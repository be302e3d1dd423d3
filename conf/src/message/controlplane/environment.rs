//! Environment variables that announce Services to workloads.

use serde::{Deserialize, Serialize};

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Variable {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

impl Variable {
    /// The variable of that name and value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// The variables of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Whether anything is known of the namespace.
    pub namespace_exists: bool,
    /// The variables, each name once: the workload's own first, then those of Services by name.
    pub variables: Vec<Variable>,
}
