//! How the file writes things down; see its header for what they mean.

use serde::Deserialize;
use serde_json::Value;
use sluice_controlplane::field::Reason;

use crate::conformance::flows::form::nullable;

/// An object and what is wrong with it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// For the reader.
    #[serde(rename = "about")]
    pub _about: Option<String>,
    /// What is done with the object.
    pub operation: Operation,
    /// Whether nothing is wrong.
    pub valid: bool,
    /// A sentence that names the only fields to judge.
    pub scope: Option<String>,
    /// What is wrong.
    #[serde(default, deserialize_with = "nullable")]
    pub errors: Vec<Error>,
    /// How many errors the API server reports, if not each one once.
    pub upstream_error_count: Option<usize>,
    /// What is submitted.
    pub object: Value,
    /// What is stored.
    pub old: Option<Value>,
}

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// It is new.
    Create,
    /// It replaces a stored one.
    Update,
}

/// A field in error.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Error {
    field: String,
    kind: Kind,
    #[serde(rename = "upstreamField")]
    _upstream_field: Option<String>,
}

impl Error {
    /// Which field, and what kind of error.
    pub fn place(&self) -> (&str, Kind) {
        (&self.field, self.kind)
    }
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A value that must be there is not.
    Required,
    /// A value is wrong or may not change.
    Invalid,
    /// A value is none of those that are possible.
    NotSupported,
    /// A value is there already.
    Duplicate,
    /// A field may not be set.
    Forbidden,
    /// There are more values than may be.
    TooMany,
    /// A value could not be worked on.
    Internal,
}

impl From<Reason> for Kind {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Required => Kind::Required,
            Reason::Invalid => Kind::Invalid,
            Reason::NotSupported => Kind::NotSupported,
            Reason::Duplicate => Kind::Duplicate,
            Reason::Forbidden => Kind::Forbidden,
            Reason::TooMany => Kind::TooMany,
            Reason::Internal => Kind::Internal,
        }
    }
}
