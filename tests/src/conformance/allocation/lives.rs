//! Section `lifecycle`: Services come, change and go.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_controlplane::registry::{Deletion, Registry, defaulted};

use super::cluster::{Values, registry, service, spec_of, told};
use super::numbers::{equal, is_unset};

#[derive(Debug, Deserialize)]
pub struct Life {
    #[serde(rename = "about")]
    _about: Option<String>,
    cluster: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    op: Op,
    name: String,
    submitted: Option<Value>,
    #[serde(default)]
    dry_run: bool,
    expect: Expect,
    result: Option<Map<String, Value>>,
    allocated: Option<Vec<Field>>,
    released: Option<Vec<Field>>,
    not_allocated: Option<Vec<Field>>,
    still_allocated: Option<Vec<Field>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Create,
    Update,
    Delete,
    RemoveFinalizers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Ok,
    Error,
    Pending,
    Gone,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Field {
    #[serde(rename = "clusterIPs")]
    ClusterIps,
    NodePorts,
    HealthCheckNodePort,
}

/// Runs a life.
pub fn judge(case: &Life) -> Result<(), String> {
    let mut run = Run {
        registry: registry(Some(&case.cluster))?,
        stored: BTreeMap::new(),
    };
    for (index, step) in case.steps.iter().enumerate() {
        let judged = run.step(step);
        judged.map_err(|error| format!("step {} ({:?}): {error}", index + 1, step.op))?;
    }
    Ok(())
}

struct Run {
    registry: Registry,
    /// The last version of each Service, those that are gone too.
    stored: BTreeMap<String, Service>,
}

impl Run {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let before = self.stored.get(&step.name).cloned();
        let mut registry = self.registry.clone();
        let (seen, after) = self.act(step, before.as_ref(), &mut registry)?;
        equal(&step.expect, &seen)?;
        if !step.dry_run && seen != Expect::Error {
            self.registry = registry;
            if let Some(after) = &after {
                self.stored.insert(step.name.clone(), after.clone());
            }
        }
        if let (Some(wanted), Some(after)) = (&step.result, &after) {
            results(wanted, spec_of(after)?)?;
        }
        self.held(step, before.as_ref(), after.as_ref())
    }

    fn act(
        &self,
        step: &Step,
        before: Option<&Service>,
        registry: &mut Registry,
    ) -> Result<(Expect, Option<Service>), String> {
        let stored = || before.ok_or_else(|| format!("there is no {}", step.name));
        let changed = match step.op {
            Op::Create => registry.create(defaulted(self.submitted(step)?)),
            Op::Update => registry.update(stored()?, defaulted(self.submitted(step)?)),
            Op::Delete | Op::RemoveFinalizers => {
                let mut service = stored()?.clone();
                if matches!(step.op, Op::RemoveFinalizers) {
                    service.metadata.finalizers = None;
                }
                let seen = match (registry.delete(&service), step.expect) {
                    (Deletion::Pending, _) => Expect::Pending,
                    (Deletion::Gone, Expect::Ok) => Expect::Ok,
                    (Deletion::Gone, _) => Expect::Gone,
                };
                return Ok((seen, Some(service)));
            }
        };
        match (changed, step.expect) {
            (Ok(service), _) => Ok((Expect::Ok, Some(service))),
            (Err(_), Expect::Error) => Ok((Expect::Error, None)),
            (Err(errors), _) => Err(format!("refused: {}", told(&errors))),
        }
    }

    fn submitted(&self, step: &Step) -> Result<Service, String> {
        match &step.submitted {
            Some(Value::String(words)) => {
                let like = words
                    .strip_prefix("same as ")
                    .and_then(|rest| rest.split_once(" with the addresses and node ports "))
                    .filter(|(name, rest)| *rest == format!("{name} had"));
                let (name, _) = like.ok_or_else(|| format!("{words:?} is not understood"))?;
                let like = self.stored.get(name);
                let mut like = like.cloned().ok_or_else(|| format!("there is no {name}"))?;
                like.metadata.name = Some(step.name.clone());
                Ok(like)
            }
            Some(submitted) => service(&step.name, submitted),
            None => Err("has nothing submitted".to_owned()),
        }
    }

    /// Compares the pools with what the step says of them. What is `allocated`, or is not, are
    /// values of the result; what was `released`, or is `still_allocated`, those from before.
    fn held(
        &self,
        step: &Step,
        before: Option<&Service>,
        after: Option<&Service>,
    ) -> Result<(), String> {
        for (named, service, held) in [
            (&step.allocated, after, true),
            (&step.not_allocated, after, false),
            (&step.released, before, false),
            (&step.still_allocated, before, true),
        ] {
            let Some(fields) = named else {
                continue;
            };
            let values = Values::of(spec_of(service.ok_or("there is no Service to look at")?)?)?;
            for field in fields {
                let of_field = only(*field, &values);
                if held && of_field == Values::default() {
                    return Err(format!("{field:?}: there is no value"));
                }
                of_field.check(&self.registry, held)?;
            }
        }
        Ok(())
    }
}

fn only(field: Field, values: &Values) -> Values {
    let mut only = Values::default();
    match field {
        Field::ClusterIps => only.addresses.clone_from(&values.addresses),
        Field::NodePorts => only.node_ports.clone_from(&values.node_ports),
        Field::HealthCheckNodePort => only.health_check = values.health_check,
    }
    only
}

fn results(wanted: &Map<String, Value>, seen: &ServiceSpec) -> Result<(), String> {
    let values = Values::of(seen)?;
    for (name, wanted) in wanted {
        let (holds, text) = match (name.as_str(), wanted.as_str()) {
            ("clusterIPs", Some("valid addresses")) => {
                let families = seen.ip_families.iter().flatten().count();
                let first = seen.cluster_ips.as_ref().and_then(|ips| ips.first());
                let agree = first.is_some() && first == seen.cluster_ip.as_ref();
                let all = families == values.addresses.len();
                (agree && all, json!(seen.cluster_ips))
            }
            ("nodePorts", Some("non-zero")) => {
                let all = values.node_ports.iter().all(|port| *port != 0);
                (
                    all && !values.node_ports.is_empty(),
                    json!(values.node_ports),
                )
            }
            ("nodePorts", Some("zero")) => {
                let all = values.node_ports.iter().all(|port| *port == 0);
                (all, json!(values.node_ports))
            }
            ("healthCheckNodePort", Some("non-zero")) => {
                (values.health_check != 0, json!(values.health_check))
            }
            ("healthCheckNodePort", _) => same(wanted, json!(values.health_check)),
            ("clusterIPs", _) => same(wanted, json!(seen.cluster_ips)),
            ("clusterIP", _) => same(wanted, json!(seen.cluster_ip)),
            _ => return Err(format!("unknown expectation {name}: {wanted}")),
        };
        if !holds {
            return Err(format!("{name}: expected {wanted}, seen {text}"));
        }
    }
    Ok(())
}

fn same(wanted: &Value, seen: Value) -> (bool, Value) {
    let holds = *wanted == seen || is_unset(wanted) && is_unset(&seen);
    (holds, seen)
}
