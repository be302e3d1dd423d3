//! What one file, or an API server, says of an object, and what is wrong with it there.

use std::sync::Arc;

use sluice_conf::message::controlplane::Problem;
use tracing::info;

use super::Good;
use crate::endpoints;
use crate::field::FieldError;
use crate::kinds::{policy, pool};
use crate::object::{self, Checked, Issue, Kind, Lines, Object, ObjectId, Origin, Report};
use crate::slices::{node, pod};

/// What one file says of an object.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) origin: Origin,
    pub(super) good: Option<Good>,
    pub(super) lines: Lines,
    pub(super) admitted: bool,
    /// What is wrong with it as it stands there.
    pub(super) issues: Vec<Issue>,
    /// What is wrong with it beside others.
    pub(super) verdict: Vec<Issue>,
    pub(super) notes: Vec<String>,
    /// Whether the file may have let go of the object.
    pub(super) doubtful: bool,
}

impl Claim {
    pub(super) fn of(
        id: &ObjectId,
        origin: Origin,
        object: Option<Object>,
        mut issues: Vec<Issue>,
        lines: Lines,
        admitted: bool,
    ) -> Self {
        let (good, notes) = match object {
            Some(object) => check(id, object, &mut issues),
            None => (None, Vec::new()),
        };
        // Lines are for problems; those of Services may still come.
        let done = issues.is_empty() && id.kind != Kind::Service;
        let lines = if done { Lines::default() } else { lines };
        Self {
            origin,
            good,
            lines,
            admitted,
            issues,
            verdict: Vec::new(),
            notes,
            doubtful: false,
        }
    }

    /// Takes over what still holds of what the file said before.
    pub(super) fn follow(&mut self, before: &mut Claim) {
        if self.good == before.good {
            self.verdict = std::mem::take(&mut before.verdict);
        }
        if self.good.is_none() {
            self.good = before.good.take();
        }
    }

    pub(super) fn log_notes(&self, id: &ObjectId, known: &[String]) {
        for note in self.notes.iter().filter(|note| !known.contains(note)) {
            info!("{} {id}: {note}", self.origin);
        }
    }

    pub(super) fn is_troubled(&self) -> bool {
        !self.issues.is_empty() || !self.verdict.is_empty()
    }

    /// Issues with their lines; those that make the object useless tell what serves instead.
    pub(super) fn problems<'a>(
        &'a self,
        id: &'a ObjectId,
        served: bool,
    ) -> impl Iterator<Item = Problem> + 'a {
        let instead = match (served, id.kind) {
            (true, _) => "its last good version stays in use",
            (false, Kind::Service) => "it is not served",
            (false, _) => "it is not used",
        };
        let place = move |issue: &Issue| {
            let line = match issue.field.is_empty() {
                true => self.origin.line,
                false => self.lines.line(&issue.field).or(self.origin.line),
            };
            let at = Origin {
                file: self.origin.file.clone(),
                line,
            };
            let message = match issue.fatal {
                true => format!("{} ({instead})", issue.message),
                false => issue.message.clone(),
            };
            let field = Some(issue.field.as_str()).filter(|field| !field.is_empty());
            object::problem(id, &at, field, message)
        };
        self.issues.iter().chain(&self.verdict).map(place)
    }
}

/// The object in the form in which it is kept, when it can be, and its notes.
fn check(id: &ObjectId, object: Object, issues: &mut Vec<Issue>) -> (Option<Good>, Vec<String>) {
    fn kept<T>(
        checked: Checked<T>,
        issues: &mut Vec<Issue>,
        good: fn(Arc<T>) -> Good,
    ) -> (Option<Good>, Vec<String>) {
        issues.extend(checked.issues);
        (checked.good.map(Arc::new).map(good), checked.notes)
    }
    match object {
        Object::Namespace(_) => (Some(Good::Namespace), Vec::new()),
        Object::Node(node) => kept(facts(node::check(&node), &*node), issues, Good::Node),
        Object::AddressPool(pool) => kept(pool::check(&pool), issues, Good::Pool),
        Object::ServicePolicy(policy) => kept(policy::check(&policy), issues, Good::Policy),
        Object::Service(service) => (Some(Good::Service(Arc::from(service))), Vec::new()),
        Object::EndpointSlice(slice) => {
            let checked = endpoints::check(&id.namespace, &id.name, &slice);
            kept(checked, issues, Good::Slice)
        }
        Object::Pod(pod) => {
            // Without its probe it is a Pod all the same.
            issues.extend(pod::probes(&pod).into_iter().map(|mistake| Issue {
                field: mistake.field,
                message: mistake.message,
                fatal: false,
            }));
            kept(facts(pod::check(&pod), &*pod), issues, Good::Pod)
        }
    }
}

/// The facts of an object in which these mistakes were found.
fn facts<'a, A, F: From<&'a A>>(mistakes: Vec<FieldError>, object: &'a A) -> Checked<F> {
    let mut report = Report::default();
    for FieldError { field, message, .. } in mistakes {
        report.refuse(field, message);
    }
    report.finish(F::from(object))
}
