//! ServicePolicy: how Services of one namespace are treated, beyond what the Service API can say.
//!
//! Guarantees: a checked policy has only values within their ranges; what it does not say is left
//! to the annotations of the Service and to the settings.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_conf::Service;

use super::probe::{self, Probe, ProbeSpec};
use super::tiers::{self, TierRule, TierRuleSpec};
use super::weights::{self, Weights, WeightsSpec};
use super::{bounded, parsed, within, within_u16};
use crate::annotations::policies::{self, Policies};
use crate::annotations::ranges::{self, PortRange};
use crate::object::{Checked, NamespacedName, Report, is_label};

/// How Services of this namespace are treated, beyond what the Service API can say.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "ServicePolicy",
    plural = "servicepolicies",
    namespaced,
    derive = "PartialEq",
    doc = "How Services of this namespace are treated, beyond what the Service API can say.",
    printcolumn = r#"{"name": "Targets", "type": "string", "jsonPath": ".spec.targets"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ServicePolicySpec {
    /// Names of the Services. Of several policies for one Service the first by name holds.
    #[schemars(length(min = 1, max = 1000))]
    pub targets: Vec<String>,
    /// Source address translation: masquerade (backends see the gateway), preserve (they see the
    /// client and route back through the gateway) or kubernetes (as kube-proxy decides).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["masquerade", "preserve", "kubernetes"]))]
    pub source_nat: Option<String>,
    /// What happens to connections whose backend left: keep, reset or drain=SECONDS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        regex(pattern = "^(keep|reset|drain=[1-9][0-9]{0,4})$")
    )]
    pub backend_gone: Option<String>,
    /// What clients get when nobody may serve them: icmp, tcp-reset or drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["icmp", "tcp-reset", "drop"]))]
    pub refusal: Option<String>,
    /// When pings of the Service's addresses are answered: never, ready or always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["never", "ready", "always"]))]
    pub ping: Option<String>,
    /// Largest TCP segment that either side may announce, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 536, max = 65_495))]
    pub mss_clamp: Option<u32>,
    /// How packets get to the backend: nat, or direct-return (by Ethernet address; the backend has
    /// the Service's address itself).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["nat", "direct-return"]))]
    pub forwarding: Option<String>,
    /// Many ports at once: 5060-5090/udp, 5060/tcp or all/tcp.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub port_ranges: Vec<String>,
    /// Shares of new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WeightsSpec")]
    pub weights: Option<WeightsSpec>,
    /// How the weight of a new endpoint grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SlowStartSpec")]
    pub slow_start: Option<SlowStartSpec>,
    /// Priorities of endpoints; the first rule that fits an endpoint decides.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub tiers: Vec<TierRuleSpec>,
    /// How many ready endpoints the first tiers need, or the next is used as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 65_535))]
    pub tier_minimum: Option<u32>,
    /// How the gateway finds out whether an endpoint is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProbeSpec")]
    pub probe: Option<ProbeSpec>,
    /// With fewer healthy endpoints than so many percent, health is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 100))]
    pub fail_open_percent: Option<u32>,
    /// What the dataplane's own evidence against an endpoint counts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PassiveSpec")]
    pub passive: Option<PassiveSpec>,
}

/// How the weight of a new endpoint grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStartSpec {
    /// How long it takes to reach the full weight, in seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: u32,
    /// Where it begins, in percent of the full weight.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 100))]
    pub from: u32,
}

fn ten() -> u32 {
    10
}

/// What the dataplane's own evidence against an endpoint counts for: connections that got no
/// answer or a reset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassiveSpec {
    /// Whether it counts.
    pub enabled: bool,
    /// How many failures in a row make an endpoint unhealthy.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
    /// How long the endpoint then stays unhealthy, in seconds, unless a probe finds it healthy.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: u32,
}

fn five() -> u32 {
    5
}

fn thirty() -> u32 {
    30
}

/// A policy that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySpec {
    /// Names of the Services, in the policy's own namespace.
    pub targets: Vec<String>,
    /// How connections are treated; `None` leaves it to the settings.
    pub policies: Policies,
    /// Many ports at once; none overlaps another.
    pub port_ranges: Vec<PortRange>,
    /// Shares of new connections.
    pub weights: Option<Weights>,
    /// How the weight of a new endpoint grows.
    pub slow_start: Option<SlowStart>,
    /// Priorities of endpoints; the first that fits decides.
    pub tiers: Vec<TierRule>,
    /// How health is found out.
    pub probe: Option<Probe>,
    /// Below so many percent of healthy endpoints health is ignored, 0 to 100.
    pub fail_open_percent: Option<u32>,
    /// What passive evidence counts for.
    pub passive: Option<PassiveSpec>,
}

/// A ramp of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Its length in seconds, 1 to 3600.
    pub seconds: u32,
    /// Where it begins, 1 to 100 percent of the full weight.
    pub from_percent: u32,
}

