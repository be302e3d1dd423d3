//! AddressPool: addresses that Services of type LoadBalancer are given.
//!
//! Guarantees: a checked pool holds ranges that do not overlap and that clients can reach, however
//! large they are; its memory grows with what is written, never with the number of addresses.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use kube::core::Selector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bounded, selector};
use crate::object::{Checked, Report, is_label, is_subdomain};

mod range;

pub use range::AddressRange;
pub(crate) use range::{next, previous};

/// Addresses that Services of type LoadBalancer are given.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "AddressPool",
    derive = "PartialEq",
    doc = "Addresses that Services of type LoadBalancer are given.",
    printcolumn = r#"{"name": "Auto assign", "type": "boolean", "jsonPath": ".spec.autoAssign"}"#,
    printcolumn = r#"{"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AddressPoolSpec {
    /// Prefixes (`203.0.113.0/28`), ranges (`203.0.113.10-203.0.113.20`) and single addresses, of
    /// either family.
    #[schemars(length(min = 1, max = 1000))]
    pub addresses: Vec<String>,
    /// Whether a Service that names neither a pool nor an address may be given one of these.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 or .255 are left out, which some clients take for
    /// broadcast addresses.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Namespaces whose Services may use the pool; empty: all.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub namespaces: Vec<String>,
    /// Labels of Services that may use the pool, any of these selectors; empty: all.
    #[serde(default)]
    #[schemars(schema_with = "selector::list_schema")]
    pub service_selectors: Vec<LabelSelector>,
    /// Pools with a lower number are used first, those of one number by name; without: last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub priority: Option<u32>,
}

fn yes() -> bool {
    true
}

/// A pool that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Addresses in the order written, without those that no client can reach; none overlaps
    /// another.
    pub ranges: Vec<AddressRange>,
    /// Whether a Service gets one of these without asking for the pool or an address.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 or .255 are left out.
    pub avoid_buggy_ips: bool,
    /// Namespaces that may use it; empty: all.
    pub namespaces: BTreeSet<String>,
    /// Labels of Services that may use it, any of these; empty: all.
    pub service_selectors: Vec<Selector>,
    /// Lower is used first.
    pub priority: u32,
}

/// Checks a pool.
pub fn check(pool: &AddressPool) -> Checked<PoolSpec> {
    let mut report = Report::default();
    let spec = &pool.spec;
    let name = pool.metadata.name.as_deref().unwrap_or_default();
    if !is_subdomain(name) {
        let message = format!("{name:?} is not a name; use lower-case letters, digits, - and .");
        report.refuse("metadata.name", message);
    }
    let ranges = ranges(&mut report, &spec.addresses);
    bounded(&mut report, "spec.namespaces", spec.namespaces.len());
    for (index, namespace) in spec.namespaces.iter().enumerate() {
        if !is_label(namespace) {
            let message = format!("{namespace:?} is not the name of a namespace");
            report.refuse(format!("spec.namespaces[{index}]"), message);
        }
    }
    let field = "spec.serviceSelectors";
    bounded(&mut report, field, spec.service_selectors.len());
    let selectors = spec.service_selectors.iter().take(super::MAX_ENTRIES);
    let service_selectors = selectors
        .enumerate()
        .map(|(index, raw)| selector::check(&mut report, &format!("{field}[{index}]"), raw))
        .collect();
    report.finish(PoolSpec {
        ranges,
        auto_assign: spec.auto_assign,
        avoid_buggy_ips: spec.avoid_buggy_ips,
        namespaces: spec.namespaces.iter().cloned().collect(),
        service_selectors,
        priority: spec.priority.unwrap_or(u32::MAX),
    })
}

