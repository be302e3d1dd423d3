//! The shapes of an API server's answers.

use serde_json::{Value, json};

use super::kinds::{KINDS, Kind, OWN, Target};

/// A Status that says no.
pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code
    })
}

fn about(target: &Target, code: u16, reason: &str, message: &str) -> (u16, Value) {
    let mut status = status(code, reason, message);
    status["details"] = json!({ "name": target.name, "kind": target.kind.plural });
    (code, status)
}

fn named(target: &Target) -> String {
    let name = target.name.as_deref().unwrap_or_default();
    format!("{} \"{name}\"", target.kind.plural)
}

/// There is no such object.
pub fn not_found(target: &Target) -> (u16, Value) {
    about(
        target,
        404,
        "NotFound",
        &format!("{} not found", named(target)),
    )
}

/// There is one already.
pub fn exists(target: &Target) -> (u16, Value) {
    about(
        target,
        409,
        "AlreadyExists",
        &format!("{} already exists", named(target)),
    )
}

/// It was changed meanwhile.
pub fn conflict(target: &Target) -> (u16, Value) {
    let message = format!(
        "Operation cannot be fulfilled on {}: the object has been modified; please apply your \
         changes to the latest version and try again",
        named(target)
    );
    about(target, 409, "Conflict", &message)
}

/// The version that was asked for is to come yet.
pub fn too_large(version: u64, current: u64) -> (u16, Value) {
    let message = format!("Timeout: Too large resource version: {version}, current: {current}");
    let mut status = status(504, "Timeout", &message);
    status["details"] = json!({
        "causes": [{
            "reason": "ResourceVersionTooLarge",
            "message": "Too large resource version"
        }],
        "retryAfterSeconds": 1
    });
    (504, status)
}

/// The rest of a list is kept no more.
pub fn expired_continue() -> (u16, Value) {
    let message = "The provided continue parameter is too old to display a consistent list result.";
    let mut status = status(410, "Expired", message);
    status["metadata"]["continue"] = json!("inconsistent");
    (410, status)
}

/// The server was not asked as it wants to be.
pub fn not_streaming() -> (u16, Value) {
    let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless \
                   the WatchList feature gate is enabled";
    (422, status(422, "Invalid", message))
}

/// A list of objects. Those in a list do not say what they are.
pub fn list(kind: Kind, version: u64, items: Vec<Value>, rest: Option<(String, usize)>) -> Value {
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some((token, remaining)) = rest {
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(remaining);
    }
    let bare = |mut item: Value| {
        if let Some(fields) = item.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        item
    };
    json!({
        "kind": format!("{}List", kind.name),
        "apiVersion": kind.group_version,
        "metadata": metadata,
        "items": items.into_iter().map(bare).collect::<Vec<_>>()
    })
}

/// One line of a watch.
pub fn event(verb: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": verb, "object": object }))
}

/// A bookmark; `end` marks that of a streamed list's end.
pub fn bookmark(kind: Kind, version: u64, end: bool) -> String {
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({
        "kind": kind.name, "apiVersion": kind.group_version, "metadata": metadata
    });
    event("BOOKMARK", &object)
}

/// What the server says of itself at `path`; `None` when nothing is there.
pub fn discovery(path: &str, own: bool) -> Option<Value> {
    let shown = |kind: &&Kind| own || kind.group_version != OWN;
    match path {
        "/version" => return Some(json!({ "major": "1", "minor": "35", "gitVersion": "v1.35.3" })),
        "/api" => return Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        "/apis" => {
            let versions = KINDS.iter().filter(shown).map(|kind| kind.group_version);
            let mut groups: Vec<Value> = versions
                .filter_map(|version| Some((version.split_once('/')?.0, version)))
                .map(|(name, version)| {
                    json!({ "name": name, "versions": [{ "groupVersion": version }] })
                })
                .collect();
            groups.dedup();
            return Some(json!({
                "kind": "APIGroupList", "apiVersion": "v1", "groups": groups
            }));
        }
        _ => {}
    }
    let version = path
        .strip_prefix("/apis/")
        .or_else(|| path.strip_prefix("/api/"))?;
    let kinds = KINDS.iter().filter(shown);
    let resources: Vec<Value> = kinds
        .filter(|kind| kind.group_version == version)
        .map(|kind| {
            json!({
                "name": kind.plural, "singularName": "", "namespaced": kind.namespaced,
                "kind": kind.name, "verbs": ["create", "delete", "get", "list", "update", "watch"]
            })
        })
        .collect();
    let found = json!({
        "kind": "APIResourceList", "groupVersion": version, "resources": resources
    });
    (!resources.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::kinds::target;
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            serde_json::from_str::<Value>(include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/fixtures/kubernetes/",
                $name
            )))
            .unwrap()
        };
    }

    fn services(name: &str) -> Target {
        target(&format!("/api/v1/namespaces/demo/services/{name}")).unwrap()
    }

    fn keys(value: &Value) -> Vec<&str> {
        let fields = value.as_object().unwrap();
        fields.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_refusal_is_that_of_a_real_server_to_the_letter() {
        assert_eq!(
            not_found(&services("nope")).1,
            fixture!("error.notfound.json")
        );
        assert_eq!(
            exists(&services("web")).1,
            fixture!("error.conflict-exists.json")
        );
        assert_eq!(
            conflict(&services("web")).1,
            fixture!("error.conflict-rv.json")
        );
        assert_eq!(
            too_large(99_999_999, 290).1,
            fixture!("error.rv-too-large.json")
        );
        let unauthorized = status(401, "Unauthorized", "Unauthorized");
        assert_eq!(unauthorized, fixture!("error.unauthorized.json"));
        let expired = status(410, "Expired", "too old resource version: 267 (297)");
        let line: Value = serde_json::from_str(&event("ERROR", &expired)).unwrap();
        assert_eq!(line, fixture!("endpointslices.watch-expired.jsonl"));
    }

    #[test]
    fn other_answers_have_the_shape_of_a_real_servers() {
        let real = fixture!("error.continue-expired.json");
        assert_eq!(keys(&expired_continue().1), keys(&real));
        assert_eq!(
            keys(&expired_continue().1["metadata"]),
            keys(&real["metadata"])
        );
        let real = fixture!("endpointslices.limit1.json");
        let kind = target("/apis/discovery.k8s.io/v1/endpointslices")
            .unwrap()
            .kind;
        let object = json!({ "kind": "EndpointSlice", "apiVersion": "x", "metadata": {} });
        let ours = list(kind, 267, vec![object], Some(("token".into(), 3)));
        assert_eq!(keys(&ours), keys(&real));
        assert_eq!(keys(&ours["metadata"]), keys(&real["metadata"]));
        assert_eq!(ours["metadata"]["remainingItemCount"], 3);
        assert!(real["items"][0].get("kind").is_none());
        assert_eq!(keys(&ours["items"][0]), ["metadata"]);
        let lines = include_str!("../../fixtures/kubernetes/services.watch-streaming.jsonl");
        let end = lines.lines().nth(1).unwrap();
        let real: Value = serde_json::from_str(end).unwrap();
        let kind = services("web").kind;
        let ours: Value = serde_json::from_str(&bookmark(kind, 203, true)).unwrap();
        assert_eq!(ours["type"], real["type"]);
        assert_eq!(ours["object"]["metadata"], real["object"]["metadata"]);
    }
}
