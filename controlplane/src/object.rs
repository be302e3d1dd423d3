//! What the sources and the index talk about: Kubernetes objects, where they were written, and
//! what can be wrong with them. Holds no rules about Services.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_conf::message::controlplane::Problem;

use crate::kinds::{AddressPool, ServicePolicy};
use crate::source::document::Node;
use crate::words;

/// The kinds of object that the control plane reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `sluice.dev/v1alpha1` AddressPool.
    AddressPool,
    /// `sluice.dev/v1alpha1` ServicePolicy.
    ServicePolicy,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Pod.
    Pod,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Namespace,
        Kind::Node,
        Kind::AddressPool,
        Kind::ServicePolicy,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Pod,
    ];

    /// Its name in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::AddressPool => "AddressPool",
            Kind::ServicePolicy => "ServicePolicy",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Pod => "Pod",
        }
    }

    /// Its `apiVersion` in manifests.
    pub const fn api_version(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::Node | Kind::Service | Kind::Pod => "v1",
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::AddressPool | Kind::ServicePolicy => "sluice.dev/v1alpha1",
        }
    }

    /// Whether its objects stand in namespaces.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Kind::Namespace | Kind::Node | Kind::AddressPool)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kind, namespace and name: there is one object of each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Kind.
    pub kind: Kind,
    /// Namespace; manifests without one mean `default`. Empty for kinds without.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectId {
    /// The object of that kind and name.
    pub fn of(kind: Kind, name: &NamespacedName) -> Self {
        Self {
            kind,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        }
    }

    /// Its name without its kind.
    pub fn named(&self) -> NamespacedName {
        NamespacedName::new(&self.namespace, &self.name)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.is_namespaced() {
            true => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
            false => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Namespace and name of an object whose kind is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl NamespacedName {
    /// The name of an object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name that metadata give; a namespace that is not written is `default`.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let written = metadata.namespace.as_deref().filter(|n| !n.is_empty());
        let name = metadata.name.as_deref().unwrap_or_default();
        Self::new(written.unwrap_or("default"), name)
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The id that metadata give; a namespace that is not written is `default`.
pub(crate) fn id(kind: Kind, metadata: &ObjectMeta) -> ObjectId {
    let mut name = NamespacedName::of(metadata);
    if !kind.is_namespaced() {
        name.namespace.clear();
    }
    ObjectId::of(kind, &name)
}

/// An object as the Kubernetes API, or Sluice's own group, defines it, not checked beyond its types.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A Namespace.
    Namespace(Box<core::Namespace>),
    /// A Node.
    Node(Box<core::Node>),
    /// An AddressPool.
    AddressPool(Box<AddressPool>),
    /// A ServicePolicy.
    ServicePolicy(Box<ServicePolicy>),
    /// A Service.
    Service(Box<core::Service>),
    /// An EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// A Pod.
    Pod(Box<core::Pod>),
}

/// Where an object was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// File, as the operator would name it.
    pub file: String,
    /// Line where the object starts, counted from 1; absent when the source has no lines.
    pub line: Option<u32>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// Finds the line of a field of one object.
#[derive(Debug, Clone, Default)]
pub struct Lines(Option<Arc<Node>>);

impl Lines {
    /// Lines of the object that was read from `node`.
    pub fn of(node: Node) -> Self {
        Self(Some(Arc::new(node)))
    }

    /// Line of `field`, for example `spec.ports[0].port`, or of its nearest written parent.
    pub fn line(&self, field: &str) -> Option<u32> {
        self.0.as_ref().map(|node| node.line_of(field))
    }
}

/// Something wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Path of the field, for example `spec.ports[0].port`; empty for the object as a whole.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
    /// Whether the whole object is refused; otherwise only what the message says is left out.
    pub fatal: bool,
}

/// Result of checking an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T> {
    /// The object in the form that the compiler reads; `None` when an issue is fatal.
    pub good: Option<T>,
    /// What is wrong.
    pub issues: Vec<Issue>,
    /// What is right but not served; for the log.
    pub notes: Vec<String>,
}

/// Issues of one object that are told one by one: a slice of 1000 endpoints can have as many, and
/// nobody reads more than the first.
pub(crate) const MAX_ISSUES: usize = 10;

/// Collects issues and notes while an object is checked.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) issues: Vec<Issue>,
    pub(crate) notes: Vec<String>,
    refused: bool,
    left_out: usize,
    first_left_out: String,
}

