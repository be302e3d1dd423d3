//! Suite `proxy-flows`: packets through Services.
//!
//! How the file's words are taken on a gateway:
//! - `config`: `nodeIPs` become the nodes' networks, `podCIDR` the pods' (none without a local
//!   detector), `serviceCIDR` the Services'; `nodePortAddresses` select which of the `nodeIPs`
//!   serve node ports; `nodeName` is the only local node. Source addresses are translated as
//!   kube-proxy does, and any external IP is allowed. `family` says which proxy upstream ran; a
//!   gateway serves both families at once, so it only must be one.
//! - A gateway has addresses of its own, which no case uses; `masquerade` means one of those.
//! - What the API server would have removed from a Service is removed: a node port of a ClusterIP
//!   Service.
//! - A flow is a case of its own. Flows of the profile `iptables` contradict those of `nftables`,
//!   by which Sluice is judged.

mod affinity;
mod cluster;
mod endpoint_map;
mod flow;
pub mod form;
mod gateway;
mod health;
mod objects;
mod probe;
mod programming;
mod sequence;
mod services;
mod usable;
mod wire;

use serde_json::Value;

use self::cluster::Cluster;
use self::form::{Flow, Profile, Scenario};
use super::document::{Case, Document};
use super::{Outcome, Report, each, guarded};

/// Name of the suite.
pub const NAME: &str = "proxy-flows";

/// The sections that there are.
const SECTIONS: [&str; 11] = [
    "scenarios",
    "health_check_server",
    "endpoint_categorisation",
    "endpoint_map",
    "service_map",
    "no_local_endpoints",
    "sequences",
    "vip_programming",
    "normalisation",
    "session_affinity",
    "terminating_health",
];

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    for section in document.sections() {
        if !SECTIONS.contains(&section) {
            report.note(format!("unknown section {section} is not read"));
        }
    }
    for case in document.cases("scenarios")? {
        scenario(&case, report);
    }
    each(document, "health_check_server", report, |asked, _| {
        health::judge(asked).into()
    })?;
    each(
        document,
        "endpoint_categorisation",
        report,
        usable::categorised,
    )?;
    each(document, "endpoint_map", report, |change, value| {
        endpoint_map::judge(change, value).into()
    })?;
    each(document, "service_map", report, |map, value| {
        services::mapped(map, value).into()
    })?;
    each(
        document,
        "no_local_endpoints",
        report,
        usable::without_local,
    )?;
    each(document, "sequences", report, |life, value| {
        sequence::judge(life, value).into()
    })?;
    each(document, "vip_programming", report, programming::handled)?;
    each(document, "normalisation", report, programming::normalised)?;
    let scenarios = document.cases("scenarios")?;
    each(document, "session_affinity", report, |fact, value| {
        affinity::judge(fact, value, &scenarios).into()
    })?;
    each(document, "terminating_health", report, |fact, value| {
        services::terminating(fact, value).into()
    })?;
    Ok(())
}

/// Judges each flow of a scenario.
fn scenario(case: &Case<'_>, report: &mut Report) {
    let scenario: Scenario = match case.parse(report) {
        Ok(scenario) => scenario,
        Err(error) => return report.add(&case.id, Outcome::Failed(error)),
    };
    let cluster = Cluster::of_scenario(&scenario, case.value(), report, &case.id);
    for (index, value) in scenario.flows.iter().enumerate() {
        let flow = Case::new(value, &format!("{}/{}", case.id, index + 1));
        let outcome = match scenario.profile {
            Profile::Iptables => {
                let why = "profile iptables: Sluice does as kube-proxy's nftables mode";
                Outcome::NotApplicable(why.to_owned())
            }
            Profile::Common | Profile::Nftables => one(&flow, &cluster, report),
        };
        report.add(&flow.id, outcome);
    }
}

fn one(case: &Case<'_>, cluster: &Result<Cluster, String>, report: &mut Report) -> Outcome {
    let (flow, cluster): (Flow, _) = match (case.parse(report), cluster) {
        (Ok(flow), Ok(cluster)) => (flow, cluster),
        (Err(error), _) => return Outcome::Failed(error),
        (_, Err(error)) => return Outcome::Failed(error.clone()),
    };
    guarded(|| flow::judge(&flow, cluster))
}

/// Every string of a value, keys among them.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| std::iter::once(key.as_str()).chain(strings(value)))
            .collect(),
        _ => Vec::new(),
    }
}
