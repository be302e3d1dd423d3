//! The bytes of one manifest file to Kubernetes objects, each with the lines of its fields.
//!
//! Guarantees: no panic on any bytes; one bad document costs only itself; every mistake is named
//! with line, object and field as far as they can be told. Whether an object makes sense is not
//! decided here, only whether it has the types of the Kubernetes API.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_conf::message::controlplane::Problem;

use super::Event;
use super::document::{self, Node, Value};
use crate::object::{self, Issue, Kind, Lines, Object, ObjectId, Origin};
use crate::words;

/// Unknown fields that are reported of one object; a wrong indentation can make hundreds.
const MAX_UNKNOWN: usize = 5;
/// Problems and notes of one file that are told one by one; a file that is no manifest at all can
/// have as many as lines.
const MAX_TOLD: usize = 10;

/// Kinds of the API group that has the version `v1` alone, beside Service. An unknown kind of
/// another group may be anybody's; an unknown one of this group is a typing error.
const CORE_KINDS: [&str; 16] = [
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
];

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
    let mut reader = Reader::new(file);
    match std::str::from_utf8(bytes) {
        Ok(text) if let Some((line, character)) = binary(text) => {
            let code = u32::from(character);
            let message = format!("is not text: it holds the control character U+{code:04X}");
            reader.unreadable(Some(line), None, message);
        }
        Ok(text) => {
            for document in document::split(text) {
                match document::parse(&document) {
                    Ok(node) => reader.document(node),
                    Err(error) => reader.unreadable(Some(error.line), None, error.message),
                }
            }
        }
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            reader.unreadable(
                u32::try_from(line).ok(),
                None,
                "is not UTF-8 text; save the file as UTF-8".to_owned(),
            );
        }
    }
    reader.finish()
}

