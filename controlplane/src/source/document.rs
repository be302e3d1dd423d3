//! YAML text to a tree that knows the line of every value.
//!
//! Guarantees: no panic and bounded memory on any text (depth, nodes and alias expansion have
//! budgets); documents of one file are cut apart before they are parsed, so that a broken one
//! does not hurt its neighbours. JSON is read as the YAML it is. It knows nothing of Kubernetes.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

use crate::words;

/// Most values of one document. A `List` with 100,000 endpoints has about 1.5 million.
const MAX_NODES: usize = 4_000_000;
/// Most values that aliases may add to one document.
const MAX_ALIASED: usize = 100_000;
/// Deepest nesting; the deepest field of a Service or EndpointSlice is at 8.
const MAX_DEPTH: usize = 48;

/// One document of a file, not parsed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// Line of the file where the text starts, counted from 1.
    pub line: u32,
    /// The text, with its `---` if it has one.
    pub text: &'a str,
}

/// Why a document is not YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DocumentError {
    /// Line of the file.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// A value and the line of the file where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line, counted from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// What YAML and JSON have in common.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<(String, Node)>),
}

/// Cuts a file into its documents; those without content are left out.
///
/// A `---` at the start of a line always begins a document (YAML 1.2.2, section 9.1.2: it is
/// forbidden inside every scalar), so this needs no parser.
pub fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut cutter = Cutter::at(0, 1);
    let mut offset = 0;
    for (number, line) in (1_u32..).zip(text.split_inclusive('\n')) {
        let end = offset + line.len();
        if let Some(rest) = marker(line, "---") {
            if cutter.begun {
                documents.extend(cutter.cut(text, offset));
                cutter = Cutter::at(offset, number);
            }
            cutter.begun = true;
            cutter.content |= is_content(rest);
        } else if marker(line, "...").is_some() {
            documents.extend(cutter.cut(text, offset));
            cutter = Cutter::at(end, number + 1);
        } else if is_content(line) && (cutter.begun || !line.starts_with('%')) {
            cutter.begun = true;
            cutter.content = true;
        }
        offset = end;
    }
    documents.extend(cutter.cut(text, offset));
    documents
}

struct Cutter {
    start: usize,
    line: u32,
    /// Whether a marker or content was seen: the next `---` is another document's.
    begun: bool,
    content: bool,
}

impl Cutter {
    fn at(start: usize, line: u32) -> Self {
        Self {
            start,
            line,
            begun: false,
            content: false,
        }
    }

    fn cut<'a>(&self, text: &'a str, end: usize) -> Option<Document<'a>> {
        let text = text.get(self.start..end)?;
        self.content.then_some(Document {
            line: self.line,
            text,
        })
    }
}

/// What follows the marker, when the line is one.
fn marker<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(marker)?;
    (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])).then_some(rest)
}

fn is_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

/// Parses one document.
///
/// # Errors
/// The first mistake, or the budget that the document exceeds.
pub fn parse(document: &Document<'_>) -> Result<Node, DocumentError> {
    serde_saphyr::from_str_with_options::<Node>(document.text, options())
        .map(|mut node| {
            node.shift(document.line - 1);
            node
        })
        .map_err(|error| refused(document, &error))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_recorded_anchor_events: MAX_ALIASED,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED },
        with_snippet: false,
    }
}

fn refused(document: &Document<'_>, error: &serde_saphyr::Error) -> DocumentError {
    let before = u64::from(document.line - 1);
    let line = error
        .location()
        .map_or(1, |location| location.line().max(1));
    DocumentError {
        line: u32::try_from(before + line).unwrap_or(u32::MAX),
        message: format!("is not valid YAML: {}", words::yaml(error)),
    }
}

impl Node {
    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text, when it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Line of the value at `path`, for example `spec.ports[0].port`, or of its nearest parent.
    pub fn line_of(&self, path: &str) -> u32 {
        let mut node = self;
        let mut rest = path;
        while let Some((next, tail)) = node.step(rest) {
            node = next;
            rest = tail;
        }
        node.line
    }

