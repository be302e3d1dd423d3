//! What there is while a question is asked: Services, slices and Pods as the file writes them, made
//! into a zone by the functions of the control plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_controlplane::dns::records::{LeftOut, Named, Published};
use sluice_controlplane::dns::zone::Zone;
use sluice_controlplane::endpoints::{self, Endpoint, Slice};
use sluice_controlplane::object::{Lines, NamespacedName};
use sluice_controlplane::service::{self, ServiceSpec};

/// A fixture.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fixture {
    pub zone: Option<String>,
    pub ttl: Option<u32>,
    #[serde(default, rename = "negativeTTL")]
    _negative_ttl: Option<u32>,
    #[serde(default)]
    pub zones: Vec<String>,
    #[serde(default)]
    pub server_addresses: Vec<IpAddr>,
    #[serde(default)]
    services: Vec<ServiceForm>,
    #[serde(default)]
    endpoints: BTreeMap<String, EndpointsForm>,
    #[serde(default)]
    slices: Vec<SliceForm>,
    #[serde(default)]
    pods: Vec<PodForm>,
    /// Which namespaces exist beside those of objects, in words.
    namespaces: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceForm {
    namespace: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(default)]
    ports: Vec<PortForm>,
    #[serde(default, rename = "externalIPs")]
    external_ips: Vec<String>,
    external_name: Option<String>,
    #[serde(default)]
    publish_not_ready_addresses: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct PortForm {
    #[serde(default)]
    name: String,
    protocol: String,
    port: u16,
}

#[derive(Debug, Deserialize)]
struct EndpointsForm {
    #[serde(default)]
    ports: PortsForm,
    #[serde(default)]
    addresses: Vec<AddressForm>,
}

#[derive(Debug, Deserialize)]
struct SliceForm {
    service: String,
    slice: String,
    #[serde(default)]
    ports: PortsForm,
    #[serde(default)]
    addresses: Vec<AddressForm>,
}

/// Ports, or the word that there are none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PortsForm {
    Some(Vec<PortForm>),
    Word(String),
}

