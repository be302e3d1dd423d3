//! ClusterIPs and IP families of a Service (core validation `ValidateServiceClusterIPsRelatedFields`,
//! `validateUpgradeDowngradeClusterIPs`, `validateUpgradeDowngradeIPFamilies`).

use std::collections::HashSet;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::addresses::{self, FAMILIES};
use super::mistakes::{Mistakes, listed, quoted};
use crate::address;

const IPS: &str = "spec.clusterIPs";
const FAMILY_LIST: &str = "spec.ipFamilies";
const POLICY: &str = "spec.ipFamilyPolicy";

/// Most ClusterIPs: one of each family.
const MAX_IPS: usize = 2;

const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

const FIXED: &str = "may not change once set; delete the Service and create another one";

/// Whether a Service has endpoints but no ClusterIP.
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(ips(spec), [only] if only == "None")
}

fn ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

fn families(spec: &ServiceSpec) -> &[String] {
    spec.ip_families.as_deref().unwrap_or_default()
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("ExternalName")
}

pub(super) fn check(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    if is_external_name(spec) {
        return;
    }
    first(mistakes, spec);
    family_list(mistakes, families(spec));
    if let Some(policy) = &spec.ip_family_policy {
        mistakes.one_of(POLICY, policy, &POLICIES);
    }
    // With a value that is no address, it is guesswork what the others are wrong about.
    if each_is_valid(mistakes, ips(spec)) && !is_headless(spec) {
        of_each_family(mistakes, spec);
    }
}

/// `clusterIP` is the first of `clusterIPs`.
fn first(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    let ip = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    match (ip, ips(spec)) {
        (None, []) => {}
        (Some(_), []) => mistakes.missing(IPS, "clusterIP must be its first value"),
        (Some(ip), [first, ..]) if first == ip => {}
        (Some(ip), all) => {
            let ip = quoted(ip);
            let message = format!("is {} and must start with clusterIP, {ip}", listed(all));
            mistakes.invalid(IPS, message);
        }
        (None, all) => {
            let message = format!(
                "is {} and clusterIP is missing; write the first to it",
                listed(all)
            );
            mistakes.invalid(IPS, message);
        }
    }
}

fn family_list(mistakes: &mut Mistakes, families: &[String]) {
    let mut seen = HashSet::new();
    for (index, family) in families.iter().enumerate() {
        mistakes.one_of(format_args!("{FAMILY_LIST}[{index}]"), family, &FAMILIES);
        if !seen.insert(family) {
            mistakes.repeated(format_args!("{FAMILY_LIST}[{index}]"), quoted(family));
        }
    }
}

/// Whether every value is an address, or the only one is `None`.
fn each_is_valid(mistakes: &mut Mistakes, ips: &[String]) -> bool {
    let mut valid = true;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                let message = format!("is {}; None must be the only value", listed(ips));
                mistakes.invalid(IPS, message);
                valid = false;
            }
            continue;
        }
        let found = addresses::any(mistakes, format_args!("{IPS}[{index}]"), ip);
        valid &= found.is_some();
    }
    if ips.len() > MAX_IPS {
        let message = format!("is {} and may have at most {MAX_IPS} values", listed(ips));
        mistakes.invalid(IPS, message);
    }
    valid
}

fn of_each_family(mistakes: &mut Mistakes, spec: &ServiceSpec) {
    let all = ips(spec);
    let found: Vec<&str> = all
        .iter()
        .filter_map(|ip| address::address(ip).map(addresses::family))
        .collect();
    if all.len() > 1 && FAMILIES.iter().any(|family| !found.contains(family)) {
        let message = format!(
            "is {}; there may be one address of each family",
            listed(all)
        );
        mistakes.invalid(IPS, message);
    }
    let wanted = families(spec).iter().zip(&found).enumerate();
    for (index, (wanted, found)) in wanted {
        if FAMILIES.contains(&wanted.as_str()) && wanted != found {
            let ip = all.get(index).map_or("", String::as_str);
            let message = format!(
                "{} is not {wanted}, as ipFamilies[{index}] wants",
                quoted(ip)
            );
            mistakes.invalid(format_args!("{IPS}[{index}]"), message);
        }
    }
}

/// Checks what a change of addresses or families may not do: a second one may come and go, the
/// first one stays. Headless Services may change their families, and everything may change on the
/// way from and to ExternalName.
pub(super) fn update(mistakes: &mut Mistakes, spec: &ServiceSpec, old: &ServiceSpec) {
    if is_external_name(spec) || is_external_name(old) {
        return;
    }
    match (is_headless(old), is_headless(spec)) {
        (true, true) => {}
        (false, false) => {
            ips_change(mistakes, spec, old);
            families_change(mistakes, spec, old);
        }
        _ => ips_change(mistakes, spec, old),
    }
}

fn ips_change(mistakes: &mut Mistakes, spec: &ServiceSpec, old: &ServiceSpec) {
    let (new, old) = (ips(spec), ips(old));
    if new.is_empty() && !old.is_empty() {
        let message = format!("may not be removed; it is {}", listed(old));
        mistakes.invalid(format_args!("{IPS}[0]"), message);
    }
    // Addresses that stay are compared one by one only if none comes or goes.
    let compared = if new.len() == old.len() { new.len() } else { 1 };
    for (index, (new, old)) in new.iter().zip(old).take(compared).enumerate() {
        if new != old {
            let message = format!("is {} and was {}; it {FIXED}", quoted(new), quoted(old));
            mistakes.invalid(format_args!("{IPS}[{index}]"), message);
        }
    }
    if new.len() == 1 && old.len() > 1 {
        released(mistakes, spec, "the second of clusterIPs");
    }
}

fn families_change(mistakes: &mut Mistakes, spec: &ServiceSpec, old: &ServiceSpec) {
    let (new, old) = (families(spec), families(old));
    let field = format_args!("{FAMILY_LIST}[0]");
    let is_less = new.len() < old.len();
    let compared = if new.len() == old.len() { new.len() } else { 1 };
    // The API server names the first one, whichever differs.
    if new
        .iter()
        .zip(old)
        .take(compared)
        .any(|(new, old)| new != old)
    {
        let message = format!("is {} and was {}; it {FIXED}", listed(new), listed(old));
        mistakes.invalid(field, message);
    } else if is_less && ips(spec).is_empty() {
        let message = format!("may not be removed; it is {}", listed(old));
        mistakes.invalid(field, message);
    }
    if is_less && new.len() == 1 {
        released(mistakes, spec, "the second of ipFamilies");
    }
}

fn released(mistakes: &mut Mistakes, spec: &ServiceSpec, what: &str) {
    if spec.ip_family_policy.as_deref() != Some("SingleStack") {
        let message = format!("must be SingleStack when {what} is removed");
        mistakes.invalid(POLICY, message);
    }
}