fn ranges(report: &mut Report, written: &[String]) -> Vec<AddressRange> {
    let field = "spec.addresses";
    bounded(report, field, written.len());
    if written.is_empty() {
        let message = "is empty; write prefixes, ranges or addresses, as 203.0.113.0/28";
        report.refuse(field, message);
    }
    let mut known: Vec<AddressRange> = Vec::new();
    for (index, text) in written.iter().take(super::MAX_ENTRIES).enumerate() {
        let field = format!("{field}[{index}]");
        let range = match AddressRange::parse(text.trim()) {
            Ok(range) => range,
            Err(message) => {
                report.refuse(field, message);
                continue;
            }
        };
        if let Some(other) = known.iter().find(|other| other.overlaps(&range)) {
            report.refuse(field, format!("{range} overlaps {other} of the same pool"));
            continue;
        }
        if range.reachable().is_empty() {
            let message = format!("{range} holds no address that clients could reach");
            report.refuse(field, message);
        }
        known.push(range);
    }
    known.iter().flat_map(AddressRange::reachable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(spec: &str) -> Checked<PoolSpec> {
        let spec: AddressPoolSpec = serde_saphyr::from_str(spec).unwrap();
        check(&AddressPool::new("public", spec))
    }

    fn issues(spec: &str) -> Vec<String> {
        let checked = checked(spec);
        assert_eq!(checked.good.is_some(), checked.issues.is_empty(), "{spec}");
        let issues = checked.issues.into_iter();
        issues
            .map(|i| format!("{}: {}", i.field, i.message))
            .collect()
    }

    #[test]
    fn a_pool_that_says_nothing_but_addresses_serves_everybody_last() {
        let pool = checked("addresses: [203.0.113.0/28, 203.0.113.100-203.0.113.110, 'fd00::7']");
        let pool = pool.good.unwrap();
        let ranges: Vec<_> = pool.ranges.iter().map(ToString::to_string).collect();
        assert_eq!(
            ranges,
            [
                "203.0.113.0-203.0.113.15",
                "203.0.113.100-203.0.113.110",
                "fd00::7"
            ]
        );
        assert!(pool.auto_assign);
        assert!(!pool.avoid_buggy_ips);
        assert!(pool.namespaces.is_empty());
        assert!(pool.service_selectors.is_empty());
        assert_eq!(pool.priority, u32::MAX);
    }

    #[test]
    fn the_whole_address_space_is_a_few_ranges() {
        let pool = checked("addresses: [0.0.0.0/0, '::/0']").good.unwrap();
        let ranges: Vec<_> = pool.ranges.iter().map(ToString::to_string).collect();
        assert_eq!(
            ranges,
            [
                "0.0.0.1-126.255.255.255",
                "128.0.0.0-169.253.255.255",
                "169.255.0.0-223.255.255.255",
                "240.0.0.0-255.255.255.254",
                "::2-::fffe:ffff:ffff",
                "::1:0:0:0-fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "fec0::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ]
        );
    }

    #[test]
    fn mistakes_are_told_at_their_fields() {
        for (spec, issue) in [
            (
                "addresses: []",
                "spec.addresses: is empty; write prefixes, ranges or addresses, as 203.0.113.0/28",
            ),
            (
                "addresses: [203.0.113.9-203.0.113.1]",
                "spec.addresses[0]: 203.0.113.9-203.0.113.1 ends before it begins",
            ),
            (
                "addresses: [203.0.113.9-fd00::1]",
                "spec.addresses[0]: 203.0.113.9-fd00::1 mixes IPv4 and IPv6",
            ),
            (
                "addresses: [203.0.113.0/33]",
                "spec.addresses[0]: \"203.0.113.0/33\" is neither a prefix, a range nor an address; write 203.0.113.0/28, 203.0.113.1-203.0.113.9 or fd00::1",
            ),
            (
                "addresses: [203.0.113.0/24, 203.0.113.255-203.0.114.3]",
                "spec.addresses[1]: 203.0.113.255-203.0.114.3 overlaps 203.0.113.0-203.0.113.255 of the same pool",
            ),
            (
                "addresses: [127.0.0.0/8]",
                "spec.addresses[0]: 127.0.0.0-127.255.255.255 holds no address that clients could reach",
            ),
            (
                "{addresses: [203.0.113.1], namespaces: [A]}",
                "spec.namespaces[0]: \"A\" is not the name of a namespace",
            ),
            (
                "{addresses: [203.0.113.1], serviceSelectors: [{matchExpressions: [{key: a, operator: In}]}]}",
                "spec.serviceSelectors[0].matchExpressions[0].values: is empty; name at least one",
            ),
        ] {
            assert_eq!(issues(spec), [issue]);
        }
    }

    #[test]
    fn a_pool_with_too_many_entries_is_refused() {
        let many = vec!["203.0.113.1".to_owned(); super::super::MAX_ENTRIES + 1];
        let spec = AddressPoolSpec {
            addresses: many,
            ..serde_saphyr::from_str("addresses: []").unwrap()
        };
        let checked = check(&AddressPool::new("public", spec));
        assert_eq!(checked.good, None);
        assert_eq!(
            checked.issues[0].message,
            "has 1001 entries; at most 1000 are possible"
        );
    }
}