/// The first character that no manifest holds, and its line.
fn binary(text: &str) -> Option<(u32, char)> {
    let (before, character) = text
        .char_indices()
        .find(|(_, c)| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r'))?;
    let line = text.get(..before)?.bytes().filter(|b| *b == b'\n').count() + 1;
    Some((u32::try_from(line).unwrap_or(u32::MAX), character))
}

struct Reader<'a> {
    file: &'a str,
    manifest: Manifest,
    first_lines: BTreeMap<ObjectId, u32>,
    problems_left_out: usize,
    /// Line of the first of them.
    from_line: Option<u32>,
    notes_left_out: usize,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str) -> Self {
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

    fn document(&mut self, node: Node) {
        let line = Some(node.line);
        match &node.value {
            Value::Null => return,
            Value::Map(_) => {}
            _ => {
                let message = "is not a Kubernetes object; it needs apiVersion, kind and metadata";
                return self.unreadable(line, None, message.to_owned());
            }
        }
        let mut identity = ["", ""];
        for (slot, key) in identity.iter_mut().zip(["apiVersion", "kind"]) {
            match node.get(key).and_then(Node::text) {
                Some(text) => *slot = text,
                None => {
                    let message = "is missing or not text; every Kubernetes object has it";
                    return self.unreadable(Some(node.line_of(key)), Some(key), message.to_owned());
                }
            }
        }
        let [version, kind] = identity;
        if let Some(kind) = known(version, kind) {
            return self.object(kind, node);
        }
        let element = kind.strip_suffix("List");
        let typed = element.and_then(|element| known(version, element));
        if (version, kind) == ("v1", "List") || typed.is_some() {
            return self.list(node, typed);
        }
        match mistaken(version, kind) {
            Some((field, message)) => {
                self.unreadable(Some(node.line_of(field)), Some(field), message);
            }
            None => self.note(ignored(self.file, node.line, version, kind)),
        }
    }

    /// Expands `items`; those of a typed list may leave out `apiVersion` and `kind`.
    fn list(&mut self, mut node: Node, element: Option<Kind>) {
        let items = match &mut node.value {
            Value::Map(entries) => entries.iter_mut().find(|(key, _)| key == "items"),
            _ => None,
        };
        let items = items.map(|(_, items)| std::mem::replace(&mut items.value, Value::Null));
        match items {
            None | Some(Value::Null) => {}
            Some(Value::List(items)) => {
                for mut item in items {
                    if let (Value::Map(entries), Some(kind)) = (&mut item.value, element) {
                        let fields = [("apiVersion", kind.api_version()), ("kind", kind.as_str())];
                        for (key, text) in fields {
                            if !entries.iter().any(|(k, _)| k == key) {
                                let value = Value::String(text.to_owned());
                                entries.push((
                                    key.to_owned(),
                                    Node {
                                        line: item.line,
                                        value,
                                    },
                                ));
                            }
                        }
                    }
                    self.document(item);
                }
            }
            Some(_) => {
                let line = node.line_of("items");
                self.unreadable(Some(line), Some("items"), "is not a list".to_owned());
            }
        }
    }

    fn object(&mut self, kind: Kind, node: Node) {
        let name = node.get("metadata").and_then(|m| m.get("name"));
        let name = match name.map(|name| &name.value) {
            Some(Value::String(name)) if !name.is_empty() => name,
            other => {
                let message = match other {
                    None | Some(Value::Null | Value::String(_)) => {
                        format!("is missing; every {kind} needs a name")
                    }
                    Some(_) => "is not text; put it in quotes".to_owned(),
                };
                let field = "metadata.name";
                return self.unreadable(Some(node.line_of(field)), Some(field), message);
            }
        };
        let namespace = match namespace(kind, &node) {
            Ok(namespace) => namespace,
            Err(message) => {
                let field = "metadata.namespace";
                return self.unreadable(Some(node.line_of(field)), Some(field), message);
            }
        };
        let id = ObjectId {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let origin = Origin {
            file: self.file.to_owned(),
            line: Some(node.line),
        };
        if let Some(first) = self.first_lines.get(&id) {
            let message = format!("is defined twice in this file; the one in line {first} is used");
            return self.problem(object::problem(&id, &origin, None, message));
        }
        self.first_lines.insert(id.clone(), node.line);
        let (object, issues) = read_as(kind, &node);
        self.manifest.objects.push(Found {
            id,
            origin,
            object,
            issues,
            lines: Lines::of(node),
        });
    }
}

/// The kind, when it is one that is read.
fn known(version: &str, kind: &str) -> Option<Kind> {
    let mut kinds = Kind::ALL.into_iter();
    kinds.find(|known| known.api_version() == version && known.as_str() == kind)
}

/// The namespace that an object is written for; empty for kinds without.
fn namespace(kind: Kind, node: &Node) -> Result<&str, String> {
    let written = node.get("metadata").and_then(|m| m.get("namespace"));
    let written = match written.map(|namespace| &namespace.value) {
        None | Some(Value::Null) => "",
        Some(Value::String(namespace)) => namespace,
        Some(_) => return Err("is not text; put it in quotes".to_owned()),
    };
    match (kind.is_namespaced(), written) {
        (true, "") => Ok("default"),
        (true, namespace) => Ok(namespace),
        (false, "") => Ok(""),
        (false, _) => Err(format!("is not possible: a {kind} is in no namespace")),
    }
}

/// The object, when it has the types of its kind, and what is wrong with its fields.
fn read_as(kind: Kind, node: &Node) -> (Option<Object>, Vec<Issue>) {
    fn boxed<T: DeserializeOwned + Serialize>(
        node: &Node,
        object: fn(Box<T>) -> Object,
    ) -> (Option<Object>, Vec<Issue>) {
        let (typed, issues) = typed::<T>(node);
        (typed.map(Box::new).map(object), issues)
    }
    match kind {
        Kind::Namespace => boxed(node, Object::Namespace),
        Kind::Node => boxed(node, Object::Node),
        Kind::AddressPool => boxed(node, Object::AddressPool),
        Kind::ServicePolicy => boxed(node, Object::ServicePolicy),
        Kind::Service => boxed(node, Object::Service),
        Kind::EndpointSlice => boxed(node, Object::EndpointSlice),
        Kind::Pod => boxed(node, Object::Pod),
    }
}

/// The field and the mistake, when an object that is not for this gateway seems to be meant for it.
fn mistaken(version: &str, kind: &str) -> Option<(&'static str, String)> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let of_group = |kind: &&Kind| {
        let own = kind.api_version();
        own.split_once('/').map_or("", |(group, _)| group) == group
    };
    let ours: Vec<Kind> = Kind::ALL.iter().filter(of_group).copied().collect();
    let first = ours.first()?;
    let right = first.api_version();
    // The group without a name never had another version.
    if version != right {
        let message = match group.is_empty() {
            true => format!("{version:?} does not exist; use {right}"),
            false => format!("{version:?} is not supported; use {right}"),
        };
        let is_ours = group.is_empty() || ours.iter().any(|ours| ours.as_str() == kind);
        return is_ours.then_some(("apiVersion", message));
    }
    if right == "v1" && (CORE_KINDS.contains(&kind) || kind.ends_with("List")) {
        return None;
    }
    let names: Vec<&str> = ours.iter().map(|kind| kind.as_str()).collect();
    let names = names.join(", ");
    let message = format!("{kind:?} is not a kind of {version}; read are {names}");
    Some(("kind", message))
}

