//! The annotations `sluice.dev/*`, and the guard against misspelt ones.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluice_conf::Backend;

use crate::address;
use crate::object::Report;

pub mod policies;
pub mod ranges;

/// What every annotation of Sluice begins with.
const PREFIX: &str = "sluice.dev/";
/// On a Service: load-balancer addresses, separated by commas.
pub const LOAD_BALANCER_IPS: &str = "sluice.dev/load-balancer-ips";
/// On a Service: the only AddressPool that its addresses may come from.
pub const ADDRESS_POOL: &str = "sluice.dev/address-pool";
/// On a Service: a key; Services with the same one may share a load-balancer address.
pub const ALLOW_SHARED_IP: &str = "sluice.dev/allow-shared-ip";
/// On an EndpointSlice: priority of its endpoints, 0 is first.
pub const TIER: &str = "sluice.dev/tier";
/// On an EndpointSlice: weights of endpoints, `10.0.2.10=3,10.0.2.11=1`.
pub const WEIGHTS: &str = "sluice.dev/weights";

type Annotations = Option<BTreeMap<String, String>>;

/// Path of an annotation in its object.
pub(crate) fn field(name: &str) -> String {
    format!("metadata.annotations.{name}")
}

/// Reports annotations with Sluice's prefix that `kind` does not have.
pub(crate) fn guard(annotations: &Annotations, kind: &str, known: &[&str], report: &mut Report) {
    for name in annotations.iter().flat_map(BTreeMap::keys) {
        if name.starts_with(PREFIX) && !known.contains(&name.as_str()) {
            let known = known.join(", ");
            let message =
                format!("is not an annotation of a {kind} and has no effect; known: {known}");
            report.warn(field(name), message);
        }
    }
}

pub(crate) fn get<'a>(annotations: &'a Annotations, name: &str) -> Option<&'a str> {
    annotations.as_ref()?.get(name).map(|value| value.trim())
}

/// The value of an annotation by `parse`, whose error refuses the object.
fn parsed<T>(
    annotations: &Annotations,
    name: &str,
    report: &mut Report,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let value = parse(get(annotations, name)?);
    value
        .map_err(|message| report.refuse(field(name), message))
        .ok()
}

/// The tier of a slice.
pub(crate) fn tier(annotations: &Annotations, report: &mut Report) -> u16 {
    let tier = parsed(annotations, TIER, report, |text| {
        text.parse()
            .map_err(|_| format!("{text:?} is not a tier; use 0 (first) to 65535"))
    });
    tier.unwrap_or_default()
}

/// Weights by address; what is not listed weighs 1.
pub(crate) fn weights(annotations: &Annotations, report: &mut Report) -> BTreeMap<IpAddr, u16> {
    let mut weights = BTreeMap::new();
    let text = get(annotations, WEIGHTS).unwrap_or_default();
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        match weight(entry) {
            Ok((address, weight)) => {
                if weights.insert(address, weight).is_some() {
                    report.refuse(field(WEIGHTS), format!("{address} is listed twice"));
                }
            }
            Err(message) => report.refuse(field(WEIGHTS), message),
        }
    }
    weights
}

fn weight(entry: &str) -> Result<(IpAddr, u16), String> {
    let max = Backend::MAX_WEIGHT;
    let (address, weight) = entry
        .split_once('=')
        .ok_or_else(|| format!("{entry:?} is not ADDRESS=WEIGHT"))?;
    let address = address::address(address.trim())
        .ok_or_else(|| format!("{:?} is not an IP address", address.trim()))?;
    match weight.trim().parse::<u16>() {
        Ok(weight) if (1..=max).contains(&weight) => Ok((address, weight)),
        _ => Err(format!(
            "{:?} is not a weight; use 1 to {max}",
            weight.trim()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights_of(text: &str) -> (BTreeMap<IpAddr, u16>, Vec<String>) {
        let annotations = Some(BTreeMap::from([(WEIGHTS.to_owned(), text.to_owned())]));
        let mut report = Report::default();
        let weights = weights(&annotations, &mut report);
        (
            weights,
            report.issues.into_iter().map(|i| i.message).collect(),
        )
    }

    #[test]
    fn weights_are_read_by_address() {
        let (weights, issues) = weights_of(" 10.0.2.10=3, 10.0.2.11 = 1000,");
        assert_eq!(issues, [""; 0]);
        assert_eq!(weights.get(&"10.0.2.10".parse().unwrap()), Some(&3));
        assert_eq!(weights.get(&"10.0.2.11".parse().unwrap()), Some(&1000));
    }

    #[test]
    fn garbage_in_weights_is_named() {
        let (_, issues) =
            weights_of("10.0.2.10=0,x=1,10.0.2.11,10.0.2.12=1,10.0.2.12=2,1.1.1.1=1001");
        assert_eq!(
            issues,
            [
                "\"0\" is not a weight; use 1 to 1000",
                "\"x\" is not an IP address",
                "\"10.0.2.11\" is not ADDRESS=WEIGHT",
                "10.0.2.12 is listed twice",
                "\"1001\" is not a weight; use 1 to 1000",
            ]
        );
    }

    #[test]
    fn a_tier_is_a_number_and_0_when_not_written() {
        let of = |text: &str| {
            let annotations = Some(BTreeMap::from([(TIER.to_owned(), text.to_owned())]));
            let mut report = Report::default();
            (tier(&annotations, &mut report), report.refuses())
        };
        assert_eq!(of("2"), (2, false));
        assert_eq!(of("-1"), (0, true));
        assert_eq!(tier(&None, &mut Report::default()), 0);
    }

    #[test]
    fn a_misspelt_annotation_is_reported() {
        let annotations = Some(BTreeMap::from([
            ("sluice.dev/source-nut".to_owned(), String::new()),
            ("example.com/x".to_owned(), String::new()),
        ]));
        let mut report = Report::default();
        guard(&annotations, "Service", &[WEIGHTS], &mut report);
        assert_eq!(report.issues.len(), 1);
        assert!(!report.issues[0].fatal);
        assert_eq!(
            report.issues[0].field,
            "metadata.annotations.sluice.dev/source-nut"
        );
    }
}
