//! Sections about creations: `create_ip_families`, `create_invalid_addresses`,
//! `create_node_ports` and `create_single_address`.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_controlplane::address::Family;
use sluice_controlplane::field::{FieldError, Reason};
use sluice_controlplane::registry::{Registry, defaulted};

use super::cluster::{Values, registry, service, spec_of, told, usage};
use super::fields;
use super::numbers::equal;

#[derive(Debug, Deserialize)]
pub struct Creation {
    cluster: Option<Vec<String>>,
    /// Whether the Service has a selector; it has when the case says nothing.
    selector: Option<bool>,
    submitted: Map<String, Value>,
    expect: Value,
    /// What there must be among the complaints.
    reasons: Option<Vec<String>>,
}

/// Judges a case of `section`.
pub fn judge(section: &str, case: &Creation) -> Result<(), String> {
    let mut registry = registry(case.cluster.as_deref())?;
    let mut submitted = case.submitted.clone();
    if case.selector == Some(false) {
        submitted.insert("selector".to_owned(), Value::Null);
    }
    let submitted = service("case", &Value::Object(submitted))?;
    let created = registry.create(defaulted(submitted.clone()));
    let created = match (created, case.expect == "error") {
        (Err(errors), true) => {
            equal(&[0; 3], &usage(&registry))?;
            return complaints(case.reasons.as_deref().unwrap_or_default(), &errors);
        }
        (Err(errors), false) => return Err(format!("refused: {}", told(&errors))),
        (Ok(created), true) => return Err(format!("was not refused: {:?}", created.spec)),
        (Ok(created), false) => created,
    };
    Values::of(spec_of(&created)?)?.check(&registry, true)?;
    match section {
        "create_ip_families" => families(&case.expect, &created, &submitted, &registry),
        "create_node_ports" => node_ports(&case.expect, spec_of(&created)?),
        "create_single_address" => single(&case.expect, &created, &registry),
        other => Err(format!("section {other} is not understood")),
    }
}

// === Complaints ===

fn complaints(wanted: &[String], errors: &[FieldError]) -> Result<(), String> {
    for kind in wanted {
        let mut found = false;
        for error in errors {
            found |= is_complaint(kind, error)?;
        }
        if !found {
            return Err(format!("expected {kind:?}, seen: {}", told(errors)));
        }
    }
    Ok(())
}

fn is_complaint(kind: &str, error: &FieldError) -> Result<bool, String> {
    let says = |field: &str, text: &str| {
        error.field.starts_with(field)
            && error.reason == Reason::Invalid
            && error.message.contains(text)
    };
    Ok(match kind {
        "unsupported value" => error.reason == Reason::NotSupported,
        "duplicate value" => error.reason == Reason::Duplicate,
        "family not configured on the cluster" => says("spec.", "is not configured"),
        "policy required when several families are given" => {
            says("spec.ipFamilyPolicy", "address families are given")
        }
        "not an IP address" => says("spec.clusterIPs", "is not an IP address"),
        "IPv4 address expected" => says("spec.clusterIPs", "is no IPv4 address"),
        "IPv6 address expected" => says("spec.clusterIPs", "is no IPv6 address"),
        "at most two addresses" => says("spec.clusterIPs", "at most two"),
        other => return Err(format!("the complaint {other:?} is not understood")),
    })
}

// === Addresses ===

fn families(
    expect: &Value,
    created: &Service,
    submitted: &Service,
    registry: &Registry,
) -> Result<(), String> {
    let mut plain = expect.as_object().cloned().ok_or("expect is no map")?;
    let allocated = plain.remove("clusterIPs");
    let spec = spec_of(created)?;
    match allocated {
        Some(Value::String(words)) if words == "one allocated address per family" => {
            one_per_family(spec, registry)?;
            let asked = spec_of(submitted)?.cluster_ips.iter().flatten();
            let asked: Vec<_> = asked.collect();
            let given: Vec<_> = spec
                .cluster_ips
                .iter()
                .flatten()
                .take(asked.len())
                .collect();
            equal(&asked, &given)?;
        }
        Some(other) => {
            plain.insert("clusterIPs".to_owned(), other);
        }
        None => {}
    }
    fields::expected(&plain, spec)
}

fn one_per_family(spec: &ServiceSpec, registry: &Registry) -> Result<(), String> {
    let values = Values::of(spec)?;
    let names = values.addresses.iter().map(|ip| Family::of(*ip).name());
    let families = spec.ip_families.iter().flatten().map(String::as_str);
    equal(&families.collect::<Vec<_>>(), &names.collect())?;
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first());
    equal(&first, &spec.cluster_ip.as_ref())?;
    let count = u64::try_from(values.addresses.len()).unwrap_or(u64::MAX);
    let [v4, v6, _] = usage(registry);
    equal(&count, &(v4 + v6))
}

fn single(expect: &Value, created: &Service, registry: &Registry) -> Result<(), String> {
    let mut plain = expect.as_object().cloned().ok_or("expect is no map")?;
    let spec = spec_of(created)?;
    if plain.get("clusterIP") == Some(&json!("an allocated address")) {
        plain.remove("clusterIP");
        one_per_family(spec, registry)?;
        equal(&1, &Values::of(spec)?.addresses.len())?;
    }
    if plain.get("clusterIPs") == Some(&json!("first entry equals clusterIP")) {
        plain.remove("clusterIPs");
        let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first());
        equal(&spec.cluster_ip.as_ref(), &first)?;
        equal(&true, &first.is_some())?;
    }
    fields::expected(&plain, spec)
}

// === Node ports ===

fn node_ports(expect: &Value, created: &ServiceSpec) -> Result<(), String> {
    let seen = Values::of(created)?.node_ports;
    match expect {
        Value::String(words) if words == "no node port" => equal(&vec![0; seen.len()], &seen),
        Value::String(words) if words == "every port has a node port" => {
            let given = seen.iter().all(|port| (30000..=32767).contains(port));
            match given {
                true => Ok(()),
                false => Err(format!("seen {seen:?}")),
            }
        }
        Value::Object(fields) => fields::expected(fields, created),
        other => Err(format!("{other} is not understood")),
    }
}
