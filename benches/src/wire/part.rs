//! A part of the report that has a table and data of its own, beside its figures.

use serde::Serialize;
use serde_json::Value;

/// A part of the report.
#[derive(Debug, Serialize)]
pub struct Part {
    /// What it is about.
    pub name: &'static str,
    /// For people, in Markdown.
    #[serde(skip)]
    pub table: String,
    /// Medians and everything else.
    pub data: Value,
    /// Rounds that could not be measured.
    pub failed: u32,
}

/// The values that `pick` tells of `all`, each once, in the order of first appearance.
pub(super) fn distinct<T, K: PartialEq>(all: &[T], pick: impl Fn(&T) -> K) -> Vec<K> {
    let mut seen = Vec::new();
    for one in all.iter().map(pick) {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}
