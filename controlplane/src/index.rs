//! All objects that are known, each in its last good version, and what is wrong with them.
//!
//! ```text
//!   [ ObjectId ] -> claims [ file a: good version, problems ] [ file b: ... ]
//!                     ^ the first file that had it owns the object
//! ```
//!
//! Guarantees: an object that turns bad keeps its last good version, in memory, until its file lets
//! go of it; every problem of a bad object tells whether there is such a version; an object that
//! two files hold stays with the first. It knows no source and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::message::controlplane::Problem;
use tracing::info;

use crate::endpoints::{self, Slice};
use crate::object::{self, Issue, Kind, Lines, Object, ObjectId, Origin};
use crate::service::{self, ServiceSpec};
use crate::source::Event;

/// The objects.
#[derive(Debug, Default)]
pub struct Index {
    objects: BTreeMap<ObjectId, Entry>,
    files: BTreeMap<String, Vec<Problem>>,
    next_order: u64,
}

#[derive(Debug)]
struct Entry {
    order: u64,
    first_seen: Duration,
    claims: Vec<Claim>,
}

/// What one file says of an object.
#[derive(Debug)]
struct Claim {
    origin: Origin,
    good: Option<Good>,
    problems: Vec<Problem>,
    notes: Vec<String>,
    /// Whether the file may have let go of the object.
    doubtful: bool,
}

#[derive(Debug, Clone)]
enum Good {
    Service(Arc<ServiceSpec>),
    Slice(Arc<Slice>),
}

/// An object in use.
#[derive(Debug, Clone)]
pub struct Known<T> {
    /// The object.
    pub object: Arc<T>,
    /// Where it stands.
    pub origin: Origin,
    /// Lower was known earlier.
    pub order: u64,
    /// When it was first seen, on the clock of the process.
    pub first_seen: Duration,
}

impl Index {
    /// Takes in one event. [`Event::Synced`] changes nothing here.
    pub fn handle(&mut self, event: Event, now: Duration) {
        match event {
            Event::Apply {
                id,
                origin,
                object,
                issues,
                lines,
            } => self.apply(id, origin, object.as_ref(), issues, &lines, now),
            Event::Doubt { id, file } => self.doubt(&id, &file),
            Event::Delete { id, file } => self.delete(&id, &file),
            Event::Report { file, problems } => self.report(file, problems),
            Event::Synced => {}
        }
    }

    /// Takes in an object as `origin` has it now; without an object it is malformed, and `issues`
    /// tell how.
    pub fn apply(
        &mut self,
        id: ObjectId,
        origin: Origin,
        object: Option<&Object>,
        mut issues: Vec<Issue>,
        lines: &Lines,
        now: Duration,
    ) {
        let (good, notes) = match object {
            Some(object) => check(&id, object, lines, &mut issues),
            None => (None, Vec::new()),
        };
        let next_order = &mut self.next_order;
        let entry = self.objects.entry(id.clone()).or_insert_with(|| {
            *next_order += 1;
            Entry {
                order: *next_order,
                first_seen: now,
                claims: Vec::new(),
            }
        });
        let same_file = |known: &&mut Claim| known.origin.file == origin.file;
        let before = entry.claims.iter_mut().find(same_file);
        let last_good = before.as_ref().and_then(|known| known.good.clone());
        let claim = Claim {
            problems: problems(&id, &origin, issues, lines, last_good.is_some()),
            good: good.or(last_good),
            origin,
            notes,
            doubtful: false,
        };
        match before {
            Some(known) => {
                claim.log_notes(&id, &known.notes);
                *known = claim;
            }
            None => {
                claim.log_notes(&id, &[]);
                entry.claims.push(claim);
            }
        }
    }

    /// Takes note that `file` changed and may not hold the object any more.
    fn doubt(&mut self, id: &ObjectId, file: &str) {
        let entry = self.objects.get_mut(id).into_iter();
        for claim in entry.flat_map(|entry| &mut entry.claims) {
            if claim.origin.file == file {
                claim.problems.clear();
                claim.doubtful = true;
            }
        }
    }

    /// Takes note that `file` does not hold the object any more.
    pub fn delete(&mut self, id: &ObjectId, file: &str) {
        if let Some(entry) = self.objects.get_mut(id) {
            entry.claims.retain(|claim| claim.origin.file != file);
            if entry.claims.is_empty() {
                self.objects.remove(id);
            }
        }
    }

    fn report(&mut self, file: String, problems: Vec<Problem>) {
        match problems.is_empty() {
            true => self.files.remove(&file),
            false => self.files.insert(file, problems),
        };
    }

