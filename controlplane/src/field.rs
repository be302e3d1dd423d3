//! What is wrong with a field of an object, in the API server's terms.
//!
//! Holds no rules; those are in the modules that find the mistakes.

use std::fmt;

/// One mistake (apimachinery pkg/util/validation/field, `Error`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field, for example `spec.ports[0].port`.
    pub field: String,
    /// Which kind of mistake.
    pub reason: Reason,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Kinds of mistakes (apimachinery pkg/util/validation/field, `ErrorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A value that must be there is not.
    Required,
    /// The value is malformed, out of range, or may not be changed.
    Invalid,
    /// The value is none of those that are possible.
    NotSupported,
    /// The value is there already.
    Duplicate,
    /// The field may not be set here.
    Forbidden,
    /// There are more values than may be.
    TooMany,
    /// Nothing is wrong with the value; it could not be worked on.
    Internal,
}

impl FieldError {
    /// A mistake in `field`.
    pub fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason,
            message: message.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
