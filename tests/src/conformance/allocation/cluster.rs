//! The cluster of a case, Services in it, and what they hold.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};
use sluice_controlplane::address::Family;
use sluice_controlplane::field::FieldError;
use sluice_controlplane::registry::{Cluster, Registry};

use crate::conformance::document::parse;

/// Ranges of the families, as the header of the format gives them.
const NETWORKS: [(&str, &str); 2] = [("IPv4", "10.0.0.0/16"), ("IPv6", "2000::/108")];

/// A registry for a cluster of `families`, the primary one first; both if none are named.
pub fn registry(families: Option<&[String]>) -> Result<Registry, String> {
    let both = NETWORKS.map(|(name, _)| name.to_owned());
    let families = families.unwrap_or(&both);
    let networks = families.iter().map(|family| {
        let known = NETWORKS.iter().find(|(name, _)| name == family);
        let network = known.and_then(|(_, network)| network.parse().ok());
        network.ok_or_else(|| format!("{family} is no family that the format knows"))
    });
    Ok(Registry::new(&Cluster {
        services: networks.collect::<Result<_, _>>()?,
        ..Cluster::default()
    }))
}

/// A Service with what a client submits on top of what the cases have in common.
pub fn service(name: &str, submitted: &Value) -> Result<Service, String> {
    let mut common = json!({
        "type": "ClusterIP",
        "ports": [{"port": 93, "targetPort": 76, "protocol": "TCP"}],
        "selector": {"k": "v"},
    });
    let submitted = submitted.as_object().ok_or("submitted is no map")?;
    if let Some(common) = common.as_object_mut() {
        common.extend(submitted.clone());
    }
    exact(name, &common)
}

/// A Service with nothing but the given fields; `finalizers` may stand among those of the spec.
pub fn exact(name: &str, fields: &Value) -> Result<Service, String> {
    let mut fields = fields.as_object().cloned().ok_or("a spec is no map")?;
    let finalizers = fields.remove("finalizers").map(serde_json::from_value);
    let finalizers = finalizers.transpose().map_err(|error| error.to_string())?;
    name_first_address(&mut fields);
    Ok(Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            finalizers,
            ..ObjectMeta::default()
        },
        spec: Some(spec(&Value::Object(fields))?),
        status: None,
    })
}

fn name_first_address(fields: &mut Map<String, Value>) {
    let first = fields.get("clusterIPs").and_then(|ips| ips.get(0)).cloned();
    if let (Some(first), None) = (first, fields.get("clusterIP")) {
        fields.insert("clusterIP".to_owned(), first);
    }
}

/// Reads a spec, in which every key must be known.
pub fn spec(value: &Value) -> Result<ServiceSpec, String> {
    match parse::<ServiceSpec>(value)? {
        (spec, unknown) if unknown.is_empty() => Ok(spec),
        (_, unknown) => Err(format!("unknown field {}", unknown.join(", "))),
    }
}

/// The spec of a stored Service.
pub fn spec_of(service: &Service) -> Result<&ServiceSpec, String> {
    service
        .spec
        .as_ref()
        .ok_or_else(|| "has no spec".to_owned())
}

/// Why a Service was refused, as one text.
pub fn told(errors: &[FieldError]) -> String {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// What a Service holds, or would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    pub addresses: Vec<IpAddr>,
    /// One for each port; 0 without one.
    pub node_ports: Vec<i32>,
    /// 0 without one.
    pub health_check: i32,
}

impl Values {
    /// What the fields say.
    pub fn of(spec: &ServiceSpec) -> Result<Self, String> {
        let ips = spec.cluster_ips.iter().flatten();
        let ips = ips.filter(|ip| *ip != "None");
        let addresses = ips.map(|ip| ip.parse().map_err(|_| format!("{ip:?} is no address")));
        let ports = spec.ports.iter().flatten();
        Ok(Self {
            addresses: addresses.collect::<Result<_, _>>()?,
            node_ports: ports.map(|port| port.node_port.unwrap_or(0)).collect(),
            health_check: spec.health_check_node_port.unwrap_or(0),
        })
    }

    /// All node ports, with that of the health check.
    pub fn ports(&self) -> impl Iterator<Item = i32> {
        let ports = self.node_ports.iter().chain([&self.health_check]);
        ports.copied().filter(|port| *port != 0)
    }

    /// Whether everything is taken in the registry (`held`), or nothing.
    pub fn check(&self, registry: &Registry, held: bool) -> Result<(), String> {
        for address in &self.addresses {
            same(&address.to_string(), held, registry.holds_address(*address))?;
        }
        self.ports().try_for_each(|port| {
            let number = u128::try_from(port).map_err(|_| format!("{port} is no port"))?;
            let taken = registry.node_ports().contains(number);
            same(&format!("node port {port}"), held, taken)
        })
    }

    /// Whether `self` has none of what `other` has.
    pub fn without(&self, other: &Self) -> Self {
        let ports: Vec<i32> = other.ports().collect();
        let gone = |port: &i32| !ports.contains(port);
        let addresses = self.addresses.iter().copied();
        Self {
            addresses: addresses
                .filter(|ip| !other.addresses.contains(ip))
                .collect(),
            node_ports: self.node_ports.iter().copied().filter(gone).collect(),
            health_check: Some(self.health_check).filter(gone).unwrap_or(0),
        }
    }
}

fn same(what: &str, held: bool, taken: bool) -> Result<(), String> {
    match held == taken {
        true => Ok(()),
        false if held => Err(format!("{what} is not taken in the pool")),
        false => Err(format!("{what} is taken in the pool")),
    }
}

/// How much of each pool is taken.
pub fn usage(registry: &Registry) -> [u64; 3] {
    [
        registry.addresses(Family::V4).used(),
        registry.addresses(Family::V6).used(),
        registry.node_ports().used(),
    ]
}
