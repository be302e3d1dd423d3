//! The conformance runner: cases in files, judged by the real control plane and the real engine.
//!
//! ```text
//!   SUITE.yaml --> document --> cases --+--> validation: objects -> fields in error
//!                                       |--> allocation: Services -> registry -> what they were given
//!                                       |--> slices:     Services and Pods -> EndpointSlices
//!                                       |--> flows:      objects -> compile -> table -> gateway in memory
//!                                       |                frames there and back, read by another parser
//!                                       |--> maglev:     tables of the dataplane's own Maglev
//!                                       '--> names:      objects -> zone -> DNS server, asked by a socket
//!                                       '--> envvars:    Services -> environment variables
//!                                                          |
//!                                                          v
//!                                              outcome of each case -> report
//! ```
//!
//! Guarantees: what is run are the functions that the daemons run; a case passes only if all that it
//! expects was seen; what cannot be judged is told with its reason and never counted as passed. No
//! file makes the runner panic: a case that cannot be read, or that makes the code under test panic,
//! has failed, and the next one is run. Keys that nobody knows are named in a note, and where they
//! say what to expect they fail their case.
//!
//! Does not cover: the XDP program itself (its twin in Rust, `steer::Filter`, decides here) and the
//! way through the daemons' sockets, but for that of the DNS server.

mod allocation;
mod document;
mod envvars;
mod flows;
mod maglev;
mod names;
mod outcome;
mod slices;
mod validation;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use anyhow::bail;
use document::{Case, Document};
pub use outcome::{Outcome, Report};
use serde_json::Value;

/// The suites that there are.
pub const SUITES: [&str; 7] = [
    validation::NAME,
    allocation::NAME,
    slices::NAME,
    flows::NAME,
    maglev::NAME,
    names::NAME,
    envvars::NAME,
];

/// Runs all cases of `DIR/SUITE.yaml`.
///
/// # Errors
/// No such suite; a file that is missing, malformed or of another format.
pub fn run(suite: &str, dir: &Path) -> anyhow::Result<Report> {
    let judge = match suite {
        flows::NAME => flows::judge,
        maglev::NAME => maglev::judge,
        names::NAME => names::judge,
        validation::NAME => validation::judge,
        slices::NAME => slices::judge,
        allocation::NAME => allocation::judge,
        envvars::NAME => envvars::judge,
        other => bail!("{other:?} is not a suite; there are: {}", SUITES.join(", ")),
    };
    let document = Document::read(suite, dir)?;
    let mut report = Report::default();
    judge(&document, &mut report)?;
    Ok(report)
}

/// Judges one case; a panic is its failure.
fn guarded(judge: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Outcome::Failed(format!("panicked: {}", text.unwrap_or("without a word")))
    })
}

/// Runs each case of a section that is judged as a whole.
fn each<T: serde::de::DeserializeOwned>(
    document: &Document,
    section: &str,
    report: &mut Report,
    judge: impl Fn(&T, &Value) -> Outcome,
) -> anyhow::Result<()> {
    for case in document.cases(section)? {
        let outcome = match case.parse::<T>(report) {
            Ok(read) => guarded(|| judge(&read, case.value())),
            Err(error) => Outcome::Failed(error),
        };
        report.add(&case.id, outcome);
    }
    Ok(())
}

/// Lists each case of a section that cannot be judged.
fn not_applicable(
    document: &Document,
    section: &str,
    why: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    for Case { id, .. } in document.cases(section)? {
        report.add(&id, Outcome::NotApplicable(why.to_owned()));
    }
    Ok(())
}
