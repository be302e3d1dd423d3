//! YAML text to a tree that knows the line of every value.
//!
//! Guarantees: no panic and bounded memory on any text (depth, nodes and alias expansion have
//! budgets); documents of one file are cut apart before they are parsed, so that a broken one
//! does not hurt its neighbours. JSON is read as the YAML it is. It knows nothing of Kubernetes.

mod any;
mod node;
mod plain;

pub use node::{Node, Value};

/// Most values of one document. A `List` with 100,000 endpoints has about 1.5 million.
const MAX_NODES: usize = 4_000_000;

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
    match plain::read(document) {
        Some(node) => Ok(node),
        None => any::read(document),
    }
}

#[cfg(test)]
mod tests;
