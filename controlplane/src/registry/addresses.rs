//! Whether `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` agree with each other
//! (pkg/apis/core/validation, `ValidateServiceClusterIPsRelatedFields`), whatever the cluster.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::families::{PREFER, REQUIRE, SINGLE};
use super::shape;
use crate::address::Family;
use crate::address::address;
use crate::field::{FieldError, Reason};

const IPS: &str = "spec.clusterIPs";

pub(super) fn check(spec: &ServiceSpec) -> Vec<FieldError> {
    let mut errors = first_is_cluster_ip(spec);
    errors.extend(names(spec));
    let (addresses, mut malformed) = read(shape::cluster_ips(spec));
    if shape::cluster_ips(spec).len() > 2 {
        malformed.push(FieldError::new(
            IPS,
            Reason::Invalid,
            "may hold at most two addresses",
        ));
    }
    match malformed.is_empty() {
        true => errors.extend(of_families(&addresses, shape::families(spec))),
        false => errors.extend(malformed),
    }
    errors
}

fn first_is_cluster_ip(spec: &ServiceSpec) -> Vec<FieldError> {
    let first = shape::cluster_ips(spec).first();
    let mistake = match (&spec.cluster_ip, first) {
        (Some(_), None) => Some((Reason::Required, "must be there when clusterIP is")),
        (Some(one), Some(first)) if one != first => {
            Some((Reason::Invalid, "the first must be the same as clusterIP"))
        }
        (None, Some(_)) => Some((Reason::Invalid, "must be empty when clusterIP is not set")),
        _ => None,
    };
    let error = mistake.map(|(reason, message)| FieldError::new(IPS, reason, message));
    error.into_iter().collect()
}

fn names(spec: &ServiceSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let families = shape::families(spec);
    for (index, name) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        if Family::parse(name).is_none() {
            let message = format!("{name:?} is not supported; IPv4 and IPv6 are");
            errors.push(FieldError::new(&field, Reason::NotSupported, message));
        }
        if families[..index].contains(name) {
            let message = format!("{name} is there already");
            errors.push(FieldError::new(field, Reason::Duplicate, message));
        }
    }
    let policy = shape::policy(spec);
    if let Some(other) = policy.filter(|policy| ![SINGLE, PREFER, REQUIRE].contains(policy)) {
        let message = format!("{other:?} is not supported; {SINGLE}, {PREFER} and {REQUIRE} are");
        let field = "spec.ipFamilyPolicy";
        errors.push(FieldError::new(field, Reason::NotSupported, message));
    }
    errors
}

/// Addresses; `None` alone gives an empty list.
fn read(ips: &[String]) -> (Vec<IpAddr>, Vec<FieldError>) {
    let mut addresses = Vec::new();
    let mut errors = Vec::new();
    for (index, ip) in ips.iter().enumerate() {
        match address(ip) {
            Some(address) => addresses.push(address),
            None if index == 0 && ip == shape::NONE => {
                if ips.len() > 1 {
                    let message = "None must be the only value";
                    errors.push(FieldError::new(IPS, Reason::Invalid, message));
                }
            }
            None => {
                let message = format!("{ip:?} is not an IP address");
                let field = format!("{IPS}[{index}]");
                errors.push(FieldError::new(field, Reason::Invalid, message));
            }
        }
    }
    (addresses, errors)
}

fn of_families(addresses: &[IpAddr], families: &[String]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let [first, second] = addresses
        && Family::of(*first) == Family::of(*second)
    {
        let message = "may hold at most one address of each family";
        errors.push(FieldError::new(IPS, Reason::Invalid, message));
    }
    for (index, (address, family)) in addresses.iter().zip(families).enumerate() {
        if Family::parse(family).is_some_and(|family| family != Family::of(*address)) {
            let message =
                format!("{address} is no {family} address, which ipFamilies[{index}] asks for");
            let field = format!("{IPS}[{index}]");
            errors.push(FieldError::new(field, Reason::Invalid, message));
        }
    }
    errors
}
