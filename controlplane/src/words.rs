//! Errors of the kernel and of libraries in the words of an operator, who knows YAML and
//! Kubernetes but neither Rust nor the libraries. Holds no rules of its own.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;

use serde_saphyr::{Error, Localizer, Location, MessageFormatter, SnippetMode};

/// An error of the operating system without Rust's ` (os error 2)`, wherever that stands in it.
pub fn plain(error: &impl Display) -> String {
    let text = error.to_string();
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(" (os error ") {
        plain.push_str(before);
        match after.split_once(')') {
            Some((number, after)) if number.parse::<i32>().is_ok() => rest = after,
            _ => {
                plain.push_str(" (os error ");
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// `1 problem`, `2 problems`.
pub fn count(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// Why a daemon's socket cannot be reached, and what to do about it.
pub fn unreachable(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; is it running?",
        io::ErrorKind::ConnectionRefused => "; it is not running any more",
        io::ErrorKind::PermissionDenied => "; only root and the daemon's own user may ask",
        _ => "",
    };
    format!("{}{advice}", plain(error))
}

// === YAML ===

/// What is wrong with a YAML text, without the line, which the caller names anyway.
pub(crate) fn yaml(error: &Error) -> String {
    let rendered = error.render_with_options(serde_saphyr::render_options! {
        formatter: &Operator,
        snippets: SnippetMode::Off,
    });
    // A problem is one line of a log; the parser may answer with several.
    let mut message = rendered.split_whitespace().collect::<Vec<_>>().join(" ");
    if message.contains("recursion limit") {
        return TOO_MUCH.to_owned();
    }
    if message.contains("found a tab") {
        message.push_str("; YAML is indented by spaces");
    }
    message
}

/// What is said of a document that would take more than its share of time, memory or stack.
const TOO_MUCH: &str =
    "is nested too deep, too long or repeats too much by aliases; flatten or divide it";

struct Operator;

impl MessageFormatter for Operator {
    fn localizer(&self) -> &dyn Localizer {
        &Placeless
    }

    fn format_message<'a>(&self, error: &'a Error) -> Cow<'a, str> {
        match error.without_snippet() {
            Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key {key} is there twice").into()
            }
            Error::DuplicateMappingKey { key: None, .. } => "a key is there twice".into(),
            Error::Budget { .. }
            | Error::AliasReplayCounterOverflow { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. } => TOO_MUCH.into(),
            Error::RecursiveReferencesRequireWeakTypes { .. } => "an alias holds itself".into(),
            Error::UnknownAnchor { .. } => "an alias has no anchor".into(),
            other => serde_saphyr::DefaultMessageFormatter.format_message(other),
        }
    }
}

/// Leaves out line and column.
struct Placeless;

impl Localizer for Placeless {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }

    fn alias_defined_at(&self, _: Location) -> String {
        String::new()
    }

    fn alias_used_at(&self, _: Location) -> String {
        String::new()
    }
}

// === Types ===

/// A message of serde, `invalid type: string "80", expected i32`, as a sentence about the field.
pub(crate) fn mistyped(message: &str) -> String {
    let (kind, rest) = message.split_once(": ").unwrap_or_default();
    let parts = rest.split_once(", expected ");
    let (Some((found, wanted)), "invalid type" | "invalid value") = (parts, kind) else {
        return message.to_owned();
    };
    let (found, is_text) = found_words(found);
    let wanted = wanted_words(wanted);
    if (kind, is_text, wanted) == ("invalid value", None, NUMBER) {
        return format!("is {found}, which is out of range");
    }
    let advice = match (is_text, wanted) {
        (Some(text), NUMBER) if text.parse::<i64>().is_ok() => "; remove the quotes",
        (Some("true" | "false"), BOOL) => "; remove the quotes",
        (None, TEXT) if !found.starts_with("a ") && found != "empty" => "; put it in quotes",
        (_, LIST) => ", each entry with a dash",
        _ => "",
    };
    format!("is {found} and must be {wanted}{advice}")
}