fn ignored(file: &str, line: u32, version: &str, kind: &str) -> String {
    // Written by hand for Services without a selector, until EndpointSlices came.
    let advice = match (version, kind) {
        ("v1", "Endpoints") => "; write an EndpointSlice instead",
        _ => "",
    };
    format!(
        "{file}:{line}: kind {kind} of {version} is not for this gateway and is ignored{advice}"
    )
}

/// The object of the API, and what is wrong with its fields.
fn typed<T: DeserializeOwned + Serialize>(node: &Node) -> (Option<T>, Vec<Issue>) {
    let result: Result<T, _> = serde_path_to_error::deserialize(node.to_json());
    let issue = |field: &str, message: String, fatal: bool| Issue {
        field: if field == "." { "" } else { field }.to_owned(),
        message,
        fatal,
    };
    match result {
        Ok(object) => {
            let known = serde_json::to_value(&object).unwrap_or_default();
            let mut unknown = Vec::new();
            unknown_fields(node, &known, &mut String::new(), &mut unknown);
            let message = "is not a field of this kind and has no effect";
            let issues = unknown.iter().take(MAX_UNKNOWN);
            let mut issues: Vec<_> = issues
                .map(|field| issue(field, message.to_owned(), false))
                .collect();
            if unknown.len() > MAX_UNKNOWN {
                let left_out = unknown.len() - MAX_UNKNOWN;
                let message =
                    format!("{left_out} more fields have no effect; is it indented well?");
                issues.push(issue("", message, false));
            }
            (Some(object), issues)
        }
        Err(error) => {
            let field = error.path().to_string();
            let message = words::mistyped(&error.inner().to_string());
            (None, vec![issue(&field, message, true)])
        }
    }
}

/// Paths of fields that are written but did not survive the way through the typed object.
fn unknown_fields(
    node: &Node,
    known: &serde_json::Value,
    path: &mut String,
    unknown: &mut Vec<String>,
) {
    let length = path.len();
    match (&node.value, known) {
        (Value::Map(entries), serde_json::Value::Object(known)) => {
            for (key, value) in entries {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match known.get(key) {
                    Some(known) => unknown_fields(value, known, path, unknown),
                    None if value.value == Value::Null => {}
                    None => unknown.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::List(items), serde_json::Value::Array(known)) => {
            for (index, (item, known)) in items.iter().zip(known).enumerate() {
                path.push_str(&format!("[{index}]"));
                unknown_fields(item, known, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
