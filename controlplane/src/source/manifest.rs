//! The bytes of one manifest file to Kubernetes objects, each with the lines of its fields.
//!
//! Guarantees: no panic on any bytes; one bad document costs only itself; every mistake is named
//! with line, object and field as far as they can be told. Whether an object makes sense is not
//! decided here, only whether it has the types of the Kubernetes API.

use std::collections::BTreeMap;

use sluice_conf::message::controlplane::Problem;

use super::Event;
use super::document::{self, Document};
use crate::object::{self, Issue, Lines, Object, ObjectId, Origin};
use crate::{parallel, words};

mod objects;

/// Problems and notes of one file that are told one by one; a file that is no manifest at all can
/// have as many as lines.
const MAX_TOLD: usize = 10;

/// Bytes of documents that one thread reads at a time.
const SHARE: usize = 256 << 10;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Objects in the order written, each once.
    pub objects: Vec<Found>,
    /// What is wrong with the file or its documents, beside the issues of the objects.
    pub problems: Vec<Problem>,
    /// What was skipped on purpose, for the log.
    pub notes: Vec<String>,
    /// Whether every document could be told apart; when not, an object that is not listed may
    /// still be in the file.
    pub complete: bool,
}

/// One object of a file.
#[derive(Debug)]
pub struct Found {
    /// Which object.
    pub id: ObjectId,
    /// Where it stands.
    pub origin: Origin,
    /// The object; `None` when it is malformed, which an issue tells.
    pub object: Option<Object>,
    /// Fields of the wrong type and fields that the API does not have.
    pub issues: Vec<Issue>,
    /// The lines of its fields.
    pub lines: Lines,
}

impl From<Found> for Event {
    /// The object as a file has it; nobody has admitted it.
    fn from(found: Found) -> Self {
        Event::Apply {
            id: found.id,
            origin: found.origin,
            object: found.object,
            issues: found.issues,
            lines: found.lines,
            admitted: false,
        }
    }
}

/// Reads a file; `file` names it in problems.
pub fn read(file: &str, bytes: &[u8]) -> Manifest {
    let mut gathered = Gathered::of(file);
    match std::str::from_utf8(bytes) {
        Ok(text) if let Some((line, character)) = binary(text) => {
            let code = u32::from(character);
            let message = format!("is not text: it holds the control character U+{code:04X}");
            gathered.unreadable(Some(line), None, message);
        }
        Ok(text) => {
            let documents = document::split(text);
            for part in parallel::map(&shares(&documents), |share| read_share(file, share)) {
                gathered.absorb(part);
            }
        }
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            gathered.unreadable(
                u32::try_from(line).ok(),
                None,
                "is not UTF-8 text; save the file as UTF-8".to_owned(),
            );
        }
    }
    gathered.finish()
}

/// Documents that follow each other, in pieces of about [`SHARE`] bytes.
fn shares<'d, 'a>(documents: &'d [Document<'a>]) -> Vec<&'d [Document<'a>]> {
    let mut shares = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (number, document) in (1..).zip(documents) {
        bytes += document.text.len();
        if bytes >= SHARE || number == documents.len() {
            shares.extend(documents.get(start..number));
            (start, bytes) = (number, 0);
        }
    }
    shares
}

fn read_share<'a>(file: &'a str, documents: &[Document<'_>]) -> Gathered<'a> {
    let mut gathered = Gathered::of(file);
    for document in documents {
        match document::parse(document) {
            Ok(node) => objects::take(&mut gathered, node),
            Err(error) => gathered.unreadable(Some(error.line), None, error.message),
        }
    }
    gathered
}

/// The first character that no manifest holds, and its line.
fn binary(text: &str) -> Option<(u32, char)> {
    let (before, character) = text
        .char_indices()
        .find(|(_, c)| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r'))?;
    let line = text.get(..before)?.bytes().filter(|b| *b == b'\n').count() + 1;
    Some((u32::try_from(line).unwrap_or(u32::MAX), character))
}

/// What was found in a file, or in a part of it, so far.
struct Gathered<'a> {
    file: &'a str,
    manifest: Manifest,
    /// Where the objects stand of the parts that were absorbed.
    first_lines: BTreeMap<ObjectId, u32>,
    problems_left_out: usize,
    /// Line of the first of them.
    from_line: Option<u32>,
    notes_left_out: usize,
}

impl<'a> Gathered<'a> {
    fn of(file: &'a str) -> Self {
        Self {
            file,
            manifest: Manifest {
                complete: true,
                ..Manifest::default()
            },
            first_lines: BTreeMap::new(),
            problems_left_out: 0,
            from_line: None,
            notes_left_out: 0,
        }
    }

    fn finish(mut self) -> Manifest {
        if self.problems_left_out > 0 {
            let more = words::count(self.problems_left_out, "more problem");
            let message = format!("{more} from here on");
            self.manifest.problems.push(Problem {
                file: self.file.to_owned(),
                line: self.from_line,
                object: None,
                field: None,
                message,
            });
        }
        if self.notes_left_out > 0 {
            let more = words::count(self.notes_left_out, "more object");
            let note = format!("{}: {more} not for this gateway, ignored", self.file);
            self.manifest.notes.push(note);
        }
        self.manifest
    }

    fn problem(&mut self, problem: Problem) {
        match self.manifest.problems.len() < MAX_TOLD {
            true => self.manifest.problems.push(problem),
            false => {
                if self.problems_left_out == 0 {
                    self.from_line = problem.line;
                }
                self.problems_left_out += 1;
            }
        }
    }

    fn note(&mut self, note: String) {
        match self.manifest.notes.len() < MAX_TOLD {
            true => self.manifest.notes.push(note),
            false => self.notes_left_out += 1,
        }
    }

    /// A document that cannot be told apart.
    fn unreadable(&mut self, line: Option<u32>, field: Option<&str>, message: String) {
        self.manifest.complete = false;
        self.problem(Problem {
            file: self.file.to_owned(),
            line,
            object: None,
            field: field.map(str::to_owned),
            message,
        });
    }

    /// Takes in what the part of the file that comes next holds.
    fn absorb(&mut self, part: Gathered<'_>) {
        self.manifest.complete &= part.manifest.complete;
        for found in part.manifest.objects {
            self.once(found);
        }
        for problem in part.manifest.problems {
            self.problem(problem);
        }
        if part.problems_left_out > 0 && self.problems_left_out == 0 {
            self.from_line = part.from_line;
        }
        self.problems_left_out += part.problems_left_out;
        for note in part.manifest.notes {
            self.note(note);
        }
        self.notes_left_out += part.notes_left_out;
    }

    /// Keeps an object; of one that is there twice, the first.
    fn once(&mut self, found: Found) {
        if let Some(first) = self.first_lines.get(&found.id) {
            let message = format!("is defined twice in this file; the one in line {first} is used");
            let problem = object::problem(&found.id, &found.origin, None, message);
            return self.problem(problem);
        }
        let line = found.origin.line.unwrap_or_default();
        self.first_lines.insert(found.id.clone(), line);
        self.manifest.objects.push(found);
    }
}

#[cfg(test)]
mod tests;
