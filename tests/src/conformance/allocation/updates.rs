//! Sections `update_transitions` and `stack_changes`: a Service is created, then replaced.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_controlplane::field::FieldError;
use sluice_controlplane::registry::{Registry, defaulted};

use super::cluster::{Values, exact, registry, service, spec_of, told, usage};
use super::numbers::{equal, is_unset};

#[derive(Debug, Deserialize)]
pub struct Transition {
    cluster: Vec<String>,
    create: Version,
    update: Option<Version>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    submitted: Value,
    expect: Value,
}

/// Judges a change between two complete specs.
pub fn transition(case: &Transition) -> Result<(), String> {
    let mut registry = registry(Some(&case.cluster))?;
    let created = registry.create(exact("case", &case.create.submitted)?);
    let Some(stored) = judged(&case.create, created, &registry).map_err(in_step("create"))? else {
        return equal(&[0; 3], &usage(&registry));
    };
    match &case.update {
        Some(version) => replaced(version, &stored, &mut registry).map_err(in_step("update")),
        None => Ok(()),
    }
}

fn in_step(step: &str) -> impl Fn(String) -> String {
    move |error| format!("{step}: {error}")
}

fn replaced(version: &Version, stored: &Service, registry: &mut Registry) -> Result<(), String> {
    let old = Values::of(spec_of(stored)?)?;
    let before = usage(registry);
    let updated = registry.update(stored, exact("case", &version.submitted)?);
    let Some(updated) = judged(version, updated, registry)? else {
        equal(&before, &usage(registry))?;
        return old.check(registry, true);
    };
    let dropped = old.without(&Values::of(spec_of(&updated)?)?);
    dropped.check(registry, false)
}

/// The Service as it is read from the store; none when it was refused, as expected.
fn judged(
    version: &Version,
    changed: Result<Service, Vec<FieldError>>,
    registry: &Registry,
) -> Result<Option<Service>, String> {
    match (changed, version.expect == "error") {
        (Err(_), true) => Ok(None),
        (Err(errors), false) => Err(format!("refused: {}", told(&errors))),
        (Ok(changed), true) => Err(format!("was not refused: {:?}", changed.spec)),
        (Ok(changed), false) => {
            let read = registry.completed(changed);
            let expect = version.expect.as_object().ok_or("expect is no map")?;
            Values::of(spec_of(&read)?)?.check(registry, true)?;
            for (name, wanted) in expect {
                field(name, wanted, spec_of(&read)?)?;
            }
            Ok(Some(read))
        }
    }
}

fn field(name: &str, wanted: &Value, seen: &ServiceSpec) -> Result<(), String> {
    let values = Values::of(seen)?;
    let health_check = json!(values.health_check);
    let (holds, text) = match (name, wanted.as_str()) {
        ("clusterIPs", Some(word)) => (addresses(word, seen, &values)?, json!(seen.cluster_ips)),
        ("nodePorts", Some("allocated")) => {
            let all = values.node_ports.iter().all(|port| *port != 0);
            (
                all && !values.node_ports.is_empty(),
                json!(values.node_ports),
            )
        }
        ("nodePorts", Some("none")) => {
            let all = values.node_ports.iter().all(|port| *port == 0);
            (all, json!(values.node_ports))
        }
        ("nodePortsValue", _) => {
            let wanted = wanted.as_array().ok_or("nodePortsValue is no list")?;
            (
                exact_ports(wanted, &values.node_ports)?,
                json!(values.node_ports),
            )
        }
        ("healthCheckNodePort", Some("allocated")) => (values.health_check != 0, health_check),
        ("healthCheckNodePort", Some("none")) => (values.health_check == 0, health_check),
        ("healthCheckNodePortValue", _) => (*wanted == health_check, health_check),
        ("internalTrafficPolicy", _) => {
            let seen = json!(seen.internal_traffic_policy);
            (*wanted == seen || is_unset(wanted) && is_unset(&seen), seen)
        }
        _ => return Err(format!("unknown expectation {name}: {wanted}")),
    };
    match holds {
        true => Ok(()),
        false => Err(format!("{name}: expected {wanted}, seen {text}")),
    }
}

