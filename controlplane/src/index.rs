//! All objects that are known, as their sources have them, and what is wrong with them.
//!
//! ```text
//!   [ ObjectId ] -> claims [ file a: good version, problems ] [ file b: ... ]
//!                     ^ the one in use
//! ```
//!
//! Guarantees: an object that turns bad keeps its last good version until its file lets go of it;
//! every problem of a bad object tells whether there is such a version; of an object that two files
//! hold the version in use stays in use, and when none was, none is: which of them is meant is not
//! guessed. It knows no source, reads no clock, and does not know what objects do to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use sluice_conf::message::controlplane::Problem;

use crate::endpoints::Slice;
use crate::kinds::policy::PolicySpec;
use crate::kinds::pool::PoolSpec;
use crate::object::{self, Issue, Kind, Lines, ObjectId, Origin};
use crate::slices::node::Node;
use crate::slices::pod::Pod;
use crate::source::Event;

mod claim;

use claim::Claim;

/// The objects.
#[derive(Debug, Clone, Default)]
pub struct Index {
    objects: BTreeMap<ObjectId, Entry>,
    files: BTreeMap<String, Vec<Problem>>,
    next_order: u64,
    /// Objects that were heard of since the last [`Index::take_changes`].
    heard_of: BTreeSet<ObjectId>,
    /// Objects that have problems, and those that several files hold.
    troubled: BTreeSet<ObjectId>,
    /// Whether the problems may be others than at the last [`Index::take_troubled`].
    trouble: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    order: u64,
    first_seen: Duration,
    claims: Vec<Claim>,
    /// File of the claim in use.
    chosen: Option<String>,
    /// The version that was last told as a change.
    told: Option<Good>,
}

/// A version of an object, in the form in which it is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Good {
    /// A Namespace.
    Namespace,
    /// A Node.
    Node(Arc<Node>),
    /// An AddressPool.
    Pool(Arc<PoolSpec>),
    /// A ServicePolicy.
    Policy(Arc<PolicySpec>),
    /// A Service as it was written; what it lacks is for the admission.
    Service(Arc<core::Service>),
    /// An EndpointSlice.
    Slice(Arc<Slice>),
    /// A Pod.
    Pod(Arc<Pod>),
}

/// An object in use.
#[derive(Debug, Clone, PartialEq)]
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

impl Known<()> {
    /// Something that was known as the `order`th, from the start.
    pub(crate) fn at(origin: Origin, order: u64) -> Self {
        Self {
            object: Arc::new(()),
            origin,
            order,
            first_seen: Duration::ZERO,
        }
    }

    /// `object`, known so.
    pub(crate) fn with<T>(self, object: T) -> Known<T> {
        Known {
            object: Arc::new(object),
            origin: self.origin,
            order: self.order,
            first_seen: self.first_seen,
        }
    }
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which object.
    pub id: ObjectId,
    /// The version to use; `None` when nobody has the object any more.
    pub version: Option<Version>,
}

/// The version of an object that is in use.
#[derive(Debug, Clone)]
pub struct Version {
    /// The object.
    pub good: Good,
    /// Where it stands.
    pub origin: Origin,
    /// Lower was known earlier.
    pub order: u64,
    /// When it was first seen, on the clock of the process.
    pub first_seen: Duration,
    /// Whether an API server has admitted it, so that nothing may be changed or given to it.
    pub admitted: bool,
    /// The lines of its fields.
    pub lines: Lines,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        (&self.good, &self.origin, self.order) == (&other.good, &other.origin, other.order)
    }
}

