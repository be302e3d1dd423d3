//! Text to settings, with the place of every mistake.

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// Why a settings file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {key}{separator}{message}", separator = if key.is_empty() { "" } else { ": " })]
pub struct SettingsError {
    /// File, as named by the caller.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Path of the key, for example `frames.size`; empty when the file is not TOML at all.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A value that has the right type and still cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible {
    /// Path of the key, for example `frames.size` or `interfaces[1].name`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Impossible {
    /// An impossible value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

/// Parses `text`, then applies `check`.
pub(super) fn parse<T: DeserializeOwned>(
    text: &str,
    file: &str,
    check: impl FnOnce(&T) -> Result<(), Impossible>,
) -> Result<T, SettingsError> {
    let error = |line, key, message| SettingsError {
        file: file.to_owned(),
        line,
        key,
        message,
    };
    let at = |span: Option<std::ops::Range<usize>>| line_of(text, span.map_or(0, |s| s.start));

    let document = toml::de::Deserializer::parse(text)
        .map_err(|e| error(at(e.span()), String::new(), e.message().to_owned()))?;
    let settings: T = serde_path_to_error::deserialize(document).map_err(|e| {
        let key = e.path().to_string();
        let key = if key == "." { String::new() } else { key };
        error(at(e.inner().span()), key, e.inner().message().to_owned())
    })?;
    check(&settings).map_err(|impossible| {
        let offset = offset_of(text, &impossible.key).unwrap_or(0);
        error(line_of(text, offset), impossible.key, impossible.message)
    })?;
    Ok(settings)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Where the value of `key` stands; for a key that is not written, where its nearest written
/// parent stands.
fn offset_of(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut offset = None;
    for step in key.split('.') {
        let (name, index) = match step.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (step, None),
        };
        let Some((found, value)) = table.iter().find(|(k, _)| k.get_ref().as_ref() == name) else {
            return offset;
        };
        offset = Some(found.span().start);
        let mut value = value;
        if let (Some(index), DeValue::Array(items)) = (index, value.get_ref()) {
            let Some(item) = items.get(index) else {
                return offset;
            };
            offset = Some(item.span().start);
            value = item;
        }
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return offset,
        }
    }
    offset
}
