//! Whom endpoints are meant for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_controlplane::slices::Settings;
use sluice_controlplane::slices::node::Nodes;
use sluice_controlplane::slices::pod::Pod;
use sluice_controlplane::slices::reconcile::{Outcome, endpoint, reconcile};
use sluice_controlplane::slices::service::{slice_labels, slice_ports};
use sluice_controlplane::slices::slice::{AddressType, Slice};

use super::objects::{HintsForm, NodeForm, PodForm, THIS_SERVICE, service};
use super::{Judged, same};

#[derive(Debug, Deserialize)]
pub struct Hints {
    #[serde(rename = "trafficDistribution")]
    traffic_distribution: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    endpoints: Vec<Placed>,
    expect: Expected,
    writes: Option<usize>,
}

/// An endpoint that is in a slice already when it has an address, or a Pod that is in none.
#[derive(Debug, Clone, Deserialize)]
struct Placed {
    address: Option<IpAddr>,
    pod: Option<String>,
    node: Option<String>,
    zone: Option<String>,
    ready: bool,
    #[serde(default)]
    hints: Option<HintsForm>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "is neither a list of hints nor totals")]
enum Expected {
    Each(Vec<Option<HintsForm>>),
    Totals(BTreeMap<String, Value>),
}

pub fn judge(case: &Hints) -> Judged {
    let form = json!({
        "name": "hinted",
        "namespace": "test",
        "annotations": case.annotations,
        "trafficDistribution": case.traffic_distribution,
    });
    let outcome = round(form, &case.endpoints, &NodeForms::Each, true, 1)?;
    let writes = &outcome.writes;
    let written = writes.create.len() + writes.update.len() + writes.delete.len();
    same("writes", &case.writes.unwrap_or(written), &written)?;
    let seen = seen(&outcome);
    match &case.expect {
        Expected::Each(expected) => {
            let hints = |hints: &Option<HintsForm>| hints.clone().unwrap_or_default();
            let expected: Vec<HintsForm> = expected.iter().map(hints).collect();
            let seen: Vec<HintsForm> = seen.into_iter().map(|hinted| hinted.hints).collect();
            same("hints", &expected, &seen)
        }
        Expected::Totals(expected) => {
            let totals = Totals::of(&seen);
            expected
                .iter()
                .try_for_each(|(name, value)| totals.is(name, value))
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct AnnotationHints {
    feature_enabled: bool,
    annotation: String,
    nodes: String,
    ready_endpoints_per_zone: BTreeMap<String, usize>,
    expect: AnnotationExpect,
}

#[derive(Debug, Deserialize)]
struct AnnotationExpect {
    hints_per_zone: Option<BTreeMap<String, usize>>,
    cross_zone_hints: usize,
    slices_rewritten: usize,
}

/// How many slices hold the endpoints the file leaves open: as many as are to be rewritten, and all
/// of these must be.
pub fn annotation_hints(case: &AnnotationHints) -> Judged {
    let zones = case.ready_endpoints_per_zone.iter();
    let zones = zones.flat_map(|(zone, count)| std::iter::repeat_n(zone, *count));
    let endpoints = zones.enumerate().map(|(index, zone)| {
        let index = u8::try_from(index).map_err(|_| "more than 256 endpoints".to_owned())?;
        Ok(Placed {
            address: Some([10, 0, 0, index].into()),
            pod: None,
            node: Some(format!("{zone}-0")),
            zone: Some(zone.clone()),
            ready: true,
            hints: None,
        })
    });
    let endpoints: Vec<Placed> = endpoints.collect::<Result<_, String>>()?;
    let form = json!({
        "name": "hinted",
        "namespace": "test",
        "annotations": {"service.kubernetes.io/topology-mode": case.annotation},
    });
    let nodes = NodeForms::Listed(nodes(&case.nodes)?);
    let slices = case.expect.slices_rewritten.max(1);
    let outcome = round(form, &endpoints, &nodes, case.feature_enabled, slices)?;
    let totals = Totals::of(&seen(&outcome));
    let expected = case.expect.hints_per_zone.clone().unwrap_or_default();
    same("hints per zone", &expected, &totals.per_zone)?;
    same(
        "cross-zone hints",
        &case.expect.cross_zone_hints,
        &totals.cross_zone,
    )?;
    let writes = &outcome.writes;
    same(
        "new or deleted slices",
        &0,
        &(writes.create.len() + writes.delete.len()),
    )?;
    same(
        "rewritten slices",
        &case.expect.slices_rewritten,
        &writes.update.len(),
    )
}

/// `10 nodes of 100m CPU in each of zone-a, zone-b`.
fn nodes(text: &str) -> Result<Vec<NodeForm>, String> {
    let unclear = || format!("the nodes {text:?} are not understood");
    let (count, rest) = text.split_once(" nodes of ").ok_or_else(unclear)?;
    let (cpu, zones) = rest.split_once(" CPU in each of ").ok_or_else(unclear)?;
    let count: u16 = count.parse().map_err(|_| unclear())?;
    let zones = zones.split(", ");
    let nodes = zones.flat_map(|zone| {
        (0..count).map(move |n| NodeForm::placed(&format!("{zone}-{n}"), Some(zone), cpu))
    });
    Ok(nodes.collect())
}

enum NodeForms {
    /// Each endpoint's, all worth the same.
    Each,
    Listed(Vec<NodeForm>),
}

/// A round over Pods of which those with an address are in slices already.
fn round(
    mut form: Value,
    endpoints: &[Placed],
    nodes: &NodeForms,
    zone_hints: bool,
    slices: usize,
) -> Result<Outcome, String> {
    let family = family(endpoints);
    form["ipFamilies"] = json!([family.as_str()]);
    form["ports"] = json!([{"port": 80}]);
    let service = service(&form)?;
    let mut known = Nodes::default();
    let each = endpoints.iter().filter_map(|placed| {
        let node = placed.node.as_deref()?;
        Some(NodeForm::placed(node, placed.zone.as_deref(), "1"))
    });
    let each: Vec<NodeForm> = each.collect();
    let forms = match nodes {
        NodeForms::Each => &each,
        NodeForms::Listed(forms) => forms,
    };
    for form in forms {
        known.insert(form.node()?);
    }
    let pods = endpoints
        .iter()
        .enumerate()
        .map(|(i, placed)| placed.pod(i).map(Arc::new));
    let pods: Vec<Arc<Pod>> = pods.collect::<Result<_, _>>()?;
    let settings = Settings {
        zone_hints,
        ..Settings::default()
    };
    let mut there = Vec::new();
    for (placed, pod) in endpoints
        .iter()
        .zip(&pods)
        .filter(|(placed, _)| placed.address.is_some())
    {
        let made = endpoint(&service, pod, &known, family);
        let mut made = made.ok_or("endpoints of two families")?;
        made.hints = placed.hints.clone().unwrap_or_default().hints();
        there.push(made);
    }
    let size = there.len().div_ceil(slices).max(1);
    let existing: Vec<Arc<Slice>> = there
        .chunks(size)
        .enumerate()
        .map(|(index, endpoints)| {
            Arc::new(Slice {
                name: format!("existing-{index}"),
                address_type: family,
                owner: Some(THIS_SERVICE.into()),
                labels: Arc::new(slice_labels(&service, &settings.manager)),
                ports: slice_ports(&service, &[Some(80)]).into(),
                endpoints: endpoints.to_vec(),
            })
        })
        .collect();
    Ok(reconcile(&service, &pods, &known, &existing, &settings))
}

/// Family of the first address.
fn family(endpoints: &[Placed]) -> AddressType {
    match endpoints.iter().find_map(|placed| placed.address) {
        Some(IpAddr::V6(_)) => AddressType::Ipv6,
        _ => AddressType::Ipv4,
    }
}

impl Placed {
    fn pod(&self, index: usize) -> Result<Pod, String> {
        let address = self.address.map(|address| address.to_string());
        let own = format!("192.0.2.{index}");
        let form = PodForm {
            name: Some(self.pod.clone().unwrap_or_else(|| format!("pod-{index}"))),
            namespace: Some("test".to_owned()),
            node_name: self.node.clone(),
            pod_ips: vec![address.unwrap_or(own)],
            ready: Some(self.ready),
            ..PodForm::default()
        };
        form.pod()
    }
}

struct Hinted {
    zone: Option<Arc<str>>,
    hints: HintsForm,
}

/// Hints of all endpoints, in the order of slices and places.
fn seen(outcome: &Outcome) -> Vec<Hinted> {
    let slices = outcome.writes.clone().slices();
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter());
    let seen = endpoints.map(|endpoint| Hinted {
        zone: endpoint.zone.clone(),
        hints: HintsForm::of(&endpoint.hints),
    });
    seen.collect()
}

#[derive(Debug, Default)]
struct Totals {
    per_zone: BTreeMap<String, usize>,
    per_node: BTreeMap<String, usize>,
    cross_zone: usize,
    without_hints: usize,
}

impl Totals {
    fn of(seen: &[Hinted]) -> Self {
        let mut totals = Self::default();
        for Hinted { zone, hints } in seen {
            let zones: BTreeSet<&str> = hints.for_zones.iter().map(String::as_str).collect();
            totals.cross_zone += usize::from(zones.iter().any(|z| Some(*z) != zone.as_deref()));
            totals.without_hints += usize::from(*hints == HintsForm::default());
            for zone in &hints.for_zones {
                *totals.per_zone.entry(zone.clone()).or_default() += 1;
            }
            for node in &hints.for_nodes {
                *totals.per_node.entry(node.clone()).or_default() += 1;
            }
        }
        totals
    }

    fn is(&self, name: &str, expected: &Value) -> Judged {
        let seen = match name {
            "per_zone" => json!(self.per_zone),
            "per_node" => json!(self.per_node),
            "cross_zone" => json!(self.cross_zone),
            "without_hints" => json!(self.without_hints),
            other => return Err(format!("nobody counts {other}")),
        };
        same(name, expected, &seen)
    }
}