impl Version {
    /// The object, known as this version is.
    pub fn known<T>(&self, object: Arc<T>) -> Known<T> {
        Known {
            object,
            origin: self.origin.clone(),
            order: self.order,
            first_seen: self.first_seen,
        }
    }
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
                admitted,
            } => {
                let claim = Claim::of(&id, origin, object, issues, lines, admitted);
                self.apply(id, claim, now);
            }
            Event::Doubt { id, file } => self.doubt(&id, &file),
            Event::Delete { id, file } => self.delete(&id, &file),
            Event::Report { file, problems } => self.report(file, problems),
            Event::Synced { .. } => {}
        }
    }

    fn apply(&mut self, id: ObjectId, mut claim: Claim, now: Duration) {
        let next_order = &mut self.next_order;
        let entry = self.objects.entry(id.clone()).or_insert_with(|| {
            *next_order += 1;
            Entry {
                order: *next_order,
                first_seen: now,
                claims: Vec::new(),
                chosen: None,
                told: None,
            }
        });
        let same_file = |known: &&mut Claim| known.origin.file == claim.origin.file;
        match entry.claims.iter_mut().find(same_file) {
            Some(known) => {
                claim.log_notes(&id, &known.notes);
                claim.follow(known);
                *known = claim;
            }
            None => {
                claim.log_notes(&id, &[]);
                entry.claims.push(claim);
            }
        }
        self.heard(id);
    }

    /// Takes note that `file` changed and may not hold the object any more.
    fn doubt(&mut self, id: &ObjectId, file: &str) {
        let entry = self.objects.get_mut(id).into_iter();
        for claim in entry.flat_map(|entry| &mut entry.claims) {
            if claim.origin.file == file {
                claim.issues.clear();
                claim.doubtful = true;
            }
        }
        self.heard(id.clone());
    }

    /// Takes note that `file` does not hold the object any more.
    fn delete(&mut self, id: &ObjectId, file: &str) {
        if let Some(entry) = self.objects.get_mut(id) {
            entry.claims.retain(|claim| claim.origin.file != file);
            if entry.claims.is_empty() {
                self.objects.remove(id);
            }
        }
        self.heard(id.clone());
    }

    /// Takes note of what is wrong with the version in use beyond its types; replaces what was
    /// noted before.
    pub fn judge(&mut self, id: &ObjectId, verdict: Vec<Issue>) {
        if let Some(claim) = self.objects.get_mut(id).and_then(Entry::chosen_mut) {
            claim.verdict = verdict;
        }
        self.mark_trouble(id);
    }

    fn heard(&mut self, id: ObjectId) {
        self.mark_trouble(&id);
        self.heard_of.insert(id);
    }

    fn mark_trouble(&mut self, id: &ObjectId) {
        let was = self.troubled.contains(id);
        let is = self.objects.get(id).is_some_and(Entry::is_troubled);
        match is {
            true => self.troubled.insert(id.clone()),
            false => self.troubled.remove(id),
        };
        self.trouble |= was || is;
    }

    /// Whether the problems may be others than at the last call.
    pub fn take_troubled(&mut self) -> bool {
        std::mem::take(&mut self.trouble)
    }

    fn report(&mut self, file: String, problems: Vec<Problem>) {
        match problems.is_empty() {
            true => self.files.remove(&file),
            false => self.files.insert(file, problems),
        };
        self.trouble = true;
    }

    /// Whether a file cannot be read to its end, so that it may hold objects that nobody knows.
    pub fn is_partial(&self) -> bool {
        let mut problems = self.files.values().flatten();
        problems.any(|problem| problem.object.is_none())
    }

    /// Whether some file has the object, whatever is wrong with it.
    pub fn has(&self, id: &ObjectId) -> bool {
        self.objects.contains_key(id)
    }

    /// All objects of a kind, whatever is wrong with them.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        self.objects.keys().filter(move |id| id.kind == kind)
    }

    /// Every object with each file that it is written in; what an API server has is not written.
    pub fn written(&self) -> impl Iterator<Item = (&ObjectId, &str)> {
        self.objects.iter().flat_map(|(id, entry)| {
            let written = entry.claims.iter().filter(|claim| !claim.admitted);
            written.map(move |claim| (id, claim.origin.file.as_str()))
        })
    }

    /// Takes an object that was written elsewhere, if it was, to be written in `file`, with all that
    /// is known of it; of several versions it is the one in use.
    pub fn relocate(&mut self, id: &ObjectId, file: &str) {
        let Some(entry) = self.objects.get_mut(id) else {
            return;
        };
        let chosen = entry.chosen.clone();
        let is_chosen = |claim: &Claim| Some(&claim.origin.file) == chosen.as_ref();
        let (mut claims, mut written): (Vec<_>, Vec<_>) =
            entry.claims.drain(..).partition(|claim| claim.admitted);
        written.sort_by_key(|claim| !is_chosen(claim));
        if let Some(mut claim) = written.into_iter().next() {
            if is_chosen(&claim) {
                entry.chosen = Some(file.to_owned());
            }
            claim.origin.file = file.to_owned();
            claims.push(claim);
        }
        entry.claims = claims;
    }

    /// The version of an object that was last told as a change.
    pub fn told(&self, id: &ObjectId) -> Option<&Good> {
        self.objects.get(id)?.told.as_ref()
    }

    /// Whether an object as it stands in `file` is refused.
    pub fn is_refused(&self, id: &ObjectId, file: &str) -> bool {
        let Some(entry) = self.objects.get(id) else {
            return false;
        };
        let mut here = entry.claims.iter().filter(|c| c.origin.file == file);
        entry.chosen.as_deref() != Some(file)
            || here.any(|claim| {
                let mut issues = claim.issues.iter().chain(&claim.verdict);
                issues.any(|issue| issue.fatal)
            })
    }

    /// What has changed since the last call, sorted by object.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let heard_of = std::mem::take(&mut self.heard_of);
        let mut changes = Vec::new();
        for id in heard_of {
            let Some(entry) = self.objects.get_mut(&id) else {
                changes.push(Change { id, version: None });
                continue;
            };
            if let Some(version) = entry.choose() {
                let version = Some(version);
                changes.push(Change { id, version });
            }
        }
        changes
    }

    /// What is wrong with files and objects, sorted; `served` tells of which objects a version is
    /// in use.
    pub fn problems(&self, served: impl Fn(&ObjectId) -> bool) -> BTreeSet<Problem> {
        let mut problems: BTreeSet<Problem> = self.files.values().flatten().cloned().collect();
        for id in &self.troubled {
            if let Some(entry) = self.objects.get(id) {
                let served = served(id);
                let of_claims = entry.claims.iter().flat_map(|c| c.problems(id, served));
                problems.extend(of_claims);
                entry.disputes(id, served, &mut problems);
            }
        }
        problems
    }
}

