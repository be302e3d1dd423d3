//! Events in, tables out: the one task that owns the index.
//!
//! Guarantees: a table is compiled only at points where the source is in sync; a table is one line
//! of the log, which names the Services that differ; a problem is logged once when it appears and
//! once when it is gone, of many at once the first [`MAX_LOGGED`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use sluice_conf::message::controlplane::Problem;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

use crate::admission::{Admission, Decision};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::compile::Compiler;
use crate::endpoints::Slice;
use crate::index::{Change, Good, Index, Known, Version};
use crate::metrics;
use crate::object::{Kind, NamespacedName, ObjectId};
use crate::rules::Rules;
use crate::service::ServiceSpec;
use crate::source::{Event, Source};
use crate::tables::Tables;

mod differences;
mod problems;

pub use problems::MAX_LOGGED;
use problems::ProblemLog;

/// Events that are taken in before a table is compiled, so that a source which never rests cannot
/// hold it back.
const MAX_AT_ONCE: usize = 10_000;
/// Questions that may wait.
const QUESTIONS: usize = 64;

/// What sluicectl can see: the objects behind the newest table.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Services, sorted by namespace and name.
    pub services: Vec<Known<ServiceSpec>>,
    /// EndpointSlices, sorted by namespace and Service.
    pub slices: Vec<Known<Slice>>,
    /// What is wrong, oldest first.
    pub problems: Vec<Problem>,
}

/// Asks the engine what it knows.
#[derive(Debug, Clone)]
pub struct Questions(mpsc::Sender<oneshot::Sender<View>>);

impl Questions {
    /// What there is now; nothing when the engine has ended.
    pub async fn view(&self) -> View {
        let (answer, view) = oneshot::channel();
        // Whoever drops the other end has ended, and so will who asks.
        let _ = self.0.send(answer).await;
        view.await.unwrap_or_default()
    }
}

/// Owns the objects.
pub struct Engine {
    index: Index,
    admission: Admission,
    catalog: Catalog,
    compiler: Compiler,
    tables: Arc<Tables>,
    /// Sources that have not told all yet.
    awaited: BTreeSet<Source>,
    problems: ProblemLog,
    questions: mpsc::Receiver<oneshot::Sender<View>>,
    asker: Questions,
}

impl Engine {
    /// An engine that knows nothing yet, and compiles nothing before these sources have told all.
    pub fn new(rules: Rules, sources: &[Source], tables: Arc<Tables>) -> Self {
        let rules = Arc::new(rules);
        let (sender, questions) = mpsc::channel(QUESTIONS);
        Self {
            index: Index::default(),
            admission: Admission::default(),
            catalog: Catalog::new(Arc::clone(&rules)),
            compiler: Compiler::new(rules),
            tables,
            awaited: sources.iter().copied().collect(),
            problems: ProblemLog::default(),
            questions,
            asker: Questions(sender),
        }
    }

    /// Asks this engine.
    pub fn questions(&self) -> Questions {
        self.asker.clone()
    }

    /// Goes on until every sender of `events` is gone.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, clock: Clock) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take_in(event, &mut events, &clock),
                    None => return,
                },
                Some(answer) = self.questions.recv() => {
                    // Who asked may be gone.
                    let _ = answer.send(self.view());
                }
            }
        }
    }

    /// Takes in an event and those behind it that are there already, then compiles once.
    fn take_in(&mut self, first: Event, events: &mut mpsc::Receiver<Event>, clock: &Clock) {
        let start = clock.now();
        let mut in_sync = false;
        let mut next = Some(first);
        for _ in 0..MAX_AT_ONCE {
            let Some(event) = next else { break };
            in_sync = self.handle(event, start);
            next = events.try_recv().ok();
        }
        if let Some(event) = next {
            in_sync = self.handle(event, start);
        }
        if in_sync {
            self.settle();
            debug!("settled in {:?}", clock.now().saturating_sub(start));
        }
    }

    /// Takes in one event. Returns whether what is known now is a state that was written.
    pub fn handle(&mut self, event: Event, now: Duration) -> bool {
        let Event::Synced { source } = event else {
            self.index.handle(event, now);
            return false;
        };
        self.awaited.remove(&source);
        self.awaited.is_empty()
    }

    /// Brings the table up to what is known.
    pub fn settle(&mut self) {
        metrics::reloaded();
        let changes = self.index.take_changes();
        let mut asked = Vec::new();
        let mut gone = BTreeSet::new();
        for Change { id, version } in changes {
            let name = NamespacedName::new(id.namespace, id.name);
            match (id.kind, version) {
                (Kind::Service, None) => {
                    gone.insert(name);
                }
                (Kind::EndpointSlice, None) => self.catalog.remove_slice(&name),
                (_, Some(version)) => match &version.good {
                    Good::Service(service) => {
                        let service = Arc::clone(service);
                        asked.push((name, version, service));
                    }
                    Good::Slice(slice) => {
                        let slice = Arc::clone(slice);
                        self.catalog.put_slice(version.known(slice));
                    }
                },
            }
        }
        self.admit(asked, &gone);
        self.compile();
    }

    fn admit(
        &mut self,
        asked: Vec<(NamespacedName, Version, Arc<core::Service>)>,
        gone: &BTreeSet<NamespacedName>,
    ) {
        self.admission.forget(gone);
        for name in gone {
            self.catalog.remove_service(name);
        }
        for decision in self.admission.decide(asked) {
            let Decision {
                name,
                served,
                issues,
                notes,
            } = decision;
            let id = ObjectId {
                kind: Kind::Service,
                namespace: name.namespace,
                name: name.name,
            };
            for note in notes {
                info!("{id}: {note}");
            }
            if let Some(served) = served {
                self.catalog.put_service(served);
            }
            self.index.judge(&id, issues);
        }
    }

    fn compile(&mut self) {
        let concerned = self.catalog.take_concerned();
        let differ = self.compiler.update(&self.catalog, concerned);
        metrics::without_local(self.compiler.sizes().without_local);
        let before = self.tables.newest().table;
        if let Some(change) = self.tables.publish(self.compiler.table()) {
            metrics::generation(change.generation);
            differences::log(before.as_deref(), &change, self.compiler.sizes());
        }
        if self.index.take_troubled() || differ {
            self.review_problems();
        }
        metrics::objects(
            self.catalog.services().len(),
            self.catalog.slice_count(),
            self.problems.all().len(),
        );
    }

    fn review_problems(&mut self) {
        let catalog = &self.catalog;
        let served = |id: &ObjectId| match id.kind {
            Kind::Service => catalog.service(&id.named()).is_some(),
            Kind::EndpointSlice => catalog.has_slice(&id.named()),
        };
        let mut problems = self.index.problems(served);
        problems.extend(self.compiler.problems().cloned());
        self.problems.update(problems);
    }

    /// What there is now.
    pub fn view(&self) -> View {
        View {
            services: self.catalog.services().cloned().collect(),
            slices: self.catalog.slices().cloned().collect(),
            problems: self.problems.all().to_vec(),
        }
    }
}

#[cfg(test)]
impl Engine {
    /// What has been compiled, change after change.
    pub(crate) fn compiled(&self) -> crate::compile::Compiled {
        crate::compile::Compiled {
            table: self.compiler.table(),
            problems: self.compiler.problems().cloned().collect(),
        }
    }

    /// The same, compiled at once.
    pub(crate) fn compiled_at_once(&self) -> crate::compile::Compiled {
        crate::compile::compile(&self.catalog, self.compiler.rules())
    }
}