/// Checks a policy.
pub fn check(policy: &ServicePolicy) -> Checked<PolicySpec> {
    let mut report = Report::default();
    let spec = &policy.spec;
    let checked = PolicySpec {
        targets: targets(&mut report, &spec.targets),
        policies: policies(&mut report, spec),
        port_ranges: port_ranges(&mut report, &spec.port_ranges),
        weights: weights::check(&mut report, spec.weights.as_ref()),
        slow_start: spec.slow_start.as_ref().map(|raw| SlowStart {
            seconds: within(
                &mut report,
                "spec.slowStart.seconds".into(),
                raw.seconds,
                1..=3600,
            ),
            from_percent: within(&mut report, "spec.slowStart.from".into(), raw.from, 1..=100),
        }),
        tiers: tiers::check(&mut report, &spec.tiers),
        probe: probe::check(&mut report, spec.probe.as_ref()),
        fail_open_percent: spec
            .fail_open_percent
            .map(|percent| within(&mut report, "spec.failOpenPercent".into(), percent, 0..=100)),
        passive: passive(&mut report, spec.passive.as_ref()),
    };
    report.finish(checked)
}

fn targets(report: &mut Report, written: &[String]) -> Vec<String> {
    let field = "spec.targets";
    bounded(report, field, written.len());
    if written.is_empty() {
        report.refuse(field, "is empty; name the Services that the policy is for");
    }
    let mut targets: Vec<String> = Vec::new();
    for (index, name) in written.iter().take(super::MAX_ENTRIES).enumerate() {
        let field = format!("{field}[{index}]");
        if !is_label(name) {
            let message = format!("{name:?} is not the name of a Service");
            report.refuse(field, message);
        } else if targets.contains(name) {
            report.warn(field, format!("{name} is there twice"));
        } else {
            targets.push(name.clone());
        }
    }
    targets
}

fn policies(report: &mut Report, spec: &ServicePolicySpec) -> Policies {
    let mss = Service::MSS_CLAMP;
    let policies = Policies {
        source_nat: parsed(
            report,
            "spec.sourceNat",
            spec.source_nat.as_ref(),
            policies::source_nat,
        ),
        backend_gone: parsed(
            report,
            "spec.backendGone",
            spec.backend_gone.as_ref(),
            str::parse,
        ),
        refusal: parsed(
            report,
            "spec.refusal",
            spec.refusal.as_ref(),
            policies::refusal,
        ),
        ping: parsed(report, "spec.ping", spec.ping.as_ref(), policies::ping),
        mss_clamp: spec
            .mss_clamp
            .map(|bytes| within_u16(report, "spec.mssClamp".into(), bytes, mss)),
        forwarding: parsed(
            report,
            "spec.forwarding",
            spec.forwarding.as_ref(),
            policies::forwarding,
        ),
        tier_minimum: spec
            .tier_minimum
            .map(|minimum| within_u16(report, "spec.tierMinimum".into(), minimum, 1..=u16::MAX)),
    };
    policies.warn_of_lost(report, "spec.sourceNat");
    policies
}

fn port_ranges(report: &mut Report, written: &[String]) -> Vec<PortRange> {
    let entries = written.iter().enumerate();
    let entries = entries.map(|(index, text)| (format!("spec.portRanges[{index}]"), text.trim()));
    ranges::read(entries, report)
}

fn passive(report: &mut Report, raw: Option<&PassiveSpec>) -> Option<PassiveSpec> {
    let raw = raw?;
    let (failures, seconds) = ("spec.passive.failures", "spec.passive.seconds");
    Some(PassiveSpec {
        enabled: raw.enabled,
        failures: within(report, failures.into(), raw.failures, 1..=1000),
        seconds: within(report, seconds.into(), raw.seconds, 1..=3600),
    })
}

/// A policy that has no effect on a Service, because another one holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    /// The policy without effect.
    pub policy: NamespacedName,
    /// Path of the target in it.
    pub field: String,
    /// What is wrong, for the operator.
    pub message: String,
}

/// Which policy holds for each Service: of several the first by name.
pub fn attach<'a>(
    policies: impl IntoIterator<Item = (&'a NamespacedName, &'a PolicySpec)>,
) -> (BTreeMap<NamespacedName, &'a NamespacedName>, Vec<Beaten>) {
    let sorted: BTreeMap<_, _> = policies.into_iter().collect();
    let mut attached: BTreeMap<NamespacedName, &NamespacedName> = BTreeMap::new();
    let mut beaten = Vec::new();
    for (policy, spec) in sorted {
        for (index, target) in spec.targets.iter().enumerate() {
            let service = NamespacedName::new(&policy.namespace, target);
            let holds = *attached.entry(service).or_insert(policy);
            if holds != policy {
                let name = &holds.name;
                beaten.push(Beaten {
                    policy: policy.clone(),
                    field: format!("spec.targets[{index}]"),
                    message: format!(
                        "has no effect on Service {target}: ServicePolicy {name} comes first by name"
                    ),
                });
            }
        }
    }
    (attached, beaten)
}

#[cfg(test)]
mod tests;
