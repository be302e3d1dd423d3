//! Sections about fields alone: what an update takes over and clears, what is filled in on read,
//! and `load_balancer_status`.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, ServiceSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_controlplane::registry::{carry, load_balancer_ingress, tidy};

use super::cluster::{Values, exact, registry, spec, spec_of, told};
use super::numbers::{equal, is_unset};

#[derive(Debug, Deserialize)]
pub struct Fields {
    #[serde(rename = "about")]
    _about: Option<String>,
    cluster: Option<Vec<String>>,
    old: Option<Value>,
    stored: Option<Value>,
    submitted: Option<Value>,
    expect: Map<String, Value>,
}

/// Judges a case of `section`.
pub fn judge(section: &str, case: &Fields) -> Result<(), String> {
    match section {
        "type_dependent_fields" => {
            let (old, mut new) = (tidied(&case.old)?, tidied(&case.submitted)?);
            carry::drop_type_dependent(&mut new, &old);
            expected(&case.expect, &new)
        }
        "normalise_cluster_ips" => {
            let old = case.old.as_ref().filter(|old| !old.is_null());
            let old = old.map(|old| tidied(&Some(old.clone()))).transpose()?;
            let mut new = tidied(&case.submitted)?;
            carry::normalise_cluster_ips(&mut new, old.as_ref());
            expected(&case.expect, &new)
        }
        "keep_allocated_values" => {
            let (old, submitted) = (tidied(&case.old)?, tidied(&case.submitted)?);
            let mut new = submitted.clone();
            carry::keep_allocated(&mut new, &old);
            kept(&case.expect, &new, &old, &submitted)
        }
        "fill_on_read" => {
            let stored = case.stored.as_ref().ok_or("has no stored fields")?;
            let registry = registry(case.cluster.as_deref())?;
            let read = registry.completed(exact("stored", stored)?);
            expected(&case.expect, spec_of(&read)?)
        }
        other => Err(format!("section {other} is not understood")),
    }
}

fn tidied(value: &Option<Value>) -> Result<ServiceSpec, String> {
    let value = value.as_ref().ok_or("has no spec where one is needed")?;
    let mut spec = spec(value)?;
    tidy(&mut spec);
    Ok(spec)
}

/// Compares each named field; `nodePorts` are those of the ports.
pub fn expected(expect: &Map<String, Value>, seen: &ServiceSpec) -> Result<(), String> {
    let fields = serde_json::to_value(seen).map_err(|error| error.to_string())?;
    let node_ports = json!(Values::of(seen).map(|values| values.node_ports)?);
    for (name, wanted) in expect {
        let seen = match name.as_str() {
            "nodePorts" => &node_ports,
            "clusterIP"
            | "clusterIPs"
            | "ipFamilies"
            | "ipFamilyPolicy"
            | "healthCheckNodePort"
            | "allocateLoadBalancerNodePorts"
            | "loadBalancerClass"
            | "externalTrafficPolicy"
            | "internalTrafficPolicy" => &fields[name],
            other => return Err(format!("unknown expectation {other}")),
        };
        if !(wanted == seen || is_unset(wanted) && is_unset(seen)) {
            return Err(format!("{name}: expected {wanted}, seen {seen}"));
        }
    }
    Ok(())
}

fn kept(
    expect: &Map<String, Value>,
    new: &ServiceSpec,
    old: &ServiceSpec,
    submitted: &ServiceSpec,
) -> Result<(), String> {
    for (name, wanted) in expect {
        let source = match wanted.as_str() {
            Some("as stored") => old,
            Some("as submitted") => submitted,
            _ => return Err(format!("{name}: {wanted} is not understood")),
        };
        let field = |spec: &ServiceSpec| -> Result<Value, String> {
            let values = Values::of(spec)?;
            match name.as_str() {
                "clusterIPs" => Ok(json!([spec.cluster_ip, spec.cluster_ips])),
                "nodePorts" => Ok(json!(values.node_ports)),
                "healthCheckNodePort" => Ok(json!(values.health_check)),
                other => Err(format!("unknown expectation {other}")),
            }
        };
        equal(&field(source)?, &field(new)?).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
pub struct Status {
    ip_mode_enabled: bool,
    stored: Vec<LoadBalancerIngress>,
    submitted: Vec<LoadBalancerIngress>,
    expect: Value,
}

/// Judges an update of the load balancer's status.
pub fn status(case: &Status) -> Result<(), String> {
    let stored = load_balancer_ingress(&case.stored, case.submitted.clone(), case.ip_mode_enabled);
    match (stored, &case.expect) {
        (Err(_), Value::String(word)) if word == "error" => Ok(()),
        (Err(errors), _) => Err(format!("refused: {}", told(&errors))),
        (Ok(_), Value::String(word)) if word == "error" => Err("was not refused".to_owned()),
        (Ok(stored), wanted) => equal(wanted, &json!(stored)),
    }
}
