//! Sluice's own kinds of the group `sluice.dev/v1alpha1`: where load-balancer addresses come from
//! (AddressPool) and how a Service is treated beyond what the Service API can say (ServicePolicy).
//!
//! Guarantees: what `check` lets through can be used as it is; every mistake has the path of its
//! field. The custom resource definitions under `deploy/crds` and the JSON schemas under
//! `deploy/schemas` are made from these types.

use std::ops::RangeInclusive;

use crate::object::Report;

pub mod policy;
pub mod pool;
pub mod probe;
#[cfg(test)]
mod schemas;
pub mod selector;
pub mod tiers;
pub mod weights;

pub use policy::ServicePolicy;
pub use pool::AddressPool;

/// Most entries of any list of an own kind; longer ones are refused.
pub(crate) const MAX_ENTRIES: usize = 1000;

/// Refuses a list that is too long.
fn bounded(report: &mut Report, field: &str, entries: usize) {
    if entries > MAX_ENTRIES {
        let message = format!("has {entries} entries; at most {MAX_ENTRIES} are possible");
        report.refuse(field, message);
    }
}

/// The number if it is within `range`; otherwise the object is refused and the least is taken.
fn within(report: &mut Report, field: String, number: u32, range: RangeInclusive<u32>) -> u32 {
    if range.contains(&number) {
        return number;
    }
    let (least, most) = range.into_inner();
    let message = format!("{number} is not possible; use {least} to {most}");
    report.refuse(field, message);
    least
}

/// As [`within`] for numbers of 16 bits.
fn within_u16(report: &mut Report, field: String, number: u32, range: RangeInclusive<u16>) -> u16 {
    let (least, most) = range.into_inner();
    let number = within(report, field, number, u32::from(least)..=u32::from(most));
    u16::try_from(number).unwrap_or(least)
}

/// Refuses what is not one of `words` by the error of `parse`.
fn parsed<T>(
    report: &mut Report,
    field: &str,
    text: Option<&String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let value = parse(text?.trim());
    value.map_err(|message| report.refuse(field, message)).ok()
}
