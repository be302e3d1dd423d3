//! Shares of new connections, by address or by pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_conf::Backend;

use super::{bounded, within_u16};
use crate::address;
use crate::object::{Report, is_subdomain};

/// Shares of new connections relative to the other endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WeightsSpec {
    /// Weight of endpoints that are not listed.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub default: u32,
    /// Weights by address or by the name of the pod; 0 gives no new connections.
    #[serde(default)]
    pub endpoints: BTreeMap<String, u32>,
}

fn one() -> u32 {
    1
}

/// Weights that were checked, each 0 to [`Backend::MAX_WEIGHT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    default: u16,
    addresses: BTreeMap<IpAddr, u16>,
    pods: BTreeMap<String, u16>,
}

impl Weights {
    /// Weight of an endpoint: by its address, then by its pod. 0: no new connections.
    pub fn of(&self, address: IpAddr, pod: Option<&str>) -> u16 {
        let by_pod = || self.pods.get(pod?);
        let listed = self.addresses.get(&address).or_else(by_pod);
        listed.copied().unwrap_or(self.default)
    }
}

pub(super) fn check(report: &mut Report, raw: Option<&WeightsSpec>) -> Option<Weights> {
    let raw = raw?;
    let range = 0..=Backend::MAX_WEIGHT;
    let field = "spec.weights.default".to_owned();
    let mut weights = Weights {
        default: within_u16(report, field, raw.default, range.clone()),
        addresses: BTreeMap::new(),
        pods: BTreeMap::new(),
    };
    bounded(report, "spec.weights.endpoints", raw.endpoints.len());
    for (name, weight) in raw.endpoints.iter().take(super::MAX_ENTRIES) {
        let field = format!("spec.weights.endpoints.{name}");
        let weight = within_u16(report, field.clone(), *weight, range.clone());
        if let Some(address) = address::address(name) {
            if weights.addresses.insert(address, weight).is_some() {
                report.refuse(field, format!("{address} is there in another spelling"));
            }
        } else if is_subdomain(name) {
            weights.pods.insert(name.clone(), weight);
        } else {
            let message = format!("{name:?} is neither an address nor the name of a pod");
            report.refuse(field, message);
        }
    }
    Some(weights)
}
