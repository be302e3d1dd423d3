//! A tree of values that knows the line of each.

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

    pub(super) fn shift(&mut self, lines: u32) {
        self.line = self.line.saturating_add(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.shift(lines)),
            _ => {}
        }
    }
}
