//! Which address families a Service has, and its policy about them (pkg/registry/core/service/
//! storage/alloc.go, `initIPFamilyFields`; KEP-563).
//!
//! A Service changes between one and two families only when `ipFamilyPolicy` says so.

use k8s_openapi::api::core::v1::ServiceSpec;

use super::addresses;
use super::pools::Pools;
use super::shape;
use crate::address::Family;
use crate::address::address;
use crate::field::{FieldError, Reason};

pub(super) const SINGLE: &str = "SingleStack";
pub(super) const REQUIRE: &str = "RequireDualStack";
pub(super) const PREFER: &str = "PreferDualStack";

const POLICY: &str = "spec.ipFamilyPolicy";

/// Fills in `ipFamilyPolicy` and `ipFamilies`, and gives up the second address when one family is
/// asked for.
///
/// # Errors
/// Families, addresses and policy contradict each other, or the cluster does not have them.
pub(super) fn settle(
    new: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    pools: &Pools,
) -> Result<(), Vec<FieldError>> {
    if shape::is_external_name(new) || old.is_some_and(|old| prefers_as_before(new, old)) {
        return Ok(());
    }
    let policy = choose_policy(new, old);
    agreed(addresses::check(new))?;
    let mut errors = Vec::new();
    if let Some(old) = old {
        reduce(new, old, &policy, &mut errors);
    }
    if policy == SINGLE {
        single_means_one(new, &mut errors);
    }
    infer_families(new, pools, &mut errors);
    agreed(errors)?;
    if !is_free(new) {
        agreed(not_in_cluster(new, &policy, pools))?;
    }
    complete(new, &policy, pools);
    Ok(())
}

/// Fills in what Services had not yet when this one was stored.
pub(super) fn on_read(stored: &mut ServiceSpec, pools: &Pools) {
    let families = match (shape::is_headless(stored), is_free(stored)) {
        (true, true) => vec![pools.primary(), pools.primary().other()],
        (true, false) => vec![pools.primary()],
        (false, _) => {
            let ips = shape::cluster_ips(stored).iter();
            ips.filter_map(|ip| address(ip).map(Family::of)).collect()
        }
    };
    let names = families.iter().map(|family| family.name().to_owned());
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        let names = stored.ip_families.get_or_insert(names);
        let policy = if names.len() > 1 { REQUIRE } else { SINGLE };
        stored.ip_family_policy.get_or_insert_with(|| policy.into());
    }
}

/// A headless Service without a selector is free to name families that the cluster does not have:
/// its endpoints need not be the cluster's.
fn is_free(spec: &ServiceSpec) -> bool {
    shape::is_headless(spec) && !shape::has_selector(spec)
}

fn agreed(errors: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(errors),
    }
}

/// Whether both versions prefer two families and name the same ones. Such a Service does not
/// follow when the cluster gets a second family or loses it.
fn prefers_as_before(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    new.type_ == old.type_
        && [new, old]
            .iter()
            .all(|spec| shape::policy(spec) == Some(PREFER))
        && shape::cluster_ips(new).len() == shape::cluster_ips(old).len()
        && new.ip_families == old.ip_families
}

fn choose_policy(new: &mut ServiceSpec, old: Option<&ServiceSpec>) -> String {
    let before = old.and_then(shape::policy).map(str::to_owned);
    let otherwise = if is_free(new) { REQUIRE } else { SINGLE };
    let policy = new.ip_family_policy.take();
    let policy = policy.or(before).unwrap_or_else(|| otherwise.into());
    new.ip_family_policy = Some(policy.clone());
    policy
}

/// With one family asked for, what is unchanged loses its second entry; otherwise entries may not
/// get fewer.
fn reduce(new: &mut ServiceSpec, old: &ServiceSpec, policy: &str, errors: &mut Vec<FieldError>) {
    if policy == SINGLE {
        let same_families = new.ip_families == old.ip_families;
        if shape::same_cluster_ips(new, old) {
            new.cluster_ips.iter_mut().for_each(|ips| ips.truncate(1));
        }
        if same_families {
            new.ip_families
                .iter_mut()
                .for_each(|names| names.truncate(1));
        }
        return;
    }
    let fewer = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
    let mut refuse = |what: &str| {
        let message = format!("must be {SINGLE} to release the secondary {what}");
        errors.push(FieldError::new(POLICY, Reason::Invalid, message));
    };
    if fewer(shape::cluster_ips(new), shape::cluster_ips(old)) {
        refuse("cluster IP");
    }
    if fewer(shape::families(new), shape::families(old)) {
        refuse("address family");
    }
}

fn single_means_one(new: &ServiceSpec, errors: &mut Vec<FieldError>) {
    for (several, what) in [
        (shape::cluster_ips(new).len() == 2, "cluster IPs"),
        (shape::families(new).len() == 2, "address families"),
    ] {
        if several {
            let message = format!("must be {REQUIRE} or {PREFER} when several {what} are given");
            errors.push(FieldError::new(POLICY, Reason::Invalid, message));
        }
    }
}

/// Addresses without a family at their place name it.
fn infer_families(new: &mut ServiceSpec, pools: &Pools, errors: &mut Vec<FieldError>) {
    let ips = new.cluster_ips.iter().flatten().enumerate();
    let known = shape::families(new).len();
    let mut inferred = Vec::new();
    for (index, ip) in ips.skip(known) {
        let Some(family) = address(ip).map(Family::of) else {
            break;
        };
        match pools.serves(family) {
            true => inferred.push(family.name().to_owned()),
            false => {
                let field = format!("spec.clusterIPs[{index}]");
                errors.push(unconfigured(field, family.name()));
            }
        }
    }
    if !inferred.is_empty() {
        new.ip_families.get_or_insert_default().extend(inferred);
    }
}

fn not_in_cluster(new: &ServiceSpec, policy: &str, pools: &Pools) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if policy == REQUIRE && !pools.is_dual() {
        let message = "the cluster has one address family (cluster.service_networks)";
        errors.push(FieldError::new(POLICY, Reason::Invalid, message));
    }
    for (index, name) in shape::families(new).iter().enumerate() {
        if !Family::parse(name).is_some_and(|family| pools.serves(family)) {
            errors.push(unconfigured(format!("spec.ipFamilies[{index}]"), name));
        }
    }
    errors
}

fn unconfigured(field: String, family: &str) -> FieldError {
    let message = format!("{family} is not configured in this cluster (cluster.service_networks)");
    FieldError::new(field, Reason::Invalid, message)
}

/// Families that were not named: the cluster's primary one and, unless one is asked for, the other
/// one if the cluster has it.
fn complete(new: &mut ServiceSpec, policy: &str, pools: &Pools) {
    let free = is_free(new);
    let families = new.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push(pools.primary().name().to_owned());
    }
    let second = match families.as_slice() {
        [only] => Family::parse(only).map(Family::other),
        _ => None,
    };
    let wanted = |family: &Family| match policy {
        SINGLE => false,
        REQUIRE => free || pools.is_dual(),
        _ => free || pools.network(*family).is_some(),
    };
    if let Some(second) = second.filter(wanted) {
        families.push(second.name().to_owned());
    }
}
