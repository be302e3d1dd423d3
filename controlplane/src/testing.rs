//! Objects for the tests of this crate, read from YAML as an operator would write them.

use std::time::Duration;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sluice_conf::message::controlplane::Problem;

use crate::index::Index;
use crate::object::{Lines, Object, describe};
use crate::source::Event;
use crate::source::manifest::{self, Found};

/// The only object of `text`, read from `file`.
pub(crate) fn found(file: &str, text: &str) -> Found {
    let mut manifest = manifest::read(file, text.as_bytes());
    assert_eq!(manifest.problems, [], "{text}");
    assert_eq!(manifest.objects.len(), 1, "{text}");
    manifest.objects.remove(0)
}

/// The Service of `text`, checked.
pub(crate) fn check_service(text: &str) -> crate::object::Checked<crate::service::ServiceSpec> {
    let found = found("f.yaml", text);
    let Some(Object::Service(service)) = found.object else {
        panic!("not a Service: {text}");
    };
    crate::service::check(
        &found.id.namespace,
        &found.id.name,
        &service,
        &Lines::default(),
    )
}

/// The slice of `text`, checked.
pub(crate) fn check_slice(text: &str) -> crate::object::Checked<crate::endpoints::Slice> {
    let found = found("f.yaml", text);
    let Some(Object::EndpointSlice(slice)) = found.object else {
        panic!("not an EndpointSlice: {text}");
    };
    crate::endpoints::check(&found.id.namespace, &found.id.name, &slice)
}

/// Applies everything that `text` holds, as if `file` had been read.
pub(crate) fn apply(index: &mut Index, file: &str, text: &str) {
    let manifest = manifest::read(file, text.as_bytes());
    for found in manifest.objects {
        let (object, issues) = (found.object.as_ref(), found.issues);
        index.apply(
            found.id,
            found.origin,
            object,
            issues,
            &found.lines,
            Duration::ZERO,
        );
    }
    let problems = manifest.problems;
    let file = file.to_owned();
    index.handle(Event::Report { file, problems }, Duration::ZERO);
}

/// A Service with one TCP port 80.
pub(crate) fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {ip}\n  ports:\n  - port: 80\n"
    )
}

/// A slice with port 8080 and ready endpoints.
pub(crate) fn slice(name: &str, service: &str, addresses: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels:\n    kubernetes.io/service-name: {service}\naddressType: IPv4\nports:\n- port: 8080\nendpoints:\n"
    );
    for address in addresses {
        text.push_str(&format!("- addresses: [{address}]\n"));
    }
    text
}

/// What `text` says, as values of the Kubernetes API.
pub(crate) fn objects(text: &str) -> (Vec<api::Service>, Vec<EndpointSlice>) {
    let manifest = manifest::read("f.yaml", text.as_bytes());
    assert_eq!(manifest.problems, [], "{text}");
    let (mut services, mut slices) = (Vec::new(), Vec::new());
    for found in manifest.objects {
        match found.object {
            Some(Object::Service(service)) => services.push(*service),
            Some(Object::EndpointSlice(slice)) => slices.push(*slice),
            None => panic!("{:?}: {text}", found.issues),
        }
    }
    (services, slices)
}

/// Problems as lines.
pub(crate) fn lines<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<String> {
    problems.into_iter().map(describe).collect()
}