impl Report {
    pub(crate) fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.issue(field.into(), message.into(), true);
    }

    pub(crate) fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.issue(field.into(), message.into(), false);
    }

    /// Whether an issue refuses the whole object.
    pub(crate) fn refuses(&self) -> bool {
        self.refused
    }

    pub(crate) fn note(&mut self, message: impl Into<String>) {
        self.notes.push(message.into());
    }

    pub(crate) fn finish<T>(mut self, object: T) -> Checked<T> {
        if self.left_out > 0 {
            self.issues.push(Issue {
                field: self.first_left_out,
                message: format!(
                    "{} from here on",
                    words::count(self.left_out, "more problem")
                ),
                fatal: false,
            });
        }
        Checked {
            good: (!self.refused).then_some(object),
            issues: self.issues,
            notes: self.notes,
        }
    }

    fn issue(&mut self, field: String, message: String, fatal: bool) {
        self.refused |= fatal;
        if self.issues.len() == MAX_ISSUES {
            if self.left_out == 0 {
                self.first_left_out = field;
            }
            self.left_out += 1;
            return;
        }
        self.issues.push(Issue {
            field,
            message,
            fatal,
        });
    }
}

/// A problem with the object `id` that stands at `origin`.
pub(crate) fn problem(
    id: &ObjectId,
    origin: &Origin,
    field: Option<&str>,
    message: String,
) -> Problem {
    Problem {
        file: origin.file.clone(),
        line: origin.line,
        object: Some(id.to_string()),
        field: field.map(str::to_owned),
        message,
    }
}

/// Issues of an object without lines, as problems of the place where it stands.
pub(crate) fn problems(id: &ObjectId, origin: &Origin, issues: Vec<Issue>) -> Vec<Problem> {
    let problem = |issue: Issue| problem(id, origin, Some(&issue.field), issue.message);
    issues.into_iter().map(problem).collect()
}

/// A problem as one line: `file:line object field: message`.
pub fn describe(problem: &Problem) -> String {
    let mut text = problem.file.clone();
    if let Some(line) = problem.line {
        text.push_str(&format!(":{line}"));
    }
    for part in [&problem.object, &problem.field].into_iter().flatten() {
        text.push(' ');
        text.push_str(part);
    }
    let text = format!("{text}: {}", problem.message);
    // Names come from manifests: they must not be able to draw on a terminal or forge log lines.
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Whether `text` is a label by RFC 1123: what namespaces, Services and ports are named by.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| inner(&byte))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` is a DNS subdomain by RFC 1123: what EndpointSlices are named by.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_rfc_1123() {
        for good in ["web", "a", "0web", "my-web-2", &"a".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "Web", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_subdomain("web-abc12.v1"));
        assert!(!is_subdomain("web..v1"));
    }

    #[test]
    fn of_many_issues_the_first_are_listed_and_the_last_still_refuses() {
        let mut report = Report::default();
        for number in 0..MAX_ISSUES + 6 {
            report.warn(format!("a[{number}]"), "is odd");
        }
        report.refuse("z", "is wrong");
        let checked = report.finish(());
        assert_eq!(checked.good, None);
        assert_eq!(checked.issues.len(), MAX_ISSUES + 1);
        let last = &checked.issues[MAX_ISSUES];
        assert_eq!(last.field, "a[10]");
        assert_eq!(last.message, "7 more problems from here on");
    }

    #[test]
    fn a_name_cannot_forge_a_line_of_the_log() {
        let problem = Problem {
            file: "web.yaml".into(),
            line: None,
            object: Some("Service default/a\n\u{1b}[2J".into()),
            field: None,
            message: "ä".into(),
        };
        assert_eq!(
            describe(&problem),
            "web.yaml Service default/a\\n\\u{1b}[2J: ä"
        );
    }

    #[test]
    fn a_problem_is_one_line() {
        let id = ObjectId {
            kind: Kind::Service,
            namespace: "default".into(),
            name: "web".into(),
        };
        let origin = Origin {
            file: "web.yaml".into(),
            line: Some(7),
        };
        let problem = problem(&id, &origin, Some("spec.ports[0].port"), "is 0".into());
        assert_eq!(
            describe(&problem),
            "web.yaml:7 Service default/web spec.ports[0].port: is 0"
        );
    }
}
