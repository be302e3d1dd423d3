//! What one Pod, one Service, one slice or one endpoint says.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_controlplane::object::NamespacedName;
use sluice_controlplane::slices::Settings;
use sluice_controlplane::slices::node::Nodes;
use sluice_controlplane::slices::reconcile::endpoint;
use sluice_controlplane::slices::selectors::{self, Selectors};
use sluice_controlplane::slices::service as rules;
use sluice_controlplane::slices::slice::AddressType;

use super::objects::{EndpointForm, NodeForm, PodForm, labels, ports, service};
use super::{Judged, same, strict};
use crate::conformance::flows::form::nullable;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodToEndpoint {
    service: Value,
    pod: PodForm,
    node: Option<NodeForm>,
    address_type: String,
    expect: EndpointForm,
}

pub fn pod_to_endpoint(case: &PodToEndpoint) -> Judged {
    let pod = case.pod.pod()?;
    let mut form = case.service.clone();
    // The Service lives where its Pods do.
    if form.get("namespace").is_none() {
        form["namespace"] = (*pod.namespace).into();
    }
    let mut nodes = Nodes::default();
    if let Some(node) = &case.node {
        nodes.insert(node.node()?);
    }
    let address_type = AddressType::of(&case.address_type);
    let seen = endpoint(&service(&form)?, &pod, &nodes, address_type);
    let mut expected = case.expect.endpoint()?;
    if let Some(target) = &mut expected.target {
        target.uid = target.uid.clone().or_else(|| pod.uid.clone());
    }
    same("endpoint", &Some(expected), &seen)
}

#[derive(Debug, Deserialize)]
pub struct PodMembership {
    pod: PodForm,
    include_terminating: bool,
    expect: bool,
}

pub fn pod_membership(case: &PodMembership) -> Judged {
    let seen = case.pod.pod()?.can_serve(case.include_terminating);
    same("in the slices", &case.expect, &seen)
}

#[derive(Debug, Deserialize)]
pub struct Hostname {
    pod: PodForm,
    service: Value,
    expect_hostname_set: bool,
}

pub fn hostname(case: &Hostname) -> Judged {
    let seen = rules::shows_hostname(&service(&case.service)?, &case.pod.pod()?);
    same("host name", &case.expect_hostname_set, &seen)
}

#[derive(Debug, Deserialize)]
pub struct EndpointPorts {
    #[serde(alias = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(default)]
    headless: bool,
    #[serde(default, deserialize_with = "nullable")]
    service_ports: Vec<Value>,
    #[serde(default, deserialize_with = "nullable")]
    containers: Vec<Value>,
    #[serde(default, deserialize_with = "nullable")]
    sidecars: Vec<Value>,
    #[serde(default, deserialize_with = "nullable")]
    init_containers: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    expect: Vec<Value>,
}

pub fn endpoint_ports(case: &EndpointPorts) -> Judged {
    let headless = case.headless.then(|| "None".to_owned());
    let service = service(&json!({
        "clusterIP": headless.or_else(|| case.cluster_ip.clone()),
        "ports": case.service_ports,
    }))?;
    let pod = PodForm {
        containers: case.containers.clone(),
        sidecars: case.sidecars.clone(),
        init_containers: case.init_containers.clone(),
        ..PodForm::default()
    };
    let numbers = rules::numbers(&service, &pod.pod()?);
    let seen = rules::slice_ports(&service, &numbers);
    same("ports", &ports(&case.expect)?, &seen)
}

#[derive(Debug, Deserialize)]
pub struct TargetPortLookup {
    #[serde(rename = "targetPort")]
    target_port: Value,
    protocol: String,
    #[serde(default, deserialize_with = "nullable")]
    containers: Vec<Value>,
    #[serde(default, deserialize_with = "nullable")]
    sidecars: Vec<Value>,
    #[serde(default, deserialize_with = "nullable")]
    init_containers: Vec<Value>,
    expect: Value,
}

pub fn target_port_lookup(case: &TargetPortLookup) -> Judged {
    let port = json!({"targetPort": case.target_port, "protocol": case.protocol});
    let service = service(&json!({"ports": [port]}))?;
    let pod = PodForm {
        containers: case.containers.clone(),
        sidecars: case.sidecars.clone(),
        init_containers: case.init_containers.clone(),
        ..PodForm::default()
    };
    let seen = match rules::numbers(&service, &pod.pod()?)[..] {
        [Some(number)] => json!(number),
        _ => json!("not found"),
    };
    same("port", &case.expect, &seen)
}

#[derive(Debug, Deserialize)]
pub struct AddressTypes {
    service: Value,
    expect: BTreeSet<String>,
}

