//! Rounds: a Service, its Pods and its slices of before; what is written and what then stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_controlplane::slices::Settings;
use sluice_controlplane::slices::node::Nodes;
use sluice_controlplane::slices::reconcile::{Writes, reconcile};
use sluice_controlplane::slices::service::address_types;
use sluice_controlplane::slices::slice::{AddressType, Endpoint, Slice};

use super::objects::{NodeForm, THIS_SERVICE, labels, ports, service};
use super::rules::numbers;
use super::setting::{EndpointsForm, Member, PodsForm, Setting, SliceForm, SlicesForm};
use super::{Judged, same};

#[derive(Debug, Deserialize)]
pub struct Case {
    service: Value,
    max_endpoints_per_slice: Option<usize>,
    #[serde(default)]
    nodes: Vec<NodeForm>,
    pods: PodsForm,
    existing_slices: SlicesForm,
    expect: Expect,
    #[serde(default)]
    then: Vec<Then>,
}

#[derive(Debug, Deserialize)]
struct Then {
    change: String,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
struct Expect {
    writes: Option<WritesForm>,
    slice_sizes: Option<Vec<usize>>,
    slices: Option<Vec<SliceForm>>,
    #[serde(default)]
    metrics: BTreeMap<String, usize>,
    #[serde(default)]
    metrics_this_round: BTreeMap<String, usize>,
    retry_wanted: Option<bool>,
    every_endpoint: Option<super::objects::ConditionsForm>,
    every_slice: Option<EverySlice>,
    #[serde(default)]
    every_slice_has_label: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct EverySlice {
    #[serde(rename = "addressType")]
    address_type: String,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct WritesForm {
    create: usize,
    update: usize,
    delete: usize,
}

/// Counters of a round, or of all rounds so far.
type Metrics = BTreeMap<&'static str, usize>;

/// Counters that add up over rounds; the others tell how things stand.
const ADD_UP: [&str; 6] = [
    "added",
    "removed",
    "slices_changed",
    "created",
    "updated",
    "deleted",
];

pub fn judge(case: Case) -> Judged {
    let namespace = case.service.get("namespace").and_then(Value::as_str);
    let members = case.pods.members(namespace.unwrap_or("default"))?;
    let mut nodes = Nodes::default();
    for node in &case.nodes {
        nodes.insert(node.node()?);
    }
    let mut world = World {
        service: case.service.clone(),
        members,
        nodes,
        slices: Vec::new(),
        limit: case.max_endpoints_per_slice.unwrap_or(100),
        total: Metrics::new(),
    };
    let setting = Setting {
        service: &service(&world.service)?,
        members: &world.members,
        nodes: &world.nodes,
    };
    world.slices = setting.slices(&case.existing_slices)?;
    world.round(&case.expect)?;
    for (index, then) in case.then.iter().enumerate() {
        let place = |error| format!("then[{index}]: {error}");
        world.change(&then.change).map_err(place)?;
        world.round(&then.expect).map_err(place)?;
    }
    Ok(())
}

struct World {
    service: Value,
    members: Vec<Member>,
    nodes: Nodes,
    slices: Vec<Arc<Slice>>,
    limit: usize,
    total: Metrics,
}

impl World {
    fn round(&mut self, expect: &Expect) -> Judged {
        let service = service(&self.service)?;
        let pods: Vec<_> = self.members.iter().map(|m| Arc::clone(&m.now)).collect();
        let settings = Settings {
            max_endpoints: self.limit,
            ..Settings::default()
        };
        let outcome = reconcile(&service, &pods, &self.nodes, &self.slices, &settings);
        let writes = WritesForm {
            create: outcome.writes.create.len(),
            update: outcome.writes.update.len(),
            delete: outcome.writes.delete.len(),
        };
        let slices = outcome.writes.slices();
        let of_service = slices
            .iter()
            .filter(|slice| address_types(&service).contains(&slice.address_type));
        let metrics = Metrics::from([
            ("added", outcome.added),
            ("removed", outcome.removed),
            ("desired_endpoints", outcome.endpoints),
            ("desired_slices", outcome.fewest_slices),
            ("actual_slices", of_service.count()),
            (
                "slices_changed",
                writes.create + writes.update + writes.delete,
            ),
            ("created", writes.create),
            ("updated", writes.update),
            ("deleted", writes.delete),
        ]);
        for (name, count) in &metrics {
            let total = self.total.entry(name).or_default();
            *total = if ADD_UP.contains(name) {
                *total + count
            } else {
                *count
            };
        }
        expect.counters(&expect.metrics_this_round, &metrics)?;
        expect.counters(&expect.metrics, &self.total)?;
        if let Some(expected) = &expect.writes {
            same("writes", expected, &writes)?;
        }
        let retry = !outcome.left_out.is_empty();
        same("retry", &expect.retry_wanted.unwrap_or(retry), &retry)?;
        expect.slices(&slices)?;
        self.slices = slices;
        Ok(())
    }

    fn change(&mut self, change: &str) -> Judged {
        let rest = |start: &str| change.strip_prefix(start);
        if change == "none" || rest("none;").is_some() {
            return Ok(());
        }
        if let Some(list) = rest("only pods ").and_then(|list| list.strip_suffix(" remain")) {
            let list = numbers(list)?;
            self.members.retain(|member| list.contains(&member.number));
            return Ok(());
        }
        let change = rest("service ").unwrap_or(change);
        let parts = change
            .split_once(" becomes ")
            .or_else(|| change.split_once(" become "));
        let unclear = || format!("the change {change:?} is not understood");
        let (field, value) = parts.ok_or_else(unclear)?;
        let document = format!("value: {value}");
        let value = serde_saphyr::from_str::<Map<String, Value>>(&document);
        let value = value
            .ok()
            .and_then(|mut map| map.remove("value"))
            .ok_or_else(unclear)?;
        match (field, self.service["ports"].as_array_mut()) {
            ("targetPort" | "the targetPort" | "port's targetPort", Some(ports)) => {
                for port in ports {
                    port["targetPort"] = value.clone();
                }
            }
            (field, _) if field.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                self.service[field] = value;
            }
            _ => return Err(unclear()),
        }
        Ok(())
    }
}

impl Expect {
    fn counters(&self, expected: &BTreeMap<String, usize>, seen: &Metrics) -> Judged {
        for (name, count) in expected {
            match seen.get(name.as_str()) {
                Some(seen) => same(name, count, seen)?,
                None => return Err(format!("nobody counts {name}")),
            }
        }
        Ok(())
    }

