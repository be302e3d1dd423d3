//! What is made of Services: how many ports are programmed, which health check node ports there
//! are, and whose endpoints those count.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;
use sluice_controlplane::object::Lines;
use sluice_controlplane::service;

use super::cluster::Cluster;
use super::endpoint_map::local_ready;
use super::form::{Config, Endpoint, Slice, SlicePort, nullable};
use super::objects;

/// Services at once, or one after the other.
#[derive(Debug, Deserialize)]
pub struct Mapped {
    #[serde(default)]
    config: Config,
    #[serde(default, deserialize_with = "nullable")]
    services: Vec<Value>,
    expect: Option<Programmed>,
    #[serde(default, deserialize_with = "nullable")]
    steps: Vec<Step>,
}

/// The Service from now on: a form of it, or in words an earlier one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    service: Value,
    expect: Programmed,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Programmed {
    proxied_service_ports: usize,
    health_check_node_ports: Ports,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "is neither a count nor a map of ports by Service"
)]
enum Ports {
    Count(usize),
    Named(BTreeMap<String, u16>),
}

/// Judges what is programmed.
pub fn mapped(case: &Mapped, value: &Value) -> Result<(), String> {
    if case.expect.is_none() && case.steps.is_empty() {
        return Err("expects nothing".to_owned());
    }
    if let Some(expect) = &case.expect {
        programmed(expect, &case.services, &case.config, value)?;
    }
    let (mut first, mut last) = (None, None);
    for (number, step) in case.steps.iter().enumerate() {
        let told = step.service.as_str();
        let service = match (told, first, last) {
            (None, ..) => &step.service,
            (Some("same as before"), _, Some(last)) => last,
            (Some("back to the first form"), Some(first), _) => first,
            (Some(told), ..) => {
                return Err(format!("step {}: {told:?} is not understood", number + 1));
            }
        };
        first = first.or(Some(service));
        last = Some(service);
        programmed(
            &step.expect,
            std::slice::from_ref(service),
            &case.config,
            value,
        )
        .map_err(|error| format!("step {}: {error}", number + 1))?;
    }
    Ok(())
}

fn programmed(
    expect: &Programmed,
    forms: &[Value],
    config: &Config,
    value: &Value,
) -> Result<(), String> {
    let services = forms
        .iter()
        .map(|form| objects::service(form).map(|(service, _)| service));
    let cluster = Cluster::new(services.collect::<Result<_, _>>()?, &[], config, value)?;
    let compiled = cluster.compile();
    let services = compiled.table.services.iter();
    let ports = services
        .filter(|service| !service.frontends.is_empty())
        .count();
    if ports != expect.proxied_service_ports {
        let (expected, remark) = (expect.proxied_service_ports, compiled.remark);
        return Err(format!(
            "expected {expected} service ports, seen {ports}{remark}"
        ));
    }
    let seen: BTreeMap<String, u16> = cluster.services.iter().filter_map(health_check).collect();
    let is_right = match &expect.health_check_node_ports {
        Ports::Count(count) => *count == seen.len(),
        Ports::Named(named) => *named == seen,
    };
    match is_right {
        true => Ok(()),
        false => {
            let expected = &expect.health_check_node_ports;
            Err(format!(
                "expected health check node ports {expected:?}, seen {seen:?}"
            ))
        }
    }
}

/// A Service and its health check node port.
fn health_check(object: &Service) -> Option<(String, u16)> {
    let metadata = &object.metadata;
    let [namespace, name] =
        [&metadata.namespace, &metadata.name].map(|n| n.as_deref().unwrap_or_default());
    let spec = service::check(namespace, name, object, &Lines::default()).good?;
    Some((format!("{namespace}/{name}"), spec.health_check_node_port?))
}

/// Endpoints of a Service that go.
#[derive(Debug, Deserialize)]
pub struct Terminating {
    service: Value,
    #[serde(default)]
    config: Config,
    #[serde(default, deserialize_with = "nullable")]
    steps: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    #[serde(default, deserialize_with = "nullable")]
    endpoints: Vec<Endpoint>,
    expect: WithLocal,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WithLocal {
    services_with_local_ready_endpoints: usize,
}

/// Judges whether its health checks count it.
pub fn terminating(case: &Terminating, value: &Value) -> Result<(), String> {
    let (mut service, _) = objects::service(&case.service)?;
    // A port that is not written is where the endpoints listen.
    let mut ports = Vec::new();
    for port in service
        .spec
        .iter_mut()
        .flat_map(|spec| spec.ports.iter_mut().flatten())
    {
        let target: Option<i32> = port.target_port.as_ref().and_then(|target| match target {
            IntOrString::Int(port) => Some(*port),
            IntOrString::String(_) => None,
        });
        if port.port == 0 {
            port.port = target.unwrap_or_default();
        }
        ports.push(SlicePort {
            name: port.name.clone(),
            port: target.or(Some(port.port)),
            protocol: port.protocol.clone(),
        });
    }
    let metadata = &service.metadata;
    let name = [&metadata.namespace, &metadata.name].map(|n| n.clone().unwrap_or_default());
    for (number, stage) in case.steps.iter().enumerate() {
        let slice = Slice {
            service: name.join("/"),
            _number: None,
            address_type: None,
            ports: ports.clone(),
            endpoints: stage.endpoints.clone(),
        };
        let cluster = Cluster::new(vec![service.clone()], &[slice], &case.config, value)?;
        let count = local_ready(&service, &cluster.slices, &cluster.rules)?;
        let (expected, seen) = (
            stage.expect.services_with_local_ready_endpoints,
            usize::from(count > 0),
        );
        if seen != expected {
            return Err(format!(
                "step {}: expected {expected} Services with local ready endpoints, seen {seen}",
                number + 1
            ));
        }
    }
    Ok(())
}