pub fn address_types(case: &AddressTypes) -> Judged {
    let seen = rules::address_types(&service(&case.service)?).into_iter();
    let seen = seen.map(|kind| kind.as_str().to_owned()).collect();
    same("address types", &case.expect, &seen)
}

#[derive(Debug, Deserialize)]
pub struct SliceLabels {
    service: Value,
    existing_slice_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    new_slice: bool,
    expect_labels: BTreeMap<String, String>,
    expect_label_update: Option<bool>,
}

pub fn slice_labels(case: &SliceLabels) -> Judged {
    if case.new_slice == case.existing_slice_labels.is_some() {
        return Err("a slice is either new or has labels".to_owned());
    }
    let service = service(&case.service)?;
    let seen = rules::slice_labels(&service, &Settings::default().manager);
    same("labels", &labels(&case.expect_labels), &seen)?;
    let existing = labels(&case.existing_slice_labels.clone().unwrap_or_default());
    let differ = rules::labels_differ(&existing, &seen);
    same(
        "update",
        &case.expect_label_update.unwrap_or(differ),
        &differ,
    )
}

#[derive(Debug, Deserialize)]
pub struct ServiceKey {
    slice: Option<Value>,
    expect: String,
}

pub fn service_key(case: &ServiceKey) -> Judged {
    let slice: EndpointSlice = match &case.slice {
        Some(metadata) => strict(&json!({"metadata": metadata, "addressType": "IPv4"}))?,
        None => EndpointSlice::default(),
    };
    let seen = rules::service_of(&slice).map_or("error".to_owned(), |name| name.to_string());
    same("service", &case.expect, &seen)
}

#[derive(Debug, Deserialize)]
pub struct AnnotationMode {
    annotations: BTreeMap<String, String>,
    expect_enabled: bool,
}

pub fn annotation_mode(case: &AnnotationMode) -> Judged {
    let service = service(&json!({"annotations": case.annotations}))?;
    let seen = rules::asks_for_zone_hints(&service);
    same("enabled", &case.expect_enabled, &seen)
}

#[derive(Debug, Deserialize)]
pub struct PodChanges {
    old: PodForm,
    new: PodForm,
    expect: PodChange,
}

#[derive(Debug, Deserialize)]
struct PodChange {
    endpoint_changed: bool,
    labels_changed: bool,
}

pub fn pod_changes(case: &PodChanges) -> Judged {
    let seen = case.old.pod()?.change(&case.new.pod()?);
    let expected = (case.expect.endpoint_changed, case.expect.labels_changed);
    same(
        "(endpoint, labels) changed",
        &expected,
        &(seen.endpoint, seen.labels),
    )
}

#[derive(Debug, Deserialize)]
pub struct Selection {
    services: Vec<Value>,
    pod: PodForm,
    expect: BTreeSet<String>,
}

pub fn selection(case: &Selection) -> Judged {
    let pod = case.pod.pod()?;
    let mut index = Selectors::default();
    let mut selecting = BTreeSet::new();
    for form in &case.services {
        let service = service(form)?;
        index.insert(&service);
        if rules::selects(&service, &pod) {
            selecting.insert(NamespacedName::of(&service.metadata).to_string());
        }
    }
    let found = index.select(&pod).iter().map(ToString::to_string).collect();
    same("services", &case.expect, &selecting)?;
    same("services of the index", &case.expect, &found)
}

#[derive(Debug, Deserialize)]
pub struct AffectedServices {
    selected_before: BTreeSet<String>,
    selected_after: BTreeSet<String>,
    expect: Affected,
}

#[derive(Debug, Deserialize)]
struct Affected {
    pod_endpoint_unchanged: BTreeSet<String>,
    pod_endpoint_changed: BTreeSet<String>,
}

pub fn affected_services(case: &AffectedServices) -> Judged {
    let needed = |changed| {
        let (before, after) = (case.selected_before.clone(), case.selected_after.clone());
        selectors::needed(before, after, changed)
    };
    same(
        "unchanged",
        &case.expect.pod_endpoint_unchanged,
        &needed(false),
    )?;
    same("changed", &case.expect.pod_endpoint_changed, &needed(true))
}

#[derive(Debug, Deserialize)]
pub struct EndpointEquality {
    a: EndpointForm,
    b: EndpointForm,
    expect_equal: bool,
}

pub fn endpoint_equality(case: &EndpointEquality) -> Judged {
    let (a, b) = (case.a.endpoint()?, case.b.endpoint()?);
    same("equal", &case.expect_equal, &a.same(&b))?;
    same("equal the other way round", &case.expect_equal, &b.same(&a))
}
