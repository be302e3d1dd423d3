//! What stands before a round: Pods, Nodes and slices, listed or generated.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_controlplane::slices::Settings;
use sluice_controlplane::slices::node::Nodes;
use sluice_controlplane::slices::pod::Pod;
use sluice_controlplane::slices::reconcile::endpoint;
use sluice_controlplane::slices::service::slice_labels;
use sluice_controlplane::slices::slice::{AddressType, Endpoint, Slice};

use super::objects::{EndpointForm, PodForm, THIS_SERVICE, labels, ports};
use super::rules::{filled, generated, holds, numbers, remark};
use super::strict;
use crate::conformance::flows::form::nullable;

/// Pods, listed or by a rule.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "is neither a list of Pods nor {generate, readiness}"
)]
pub enum PodsForm {
    Listed(Vec<PodForm>),
    Generated {
        generate: Map<String, Value>,
        readiness: Option<String>,
        #[serde(flatten)]
        unknown: Map<String, Value>,
    },
}

/// A Pod now and as it was when the slices were written.
#[derive(Debug, Clone)]
pub struct Member {
    pub number: usize,
    pub now: Arc<Pod>,
    before: Pod,
}

impl PodsForm {
    pub fn members(&self, namespace: &str) -> Result<Vec<Member>, String> {
        match self {
            PodsForm::Listed(forms) => {
                let members = forms.iter().enumerate();
                let members = members.map(|(number, form)| {
                    let pod = form.pod()?;
                    Ok(Member {
                        number,
                        now: Arc::new(pod.clone()),
                        before: pod,
                    })
                });
                members.collect()
            }
            PodsForm::Generated {
                generate,
                readiness,
                unknown,
            } => {
                if let Some(key) = unknown.keys().next() {
                    return Err(format!("unknown key pods.{key}"));
                }
                let mut form = generate.clone();
                form.entry("namespace").or_insert(namespace.into());
                let numbers = generated(&mut form)?;
                let readiness = readiness.as_deref().unwrap_or("all ready");
                let form = Value::Object(form);
                let members = numbers.iter().enumerate().map(|(place, number)| {
                    let pod: PodForm = strict(&filled(&form, &[("i", *number)])?)?;
                    member(&pod, *number, ready(readiness, place, *number)?)
                });
                members.collect()
            }
        }
    }
}

fn member(form: &PodForm, number: usize, (now, before): (bool, bool)) -> Result<Member, String> {
    let of = |ready| {
        PodForm {
            ready: Some(ready),
            ..form.clone()
        }
        .pod()
    };
    let (now, before) = (Arc::new(of(now)?), of(before)?);
    Ok(Member {
        number,
        now,
        before,
    })
}

/// Whether the Pod at a place of the list is ready, and whether it was.
fn ready(rule: &str, place: usize, number: usize) -> Result<(bool, bool), String> {
    let known = || format!("the readiness {rule:?} is not understood");
    if rule == "all ready" {
        return Ok((true, true));
    }
    if let Some(rest) = rule.strip_prefix("pods at list positions ") {
        let (list, were_ready) = match rest.split_once(" are not ready now") {
            Some((list, " but were when the slices were written")) => (list, true),
            Some((list, "")) => (list, false),
            _ => return Err(known()),
        };
        let now = !numbers(list)?.contains(&place);
        return Ok((now, now || were_ready));
    }
    let (_, rest) = rule.split_once('(').ok_or_else(known)?;
    let (condition, rest) = rest.split_once(')').ok_or_else(known)?;
    let holds = holds(condition, &[("i", number)])?;
    let now = match rest.trim() {
        "is not ready" | "are not ready" => !holds,
        "is ready" | "are ready" => holds,
        _ => return Err(known()),
    };
    Ok((now, now))
}

/// Slices, listed or by a rule.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "is neither a list of slices nor {generate}")]
pub enum SlicesForm {
    Listed(Vec<SliceForm>),
    Generated {
        generate: Map<String, Value>,
        #[serde(flatten)]
        unknown: Map<String, Value>,
    },
}

/// A slice.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceForm {
    pub name: Option<String>,
    pub address_type: String,
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<Value>,
    pub labels: Option<BTreeMap<String, String>>,
    pub owner: Option<String>,
    #[serde(default)]
    pub endpoints: EndpointsForm,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "is neither a list of endpoints nor {of_pods}"
)]
pub enum EndpointsForm {
    Listed(Vec<EndpointForm>),
    OfPods { of_pods: String },
}

impl Default for EndpointsForm {
    fn default() -> Self {
        EndpointsForm::Listed(Vec::new())
    }
}

/// Who stands behind existing slices.
pub struct Setting<'a> {
    pub service: &'a Service,
    pub members: &'a [Member],
    pub nodes: &'a Nodes,
}