    /// Services in use, sorted by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = Known<ServiceSpec>> + '_ {
        self.objects.values().filter_map(|entry| {
            let (origin, good) = entry.used()?;
            match good {
                Good::Service(service) => Some(entry.known(origin, service)),
                Good::Slice(_) => None,
            }
        })
    }

    /// EndpointSlices in use, sorted by namespace and name.
    pub fn slices(&self) -> impl Iterator<Item = Known<Slice>> + '_ {
        self.objects.values().filter_map(|entry| {
            let (origin, good) = entry.used()?;
            match good {
                Good::Slice(slice) => Some(entry.known(origin, slice)),
                Good::Service(_) => None,
            }
        })
    }

    /// What is wrong with files and objects, sorted.
    pub fn problems(&self) -> BTreeSet<Problem> {
        let mut problems: BTreeSet<Problem> = self.files.values().flatten().cloned().collect();
        for (id, entry) in &self.objects {
            problems.extend(entry.claims.iter().flat_map(|c| &c.problems).cloned());
            entry.disputes(id, &mut problems);
        }
        problems
    }
}

impl Entry {
    /// The version in use: that of the first file which ever had a good one.
    fn used(&self) -> Option<(&Origin, &Good)> {
        let mut claims = self.claims.iter();
        claims.find_map(|claim| Some((&claim.origin, claim.good.as_ref()?)))
    }

    fn known<T>(&self, origin: &Origin, object: &Arc<T>) -> Known<T> {
        Known {
            object: Arc::clone(object),
            origin: origin.clone(),
            order: self.order,
            first_seen: self.first_seen,
        }
    }

    /// Names every file that holds an object which another file holds, too.
    fn disputes(&self, id: &ObjectId, problems: &mut BTreeSet<Problem>) {
        let Some(used) = self.used().map(|(origin, _)| origin) else {
            return;
        };
        // An object that moves from one file to another is in both for a moment.
        let sure = || self.claims.iter().filter(|claim| !claim.doubtful);
        if sure().count() < 2 {
            return;
        }
        for claim in sure() {
            let others = sure().filter(|c| c.origin != claim.origin);
            let others: Vec<_> = others.map(|c| c.origin.to_string()).collect();
            let others = others.join(" and in ");
            let message = match claim.origin == *used {
                true => format!("is defined in {others}, too; the one here is used"),
                false => format!(
                    "is defined in {others}, too; the one in {} is used",
                    used.file
                ),
            };
            problems.insert(object::problem(id, &claim.origin, None, message));
        }
    }
}

impl Claim {
    fn log_notes(&self, id: &ObjectId, known: &[String]) {
        for note in self.notes.iter().filter(|note| !known.contains(note)) {
            info!("{} {id}: {note}", self.origin);
        }
    }
}

/// The object in the form that the compiler reads, when it can be used, and its notes.
fn check(
    id: &ObjectId,
    object: &Object,
    lines: &Lines,
    issues: &mut Vec<Issue>,
) -> (Option<Good>, Vec<String>) {
    match object {
        Object::Service(service) => {
            let checked = service::check(&id.namespace, &id.name, service, lines);
            issues.extend(checked.issues);
            (
                checked.good.map(|s| Good::Service(Arc::new(s))),
                checked.notes,
            )
        }
        Object::EndpointSlice(slice) => {
            let checked = endpoints::check(&id.namespace, &id.name, slice);
            issues.extend(checked.issues);
            (
                checked.good.map(|s| Good::Slice(Arc::new(s))),
                checked.notes,
            )
        }
    }
}

