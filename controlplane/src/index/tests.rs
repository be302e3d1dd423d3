//! Versions of objects, as files come and go.

use super::*;
use crate::object::Object;
use crate::testing::{Gateway, service};

fn web() -> ObjectId {
    ObjectId {
        kind: Kind::Service,
        namespace: "default".into(),
        name: "web".into(),
    }
}

fn port(gateway: &Gateway) -> Option<u16> {
    let services = gateway.services();
    let known = services.first()?;
    known.object.ports.first().map(|port| port.port)
}

/// Problems, but not that nobody serves.
fn told(gateway: &Gateway) -> Vec<String> {
    let mut told = gateway.problems();
    told.retain(|line| !line.contains("has no EndpointSlice"));
    told
}

fn doubt(gateway: &mut Gateway, file: &str) {
    let file = file.to_owned();
    gateway.event(Event::Doubt { id: web(), file });
    gateway.settle();
}

fn delete(gateway: &mut Gateway, file: &str) {
    let file = file.to_owned();
    gateway.event(Event::Delete { id: web(), file });
    gateway.settle();
}

#[test]
fn a_bad_document_keeps_the_last_good_version_of_its_object() {
    let mut gateway = Gateway::default();
    let good = service("web", "10.96.0.10");
    gateway.apply("a.yaml", &good);
    gateway.apply("a.yaml", &good.replace("port: 80", "port: 0"));
    assert_eq!(port(&gateway), Some(80));
    assert_eq!(
        told(&gateway),
        [
            "a.yaml:8 Service default/web spec.ports[0].port: is missing or 0; use 1 to 65535 (its last good version stays in use)"
        ]
    );
    gateway.apply("a.yaml", &good.replace("port: 80", "port: 81"));
    assert_eq!(port(&gateway), Some(81));
    assert_eq!(told(&gateway), [""; 0]);
}

#[test]
fn an_object_that_was_never_good_is_not_served() {
    let mut gateway = Gateway::default();
    gateway.apply("a.yaml", &service("web", "nonsense"));
    assert_eq!(port(&gateway), None);
    assert_eq!(
        told(&gateway),
        [
            "a.yaml:6 Service default/web spec.clusterIP: \"nonsense\" is not an IP address (it is not served)"
        ]
    );
}

#[test]
fn what_was_wrong_with_an_older_version_is_forgotten() {
    let mut gateway = Gateway::default();
    let good = service("web", "10.96.0.10");
    gateway.apply("a.yaml", &good);
    gateway.apply("a.yaml", &good.replace("port: 80", "port: 0"));
    gateway.apply("a.yaml", &good.replace("port: 80", "port: x"));
    assert_eq!(
        told(&gateway),
        [
            "a.yaml:8 Service default/web spec.ports[0].port: is text \"x\" and must be a whole number (its last good version stays in use)"
        ]
    );
    doubt(&mut gateway, "a.yaml");
    assert_eq!(told(&gateway), [""; 0]);
    assert_eq!(port(&gateway), Some(80));
}

#[test]
fn an_object_that_may_have_moved_is_in_no_dispute() {
    let mut gateway = Gateway::default();
    let text = service("web", "10.96.0.10");
    gateway.apply("a.yaml", &text);
    doubt(&mut gateway, "a.yaml");
    gateway.apply("b.yaml", &text);
    assert_eq!(told(&gateway), [""; 0]);
    gateway.apply("a.yaml", &text);
    gateway.settle();
    assert_eq!(told(&gateway).len(), 2);
}

#[test]
fn an_object_in_two_files_stays_with_the_one_in_use_and_both_are_named() {
    let mut gateway = Gateway::default();
    let text = service("web", "10.96.0.10");
    gateway.apply("b.yaml", &text);
    gateway.apply("a.yaml", &text.replace("port: 80", "port: 81"));
    assert_eq!(port(&gateway), Some(80));
    assert_eq!(
        told(&gateway),
        [
            "a.yaml:1 Service default/web: is defined in b.yaml:1, too; the one in b.yaml is used",
            "b.yaml:1 Service default/web: is defined in a.yaml:1, too; the one here is used",
        ]
    );
    delete(&mut gateway, "b.yaml");
    assert_eq!(port(&gateway), Some(81), "the second takes over");
    assert_eq!(told(&gateway), [""; 0]);
    delete(&mut gateway, "a.yaml");
    assert_eq!(port(&gateway), None);
}

#[test]
fn of_two_files_that_define_an_object_from_the_start_neither_is_guessed() {
    let mut gateway = Gateway::default();
    let text = service("web", "10.96.0.10");
    gateway.write("a.yaml", &text);
    gateway.write("b.yaml", &text.replace("port: 80", "port: 81"));
    gateway.settle();
    assert_eq!(port(&gateway), None);
    assert_eq!(
        told(&gateway),
        [
            "a.yaml:1 Service default/web: is defined in b.yaml:1, too; neither is used until only one defines it",
            "b.yaml:1 Service default/web: is defined in a.yaml:1, too; neither is used until only one defines it",
        ]
    );
    delete(&mut gateway, "a.yaml");
    assert_eq!(port(&gateway), Some(81));
    assert_eq!(told(&gateway), [""; 0]);
}

#[test]
fn when_the_file_in_use_leaves_an_object_to_two_others_its_version_stays() {
    let mut gateway = Gateway::default();
    let text = service("web", "10.96.0.10");
    for (file, port) in [("a.yaml", "80"), ("b.yaml", "81"), ("c.yaml", "82")] {
        let port = format!("port: {port}");
        gateway.apply(file, &text.replace("port: 80", &port));
    }
    delete(&mut gateway, "a.yaml");
    assert_eq!(port(&gateway), Some(80));
    assert_eq!(told(&gateway).len(), 2);
    assert!(told(&gateway)[0].contains("the version from before stays in use"));
    delete(&mut gateway, "b.yaml");
    assert_eq!(port(&gateway), Some(82));
}

#[test]
fn a_change_keeps_the_age_and_a_return_does_not() {
    let mut index = Index::default();
    let found = crate::testing::found("a.yaml", &service("web", "10.96.0.10"));
    let mut object = found.object.unwrap();
    let mut apply = |index: &mut Index, seconds| {
        if let Object::Service(service) = &mut object {
            service.metadata.generation = Some(seconds);
        }
        let object = Some(object.clone());
        let claim = Claim::of(
            &web(),
            found.origin.clone(),
            object,
            Vec::new(),
            Lines::default(),
            false,
        );
        let now = Duration::from_secs(seconds.unsigned_abs());
        index.apply(web(), claim, now);
        let changes = index.take_changes();
        changes[0].version.as_ref().unwrap().first_seen.as_secs()
    };
    assert_eq!(apply(&mut index, 5), 5);
    assert_eq!(apply(&mut index, 9), 5);
    index.delete(&web(), "a.yaml");
    assert_eq!(apply(&mut index, 12), 12);
}

#[test]
fn an_object_that_is_read_again_unchanged_is_no_change() {
    let mut index = Index::default();
    let found = crate::testing::found("a.yaml", &service("web", "10.96.0.10"));
    for changes in [1, 0] {
        let (origin, lines) = (found.origin.clone(), found.lines.clone());
        let object = found.object.clone();
        let claim = Claim::of(&web(), origin, object, Vec::new(), lines, false);
        index.apply(web(), claim, Duration::ZERO);
        assert_eq!(index.take_changes().len(), changes);
    }
}
