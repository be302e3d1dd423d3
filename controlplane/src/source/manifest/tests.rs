//! What files hold, and how their mistakes are named.

use super::*;
use proptest::prelude::*;

const WEB: &str =
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n";

/// Problems of the file, then issues of its objects.
fn lines(manifest: &Manifest) -> Vec<String> {
    let problems = manifest.problems.iter().map(object::describe);
    let issues = manifest.objects.iter().flat_map(|found| {
        found.issues.iter().map(|issue| {
            let mut at = found.origin.clone();
            at.line = found.lines.line(&issue.field);
            let message = issue.message.clone();
            let problem = object::problem(&found.id, &at, Some(&issue.field), message);
            object::describe(&problem)
        })
    });
    problems.chain(issues).collect()
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
            "f.yaml:7 Service default/web spec.ports[0].port: is text \"eighty\" and must be a whole number"
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
fn a_misspelt_kind_or_version_is_a_problem_and_the_object_may_still_be_there() {
    for (wrong, place, message) in [
        ("kind: Servce", "f:2 kind", "\"Servce\" is not a kind of v1"),
        (
            "kind: service",
            "f:2 kind",
            "\"service\" is not a kind of v1",
        ),
        (
            "kind: EndpointSlice",
            "f:2 kind",
            "\"EndpointSlice\" is not a kind of v1",
        ),
    ] {
        let manifest = read("f", WEB.replace("kind: Service", wrong).as_bytes());
        let expected = format!("{place}: {message}; read are Namespace, Node, Service, Pod");
        assert_eq!(lines(&manifest), [expected]);
        assert!(!manifest.complete);
    }
    for version in ["v2", "core", "v1beta1"] {
        let wrong = WEB.replace("apiVersion: v1", &format!("apiVersion: {version}"));
        let manifest = read("f", wrong.as_bytes());
        assert!(
            lines(&manifest)[0].contains("does not exist"),
            "{manifest:?}"
        );
    }
}

#[test]
fn the_older_endpoints_are_ignored_with_advice() {
    let text = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: x}\n";
    let manifest = read("f", text.as_bytes());
    assert_eq!(lines(&manifest), [""; 0]);
    assert!(manifest.notes[0].ends_with("; write an EndpointSlice instead"));
}

#[test]
fn a_file_of_nothing_but_mistakes_is_told_in_a_few_lines() {
    let manifest = read("f", "---\nx\n".repeat(5000).as_bytes());
    assert_eq!(manifest.problems.len(), MAX_TOLD + 1);
    assert_eq!(
        lines(&manifest)[MAX_TOLD],
        "f:22: 4990 more problems from here on"
    );
    let other = "---\napiVersion: apps/v1\nkind: Deployment\n".repeat(500);
    let manifest = read("f", other.as_bytes());
    assert_eq!(manifest.notes.len(), MAX_TOLD + 1);
}

#[test]
fn a_file_with_control_characters_is_no_text() {
    for (text, line, code) in [("a: 1\nb\0c", 2, "0000"), ("GIF89a\x01", 1, "0001")] {
        assert_eq!(
            lines(&read("f", text.as_bytes())),
            [format!(
                "f:{line}: is not text: it holds the control character U+{code}"
            )]
        );
    }
    assert_eq!(
        lines(&read("f", WEB.replace('\n', "\r\n").as_bytes())),
        [""; 0]
    );
}

#[test]
fn a_name_that_is_a_number_needs_quotes() {
    let text = WEB.replace("name: web", "name: 123");
    assert_eq!(
        lines(&read("f", text.as_bytes())),
        ["f:4 metadata.name: is not text; put it in quotes"]
    );
}

#[test]
fn a_list_is_expanded() {
    let item = "{apiVersion: v1, kind: Service, metadata: {name: a}}";
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n");
    assert_eq!(names(&read("f", text.as_bytes())), ["Service default/a"]);
    let text =
        "apiVersion: v1\nkind: ServiceList\nitems:\n- {metadata: {name: a}}\n- {metadata: {}}\n";
    let manifest = read("f", text.as_bytes());
    assert_eq!(names(&manifest), ["Service default/a"]);
    assert_eq!(
        lines(&manifest),
        ["f:5 metadata.name: is missing; every Service needs a name"]
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
