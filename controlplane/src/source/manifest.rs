//! The bytes of one manifest file to Kubernetes objects, each with the lines of its fields.
//!
//! Guarantees: no panic on any bytes; one bad document costs only itself; every mistake is named
//! with line, object and field as far as they can be told. Whether an object makes sense is not
//! decided here, only whether it has the types of the Kubernetes API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_conf::message::controlplane::Problem;

use super::document::{self, Node, Value};
use crate::object::{self, Kind, Lines, Object, ObjectId, Origin};

/// Unknown fields that are reported of one object; a wrong indentation can make hundreds.
const MAX_UNKNOWN: usize = 5;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Objects in the order written, each once.
    pub objects: Vec<Found>,
    /// What is wrong with the file or its documents.
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
    /// The object; `None` when it is malformed, which a problem tells.
    pub object: Option<Object>,
    /// The lines of its fields.
    pub lines: Lines,
}

/// Reads a file; `file` names it in problems.
pub fn read(file: &str, bytes: &[u8]) -> Manifest {
    let mut reader = Reader::new(file);
    match std::str::from_utf8(bytes) {
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
    reader.manifest
}

struct Reader<'a> {
    file: &'a str,
    manifest: Manifest,
    first_lines: BTreeMap<ObjectId, u32>,
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
        }
    }

    /// A document that cannot be told apart.
    fn unreadable(&mut self, line: Option<u32>, field: Option<&str>, message: String) {
        self.manifest.complete = false;
        self.manifest.problems.push(Problem {
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
        match (version, kind) {
            ("v1", "Service") => self.object(Kind::Service, node),
            ("discovery.k8s.io/v1", "EndpointSlice") => self.object(Kind::EndpointSlice, node),
            ("v1", "List" | "ServiceList") | ("discovery.k8s.io/v1", "EndpointSliceList") => {
                let element = kind.strip_suffix("List").unwrap_or_default().to_owned();
                let version = version.to_owned();
                self.list(node, &version, &element);
            }
            (_, "EndpointSlice") if version.starts_with("discovery.k8s.io/") => {
                let message = format!("{version:?} is not supported; use discovery.k8s.io/v1");
                self.unreadable(
                    Some(node.line_of("apiVersion")),
                    Some("apiVersion"),
                    message,
                );
            }
            _ => {
                let note = format!(
                    "{}:{}: kind {kind} of {version} is not for this gateway and is ignored",
                    self.file, node.line
                );
                self.manifest.notes.push(note);
            }
        }
    }

    /// Expands `items`; those of a typed list may leave out `apiVersion` and `kind`.
    fn list(&mut self, mut node: Node, version: &str, element: &str) {
        let items = match &mut node.value {
            Value::Map(entries) => entries.iter_mut().find(|(key, _)| key == "items"),
            _ => None,
        };
        let items = items.map(|(_, items)| std::mem::replace(&mut items.value, Value::Null));
        match items {
            None | Some(Value::Null) => {}
            Some(Value::List(items)) => {
                for mut item in items {
                    if let (Value::Map(entries), false) = (&mut item.value, element.is_empty()) {
                        for (key, text) in [("apiVersion", version), ("kind", element)] {
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
        let Some(name) = name.and_then(Node::text).filter(|name| !name.is_empty()) else {
            let message = format!("is missing or not text; a {kind} needs a name");
            return self.unreadable(
                Some(node.line_of("metadata.name")),
                Some("metadata.name"),
                message,
            );
        };
        let namespace = node.get("metadata").and_then(|m| m.get("namespace"));
        let namespace = match namespace.map(|namespace| &namespace.value) {
            None | Some(Value::Null) => "default",
            Some(Value::String(namespace)) if namespace.is_empty() => "default",
            Some(Value::String(namespace)) => namespace,
            Some(_) => {
                let field = "metadata.namespace";
                let message = "is not text; put it in quotes".to_owned();
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
            let problem = object::problem(&id, &origin, None, message);
            return self.manifest.problems.push(problem);
        }
        self.first_lines.insert(id.clone(), node.line);
        let object = match kind {
            Kind::Service => self
                .typed::<Service>(&id, &origin, &node)
                .map(|service| Object::Service(Box::new(service))),
            Kind::EndpointSlice => self
                .typed::<EndpointSlice>(&id, &origin, &node)
                .map(|slice| Object::EndpointSlice(Box::new(slice))),
        };
        self.manifest.objects.push(Found {
            id,
            origin,
            object,
            lines: Lines::of(node),
        });
    }

    fn typed<T: DeserializeOwned + Serialize>(
        &mut self,
        id: &ObjectId,
        origin: &Origin,
        node: &Node,
    ) -> Option<T> {
        let result: Result<T, _> = serde_path_to_error::deserialize(node.to_json());
        let mut report = |field: &str, message: String| {
            let origin = Origin {
                file: origin.file.clone(),
                line: Some(node.line_of(field)),
            };
            let field = (!field.is_empty() && field != ".").then_some(field);
            let problem = object::problem(id, &origin, field, message);
            self.manifest.problems.push(problem);
        };
        match result {
            Ok(object) => {
                let known = serde_json::to_value(&object).unwrap_or_default();
                let mut unknown = Vec::new();
                unknown_fields(node, &known, &mut String::new(), &mut unknown);
                for field in unknown.iter().take(MAX_UNKNOWN) {
                    let message = "is not a field of this kind and has no effect".to_owned();
                    report(field, message);
                }
                Some(object)
            }
            Err(error) => {
                let field = error.path().to_string();
                report(&field, error.inner().to_string());
                None
            }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEB: &str =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n";

    fn lines(manifest: &Manifest) -> Vec<String> {
        manifest.problems.iter().map(object::describe).collect()
    }

    fn names(manifest: &Manifest) -> Vec<String> {
        let good = manifest.objects.iter().filter(|f| f.object.is_some());
        good.map(|found| found.id.to_string()).collect()
    }

    #[test]
    fn several_documents_make_several_objects() {
        let text = format!(
            "{WEB}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: shop\naddressType: IPv4\nendpoints: []\n"
        );
        let manifest = read("f.yaml", text.as_bytes());
        assert_eq!(lines(&manifest), [""; 0]);
        assert_eq!(
            names(&manifest),
            ["Service default/web", "EndpointSlice shop/web-1"]
        );
        assert!(manifest.complete);
    }

    #[test]
    fn a_wrong_type_is_named_with_line_and_field() {
        let text = WEB.replace("port: 80", "port: eighty");
        let manifest = read("f.yaml", text.as_bytes());
        assert_eq!(
            lines(&manifest),
            [
                "f.yaml:7 Service default/web spec.ports[0].port: invalid type: string \"eighty\", expected i32"
            ]
        );
        assert!(manifest.complete, "the object is known, only malformed");
        assert_eq!(manifest.objects.len(), 1);
    }

    #[test]
    fn a_bad_document_does_not_hurt_the_others() {
        let text = format!("a: [1\n---\n{WEB}---\n: : :\n  - x\n---\njust text\n");
        let manifest = read("f.yaml", text.as_bytes());
        assert_eq!(names(&manifest), ["Service default/web"]);
        assert!(!manifest.complete);
        assert!(lines(&manifest).len() >= 2, "{:?}", lines(&manifest));
    }

    #[test]
    fn an_unknown_field_is_reported_and_the_object_is_kept() {
        let text = WEB.replace("port: 80", "port: 80\n    targetport: 8080");
        let manifest = read("f.yaml", text.as_bytes());
        assert_eq!(names(&manifest), ["Service default/web"]);
        assert_eq!(
            lines(&manifest),
            [
                "f.yaml:8 Service default/web spec.ports[0].targetport: is not a field of this kind and has no effect"
            ]
        );
    }

    #[test]
    fn other_kinds_are_ignored_with_a_note() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\n";
        let manifest = read("f.yaml", text.as_bytes());
        assert_eq!(lines(&manifest), [""; 0]);
        assert_eq!(manifest.notes.len(), 2);
        assert!(manifest.notes[1].starts_with("f.yaml:5: kind Service of serving.knative.dev/v1"));
    }

    #[test]
    fn a_list_is_expanded() {
        let item = "{apiVersion: v1, kind: Service, metadata: {name: a}}";
        let text = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n");
        assert_eq!(names(&read("f", text.as_bytes())), ["Service default/a"]);
        let text = "apiVersion: v1\nkind: ServiceList\nitems:\n- {metadata: {name: a}}\n- {metadata: {}}\n";
        let manifest = read("f", text.as_bytes());
        assert_eq!(names(&manifest), ["Service default/a"]);
        assert_eq!(
            lines(&manifest),
            ["f:5 metadata.name: is missing or not text; a Service needs a name"]
        );
    }

    #[test]
    fn an_object_twice_in_a_file_is_reported() {
        let manifest = read("f", format!("{WEB}---\n{WEB}").as_bytes());
        assert_eq!(manifest.objects.len(), 1);
        assert_eq!(
            lines(&manifest),
            ["f:9 Service default/web: is defined twice in this file; the one in line 1 is used"]
        );
    }

    #[test]
    fn what_kubectl_prints_is_read_without_a_problem() {
        let text = r#"{"apiVersion":"v1","kind":"Service","metadata":{"annotations":{"a":"b"},"creationTimestamp":"2024-05-01T10:00:00Z",
            "labels":{"app":"web"},"name":"web","namespace":"default","resourceVersion":"12","uid":"u","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}},"manager":"m","operation":"Update","time":"2024-05-01T10:00:00Z"}]},
            "spec":{"clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"],"internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack",
            "ports":[{"port":80,"protocol":"TCP","targetPort":"http"}],"selector":{"app":"web"},"sessionAffinity":"None","type":"ClusterIP"},"status":{"loadBalancer":{}}}"#;
        let manifest = read("f.json", text.as_bytes());
        assert_eq!(lines(&manifest), [""; 0]);
        assert_eq!(names(&manifest), ["Service default/web"]);
    }

    #[test]
    fn a_namespace_that_is_not_text_does_not_become_another_object() {
        let text = WEB.replace("  name: web\n", "  name: web\n  namespace: 7\n");
        let manifest = read("f", text.as_bytes());
        assert_eq!(
            lines(&manifest),
            ["f:5 metadata.namespace: is not text; put it in quotes"]
        );
        assert!(!manifest.complete && manifest.objects.is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_one_problem() {
        let manifest = read("f", b"a: 1\nb: \xff\xfe\n");
        assert_eq!(
            lines(&manifest),
            ["f:2: is not UTF-8 text; save the file as UTF-8"]
        );
        assert!(!manifest.complete);
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_never_panics(at in 0_usize..80, bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
            let mut text = WEB.as_bytes().to_vec();
            let at = at.min(text.len());
            text.splice(at..(at + bytes.len()).min(WEB.len()), bytes);
            let _ = read("f", &text);
        }
    }
}
