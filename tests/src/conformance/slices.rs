//! Suite `endpointslices`: how Pods and a Service become EndpointSlices.
//!
//! How the file's words are taken:
//! - a Pod, a Node or a Service is written flat; the words of its metadata, spec and status are
//!   sorted into the API's object, which is read as any other;
//! - `<manager>` is whoever the slices are managed by; the Service has a unique id of its own, and
//!   an owner other than `this service` has another one;
//! - rules in words (which Pods, which readiness, which change) are read by a small grammar; what
//!   it does not know fails the case.
//!
//! Every key is judged or fails its case; only `about` and what every suite ignores is left out.

mod facts;
mod hints;
mod objects;
mod reconcile;
mod rules;
mod setting;

use serde::de::DeserializeOwned;

use super::document::{self, Document};
use super::{Report, guarded};

/// Name of the suite.
pub const NAME: &str = "endpointslices";

/// Keys of a case that tell the reader something and decide nothing.
const DESCRIPTIVE: [&str; 6] = ["id", "title", "origin", "note", "derived", "about"];

const JUDGED: [&str; 17] = [
    "pod_to_endpoint",
    "pod_membership",
    "hostname",
    "endpoint_ports",
    "target_port_lookup",
    "address_types",
    "slice_labels",
    "service_key",
    "reconcile",
    "planned_writes",
    "hints",
    "annotation_hints",
    "annotation_mode",
    "pod_changes",
    "selection",
    "affected_services",
    "endpoint_equality",
];

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    for section in document.sections().filter(|name| !JUDGED.contains(name)) {
        report.note(format!("unknown section {section} is not read"));
    }
    for section in JUDGED {
        for case in document.cases(section)? {
            let outcome = guarded(|| one(section, case.value()).into());
            report.add(&case.id, outcome);
        }
    }
    Ok(())
}

type Judged = Result<(), String>;

fn one(section: &str, value: &serde_json::Value) -> Judged {
    match section {
        "pod_to_endpoint" => facts::pod_to_endpoint(&strict(value)?),
        "pod_membership" => facts::pod_membership(&strict(value)?),
        "hostname" => facts::hostname(&strict(value)?),
        "endpoint_ports" => facts::endpoint_ports(&strict(value)?),
        "target_port_lookup" => facts::target_port_lookup(&strict(value)?),
        "address_types" => facts::address_types(&strict(value)?),
        "slice_labels" => facts::slice_labels(&strict(value)?),
        "service_key" => facts::service_key(&strict(value)?),
        "reconcile" => reconcile::judge(strict(value)?),
        "planned_writes" => reconcile::planned_writes(&strict(value)?),
        "hints" => hints::judge(&strict(value)?),
        "annotation_hints" => hints::annotation_hints(&strict(value)?),
        "annotation_mode" => facts::annotation_mode(&strict(value)?),
        "pod_changes" => facts::pod_changes(&strict(value)?),
        "selection" => facts::selection(&strict(value)?),
        "affected_services" => facts::affected_services(&strict(value)?),
        "endpoint_equality" => facts::endpoint_equality(&strict(value)?),
        other => Err(format!("nobody judges the section {other}")),
    }
}

/// Reads a value of which every key must be known.
fn strict<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, String> {
    let (read, unknown) = document::parse(value)?;
    let unknown = unknown.into_iter();
    let unknown: Vec<_> = unknown
        .filter(|key| !DESCRIPTIVE.contains(&key.as_str()))
        .collect();
    match unknown.is_empty() {
        true => Ok(read),
        false => Err(format!("unknown key {}", unknown.join(", "))),
    }
}

/// Nothing, or what was expected and what was seen.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, seen: &T) -> Judged {
    match expected == seen {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, seen {seen:?}")),
    }
}
