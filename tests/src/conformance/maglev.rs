//! Suite `maglev`: the dataplane's Maglev tables.
//!
//! Weights are honoured as the dataplane claims, by accumulators. Cases of other schemes are not
//! applicable unless all weights are equal and the table holds their sum: then every scheme gives
//! the same counts. A numeric key `k` becomes the backend `fd00::k`, port 80.

mod checks;
mod form;
mod tables;

use std::collections::BTreeMap;

use super::document::Document;
use super::{Outcome, Report, each, guarded, not_applicable};
use form::Given;

/// Name of the suite.
pub const NAME: &str = "maglev";

const JUDGED: [&str; 7] = [
    "given_permutations",
    "permutations",
    "distribution",
    "equal_weights",
    "disruption",
    "parameters",
    EXACT,
];

const EXACT: &str = "exact_tables";

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    for section in document.sections().filter(|name| !JUDGED.contains(name)) {
        report.note(format!("unknown section {section} is not read"));
    }
    given(document, report)?;
    each(document, "permutations", report, |case, _| {
        checks::permutations(case)
    })?;
    each(document, "distribution", report, |case, _| {
        checks::distribution(case)
    })?;
    each(document, "equal_weights", report, |case, _| {
        checks::equal_weights(case)
    })?;
    each(document, "disruption", report, |case, _| {
        checks::disruption(case)
    })?;
    each(document, "parameters", report, |case, _| {
        checks::parameters(case)
    })?;
    let why = "bound to another hash and another turn order";
    not_applicable(document, EXACT, why, report)
}

/// Tables of given walks; a case may be compared with one before it.
fn given(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    let mut known = BTreeMap::new();
    for case in document.cases("given_permutations")? {
        let outcome = match case.parse::<Given>(report) {
            Ok(given) => {
                let outcome = guarded(|| checks::given(&given, &known));
                known.insert(case.id.clone(), given);
                outcome
            }
            Err(error) => Outcome::Failed(error),
        };
        report.add(&case.id, outcome);
    }
    Ok(())
}
