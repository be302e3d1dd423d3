//! One document of a manifest to the objects that it holds.

use serde::de::DeserializeOwned;

use super::{Found, Gathered};
use crate::object::{Issue, Kind, Lines, Object, ObjectId, Origin};
use crate::source::document::{Node, Value};
use crate::source::typed;
use crate::words;

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

/// Takes in a document: an object, a list of them, or what is for somebody else.
pub(super) fn take(into: &mut Gathered<'_>, node: Node) {
    let line = Some(node.line);
    match &node.value {
        Value::Null => return,
        Value::Map(_) => {}
        _ => {
            let message = "is not a Kubernetes object; it needs apiVersion, kind and metadata";
            return into.unreadable(line, None, message.to_owned());
        }
    }
    let mut identity = ["", ""];
    for (slot, key) in identity.iter_mut().zip(["apiVersion", "kind"]) {
        match node.get(key).and_then(Node::text) {
            Some(text) => *slot = text,
            None => {
                let message = "is missing or not text; every Kubernetes object has it";
                return into.unreadable(Some(node.line_of(key)), Some(key), message.to_owned());
            }
        }
    }
    let [version, kind] = identity;
    if let Some(kind) = known(version, kind) {
        return object(into, kind, node);
    }
    let element = kind.strip_suffix("List");
    let typed = element.and_then(|element| known(version, element));
    if (version, kind) == ("v1", "List") || typed.is_some() {
        return list(into, node, typed);
    }
    match mistaken(version, kind) {
        Some((field, message)) => {
            into.unreadable(Some(node.line_of(field)), Some(field), message);
        }
        None => into.note(ignored(into.file, node.line, version, kind)),
    }
}

/// Expands `items`; those of a typed list may leave out `apiVersion` and `kind`.
fn list(into: &mut Gathered<'_>, mut node: Node, element: Option<Kind>) {
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
                take(into, item);
            }
        }
        Some(_) => {
            let line = node.line_of("items");
            into.unreadable(Some(line), Some("items"), "is not a list".to_owned());
        }
    }
}

fn object(into: &mut Gathered<'_>, kind: Kind, node: Node) {
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
            return into.unreadable(Some(node.line_of(field)), Some(field), message);
        }
    };
    let namespace = match namespace(kind, &node) {
        Ok(namespace) => namespace,
        Err(message) => {
            let field = "metadata.namespace";
            return into.unreadable(Some(node.line_of(field)), Some(field), message);
        }
    };
    let id = ObjectId {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let origin = Origin {
        file: into.file.to_owned(),
        line: Some(node.line),
    };
    let (object, issues) = read_as(kind, &node);
    into.manifest.objects.push(Found {
        id,
        origin,
        object,
        issues,
        lines: Lines::of(node),
    });
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
    fn boxed<T: DeserializeOwned>(
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
fn typed<T: DeserializeOwned>(node: &Node) -> (Option<T>, Vec<Issue>) {
    let issue = |field: String, message: String, fatal: bool| Issue {
        field,
        message,
        fatal,
    };
    match typed::read(node) {
        Ok((object, unknown)) => {
            let message = "is not a field of this kind and has no effect";
            let first = unknown.first.into_iter();
            let mut issues: Vec<_> = first
                .map(|field| issue(field, message.to_owned(), false))
                .collect();
            if unknown.more > 0 {
                let more = unknown.more;
                let message = format!("{more} more fields have no effect; is it indented well?");
                issues.push(issue(String::new(), message, false));
            }
            (Some(object), issues)
        }
        Err(typed::Mistyped { field, message }) => {
            let message = words::mistyped(&message);
            (None, vec![issue(field, message, true)])
        }
    }
}
