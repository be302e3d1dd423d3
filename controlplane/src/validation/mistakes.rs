//! Collects mistakes. Paths are written only for fields that are wrong.

use std::fmt::{Display, Write};

use super::names::Form;
use crate::field::{FieldError, Reason};

/// Largest excerpt of a wrong value, in characters.
const MAX_EXCERPT: usize = 60;

/// The mistakes of one object.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<FieldError>);

impl Mistakes {
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        self.0
    }

    pub(super) fn missing(&mut self, field: impl Display, advice: &str) {
        self.add(field, Reason::Required, format!("is missing; {advice}"));
    }

    pub(super) fn invalid(&mut self, field: impl Display, message: impl Into<String>) {
        self.add(field, Reason::Invalid, message);
    }

    pub(super) fn forbidden(&mut self, field: impl Display, message: impl Into<String>) {
        self.add(field, Reason::Forbidden, message);
    }

    pub(super) fn internal(&mut self, field: impl Display, message: impl Into<String>) {
        self.add(field, Reason::Internal, message);
    }

    pub(super) fn repeated(&mut self, field: impl Display, value: impl Display) {
        let message = format!("{value} is there already; each may be there once");
        self.add(field, Reason::Duplicate, message);
    }

    pub(super) fn too_many(&mut self, field: impl Display, number: usize, most: usize) {
        let message = format!("has {number} entries; at most {most} are possible");
        self.add(field, Reason::TooMany, message);
    }

    /// Whether `value` is one of `choices`.
    pub(super) fn one_of(&mut self, field: impl Display, value: &str, choices: &[&str]) {
        if !choices.contains(&value) {
            let message = format!("{} is not one of {}", quoted(value), choices.join(", "));
            self.add(field, Reason::NotSupported, message);
        }
    }

    /// Whether `value` is there, and one of `choices`.
    pub(super) fn given(&mut self, field: impl Display, value: Option<&str>, choices: &[&str]) {
        match value.filter(|value| !value.is_empty()) {
            None => self.missing(field, &format!("use {}", choices.join(" or "))),
            Some(value) => self.one_of(field, value, choices),
        }
    }

    /// Whether `value` has the form.
    pub(super) fn form(&mut self, field: impl Display, value: &str, form: &Form) {
        if !(form.holds)(value) {
            let message = format!("{} is not {}", quoted(value), form.wanted);
            self.invalid(field, message);
        }
    }

    /// Whether `value` is there, and has the form.
    pub(super) fn named(&mut self, field: impl Display, value: Option<&str>, form: &Form) {
        match value.filter(|value| !value.is_empty()) {
            None => self.missing(field, &format!("use {}", form.wanted)),
            Some(value) => self.form(field, value, form),
        }
    }

    /// Whether `number` is a port that something can listen on.
    pub(super) fn port(&mut self, field: impl Display, number: i32) {
        if !(1..=i32::from(u16::MAX)).contains(&number) {
            self.invalid(field, format!("{number} is not a port; use 1 to 65535"));
        }
    }

    fn add(&mut self, field: impl Display, reason: Reason, message: impl Into<String>) {
        let error = FieldError::new(field.to_string(), reason, message);
        self.0.push(error);
    }
}

/// A value in quotes, cut when it is long.
pub(super) fn quoted(value: &str) -> String {
    match value.char_indices().nth(MAX_EXCERPT) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}...", &value[..end]),
    }
}

/// Values in brackets: the first, and how many more there are.
pub(super) fn listed(values: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = values.iter().take(SHOWN).map(|v| quoted(v)).collect();
    let mut text = format!("[{}", shown.join(", "));
    if values.len() > SHOWN {
        // Writing to a String cannot fail.
        let _ = write!(text, " and {} more", values.len() - SHOWN);
    }
    text.push(']');
    text
}
