//! The engine's state, apart from the engine: what manifests would lead to is found out on it.
//!
//! Guarantees: nothing that happens here reaches the store, the dataplane, the probes, the log or
//! the metrics. Objects of an API server stay as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use sluice_conf::ServiceTable;
use sluice_conf::message::controlplane::Problem;
use sluice_conf::message::controlplane::plan::{Change, Draft, ObjectChange};
use tokio::sync::mpsc;
use tracing::Dispatch;

use super::checks::Checks;
use super::events::{Events, Steps, Waiting};
use super::names::Names;
use super::wishes::WishList;
use super::{Engine, Questions};
use crate::index::Good;
use crate::object::{NamespacedName, ObjectId};
use crate::readiness::Moment;
use crate::source::Event;
use crate::source::manifest::{self, Manifest};
use crate::tables::Tables;

/// A trial of manifests.
pub struct Rehearsal {
    engine: Engine,
    moment: Moment,
}

/// What there is at one moment.
#[derive(Debug)]
pub struct Situation {
    /// The table, without a generation.
    pub table: ServiceTable,
    /// Services as they were admitted, but for those that an API server has admitted.
    pub services: BTreeMap<NamespacedName, Arc<core::Service>>,
    /// What is wrong.
    pub problems: BTreeSet<Problem>,
}

/// What became of manifests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Objects that are others than before, but for those that are refused; sorted.
    pub objects: Vec<ObjectChange>,
    /// What the files hold that is not read.
    pub skipped: Vec<String>,
    /// What is refused, and why.
    pub refused: BTreeSet<Problem>,
}

impl Engine {
    /// A rehearsal of what there is; `None` before every source has told all.
    pub(crate) fn rehearsal(&self, moment: Moment) -> Option<Rehearsal> {
        if !self.awaited.is_empty() {
            return None;
        }
        let (sender, questions) = mpsc::channel(1);
        let engine = Self {
            index: self.index.clone(),
            pools: self.pools.clone(),
            policies: self.policies.clone(),
            admission: self.admission.rehearsal(),
            restored: self.restored,
            deriver: self.deriver.clone(),
            readiness: self.readiness.rehearsal(),
            rules: Arc::clone(&self.rules),
            catalog: self.catalog.clone(),
            compiler: self.compiler.clone(),
            tables: Arc::new(Tables::default()),
            awaited: BTreeSet::new(),
            problems: self.problems.clone(),
            questions,
            asker: Questions(sender),
            store: None,
            checks: Checks::default(),
            names: Names::default(),
            events: Events::default(),
            steps: Steps::default(),
            unbalanced: Waiting::default(),
            wishes: WishList::default(),
            environment: None,
        };
        Some(Rehearsal { engine, moment })
    }
}

impl Rehearsal {
    /// What there is now.
    pub fn situation(&self) -> Situation {
        let admission = &self.engine.admission;
        let own = admission.names().filter_map(|name| {
            let (service, admitted) = admission.service(name)?;
            (!admitted).then(|| (name.clone(), Arc::clone(service)))
        });
        Situation {
            table: self.engine.compiler.table(),
            services: own.collect(),
            problems: self.engine.problems.all().iter().cloned().collect(),
        }
    }

    /// Puts manifests in use in the place of those that are, and settles. If one of them cannot be
    /// told apart nothing counts as missing in them.
    pub fn perform(&mut self, draft: &Draft) -> Outcome {
        tracing::dispatcher::with_default(&Dispatch::none(), || {
            ::metrics::with_local_recorder(&::metrics::NoopRecorder, || self.put_in_use(draft))
        })
    }

    fn put_in_use(&mut self, draft: &Draft) -> Outcome {
        let files: Vec<(&str, Manifest)> = draft
            .files
            .iter()
            .map(|file| (file.name.as_str(), manifest::read(&file.name, &file.bytes)))
            .collect();
        let complete = files.iter().all(|(_, manifest)| manifest.complete);
        let given = given(&files);
        let missing = match draft.delete && complete {
            true => self.missing(&given),
            false => BTreeSet::new(),
        };
        let ids = given.keys().chain(missing.iter().map(|(id, _)| id));
        let before: BTreeMap<ObjectId, Option<Good>> = ids
            .map(|id| (id.clone(), self.engine.index.told(id).cloned()))
            .collect();
        for (id, places) in &given {
            if let Some(first) = places.first() {
                self.engine.index.relocate(id, first);
            }
        }
        let mut outcome = Outcome::default();
        for (file, manifest) in files {
            outcome.refused.extend(manifest.problems.iter().cloned());
            outcome.skipped.extend(manifest.notes.iter().cloned());
            self.apply(file, manifest);
        }
        for (id, file) in missing {
            self.handle(Event::Delete { id, file });
        }
        self.engine.settle(self.moment);
        let refused = self.refused(&given);
        outcome.objects = self.changes(before, &refused);
        outcome.refused.extend(self.problems_of(&refused));
        outcome
    }

    /// What is written now and is none of these objects.
    fn missing(&self, given: &Given) -> BTreeSet<(ObjectId, String)> {
        let written = self.engine.index.written();
        let missing = written.filter(|(id, _)| !given.contains_key(id));
        missing
            .map(|(id, file)| (id.clone(), file.to_owned()))
            .collect()
    }

    fn apply(&mut self, file: &str, manifest: Manifest) {
        for found in manifest.objects {
            self.handle(Event::from(found));
        }
        self.handle(Event::Report {
            file: file.to_owned(),
            problems: manifest.problems,
        });
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(event, self.moment.now);
    }

    /// Those of these objects that are not put in use, each with the file where it is refused.
    fn refused(&self, given: &Given) -> BTreeSet<(String, String)> {
        let index = &self.engine.index;
        let each = given
            .iter()
            .flat_map(|(id, files)| files.iter().map(move |file| (id, file)));
        each.filter(|(id, file)| index.is_refused(id, file))
            .map(|(id, file)| (id.to_string(), file.clone()))
            .collect()
    }

    /// What is wrong with refused objects.
    fn problems_of(&self, refused: &BTreeSet<(String, String)>) -> impl Iterator<Item = Problem> {
        let problems = self.engine.problems.all().iter();
        let of_refused = problems.filter(|problem| {
            let object = problem.object.clone().unwrap_or_default();
            refused.contains(&(object, problem.file.clone()))
        });
        of_refused.cloned()
    }

    /// In what the objects differ from what they were `before`.
    fn changes(
        &self,
        before: BTreeMap<ObjectId, Option<Good>>,
        refused: &BTreeSet<(String, String)>,
    ) -> Vec<ObjectChange> {
        let refused: BTreeSet<&str> = refused.iter().map(|(object, _)| object.as_str()).collect();
        let change = |(id, before): (ObjectId, Option<Good>)| {
            let object = id.to_string();
            let change = match (before, self.engine.index.told(&id)) {
                (None, Some(_)) => Change::Added,
                (Some(_), None) => Change::Removed,
                (Some(before), Some(after)) if before != *after => Change::Altered,
                _ => return None,
            };
            let counts = !refused.contains(object.as_str());
            counts.then_some(ObjectChange { object, change })
        };
        before.into_iter().filter_map(change).collect()
    }
}

/// Objects of files, with the files that hold them in the order given.
type Given = BTreeMap<ObjectId, Vec<String>>;

fn given(files: &[(&str, Manifest)]) -> Given {
    let mut given = Given::new();
    for (file, manifest) in files {
        for found in &manifest.objects {
            let places = given.entry(found.id.clone()).or_default();
            places.push((*file).to_owned());
        }
    }
    given
}
