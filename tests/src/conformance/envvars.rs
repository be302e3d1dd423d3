//! Suite `envvars`: Services as environment variables.
//!
//! How the file's words are taken: a Service is written flat and read as the API's object; a Service
//! without a namespace is one of `default`; `service_source: none` is a control plane that knows no
//! Services. Variables of `visibility_cases` are compared as a set, but the workload's own must come
//! first; no name may come twice.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_controlplane::env::{self, Announced, Variable, Workload};

use super::document::Document;
use super::{Report, each};

/// Name of the suite.
pub const NAME: &str = "envvars";

const FIXTURE: &str = "visibility_fixture";
const KNOWN: [&str; 3] = ["service_cases", FIXTURE, "visibility_cases"];

#[derive(Debug, Deserialize)]
struct Service {
    namespace: Option<String>,
    name: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
struct Port {
    name: Option<String>,
    port: i32,
    protocol: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Services {
    #[serde(rename = "about")]
    _about: Option<String>,
    services: Vec<Service>,
    expect: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
struct Visibility {
    #[serde(rename = "about")]
    _about: Option<String>,
    pod_namespace: String,
    #[serde(rename = "enableServiceLinks")]
    service_links: bool,
    #[serde(default)]
    container_env: Vec<Variable>,
    #[serde(default = "yes")]
    services_known: bool,
    #[serde(default)]
    static_pod: bool,
    service_source: Option<String>,
    expect: Value,
}

const fn yes() -> bool {
    true
}

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    for section in document.sections().filter(|name| !KNOWN.contains(name)) {
        report.note(format!("unknown section {section} is not read"));
    }
    each(document, "service_cases", report, |case: &Services, _| {
        of_services(case).into()
    })?;
    let mut fixture = Vec::new();
    for service in document.cases(FIXTURE)? {
        match service.parse::<Service>(report) {
            Ok(service) => fixture.push(service),
            Err(error) => anyhow::bail!("{}: {error}", service.id),
        }
    }
    each(document, "visibility_cases", report, |case, _| {
        visibility(case, &fixture).into()
    })
}

/// The variables of Services, in order.
fn of_services(case: &Services) -> Result<(), String> {
    let seen = env::variables(&announced(&case.services)?);
    for (place, (wanted, seen)) in case.expect.iter().zip(&seen).enumerate() {
        if wanted != seen {
            return Err(format!(
                "variable {place}: expected {wanted:?}, seen {seen:?}"
            ));
        }
    }
    match (case.expect.get(seen.len()), seen.get(case.expect.len())) {
        (Some(missing), _) => Err(format!("expected {missing:?} as well")),
        (_, Some(more)) => Err(format!("seen {more:?} as well")),
        _ => Ok(()),
    }
}

/// The variables of a workload.
fn visibility(case: &Visibility, fixture: &[Service]) -> Result<(), String> {
    let services = match case.service_source.as_deref() {
        None => announced(fixture)?,
        Some("none") => Vec::new(),
        Some(other) => return Err(format!("service_source {other:?} is not understood")),
    };
    let workload = Workload {
        namespace: &case.pod_namespace,
        service_links: case.service_links,
        waits: !case.static_pod,
    };
    let services = case.services_known.then_some(services.as_slice());
    let seen = env::environment(&workload, &case.container_env, services);
    match (seen, case.expect == "error") {
        (Err(_), true) => Ok(()),
        (Err(error), false) => Err(error.to_string()),
        (Ok(seen), true) => Err(format!("expected an error, seen {seen:?}")),
        (Ok(seen), false) => same_set(&case.expect, &case.container_env, &seen),
    }
}

fn same_set(expect: &Value, own: &[Variable], seen: &[Variable]) -> Result<(), String> {
    let wanted: BTreeSet<Variable> =
        serde_json::from_value(expect.clone()).map_err(|error| format!("expect: {error}"))?;
    let set: BTreeSet<Variable> = seen.iter().cloned().collect();
    let names: BTreeSet<&str> = seen.iter().map(|v| v.name.as_str()).collect();
    if let Some(missing) = wanted.difference(&set).next() {
        return Err(format!("expected {missing:?} as well"));
    }
    if let Some(more) = set.difference(&wanted).next() {
        return Err(format!("seen {more:?} as well"));
    }
    match () {
        () if names.len() != seen.len() => Err(format!("a name comes twice: {seen:?}")),
        () if !seen.starts_with(own) => Err(format!("own variables do not come first: {seen:?}")),
        () => Ok(()),
    }
}

fn announced(services: &[Service]) -> Result<Vec<Announced>, String> {
    let objects: Result<Vec<core::Service>, String> = services.iter().map(object).collect();
    Ok(objects?.iter().filter_map(Announced::of).collect())
}

/// The Service as the API has it.
fn object(service: &Service) -> Result<core::Service, String> {
    let port =
        |port: &Port| json!({"name": port.name, "port": port.port, "protocol": port.protocol});
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": service.namespace, "name": service.name},
        "spec": {"clusterIP": service.cluster_ip, "ports": ports},
    });
    serde_json::from_value(object).map_err(|error| error.to_string())
}
