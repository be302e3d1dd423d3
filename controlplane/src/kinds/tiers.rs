//! Priorities of endpoints by zone, node or labels of the pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{bounded, selector, within_u16};
use crate::object::Report;

/// Which endpoints belong to a tier: those that fit everything that is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierRuleSpec {
    /// Priority; 0 is first.
    #[schemars(range(min = 0, max = 65_535))]
    pub tier: u32,
    /// Zones, any of them; empty: all.
    #[serde(default)]
    pub zones: Vec<String>,
    /// Names of nodes, any of them; empty: all.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector::schema")]
    pub pod_selector: Option<LabelSelector>,
}

/// A rule that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct TierRule {
    /// Priority; 0 is first.
    pub tier: u16,
    /// Zones, any of them; empty: all.
    pub zones: BTreeSet<String>,
    /// Names of nodes, any of them; empty: all.
    pub nodes: BTreeSet<String>,
    /// Labels of the pod.
    pub pod_selector: Option<Selector>,
}

impl TierRule {
    /// Whether the rule is about an endpoint in this zone, on this node, of a pod with these
    /// labels. What is not known of an endpoint fits no rule that asks for it.
    pub fn fits(
        &self,
        zone: Option<&str>,
        node: Option<&str>,
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let among = |names: &BTreeSet<String>, name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.contains(name))
        };
        let selected = |selector: &Selector| labels.is_some_and(|labels| selector.matches(labels));
        among(&self.zones, zone)
            && among(&self.nodes, node)
            && self.pod_selector.as_ref().is_none_or(selected)
    }
}

pub(super) fn check(report: &mut Report, rules: &[TierRuleSpec]) -> Vec<TierRule> {
    bounded(report, "spec.tiers", rules.len());
    let rules = rules.iter().take(super::MAX_ENTRIES).enumerate();
    rules
        .map(|(index, raw)| rule(report, &format!("spec.tiers[{index}]"), raw))
        .collect()
}

fn rule(report: &mut Report, field: &str, raw: &TierRuleSpec) -> TierRule {
    bounded(report, &format!("{field}.zones"), raw.zones.len());
    bounded(report, &format!("{field}.nodes"), raw.nodes.len());
    if raw.zones.is_empty() && raw.nodes.is_empty() && raw.pod_selector.is_none() {
        report.refuse(
            field,
            "fits every endpoint; write zones, nodes or podSelector",
        );
    }
    let selector_field = format!("{field}.podSelector");
    let selector = raw.pod_selector.as_ref();
    TierRule {
        tier: within_u16(report, format!("{field}.tier"), raw.tier, 0..=u16::MAX),
        zones: raw.zones.iter().cloned().collect(),
        nodes: raw.nodes.iter().cloned().collect(),
        pod_selector: selector.map(|raw| selector::check(report, &selector_field, raw)),
    }
}