    /// The child that `path` begins with, and the path from there.
    fn step<'p>(&self, path: &'p str) -> Option<(&Node, &'p str)> {
        match &self.value {
            Value::List(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, rest))
            }
            // Keys of annotations hold dots themselves, so keys are matched, not cut out.
            Value::Map(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                entries.iter().find_map(|(key, value)| {
                    let rest = path.strip_prefix(key.as_str())?;
                    (rest.is_empty() || rest.starts_with(['.', '['])).then_some((value, rest))
                })
            }
            _ => None,
        }
    }

    fn shift(&mut self, lines: u32) {
        self.line = self.line.saturating_add(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.shift(lines)),
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node {
            line: u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value);
        Ok(number.map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        list.shrink_to_fit();
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        map.shrink_to_fit();
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<(u32, &str)> {
        split(text).iter().map(|d| (d.line, d.text)).collect()
    }

    fn only(text: &str) -> Node {
        let documents = split(text);
        assert_eq!(documents.len(), 1, "{documents:?}");
        parse(&documents[0]).unwrap()
    }

    #[test]
    fn a_file_is_cut_at_its_markers() {
        assert_eq!(
            texts("a: 1\n---\nb: 2\n"),
            [(1, "a: 1\n"), (2, "---\nb: 2\n")]
        );
        assert_eq!(texts("# head\n---\na: 1\n"), [(1, "# head\n---\na: 1\n")]);
        assert_eq!(
            texts("%YAML 1.2\n---\na: 1\n...\n# end\n---\n"),
            [(1, "%YAML 1.2\n---\na: 1\n")]
        );
        assert_eq!(texts("---\n---\n\n--- \n"), []);
        assert_eq!(texts("text: |\n  ---\n  ---x\n").len(), 1);
        assert_eq!(texts("\u{feff}a: 1"), [(1, "a: 1")]);
    }

    #[test]
    fn every_value_knows_its_line() {
        let node =
            only("# first\n---\nspec:\n  ports:\n  - name: a\n    port: 80\n  - {port: 81}\n");
        assert_eq!(node.line_of("spec.ports[0].port"), 6);
        assert_eq!(node.line_of("spec.ports[1].port"), 7);
        assert_eq!(node.line_of("spec.ports[1].missing"), 7);
        assert_eq!(node.line_of("spec.ports[0].name"), 5);
    }

    #[test]
    fn a_key_with_dots_has_a_line() {
        let node = only("metadata:\n  annotations:\n    b.c/d: x\n    sluice.dev/weights: x\n");
        assert_eq!(node.line_of("metadata.annotations.sluice.dev/weights"), 4);
    }

    #[test]
    fn json_is_read_too() {
        let node =
            only("{\n\t\"kind\": \"Service\",\n\t\"spec\": {\"ports\": [\n{\"port\": 80}]}\n}\n");
        assert_eq!(node.get("kind").and_then(Node::text), Some("Service"));
        assert_eq!(node.line_of("spec.ports[0].port"), 4);
    }

    #[test]
    fn a_mistake_is_named_with_the_line_of_the_file() {
        let documents = split("a: 1\n---\nb: [1, 2\nc: 3\n");
        assert_eq!(documents.len(), 2);
        let error = parse(&documents[1]).unwrap_err();
        assert!((3..=4).contains(&error.line), "{error:?}");
        assert!(
            error.message.starts_with("is not valid YAML: "),
            "{error:?}"
        );
        assert!(!error.message.contains('\n'));
    }

    #[test]
    fn mistakes_are_named_in_words_of_yaml_and_not_of_the_parser() {
        for (text, message) in [
            ("a: 1\n\tb: 2\n", "found a tab; YAML is indented by spaces"),
            ("a:\n  b: 1\n  b: 2\n", "the key b is there twice"),
            ("a: &x [*x]\n", "an alias holds itself"),
            ("a: *x\n", "an alias has no anchor"),
            (
                &format!("{}{}", "[".repeat(100), "]".repeat(100)),
                "is nested too deep, too long or repeats too much by aliases; flatten or divide it",
            ),
        ] {
            let error = parse(&split(text)[0]).unwrap_err();
            assert!(error.message.ends_with(message), "{error:?}");
            assert!(!error.message.contains(" line "), "{error:?}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let parent = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{parent}]\n"));
        }
        let documents = split(&text);
        assert!(parse(&documents[0]).is_err());
    }

    #[test]
    fn nesting_without_end_is_refused() {
        for open in ["[", "{a: ", "- ", "? "] {
            let text = open.repeat(100_000);
            for document in split(&text) {
                assert!(parse(&document).is_err(), "{open}");
            }
        }
    }

    #[test]
    fn a_small_anchor_is_followed() {
        let node = only("base: &b {port: 80}\nuse: *b\nmerged:\n  <<: *b\n  name: x\n");
        let port = |key| &node.get(key).and_then(|n| n.get("port")).unwrap().value;
        assert_eq!(port("use"), &Value::Number(80.into()));
        assert_eq!(port("merged"), &Value::Number(80.into()));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}", lines in "([a-z{}\\[\\]:&*!|>'\"% -]{0,12}\n){0,12}") {
            for text in [text, lines] {
                for document in split(&text) {
                    let _ = parse(&document);
                }
            }
        }
    }
}