impl Setting<'_> {
    pub fn slices(&self, form: &SlicesForm) -> Result<Vec<Arc<Slice>>, String> {
        let slices: Result<Vec<Slice>, String> = match form {
            SlicesForm::Listed(forms) => {
                let forms = forms.iter().enumerate();
                forms.map(|(s, form)| self.slice(form, s)).collect()
            }
            SlicesForm::Generated { generate, unknown } => {
                let mut form = generate.clone();
                form.extend(unknown.clone());
                let numbers = generated(&mut form)?;
                // What speaks of Pods is a rule of its own and holds no value of the slice alone.
                let endpoints = form.remove("endpoints");
                let slices = numbers.into_iter().map(|s| {
                    let mut form = filled(&Value::Object(form.clone()), &[("s", s)])?;
                    form["endpoints"] = endpoints.clone().unwrap_or_else(|| Value::Array(vec![]));
                    self.slice(&strict(&form)?, s)
                });
                slices.collect()
            }
        };
        Ok(slices?.into_iter().map(Arc::new).collect())
    }

    fn slice(&self, form: &SliceForm, s: usize) -> Result<Slice, String> {
        let address_type = AddressType::of(&form.address_type);
        let owner = match form.owner.as_deref() {
            None | Some("this service") => THIS_SERVICE,
            Some(_) => "uid-of-another-service",
        };
        let manager = Settings::default().manager;
        let labels = match &form.labels {
            Some(form) => labels(form),
            None => slice_labels(self.service, &manager),
        };
        let endpoints = match &form.endpoints {
            EndpointsForm::Listed(list) => list.iter().map(EndpointForm::endpoint).collect(),
            EndpointsForm::OfPods { of_pods } => self.of_pods(of_pods, s, address_type),
        };
        Ok(Slice {
            name: form.name.clone().unwrap_or_else(|| format!("existing-{s}")),
            address_type,
            owner: Some(owner.into()),
            labels: Arc::new(labels),
            ports: ports(&form.ports)?.into(),
            endpoints: endpoints?,
        })
    }

    /// Endpoints of the Pods that a rule names, as they were.
    fn of_pods(&self, rule: &str, s: usize, kind: AddressType) -> Result<Vec<Endpoint>, String> {
        let is_condition = rule.contains('=');
        let pods = match is_condition {
            true => self.by_number(rule, s)?,
            false => self.by_name(rule)?,
        };
        // Slices of a kind that is no family any more held IPv4.
        let family = match kind {
            AddressType::Other => AddressType::Ipv4,
            family => family,
        };
        let endpoints = pods.iter().map(|pod| {
            let endpoint = endpoint(self.service, pod, self.nodes, family);
            endpoint.ok_or_else(|| format!("{} has no such address", pod.name))
        });
        endpoints.collect()
    }

    fn by_number(&self, rule: &str, s: usize) -> Result<Vec<Pod>, String> {
        let (condition, remark) = remark(rule);
        let mut pods = Vec::new();
        for member in self.members {
            if holds(condition, &[("i", member.number), ("s", s)])? {
                pods.push(member.before.clone());
            }
        }
        match remark.map(|remark| remark.trim_end_matches(" pods").parse::<usize>()) {
            None => Ok(pods),
            Some(Ok(count)) if count == pods.len() => Ok(pods),
            _ => Err(format!("{rule:?} are {} pods", pods.len())),
        }
    }

    /// `pod1`, or `pod0 (1.2.3.4, gone)` for one that is not there any more.
    fn by_name(&self, rule: &str) -> Result<Vec<Pod>, String> {
        let mut pods = Vec::new();
        let mut rest = rule;
        while !rest.is_empty() {
            let bracket = rest.find('(').unwrap_or(rest.len());
            let comma = rest.find(',').unwrap_or(rest.len());
            let end = match bracket < comma {
                true => {
                    rest.find(')')
                        .ok_or_else(|| format!("{rule:?} lacks a )"))?
                        + 1
                }
                false => comma,
            };
            pods.push(self.named(&rest[..end])?);
            rest = rest[end..].trim_start_matches([',', ' ']);
        }
        Ok(pods)
    }

    fn named(&self, text: &str) -> Result<Pod, String> {
        let (name, remark) = remark(text);
        if let Some(remark) = remark {
            let gone = remark.strip_suffix(", gone");
            let address = gone.ok_or_else(|| format!("{remark:?} is not understood"))?;
            let form = PodForm {
                name: Some(name.to_owned()),
                namespace: self.service.metadata.namespace.clone(),
                pod_ips: vec![address.to_owned()],
                ready: Some(true),
                ..PodForm::default()
            };
            return form.pod();
        }
        let mut members = self.members.iter();
        let member = members.find(|member| &*member.before.name == name);
        let member = member.ok_or_else(|| format!("no pod {name:?}"))?;
        Ok(member.before.clone())
    }
}