impl Entry {
    /// Whether several files hold the object, or something is wrong with it.
    fn is_troubled(&self) -> bool {
        self.claims.len() > 1 || self.claims.iter().any(Claim::is_troubled)
    }

    fn chosen_mut(&mut self) -> Option<&mut Claim> {
        let chosen = self.chosen.as_deref()?;
        self.claims.iter_mut().find(|c| c.origin.file == chosen)
    }

    /// Claims of files that hold the object for sure, or of all if none does.
    fn candidates(&self) -> impl Iterator<Item = &Claim> {
        let sure = self.claims.iter().any(|claim| !claim.doubtful);
        let usable = move |claim: &&Claim| !(sure && claim.doubtful) && claim.good.is_some();
        self.claims.iter().filter(usable)
    }

    /// The version to use, when it is another than before.
    fn choose(&mut self) -> Option<Version> {
        let incumbent = self.chosen.as_deref();
        let incumbent = self
            .candidates()
            .find(|c| Some(c.origin.file.as_str()) == incumbent);
        let mut candidates = self.candidates();
        let claim = match (incumbent, candidates.next(), candidates.next()) {
            (Some(claim), ..) | (None, Some(claim), None) => claim,
            _ => {
                drop(candidates);
                self.chosen = None;
                return None;
            }
        };
        let version = Version {
            good: claim.good.clone()?,
            origin: claim.origin.clone(),
            order: self.order,
            first_seen: self.first_seen,
            admitted: claim.admitted,
            lines: claim.lines.clone(),
        };
        drop(candidates);
        self.chosen = Some(version.origin.file.clone());
        if self.told.as_ref() == Some(&version.good) {
            return None;
        }
        self.told = Some(version.good.clone());
        Some(version)
    }

    /// Names every file that holds an object which another file holds, too.
    fn disputes(&self, id: &ObjectId, served: bool, problems: &mut BTreeSet<Problem>) {
        // An object that moves from one file to another is in both for a moment.
        let sure = || self.claims.iter().filter(|claim| !claim.doubtful);
        if sure().count() < 2 {
            return;
        }
        let chosen = self.chosen.as_deref();
        for claim in sure() {
            let others = sure().filter(|c| c.origin != claim.origin);
            let others: Vec<_> = others.map(|c| c.origin.to_string()).collect();
            let others = others.join(" and in ");
            let message = match chosen {
                Some(used) if used == claim.origin.file => {
                    format!("is defined in {others}, too; the one here is used")
                }
                Some(used) => {
                    format!("is defined in {others}, too; the one in {used} is used")
                }
                None if served => format!(
                    "is defined in {others}, too; the version from before stays in use until only \
                     one defines it"
                ),
                None => format!(
                    "is defined in {others}, too; neither is used until only one defines it"
                ),
            };
            problems.insert(object::problem(id, &claim.origin, None, message));
        }
    }
}

#[cfg(test)]
mod tests;
