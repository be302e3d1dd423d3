//! The kinds that are read from the API, and what one object of an answer becomes.
//!
//! Guarantees: what the index has no use for (managed fields, the manifest that `kubectl apply`
//! keeps) is gone before anything is kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::ApiError;
use crate::object::{self, Issue, Kind, Object, ObjectId};
use crate::words;

/// Names the service proxy that alone serves a Service (k8s.io/kubernetes pkg/proxy/apis,
/// `LabelServiceProxyName`).
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Marks the slices of headless Services (core/v1 `IsHeadlessService`).
const HEADLESS: &str = "service.kubernetes.io/headless";
/// A whole copy of the object, kept by `kubectl apply`.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Which objects a reflector asks for when only some namespaces are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of each namespace.
    Namespaced,
    /// All: the kind knows no namespaces.
    Cluster,
    /// The namespaces themselves.
    Namespaces,
}

/// One kind of the API.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    /// Kind.
    pub kind: Kind,
    /// Group and version, for example `v1` or `discovery.k8s.io/v1`.
    pub group_version: &'static str,
    /// Name in paths, for example `services`.
    pub plural: &'static str,
    /// Where its objects live.
    pub scope: Scope,
    /// Whether a cluster may not know it.
    pub optional: bool,
    /// Reads one object.
    pub object: fn(Value) -> Result<Object, Mistyped>,
}

/// Every kind that the control plane reads from an API server. Pods are not among them: the
/// controller of the API server makes slices of them.
pub const RESOURCES: [Resource; 6] = [
    Resource {
        kind: Kind::Service,
        group_version: "v1",
        plural: "services",
        scope: Scope::Namespaced,
        optional: false,
        object: |value| boxed(value, Object::Service),
    },
    Resource {
        kind: Kind::EndpointSlice,
        group_version: "discovery.k8s.io/v1",
        plural: "endpointslices",
        scope: Scope::Namespaced,
        optional: false,
        object: |value| boxed(value, Object::EndpointSlice),
    },
    Resource {
        kind: Kind::Node,
        group_version: "v1",
        plural: "nodes",
        scope: Scope::Cluster,
        optional: false,
        object: |value| boxed(value, Object::Node),
    },
    Resource {
        kind: Kind::Namespace,
        group_version: "v1",
        plural: "namespaces",
        scope: Scope::Namespaces,
        optional: false,
        object: |value| boxed(value, Object::Namespace),
    },
    Resource {
        kind: Kind::AddressPool,
        group_version: "sluice.dev/v1alpha1",
        plural: "addresspools",
        scope: Scope::Cluster,
        optional: true,
        object: |value| boxed(value, Object::AddressPool),
    },
    Resource {
        kind: Kind::ServicePolicy,
        group_version: "sluice.dev/v1alpha1",
        plural: "servicepolicies",
        scope: Scope::Namespaced,
        optional: true,
        object: |value| boxed(value, Object::ServicePolicy),
    },
];

fn boxed<T: DeserializeOwned>(
    value: Value,
    object: fn(Box<T>) -> Object,
) -> Result<Object, Mistyped> {
    typed(value).map(Box::new).map(object)
}

/// A field that has another type than its kind gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistyped {
    field: String,
    message: String,
}

/// Which Services and EndpointSlices are this gateway's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The `service.kubernetes.io/service-proxy-name` of this gateway: what names another is not
    /// its, what names none is.
    pub proxy_name: Option<String>,
    /// Whether slices of headless Services are read, which only DNS has a use for.
    pub headless: bool,
}

/// One object of an answer.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: ObjectId,
    /// Its resource version.
    pub(super) version: String,
    /// Whether it is this gateway's.
    pub(super) wanted: bool,
    /// The object; `None` when a field has the wrong type, which the issues tell.
    pub(super) object: Option<Object>,
    pub(super) issues: Vec<Issue>,
}

#[derive(Deserialize)]
struct Head {
    metadata: ObjectMeta,
}

impl Resource {
    /// Path of the collection, for all namespaces when none is given.
    pub(super) fn path(&self, namespace: Option<&str>) -> String {
        let api = match self.group_version.contains('/') {
            true => "apis",
            false => "api",
        };
        let (version, plural) = (self.group_version, self.plural);
        match namespace {
            Some(name) if self.scope == Scope::Namespaced => {
                format!("/{api}/{version}/namespaces/{name}/{plural}")
            }
            _ => format!("/{api}/{version}/{plural}"),
        }
    }

    /// Selects the one namespace that is asked for, where the kind is that of namespaces.
    pub(super) fn fields(&self, namespace: Option<&str>) -> Option<String> {
        let name = namespace.filter(|_| self.scope == Scope::Namespaces)?;
        Some(format!("metadata.name={name}"))
    }