    fn slices(&self, slices: &[Arc<Slice>]) -> Judged {
        if let Some(expected) = &self.slice_sizes {
            let sorted = |mut sizes: Vec<usize>| {
                sizes.sort_unstable();
                sizes
            };
            let seen = slices.iter().map(|slice| slice.endpoints.len()).collect();
            same("sizes", &sorted(expected.clone()), &sorted(seen))?;
        }
        if let Some(expected) = &self.slices {
            exact(expected, slices)?;
        }
        for slice in slices {
            if let Some(every) = &self.every_slice {
                same(
                    "address type",
                    &AddressType::of(&every.address_type),
                    &slice.address_type,
                )?;
            }
            for (key, value) in labels(&self.every_slice_has_label) {
                same(&key, &Some(&value), &slice.labels.get(&key))?;
            }
            for endpoint in &slice.endpoints {
                self.endpoint(endpoint)?;
            }
        }
        Ok(())
    }

    fn endpoint(&self, endpoint: &Endpoint) -> Judged {
        let Some(every) = &self.every_endpoint else {
            return Ok(());
        };
        let seen = endpoint.conditions;
        for (expected, seen) in [
            (every.ready, seen.ready),
            (every.serving, seen.serving),
            (every.terminating, seen.terminating),
        ] {
            same("condition of every endpoint", &expected.or(seen), &seen)?;
        }
        Ok(())
    }
}

/// Whether these very slices are there, in any order.
fn exact(expected: &[SliceForm], slices: &[Arc<Slice>]) -> Judged {
    let mut left: Vec<&Arc<Slice>> = slices.iter().collect();
    for form in expected {
        let mut reasons = Vec::new();
        let found = left.iter().position(|slice| match is(form, slice) {
            Ok(()) => true,
            Err(reason) => {
                reasons.push(reason);
                false
            }
        });
        match found {
            Some(index) => left.remove(index),
            None => return Err(format!("no slice {form:?}: {}", reasons.join("; "))),
        };
    }
    same("further slices", &0, &left.len())
}

fn is(form: &SliceForm, slice: &Slice) -> Judged {
    same(
        "address type",
        &AddressType::of(&form.address_type),
        &slice.address_type,
    )?;
    same("ports", &&*ports(&form.ports)?, &&*slice.ports)?;
    if let Some(expected) = &form.labels {
        same("labels", &labels(expected), &slice.labels)?;
    }
    if let Some(name) = &form.name {
        same("name", name, &slice.name)?;
    }
    let EndpointsForm::Listed(expected) = &form.endpoints else {
        return Err("endpoints that are expected are listed".to_owned());
    };
    let expected: Result<Vec<Endpoint>, String> = expected.iter().map(|e| e.endpoint()).collect();
    let lines = |endpoints: &[Endpoint]| -> BTreeSet<String> {
        endpoints
            .iter()
            .map(|endpoint| format!("{endpoint:?}"))
            .collect()
    };
    same("endpoints", &lines(&expected?), &lines(&slice.endpoints))
}

#[derive(Debug, Deserialize)]
pub struct PlannedWrites {
    service_being_deleted: bool,
    planned: Names,
    existing: BTreeSet<String>,
    expect_existing: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Names {
    #[serde(default)]
    create: Vec<String>,
    #[serde(default)]
    update: Vec<String>,
    #[serde(default)]
    delete: Vec<String>,
}

pub fn planned_writes(case: &PlannedWrites) -> Judged {
    let owner: Arc<str> = THIS_SERVICE.into();
    let slice = |name: &String| Slice {
        name: name.clone(),
        address_type: AddressType::Ipv4,
        owner: Some(Arc::clone(&owner)),
        labels: Arc::default(),
        ports: [].into(),
        endpoints: Vec::new(),
    };
    let planned = &case.planned;
    let spoken_for = planned
        .update
        .iter()
        .chain(&planned.delete)
        .collect::<BTreeSet<_>>();
    let others = case
        .existing
        .iter()
        .filter(|name| !spoken_for.contains(name));
    let mut writes = Writes {
        create: planned.create.iter().map(slice).collect(),
        update: planned.update.iter().map(slice).collect(),
        delete: planned.delete.iter().map(slice).map(Arc::new).collect(),
        unchanged: others.map(slice).map(Arc::new).collect(),
    };
    writes.settle(Some(&owner), case.service_being_deleted);
    let seen = writes
        .slices()
        .iter()
        .map(|slice| slice.name.clone())
        .collect();
    same("slices", &case.expect_existing, &seen)
}
