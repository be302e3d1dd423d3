//! Suite `service-validation`: which fields of a Service or an EndpointSlice are in error.
//!
//! How the file's words are taken:
//! - The fields and kinds that are reported must be those of `errors`, no more and no fewer.
//! - `upstreamErrorCount` bounds how often: a field may be told twice only where the API server does
//!   so. Without it, each error is told once.
//! - `upstreamField` is another spelling; Sluice reports the JSON path.
//! - `scope` names fields in its sentence; what is reported elsewhere does not count.
//! - An object with a status is also asked about its status.
//! - An object that has keys that the API does not know fails: its case would judge less than it says.

mod form;
mod generate;
mod scope;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_controlplane::field::FieldError;
use sluice_controlplane::validation;

use self::form::{Case, Kind, Operation};
use self::scope::Scope;
use super::document::{self, Document};
use super::{Report, each};

/// Name of the suite.
pub const NAME: &str = "service-validation";

const JUDGED: [&str; 2] = ["service_cases", "endpointslice_cases"];

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    for section in document.sections().filter(|name| !JUDGED.contains(name)) {
        report.note(format!("unknown section {section} is not read"));
    }
    each(document, "service_cases", report, |case, _| {
        services(case).into()
    })?;
    each(document, "endpointslice_cases", report, |case, _| {
        slices(case).into()
    })
}

fn services(case: &Case) -> Result<(), String> {
    let (service, old) = objects::<Service>(case)?;
    let mut errors = match old {
        None => validation::service_create(&service),
        Some(old) => validation::service_update(&service, &old),
    };
    errors.extend(validation::service_status(&service));
    verdict(case, &errors)
}

fn slices(case: &Case) -> Result<(), String> {
    let (slice, old) = objects::<EndpointSlice>(case)?;
    let errors = match old {
        None => validation::endpoint_slice_create(&slice),
        Some(old) => validation::endpoint_slice_update(&slice, &old),
    };
    verdict(case, &errors)
}

/// The object that is submitted, and the one that it replaces.
fn objects<T: DeserializeOwned>(case: &Case) -> Result<(T, Option<T>), String> {
    let old = match (case.operation, &case.old) {
        (Operation::Create, None) => None,
        (Operation::Update, Some(old)) => Some(object("old", old)?),
        (Operation::Create, Some(_)) => return Err("creates an object and has an old one".into()),
        (Operation::Update, None) => return Err("updates an object and has no old one".into()),
    };
    Ok((object("object", &case.object)?, old))
}

fn object<T: DeserializeOwned>(which: &str, written: &Value) -> Result<T, String> {
    let whole = generate::expand(written).map_err(|error| format!("{which}: {error}"))?;
    let (object, unknown) = document::parse(&whole).map_err(|error| format!("{which} {error}"))?;
    match unknown.is_empty() {
        true => Ok(object),
        false => Err(format!("{which} has unknown fields {}", unknown.join(", "))),
    }
}

fn verdict(case: &Case, errors: &[FieldError]) -> Result<(), String> {
    if case.valid != case.errors.is_empty() {
        return Err("contradicts itself: a case has errors exactly if it is not valid".into());
    }
    let scope = case.scope.as_deref().map(Scope::read).transpose()?;
    let counts = |field: &str| scope.as_ref().is_none_or(|scope| scope.holds(field));
    let told: Vec<&FieldError> = errors.iter().filter(|e| counts(&e.field)).collect();
    let wanted: BTreeSet<(&str, Kind)> = case.errors.iter().map(form::Error::place).collect();
    if let Some((field, _)) = wanted.iter().find(|(field, _)| !counts(field)) {
        return Err(format!("expects {field}, which its scope leaves out"));
    }
    let reported: BTreeSet<(&str, Kind)> = told
        .iter()
        .map(|error| (error.field.as_str(), Kind::from(error.reason)))
        .collect();
    if wanted != reported {
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        return Err(format!(
            "expected {wanted:?}, reported {reported:?}: {told:?}"
        ));
    }
    let most = case.upstream_error_count.unwrap_or(case.errors.len());
    match told.len() <= most {
        true => Ok(()),
        false => Err(format!(
            "expected {most} errors, reported {}: {told:?}",
            told.len()
        )),
    }
}
