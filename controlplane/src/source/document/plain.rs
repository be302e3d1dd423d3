//! The short way to a tree, for documents of nothing but mappings, lists and values of which there
//! is no doubt what they are: nearly all manifests.
//!
//! Guarantees: gives what the long way gives, or nothing. It finds no mistakes: with a mistake,
//! with anchors, tags, merges, or a value that looks like a number and may be none, it gives up.

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{Document, MAX_NODES, Node, Value};

/// Deepest nesting. Less than the long way has, so that only that one tells what is too deep.
const MAX_DEPTH: usize = 32;
/// Most keys of a mapping, as each is compared with those before.
const MAX_KEYS: usize = 32;
/// Plain words that are something else than text, in any case.
const WORDS: [&str; 12] = [
    "false", "inf", "infinity", "n", "nan", "no", "null", "off", "on", "true", "y", "yes",
];

/// Reads a document, if it is plain.
pub(super) fn read(document: &Document<'_>) -> Option<Node> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(document.text, options),
        before: document.line - 1,
        nodes: 0,
    };
    reader.expect(|event| matches!(event, Event::StreamStart))?;
    reader.expect(|event| matches!(event, Event::DocumentStart(_, None)))?;
    let (event, span) = reader.next()?;
    let node = reader.node(event, span, 0)?;
    reader.expect(|event| matches!(event, Event::DocumentEnd))?;
    reader.expect(|event| matches!(event, Event::StreamEnd))?;
    Some(node)
}

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    /// Lines of the file before the document.
    before: u32,
    /// Values and keys so far.
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        self.events.next()?.ok()
    }

    fn expect(&mut self, wanted: impl Fn(&Event<'_>) -> bool) -> Option<()> {
        let (event, _) = self.next()?;
        wanted(&event).then_some(())
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Option<Node> {
        self.count()?;
        let line = u32::try_from(span.start.line()).ok()?;
        let line = line.checked_add(self.before)?;
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => plain(&text)?,
            Event::Scalar(text, _, 0, None) => Value::String(text.into_owned()),
            Event::SequenceStart(_, 0, None) if depth < MAX_DEPTH => self.list(depth + 1)?,
            Event::MappingStart(_, 0, None) if depth < MAX_DEPTH => self.map(depth + 1)?,
            _ => return None,
        };
        Some(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => break,
                (event, span) => items.push(self.node(event, span, depth)?),
            }
        }
        items.shrink_to_fit();
        Some(Value::List(items))
    }

    fn map(&mut self, depth: usize) -> Option<Value> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let key = match self.next()?.0 {
                Event::MappingEnd => break,
                Event::Scalar(key, style, 0, None) if is_key(&key, style) => key,
                _ => return None,
            };
            self.count()?;
            if entries.len() == MAX_KEYS || entries.iter().any(|(other, _)| *other == key) {
                return None;
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth)?;
            entries.push((key.into_owned(), value));
        }
        entries.shrink_to_fit();
        Some(Value::Map(entries))
    }

    fn count(&mut self) -> Option<()> {
        self.nodes += 1;
        (self.nodes < MAX_NODES / 2).then_some(())
    }
}

/// Whether a key is text and no merge.
fn is_key(key: &str, style: ScalarStyle) -> bool {
    let text = style != ScalarStyle::Plain || matches!(plain(key), Some(Value::String(_)));
    text && key != "<<"
}

/// What an unquoted value is, unless that takes a closer look.
fn plain(text: &str) -> Option<Value> {
    match text.as_bytes() {
        // The parser says of nothing that it is a tilde.
        [] | b"~" => Some(Value::Null),
        b"true" => Some(Value::Bool(true)),
        b"false" => Some(Value::Bool(false)),
        [b'0'..=b'9', ..] => digits(text),
        [b'+' | b'-' | b'.', ..] => None,
        _ if WORDS.iter().any(|word| word.eq_ignore_ascii_case(text)) => None,
        _ => Some(Value::String(text.to_owned())),
    }
}

/// What a value is that begins with a digit: a whole number, or text that no number can be.
fn digits(text: &str) -> Option<Value> {
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = text.len() > 1 && text.starts_with('0');
    if decimal && !zeros {
        return text.parse::<u64>().ok().map(|n| Value::Number(n.into()));
    }
    let dots = text.bytes().filter(|byte| *byte == b'.').count();
    let other = |byte| !matches!(byte, b'0'..=b'9' | b'_' | b'.' | b'e' | b'E' | b'+' | b'-');
    let no_number = dots > 1 || !zeros && text.bytes().any(other);
    no_number.then(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{any, split};
    use super::*;

    /// What the short way makes of the first document, which the long way agrees with.
    fn both(text: &str) -> Option<Node> {
        let documents = split(text);
        let document = documents.first()?;
        let node = read(document)?;
        assert_eq!(any::read(document), Ok(node.clone()), "{text:?}");
        Some(node)
    }

    #[test]
    fn both_ways_read_a_manifest_alike() {
        let text = "# a comment\n%x: 1\n";
        assert_eq!(both(text), None);
        for text in [
            "---\napiVersion: v1\nkind: Service # of a shop\nmetadata:\n  name: web\n  labels: {app: web, 'a b': \"c\\n\"}\nspec:\n  ports:\n  - port: 80\n    targetPort: http\n  -\n    port: 0\n  clusterIP: 10.0.0.1\n  x: |\n    two\n    lines\n  empty:\n  list: []\n  more: >-\n    a\n    b\n",
            "{\"a\": [1, true, \"x\"], \"b\": {}}\n",
            "addresses:\n- 10.1.2.3\n- fd00::1\n- 2001:db8::1\n- 10.0.0.0/8\nage: 5d59f\n",
            "- a\n- - b\n  - c\n- d: e\n  f: g\n",
            "just text over\n  two lines\n",
        ] {
            assert!(both(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn what_takes_a_closer_look_is_left_to_the_long_way() {
        for text in [
            "a: &x 1\nb: *x\n",
            "a: {<<: {b: 1}}\n",
            "a: !!str 1\n",
            "a: 1\na: 2\n",
            "a: 1.5\n",
            "a: 0x10\n",
            "a: 1e3\n",
            "a: -1\n",
            "a: Null\n",
            "a: yes\n",
            "on: x\n",
            "1: x\n",
            "? [a]\n: b\n",
            "a: [1\n",
            "%YAML 1.2\n---\na: 1\n",
            "a: 99999999999999999999\n",
        ] {
            assert_eq!(read(&split(text)[0]), None, "{text:?}");
        }
        let deep = format!("{}{}\n", "[".repeat(40), "]".repeat(40));
        assert_eq!(read(&split(&deep)[0]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_value_is_the_same_both_ways(text in "[0-9a-fA-FxXoO_.:/+~-]{0,6}|[tfynoTFYNO][a-zA-Z]{0,7}|[0-9]{1,21}|\\PC{0,8}") {
            for text in [format!("a: {text}\n"), format!("{text}: a\n"), format!("- {text}\n"), format!("[{text}, b]\n")] {
                both(&text);
            }
        }

        #[test]
        fn lines_of_anything_are_the_same_both_ways(text in "(( |  |    |- |  - )?[a-c]{0,2}(: |:|, |- |#|'|\"|\\[|\\]|\\{|\\}|\\||>|&a |\\*a|!x )?[a-c0-9.~]{0,3}\n){0,8}") {
            both(&text);
        }
    }
}
