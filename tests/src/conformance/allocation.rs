//! Suite `allocation`: addresses and node ports of Services, by the control plane's registry.
//!
//! How the file's words are taken:
//! - A cluster has 10.0.0.0/16 and 2000::/108, as far as its families are named, and the node ports
//!   30000-32767; a case that names no families has IPv4 and IPv6.
//! - What a case submits stands on a ClusterIP Service with a selector and one port, and goes through
//!   the defaulting of manifests. `update_transitions` has complete specs, which do not.
//! - A client that names `clusterIPs` names the same first address in `clusterIP`, as the API
//!   demands of it.
//! - A dry run is a run on a clone. A snapshot is the list of what is taken.
//! - A gauge tells what its pool had when it last changed, and 0 before.
//! - After an error nothing may have changed.

mod cluster;
mod fields;
mod lives;
mod numbers;
mod sequences;
mod services;
mod updates;

use super::document::Document;
use super::{Report, each};

/// Name of the suite.
pub const NAME: &str = "allocation";

const JUDGED: [&str; 15] = [
    "static_band",
    "address_arithmetic",
    "allocator_sequences",
    "type_dependent_fields",
    "create_ip_families",
    "create_invalid_addresses",
    "create_node_ports",
    "lifecycle",
    "update_transitions",
    "stack_changes",
    "create_single_address",
    "normalise_cluster_ips",
    "keep_allocated_values",
    "fill_on_read",
    "load_balancer_status",
];

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    for section in document.sections().filter(|name| !JUDGED.contains(name)) {
        report.note(format!("unknown section {section} is not read"));
    }
    for section in JUDGED {
        match section {
            "static_band" => each(document, section, report, |case, _| {
                numbers::band(case).into()
            }),
            "address_arithmetic" => each(document, section, report, |case, _| {
                numbers::arithmetic(case).into()
            }),
            "allocator_sequences" => each(document, section, report, |case, _| {
                sequences::judge(case).into()
            }),
            "lifecycle" => each(document, section, report, |case, _| {
                lives::judge(case).into()
            }),
            "update_transitions" => each(document, section, report, |case, _| {
                updates::transition(case).into()
            }),
            "stack_changes" => each(document, section, report, |case, _| {
                updates::stack(case).into()
            }),
            "load_balancer_status" => each(document, section, report, |case, _| {
                fields::status(case).into()
            }),
            "type_dependent_fields"
            | "normalise_cluster_ips"
            | "keep_allocated_values"
            | "fill_on_read" => each(document, section, report, |case, _| {
                fields::judge(section, case).into()
            }),
            _ => each(document, section, report, |case, _| {
                services::judge(section, case).into()
            }),
        }?;
    }
    Ok(())
}
