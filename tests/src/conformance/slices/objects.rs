//! Objects as the file writes them: flat.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_controlplane::address;
use sluice_controlplane::slices::Settings;
use sluice_controlplane::slices::node::Node;
use sluice_controlplane::slices::pod::Pod;
use sluice_controlplane::slices::slice::{Conditions, Endpoint, Hints, Port, Target};

use super::strict;
use crate::conformance::flows::form::nullable;

/// Unique id of the Service of a case.
pub const THIS_SERVICE: &str = "uid-of-this-service";

/// A Service: words of its metadata, the rest is its spec.
pub fn service(form: &Value) -> Result<api::Service, String> {
    let Value::Object(form) = form else {
        return Err(format!("{form} is not a Service"));
    };
    let mut spec = form.clone();
    let mut metadata = Map::new();
    for key in [
        "name",
        "namespace",
        "labels",
        "annotations",
        "deletionTimestamp",
    ] {
        if let Some(value) = spec.remove(key) {
            metadata.insert(key.to_owned(), value);
        }
    }
    metadata.insert("uid".to_owned(), THIS_SERVICE.into());
    strict(&json!({"metadata": metadata, "spec": spec}))
}

/// A Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodForm {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(alias = "node")]
    pub node_name: Option<String>,
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<String>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    pub ready: Option<bool>,
    pub terminating: Option<bool>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    pub phase: Option<String>,
    pub restart_policy: Option<String>,
    /// Ports of a single container.
    pub ports: Option<Vec<Value>>,
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    pub sidecars: Vec<Value>,
    #[serde(alias = "init_containers", deserialize_with = "nullable")]
    pub init_containers: Vec<Value>,
}

impl PodForm {
    /// Its facts, read from the API's object.
    pub fn pod(&self) -> Result<Pod, String> {
        let ready = self.ready.unwrap_or(false);
        let ips = self.pod_ips.iter().chain(&self.pod_ip);
        let ips: Vec<_> = ips.map(|ip| json!({"ip": ip})).collect();
        let mut containers = self.containers.clone();
        containers.extend(self.ports.as_ref().map(|ports| json!({"ports": ports})));
        let mut started = self.init_containers.clone();
        for mut sidecar in self.sidecars.clone() {
            sidecar["restartPolicy"] = "Always".into();
            started.push(sidecar);
        }
        let pod: api::Pod = strict(&json!({
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
                "labels": self.labels,
                "deletionTimestamp": self.terminating.filter(|is| *is).map(|_| "2024-01-01T00:00:00Z"),
            },
            "spec": {
                "nodeName": self.node_name,
                "hostname": self.hostname,
                "subdomain": self.subdomain,
                "restartPolicy": self.restart_policy,
                "containers": containers,
                "initContainers": started,
            },
            "status": {
                "phase": self.phase,
                "podIPs": ips,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        }))?;
        Ok(Pod::from(&pod))
    }
}

/// A Node: metadata, and CPU where it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeForm {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    #[serde(skip)]
    pub cpu: Option<String>,
}

impl NodeForm {
    /// In a zone, with CPUs.
    pub fn placed(name: &str, zone: Option<&str>, cpu: &str) -> Self {
        let zone = zone.map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.to_owned()));
        Self {
            name: name.to_owned(),
            labels: zone.into_iter().collect(),
            cpu: Some(cpu.to_owned()),
        }
    }

    /// Its facts, read from the API's object.
    pub fn node(&self) -> Result<Node, String> {
        let cpu: BTreeMap<_, _> = self.cpu.iter().map(|cpu| ("cpu", cpu)).collect();
        let node: api::Node = strict(&json!({
            "metadata": {"name": self.name, "labels": self.labels},
            "status": {"allocatable": cpu, "conditions": [{"type": "Ready", "status": "True"}]},
        }))?;
        Ok(Node::from(&node))
    }
}