/// Issues with their lines; those that make the object useless tell what serves instead.
fn problems(
    id: &ObjectId,
    origin: &Origin,
    issues: Vec<Issue>,
    lines: &Lines,
    has_last_good: bool,
) -> Vec<Problem> {
    let instead = match (has_last_good, id.kind) {
        (true, _) => "its last good version stays in use",
        (false, Kind::Service) => "it is not served",
        (false, Kind::EndpointSlice) => "it is not used",
    };
    let place = |issue: Issue| {
        let line = match issue.field.is_empty() {
            true => origin.line,
            false => lines.line(&issue.field).or(origin.line),
        };
        let at = Origin {
            file: origin.file.clone(),
            line,
        };
        let message = match issue.fatal {
            true => format!("{} ({instead})", issue.message),
            false => issue.message,
        };
        let field = Some(issue.field.as_str()).filter(|field| !field.is_empty());
        object::problem(id, &at, field, message)
    };
    issues.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, lines, service};

    fn web() -> ObjectId {
        ObjectId {
            kind: Kind::Service,
            namespace: "default".into(),
            name: "web".into(),
        }
    }

    fn port(index: &Index) -> Option<u16> {
        let known = index.services().next()?;
        known.object.ports.first().map(|port| port.port)
    }

    #[test]
    fn a_bad_document_keeps_the_last_good_version_of_its_object() {
        let mut index = Index::default();
        let good = service("web", "10.96.0.10");
        apply(&mut index, "a.yaml", &good);
        apply(&mut index, "a.yaml", &good.replace("port: 80", "port: 0"));
        assert_eq!(port(&index), Some(80));
        assert_eq!(
            lines(&index.problems()),
            [
                "a.yaml:8 Service default/web spec.ports[0].port: is missing or 0; use 1 to 65535 (its last good version stays in use)"
            ]
        );
        apply(&mut index, "a.yaml", &good.replace("port: 80", "port: 81"));
        assert_eq!(port(&index), Some(81));
        assert_eq!(lines(&index.problems()), [""; 0]);
    }

    #[test]
    fn an_object_that_was_never_good_is_not_served() {
        let mut index = Index::default();
        apply(&mut index, "a.yaml", &service("web", "nonsense"));
        assert_eq!(port(&index), None);
        assert_eq!(
            lines(&index.problems()),
            [
                "a.yaml:6 Service default/web spec.clusterIP: \"nonsense\" is not an IP address (it is not served)"
            ]
        );
    }

    #[test]
    fn what_was_wrong_with_an_older_version_is_forgotten() {
        let mut index = Index::default();
        let good = service("web", "10.96.0.10");
        apply(&mut index, "a.yaml", &good);
        apply(&mut index, "a.yaml", &good.replace("port: 80", "port: 0"));
        apply(&mut index, "a.yaml", &good.replace("port: 80", "port: x"));
        assert_eq!(
            lines(&index.problems()),
            [
                "a.yaml:8 Service default/web spec.ports[0].port: is text \"x\" and must be a whole number (its last good version stays in use)"
            ]
        );
        let file = "a.yaml".to_owned();
        index.handle(Event::Doubt { id: web(), file }, Duration::ZERO);
        assert_eq!(lines(&index.problems()), [""; 0]);
        assert_eq!(port(&index), Some(80));
    }

    #[test]
    fn an_object_that_may_have_moved_is_in_no_dispute() {
        let mut index = Index::default();
        let text = service("web", "10.96.0.10");
        apply(&mut index, "a.yaml", &text);
        let file = "a.yaml".to_owned();
        index.handle(Event::Doubt { id: web(), file }, Duration::ZERO);
        apply(&mut index, "b.yaml", &text);
        assert_eq!(lines(&index.problems()), [""; 0]);
        apply(&mut index, "a.yaml", &text);
        assert_eq!(index.problems().len(), 2);
    }

    #[test]
    fn an_object_in_two_files_stays_with_the_first_and_both_are_named() {
        let mut index = Index::default();
        let text = service("web", "10.96.0.10");
        apply(&mut index, "b.yaml", &text);
        apply(&mut index, "a.yaml", &text.replace("port: 80", "port: 81"));
        assert_eq!(port(&index), Some(80));
        assert_eq!(
            lines(&index.problems()),
            [
                "a.yaml:1 Service default/web: is defined in b.yaml:1, too; the one in b.yaml is used",
                "b.yaml:1 Service default/web: is defined in a.yaml:1, too; the one here is used",
            ]
        );
        index.delete(&web(), "b.yaml");
        assert_eq!(port(&index), Some(81), "the second takes over");
        assert_eq!(lines(&index.problems()), [""; 0]);
        index.delete(&web(), "a.yaml");
        assert_eq!(port(&index), None);
    }

    #[test]
    fn a_change_keeps_the_age_and_a_return_does_not() {
        let mut index = Index::default();
        let found = crate::testing::found("a.yaml", &service("web", "10.96.0.10"));
        let object = found.object.unwrap();
        let apply = |index: &mut Index, seconds| {
            let (id, origin) = (found.id.clone(), found.origin.clone());
            let now = Duration::from_secs(seconds);
            index.apply(id, origin, Some(&object), Vec::new(), &found.lines, now);
            index.services().next().unwrap().first_seen.as_secs()
        };
        assert_eq!(apply(&mut index, 5), 5);
        assert_eq!(apply(&mut index, 9), 5);
        index.delete(&web(), "a.yaml");
        assert_eq!(apply(&mut index, 12), 12);
    }
}