    /// Reads one object. `whole` is false for a deleted object, of which only its head counts.
    pub(super) fn item(
        &self,
        mut value: Value,
        filter: &Filter,
        whole: bool,
    ) -> Result<Item, ApiError> {
        slim(&mut value);
        let kind = self.kind;
        let head: Head = serde_json::from_value(
            serde_json::json!({ "metadata": value["metadata"] }),
        )
        .map_err(|error| ApiError::Nonsense(format!("a {kind} without metadata: {error}")))?;
        let named = value.get("kind").and_then(Value::as_str);
        if let Some(other) = named.filter(|named| *named != kind.to_string()) {
            let other: String = other.chars().take(63).collect();
            return Err(ApiError::Nonsense(format!("a {other:?} among {kind}s")));
        }
        let id = object::id(kind, &head.metadata);
        let version = head.metadata.resource_version.clone().unwrap_or_default();
        if id.name.is_empty() || version.is_empty() {
            let message = format!("a {kind} without name or resourceVersion");
            return Err(ApiError::Nonsense(message));
        }
        let wanted = filter.includes(kind, &head.metadata);
        let read = (whole && wanted).then(|| (self.object)(value));
        let (object, issues) = match read {
            Some(Ok(object)) => (Some(object), Vec::new()),
            Some(Err(mistyped)) => (None, vec![mistyped.issue()]),
            None => (None, Vec::new()),
        };
        Ok(Item {
            id,
            version,
            wanted,
            object,
            issues,
        })
    }
}

impl Filter {
    fn includes(&self, kind: Kind, metadata: &ObjectMeta) -> bool {
        if !matches!(kind, Kind::Service | Kind::EndpointSlice) {
            return true;
        }
        let label = |key| metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let proxy = label(PROXY_NAME);
        let headless = kind == Kind::EndpointSlice && label(HEADLESS).is_some();
        (proxy.is_none() || proxy == self.proxy_name.as_ref()) && (self.headless || !headless)
    }
}

impl Mistyped {
    fn issue(self) -> Issue {
        Issue {
            field: self.field,
            message: self.message,
            fatal: true,
        }
    }
}

/// The object of the API that `value` is.
///
/// # Errors
/// The first field whose type is wrong.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Mistyped> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        Mistyped {
            field: if field == "." { String::new() } else { field },
            message: words::mistyped(&error.inner().to_string()),
        }
    })
}

fn slim(value: &mut Value) {
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.remove("managedFields");
    let annotations = metadata.get_mut("annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(labels: Value) -> Value {
        json!({
            "metadata": {
                "name": "web", "namespace": "demo", "resourceVersion": "7", "labels": labels,
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {LAST_APPLIED: "{}", "a": "b"}
            },
            "spec": {"ports": [{"port": 80}]}
        })
    }

    fn item(value: Value, filter: &Filter) -> Item {
        RESOURCES[0].item(value, filter, true).unwrap()
    }

    #[test]
    fn an_object_is_kept_without_what_nobody_reads() {
        let item = item(service(json!({})), &Filter::default());
        assert_eq!(item.id.to_string(), "Service demo/web");
        assert_eq!(item.version, "7");
        let Some(Object::Service(service)) = item.object else {
            panic!("{:?}", item.issues)
        };
        assert_eq!(service.metadata.managed_fields, None);
        let annotations = service.metadata.annotations.unwrap();
        assert_eq!(annotations.into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn what_names_another_proxy_is_not_ours() {
        let labels = json!({PROXY_NAME: "other"});
        let ours = Filter {
            proxy_name: Some("other".into()),
            ..Filter::default()
        };
        assert!(!item(service(labels.clone()), &Filter::default()).wanted);
        assert!(item(service(labels), &ours).wanted);
        assert!(item(service(json!({})), &ours).wanted);
    }

    #[test]
    fn slices_of_headless_services_are_read_only_when_asked_for() {
        let slice = json!({
            "metadata": {
                "name": "db-1", "namespace": "demo", "resourceVersion": "7",
                "labels": {HEADLESS: ""}
            },
            "addressType": "IPv4", "endpoints": null, "ports": null
        });
        let read = |headless| {
            let filter = Filter {
                headless,
                ..Filter::default()
            };
            RESOURCES[1].item(slice.clone(), &filter, true).unwrap()
        };
        assert!(!read(false).wanted);
        assert!(read(true).wanted && read(true).object.is_some());
    }

    #[test]
    fn a_field_of_the_wrong_type_is_an_issue_of_its_object() {
        let mut value = service(json!({}));
        value["spec"]["ports"][0]["port"] = json!("80");
        let item = item(value, &Filter::default());
        assert_eq!(item.object, None);
        assert_eq!(item.issues.len(), 1);
        assert_eq!(item.issues[0].field, "spec.ports[0].port");
        assert!(item.issues[0].fatal, "{:?}", item.issues);
    }

    #[test]
    fn an_object_of_another_kind_or_without_a_name_is_nonsense() {
        let mut pod = service(json!({}));
        pod["kind"] = json!("Pod");
        let mut nameless = service(json!({}));
        nameless["metadata"]["name"] = json!("");
        for (value, message) in [
            (pod, "sent nonsense: a \"Pod\" among Services"),
            (
                nameless,
                "sent nonsense: a Service without name or resourceVersion",
            ),
        ] {
            let error = RESOURCES[0].item(value, &Filter::default(), true);
            assert_eq!(error.unwrap_err().to_string(), message);
        }
        assert!(
            RESOURCES[0]
                .item(json!(7), &Filter::default(), true)
                .is_err()
        );
    }

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(RESOURCES[0].path(None), "/api/v1/services");
        assert_eq!(
            RESOURCES[1].path(Some("demo")),
            "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices"
        );
        assert_eq!(RESOURCES[1].fields(Some("demo")), None);
        let namespaces = Resource {
            plural: "namespaces",
            scope: Scope::Namespaces,
            ..RESOURCES[0]
        };
        assert_eq!(namespaces.path(Some("demo")), "/api/v1/namespaces");
        let fields = namespaces.fields(Some("demo"));
        assert_eq!(fields.as_deref(), Some("metadata.name=demo"));
    }
}
