//! `metadata` (apimachinery pkg/api/validation objectmeta.go, core validation `ValidateObjectMeta`).

use std::collections::BTreeMap;
use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::mistakes::{Mistakes, quoted};
use super::names::{self, Form, LABEL, LABEL_VALUE, QUALIFIED};

/// Most bytes of all keys and values of annotations (`TotalAnnotationSizeLimitB`).
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Finalizers of Kubernetes that have no domain.
const FINALIZERS: [&str; 3] = ["kubernetes", ORPHAN, FOREGROUND];
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Checks the metadata of an object of a namespace, whose name has the form.
pub(super) fn check(mistakes: &mut Mistakes, metadata: &ObjectMeta, name: &Form) {
    if let Some(prefix) = metadata.generate_name.as_deref().filter(|p| !p.is_empty())
        && !names::can_start(prefix, name)
    {
        let message = format!("{} cannot start {}", quoted(prefix), name.wanted);
        mistakes.invalid("metadata.generateName", message);
    }
    mistakes.named("metadata.name", metadata.name.as_deref(), name);
    mistakes.named("metadata.namespace", metadata.namespace.as_deref(), &LABEL);
    if let Some(generation) = metadata.generation.filter(|generation| *generation < 0) {
        let message = format!("is {generation} and must be 0 or more");
        mistakes.invalid("metadata.generation", message);
    }
    labels(mistakes, "metadata.labels", metadata.labels.as_ref());
    annotations(mistakes, metadata.annotations.as_ref());
    owners(
        mistakes,
        metadata.owner_references.as_deref().unwrap_or_default(),
    );
    finalizers(mistakes, metadata.finalizers.as_deref().unwrap_or_default());
}

/// Checks labels, or a selector over them.
pub(super) fn labels(
    mistakes: &mut Mistakes,
    field: impl Display,
    labels: Option<&BTreeMap<String, String>>,
) {
    for (key, value) in labels.into_iter().flatten() {
        mistakes.form(&field, key, &QUALIFIED);
        mistakes.form(&field, value, &LABEL_VALUE);
    }
}

fn annotations(mistakes: &mut Mistakes, annotations: Option<&BTreeMap<String, String>>) {
    const FIELD: &str = "metadata.annotations";
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        size += key.len() + value.len();
        mistakes.form(FIELD, &key.to_lowercase(), &QUALIFIED);
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("have {size} bytes together; at most {MAX_ANNOTATIONS} are possible");
        mistakes.invalid(FIELD, message);
    }
}

fn owners(mistakes: &mut Mistakes, owners: &[OwnerReference]) {
    const FIELD: &str = "metadata.ownerReferences";
    for (index, owner) in owners.iter().enumerate() {
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        let parts = [
            ("apiVersion", version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ];
        for (part, _) in parts.iter().filter(|(_, value)| value.is_empty()) {
            let message = "is empty; an owner has apiVersion, kind, name and uid";
            mistakes.invalid(format_args!("{FIELD}[{index}].{part}"), message);
        }
        if (owner.api_version.as_str(), owner.kind.as_str()) == ("v1", "Event") {
            mistakes.invalid(FIELD, "names an Event, which cannot be an owner");
        }
    }
    let controllers = owners.iter().filter(|owner| owner.controller == Some(true));
    if controllers.count() > 1 {
        mistakes.invalid(FIELD, "has several with controller: true; there may be one");
    }
}

fn finalizers(mistakes: &mut Mistakes, finalizers: &[String]) {
    const FIELD: &str = "metadata.finalizers";
    for (index, name) in finalizers.iter().enumerate() {
        mistakes.form(FIELD, name, &QUALIFIED);
        if !name.contains('/') && !FINALIZERS.contains(&name.as_str()) {
            let message = format!("{} has no domain; use example.com/name", quoted(name));
            mistakes.invalid(format_args!("{FIELD}[{index}]"), message);
        }
    }
    let has = |wanted: &str| finalizers.iter().any(|name| name == wanted);
    if has(ORPHAN) && has(FOREGROUND) {
        mistakes.invalid(
            FIELD,
            format!("has both {ORPHAN} and {FOREGROUND}; use one"),
        );
    }
}

/// Checks what an update may not change. What the API server fills in (version, uid, times) counts
/// as unchanged where it is absent.
pub(super) fn update(mistakes: &mut Mistakes, metadata: &ObjectMeta, old: &ObjectMeta) {
    if metadata.resource_version.is_none() && old.resource_version.is_some() {
        let message = "is missing; an update names the version that it changes";
        mistakes.invalid("metadata.resourceVersion", message);
    }
    if metadata
        .generation
        .is_some_and(|new| Some(new) < old.generation)
    {
        mistakes.invalid("metadata.generation", "may not become smaller");
    }
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let mut new = metadata.finalizers.iter().flatten();
        if let Some(name) = new.find(|name| !known.contains(name)) {
            let message = format!("{} may not be added during deletion", quoted(name));
            mistakes.forbidden("metadata.finalizers", message);
        }
    }
    fixed(mistakes, metadata, old);
}

fn fixed(mistakes: &mut Mistakes, new: &ObjectMeta, old: &ObjectMeta) {
    fn given<T: PartialEq>(new: &Option<T>, old: &Option<T>) -> bool {
        new.is_some() && new != old
    }
    fn known<T: PartialEq>(new: &Option<T>, old: &Option<T>) -> bool {
        old.is_some() && given(new, old)
    }
    let (period, old_period) = (
        new.deletion_grace_period_seconds,
        old.deletion_grace_period_seconds,
    );
    for (part, changed) in [
        ("name", new.name != old.name),
        ("namespace", new.namespace != old.namespace),
        ("uid", known(&new.uid, &old.uid)),
        (
            "creationTimestamp",
            known(&new.creation_timestamp, &old.creation_timestamp),
        ),
        (
            "deletionTimestamp",
            given(&new.deletion_timestamp, &old.deletion_timestamp),
        ),
        ("deletionGracePeriodSeconds", given(&period, &old_period)),
    ] {
        if changed {
            let message = "may not change; delete the object and create another one";
            mistakes.invalid(format_args!("metadata.{part}"), message);
        }
    }
}