const NUMBER: &str = "a whole number";
const BOOL: &str = "true or false";
const TEXT: &str = "text";
const LIST: &str = "a list";
/// Largest excerpt of a wrong value, in characters.
const MAX_EXCERPT: usize = 60;

/// What was found, and its text when it was one.
fn found_words(found: &str) -> (String, Option<&str>) {
    let quoted = |start: &str, end: char| found.strip_prefix(start)?.strip_suffix(end);
    if let Some(text) = quoted("string \"", '"') {
        let mut excerpt: String = text.chars().take(MAX_EXCERPT).collect();
        if excerpt.len() < text.len() {
            excerpt.push_str("...");
        }
        return (format!("text \"{excerpt}\""), Some(text));
    }
    let scalar = ["integer `", "floating point `", "boolean `"];
    let scalar = scalar.iter().find_map(|start| quoted(start, '`'));
    let words = match (scalar, found) {
        (Some(value), _) => value,
        (None, "sequence") => LIST,
        (None, "map") => "a mapping",
        (None, "null" | "unit value" | "Option value") => "empty",
        (None, other) => other,
    };
    (words.to_owned(), None)
}

fn wanted_words(wanted: &str) -> &str {
    match wanted {
        "i32" | "i64" | "u32" | "u64" => NUMBER,
        "f32" | "f64" => "a number",
        "a boolean" => BOOL,
        "a string" | "string" => TEXT,
        "a sequence" => LIST,
        "a map" => "a mapping",
        "IntOrString" => "a whole number or text",
        // The other types of the Kubernetes API are named as such and written as mappings.
        name if name.starts_with(|c: char| c.is_ascii_uppercase()) => "a mapping",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_error_is_left_out_wherever_it_stands() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(plain(&missing), "No such file or directory");
        let text = format!("cannot be read ({missing}); so what");
        assert_eq!(
            plain(&text),
            "cannot be read (No such file or directory); so what"
        );
        assert_eq!(plain(&"a (os error x) b"), "a (os error x) b");
        assert_eq!(plain(&"a (os error "), "a (os error ");
    }

    #[test]
    fn a_daemon_that_is_away_comes_with_advice() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(
            unreachable(&refused),
            "Connection refused; it is not running any more"
        );
        let missing = io::Error::from_raw_os_error(2);
        assert!(unreachable(&missing).ends_with("; is it running?"));
    }

    #[test]
    fn types_are_named_as_yaml_names_them() {
        for (message, words) in [
            (
                "invalid type: string \"80\", expected i32",
                "is text \"80\" and must be a whole number; remove the quotes",
            ),
            (
                "invalid type: string \"eighty\", expected i32",
                "is text \"eighty\" and must be a whole number",
            ),
            (
                "invalid type: floating point `80.5`, expected i32",
                "is 80.5 and must be a whole number",
            ),
            (
                "invalid value: integer `99999999999`, expected i32",
                "is 99999999999, which is out of range",
            ),
            (
                "invalid type: integer `5`, expected a string",
                "is 5 and must be text; put it in quotes",
            ),
            (
                "invalid type: map, expected a string",
                "is a mapping and must be text",
            ),
            (
                "invalid type: map, expected a sequence",
                "is a mapping and must be a list, each entry with a dash",
            ),
            (
                "invalid type: string \"hello\", expected ServiceSpec",
                "is text \"hello\" and must be a mapping",
            ),
            (
                "invalid type: string \"true\", expected a boolean",
                "is text \"true\" and must be true or false; remove the quotes",
            ),
            (
                "invalid type: null, expected a string",
                "is empty and must be text",
            ),
            ("premature end of input", "premature end of input"),
        ] {
            assert_eq!(mistyped(message), words);
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "x".repeat(5000);
        let message = format!("invalid type: string \"{long}\", expected i32");
        assert!(mistyped(&message).len() < 120);
    }
}