fn addresses(word: &str, seen: &ServiceSpec, values: &Values) -> Result<bool, String> {
    let ips = seen.cluster_ips.as_deref().unwrap_or_default();
    let agree = ips.first() == seen.cluster_ip.as_ref();
    let families = seen.ip_families.iter().flatten().count();
    match word {
        "allocated" => Ok(agree && families > 0 && values.addresses.len() == families),
        "none" => Ok(agree && ips.is_empty()),
        "headless" => Ok(agree && ips == ["None"]),
        other => Err(format!("clusterIPs: {other:?} is not understood")),
    }
}

/// Each is the number, or `any other than` it.
fn exact_ports(wanted: &[Value], seen: &[i32]) -> Result<bool, String> {
    let mut holds = wanted.len() == seen.len();
    for (wanted, seen) in wanted.iter().zip(seen) {
        holds &= match wanted {
            Value::Number(_) => *wanted == json!(seen),
            Value::String(words) => {
                let number = words.strip_prefix("any other than ");
                let number = number.and_then(|number| number.parse::<i32>().ok());
                let other = number.ok_or_else(|| format!("{words:?} is not understood"))?;
                *seen != 0 && *seen != other
            }
            other => return Err(format!("nodePortsValue: {other} is not understood")),
        };
    }
    Ok(holds)
}

#[derive(Debug, Deserialize)]
pub struct Stack {
    cluster: Vec<String>,
    create: Map<String, Value>,
    update: Map<String, Value>,
    /// An address that another Service gets in between.
    taken_before_update: Option<String>,
    expect: Value,
}

/// Judges a change between one and two families.
pub fn stack(case: &Stack) -> Result<(), String> {
    let mut registry = registry(Some(&case.cluster))?;
    let refused = |errors: Vec<FieldError>| format!("refused: {}", told(&errors));
    let created = registry.create(submitted("case", &case.create)?);
    let stored = created.map_err(refused).map_err(in_step("create"))?;
    let old = Values::of(spec_of(&stored)?)?;
    old.check(&registry, true)?;
    if let Some(address) = &case.taken_before_update {
        let other = Map::from_iter([("clusterIPs".to_owned(), json!([address]))]);
        let other = registry.create(submitted("other", &other)?);
        other
            .map_err(refused)
            .map_err(in_step("taken_before_update"))?;
    }
    let before = usage(&registry);
    let updated = registry.update(&stored, submitted("case", &case.update)?);
    match (updated, case.expect == "error") {
        (Err(_), true) => {
            equal(&before, &usage(&registry))?;
            old.check(&registry, true)
        }
        (Err(errors), false) => Err(refused(errors)),
        (Ok(updated), true) => Err(format!("was not refused: {:?}", updated.spec)),
        (Ok(updated), false) => changed(&case.expect, spec_of(&updated)?, &old, &registry),
    }
}

fn submitted(name: &str, fields: &Map<String, Value>) -> Result<Service, String> {
    let known = ["ipFamilyPolicy", "ipFamilies", "clusterIPs", "selector"];
    if let Some(other) = fields.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("{other} is not understood"));
    }
    Ok(defaulted(service(name, &Value::Object(fields.clone()))?))
}

fn changed(
    expect: &Value,
    seen: &ServiceSpec,
    old: &Values,
    registry: &Registry,
) -> Result<(), String> {
    let expect = expect.as_object().ok_or("expect is no map")?;
    let values = Values::of(seen)?;
    let headless = seen.cluster_ip.as_deref() == Some("None");
    for (name, wanted) in expect {
        if name != "families" {
            return Err(format!("unknown expectation {name}"));
        }
        equal(wanted, &json!(seen.ip_families.iter().flatten().count()))?;
        if !headless {
            equal(wanted, &json!(values.addresses.len()))?;
        }
    }
    values.check(registry, true)?;
    old.without(&values).check(registry, false)
}