impl Default for PortsForm {
    fn default() -> Self {
        PortsForm::Some(Vec::new())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AddressForm {
    ip: IpAddr,
    hostname: Option<String>,
    ready: Option<bool>,
    node_name: Option<String>,
    zone: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PodForm {
    namespace: String,
    name: String,
    ip: IpAddr,
}

impl Fixture {
    /// Changes it as a sentence says.
    pub fn change(&mut self, sentence: &str) -> Result<(), String> {
        let unknown = || format!("change: {sentence:?} is not known");
        let (name, address) = sentence
            .split_once(" gets external IP ")
            .ok_or_else(unknown)?;
        let mut services = self.services.iter_mut();
        let service = services.find(|service| service.name == name);
        let service = service.ok_or_else(unknown)?;
        service.external_ips.push(address.to_owned());
        Ok(())
    }

    /// The zone, in which the namespace of `question` exists if the fixture says so.
    pub fn zone(&self, question: &str) -> Result<Zone, String> {
        let mut zone = Zone::default();
        let slices = self.all_slices()?;
        let mut named = BTreeSet::new();
        for form in &self.services {
            let spec = form.spec()?;
            let name = NamespacedName::new(&spec.namespace, &spec.name);
            let made = publish(&name, &slices, Some(&spec));
            zone.set(&name, Some(made));
            named.insert(name);
        }
        for slice in &slices {
            let service = slice.service.as_deref().unwrap_or_default();
            let name = NamespacedName::new(&slice.namespace, service);
            if named.insert(name.clone()) {
                zone.set(&name, Some(publish(&name, &slices, None)));
            }
        }
        for PodForm {
            namespace,
            name,
            ip,
        } in &self.pods
        {
            zone.set_pod(&NamespacedName::new(namespace, name), &[*ip]);
        }
        let asked = self.namespace_of(question);
        let others = self.pods.iter().map(|pod| pod.namespace.clone());
        for namespace in others.chain(asked) {
            zone.set_namespace(&namespace, true);
        }
        Ok(zone)
    }

    /// The namespace that a question is about, unless it is said not to exist.
    fn namespace_of(&self, question: &str) -> Option<String> {
        let (_, missing) = self
            .namespaces
            .as_deref()?
            .split_once("every namespace exists")?;
        let zone = self.zone.as_deref()?;
        let base = question.to_ascii_lowercase();
        let base = base.strip_suffix(zone)?.trim_end_matches('.');
        let (rest, _branch) = base.rsplit_once('.')?;
        let namespace = rest.rsplit('.').next()?;
        let mut words = missing.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let exists = !words.any(|word| word == namespace);
        exists.then(|| namespace.to_owned())
    }

    fn all_slices(&self) -> Result<Vec<Slice>, String> {
        let of_services = self.endpoints.iter();
        let of_services =
            of_services.map(|(service, e)| (service, service, &e.ports, &e.addresses));
        let alone = self.slices.iter();
        let alone = alone.map(|s| (&s.service, &s.slice, &s.ports, &s.addresses));
        let mut slices = Vec::new();
        for (service, name, ports, addresses) in of_services.chain(alone) {
            let (space, service) = service
                .split_once('/')
                .ok_or_else(|| format!("{service:?} is not NAMESPACE/SERVICE"))?;
            let name = name.rsplit('/').next().unwrap_or(name);
            for family in ["IPv4", "IPv6"] {
                let own = addresses
                    .iter()
                    .filter(|a| a.ip.is_ipv4() == (family == "IPv4"));
                let name = format!("{name}-{}", family.to_ascii_lowercase());
                slices.push(slice((space, &name, service), family, ports, own)?);
            }
        }
        Ok(slices)
    }
}

fn publish(name: &NamespacedName, slices: &[Slice], spec: Option<&ServiceSpec>) -> Named {
    let own = slices.iter().filter(|slice| {
        slice.namespace == name.namespace && slice.service.as_deref() == Some(&*name.name)
    });
    let own: Vec<&Slice> = own.collect();
    let any_way = spec.is_some_and(|spec| spec.publish_not_ready_addresses);
    let left_out = |_: &Slice, endpoint: &Endpoint| {
        (!endpoint.conditions.ready && !any_way).then_some(LeftOut::NotReady)
    };
    let published = Published {
        slices: &own,
        left_out: &left_out,
        zone: None,
    };
    match spec {
        Some(spec) => Named::of(spec, &published, |_| true),
        None => Named::of_slices(name, &published),
    }
}

impl ServiceForm {
    fn spec(&self) -> Result<ServiceSpec, String> {
        // The API wants a port where the file has none.
        let port = PortForm {
            name: String::new(),
            protocol: "TCP".to_owned(),
            port: 1,
        };
        let ports = match self.ports.is_empty() {
            true => vec![port],
            false => self.ports.clone(),
        };
        let ports: Vec<Value> = ports.iter().map(PortForm::json).collect();
        let value = json!({
            "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "type": self.kind,
                "clusterIP": self.cluster_ips.first(),
                "clusterIPs": self.cluster_ips,
                "ports": ports,
                "externalIPs": self.external_ips,
                "externalName": self.external_name,
                "publishNotReadyAddresses": self.publish_not_ready_addresses,
            },
        });
        let service: Service = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let checked = service::check(&self.namespace, &self.name, &service, &Lines::default());
        let name = format!("{}/{}", self.namespace, self.name);
        let mut spec = checked
            .good
            .ok_or_else(|| format!("Service {name}: {:?}", checked.issues))?;
        if self.ports.is_empty() {
            spec.ports.clear();
        }
        Ok(spec)
    }
}

impl PortForm {
    fn json(&self) -> Value {
        json!({"name": self.name, "protocol": self.protocol, "port": self.port})
    }
}

fn slice<'a>(
    (namespace, name, service): (&str, &str, &str),
    family: &str,
    ports: &PortsForm,
    addresses: impl Iterator<Item = &'a AddressForm>,
) -> Result<Slice, String> {
    let ports: Vec<Value> = match ports {
        PortsForm::Some(ports) => ports.iter().map(PortForm::json).collect(),
        PortsForm::Word(word) if word == "none" => Vec::new(),
        PortsForm::Word(word) => return Err(format!("ports: {word:?} is not known")),
    };
    let endpoints = addresses.map(|address| {
        json!({
            "addresses": [address.ip],
            "hostname": address.hostname,
            "nodeName": address.node_name,
            "zone": address.zone,
            "conditions": {"ready": address.ready.unwrap_or(true)},
        })
    });
    let value = json!({
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {endpoints::SERVICE_LABEL: service},
        },
        "addressType": family,
        "ports": ports,
        "endpoints": endpoints.collect::<Vec<_>>(),
    });
    let slice: EndpointSlice = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let checked = endpoints::check(namespace, name, &slice);
    let why = || format!("slice {namespace}/{name}: {:?}", checked.issues);
    checked.good.clone().ok_or_else(why)
}