/// An endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EndpointForm {
    pub addresses: Vec<String>,
    pub conditions: ConditionsForm,
    pub node_name: Option<String>,
    pub zone: Option<String>,
    pub hostname: Option<String>,
    pub target_ref: Option<TargetForm>,
    #[serde(alias = "targetUID")]
    pub target_uid: Option<String>,
    /// Decides nothing: an endpoint does not change with the version of its Pod.
    #[serde(rename = "targetResourceVersion")]
    pub _target_resource_version: Option<Value>,
    pub hints: Option<HintsForm>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConditionsForm {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "is neither namespace/name nor {kind, namespace, name}"
)]
pub enum TargetForm {
    Short(String),
    Long {
        kind: String,
        namespace: String,
        name: String,
        uid: Option<String>,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HintsForm {
    #[serde(deserialize_with = "nullable")]
    pub for_zones: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub for_nodes: Vec<String>,
}

impl HintsForm {
    pub fn of(hints: &Hints) -> Self {
        let texts = |list: &[Arc<str>]| list.iter().map(|text| text.to_string()).collect();
        Self {
            for_zones: texts(&hints.zones),
            for_nodes: texts(&hints.nodes),
        }
    }

    pub fn hints(&self) -> Hints {
        let list = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        Hints {
            zones: list(&self.for_zones),
            nodes: list(&self.for_nodes),
        }
    }
}

impl EndpointForm {
    /// The endpoint.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        let [address] = self.addresses.as_slice() else {
            return Err(format!("{:?}: one address is read", self.addresses));
        };
        let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
        let mut target = self
            .target_ref
            .as_ref()
            .map(TargetForm::target)
            .transpose()?;
        if let (Some(target), Some(uid)) = (&mut target, &self.target_uid) {
            target.uid = Some(uid.as_str().into());
        }
        Ok(Endpoint {
            address: address::address(address).ok_or_else(|| format!("{address} is no address"))?,
            conditions: Conditions {
                ready: self.conditions.ready,
                serving: self.conditions.serving,
                terminating: self.conditions.terminating,
            },
            hostname: shared(&self.hostname),
            node: shared(&self.node_name),
            zone: shared(&self.zone),
            target,
            hints: self.hints.clone().unwrap_or_default().hints(),
        })
    }
}

impl TargetForm {
    fn target(&self) -> Result<Target, String> {
        let (namespace, name, uid) = match self {
            TargetForm::Short(text) => match text.split_once('/') {
                Some((namespace, name)) => (namespace, name, None),
                None => return Err(format!("{text} is not namespace/name")),
            },
            TargetForm::Long { kind, .. } if kind != "Pod" => {
                return Err(format!("a {kind} is no Pod"));
            }
            TargetForm::Long {
                namespace,
                name,
                uid,
                ..
            } => (&**namespace, &**name, uid.as_deref()),
        };
        Ok(Target {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.map(Arc::from),
        })
    }
}

/// Ports of a slice, sorted, read as the API's.
pub fn ports(forms: &[Value]) -> Result<Vec<Port>, String> {
    let mut ports = Vec::new();
    for form in forms {
        let port: discovery::EndpointPort = strict(form)?;
        let number = port.port.and_then(|port| u16::try_from(port).ok());
        ports.push(Port {
            name: port.name.unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref().unwrap_or("TCP"))?,
            number: number.ok_or_else(|| format!("{form} has no port number"))?,
            app_protocol: port.app_protocol,
        });
    }
    ports.sort();
    Ok(ports)
}

pub fn protocol(text: &str) -> Result<sluice_conf::Protocol, String> {
    match text {
        "TCP" => Ok(sluice_conf::Protocol::Tcp),
        "UDP" => Ok(sluice_conf::Protocol::Udp),
        "SCTP" => Ok(sluice_conf::Protocol::Sctp),
        other => Err(format!("{other} is no protocol")),
    }
}

/// Labels in which `<manager>` is whoever manages slices.
pub fn labels(form: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let manager = Settings::default().manager;
    let value = |value: &String| value.replace("<manager>", &manager);
    form.iter()
        .map(|(key, text)| (key.clone(), value(text)))
        .collect()
}
