//! Events in, tables out: the one task that owns the index.
//!
//! Guarantees: a table is compiled only at points where the source is in sync; a problem is
//! logged once when it appears and once when it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_conf::ServiceTable;
use sluice_conf::message::controlplane::Problem;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use crate::compile::{Rules, compile};
use crate::endpoints::Slice;
use crate::index::{Index, Known};
use crate::metrics;
use crate::object::describe;
use crate::service::ServiceSpec;
use crate::source::Event;
use crate::tables::Tables;

/// What sluicectl can see: the objects behind the newest table.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Services, sorted by namespace and name.
    pub services: Vec<Known<ServiceSpec>>,
    /// EndpointSlices, sorted by namespace and name.
    pub slices: Vec<Known<Slice>>,
    /// What is wrong, oldest first.
    pub problems: Vec<Problem>,
}

/// Owns the index.
pub struct Engine {
    index: Index,
    rules: Rules,
    tables: Arc<Tables>,
    view: watch::Sender<Arc<View>>,
    problems: ProblemLog,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(rules: Rules, tables: Arc<Tables>) -> Self {
        Self {
            index: Index::default(),
            rules,
            tables,
            view: watch::Sender::new(Arc::default()),
            problems: ProblemLog::default(),
        }
    }

    /// What sluicectl can see, as it changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Goes on until every sender of `events` is gone.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, clock: Clock) {
        while let Some(event) = events.recv().await {
            self.handle(event, &clock);
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: Event, clock: &Clock) {
        let now = clock.now();
        match event {
            Event::Synced => {
                self.settle();
                debug!("settled in {:?}", clock.now().saturating_sub(now));
            }
            event => self.index.handle(event, now),
        }
    }

    fn settle(&mut self) {
        metrics::reloaded();
        let compiled = compile(&self.index, &self.rules);
        let table = ServiceTable {
            services: compiled.services,
            ..ServiceTable::default()
        };
        match table.validate() {
            Ok(()) => {
                if self.tables.publish(table.services) {
                    self.log_table();
                }
            }
            // Nothing that a manifest can say leads here; if it does, what serves goes on serving.
            Err(fault) => error!("compiled a table that is not valid, keeping the old: {fault}"),
        }
        let mut problems = self.index.problems();
        problems.extend(compiled.problems);
        let view = View {
            services: self.index.services().collect(),
            slices: self.index.slices().collect(),
            problems: self.problems.update(problems),
        };
        metrics::objects(&view);
        self.view.send_replace(Arc::new(view));
    }

    fn log_table(&self) {
        let state = self.tables.newest();
        let services = state.table.as_ref().map_or(&[][..], |t| &t.services);
        let frontends: usize = services.iter().map(|s| s.frontends.len()).sum();
        let backends: usize = services.iter().map(|s| s.backends.len()).sum();
        metrics::generation(state.generation);
        info!(
            "compiled generation {}: {} service ports, {frontends} frontends, {backends} backends",
            state.generation,
            services.len()
        );
    }
}

/// Remembers the order in which problems appeared.
#[derive(Debug, Default)]
struct ProblemLog {
    known: BTreeMap<Problem, u64>,
    next: u64,
}

impl ProblemLog {
    /// Logs what is new and what is gone; returns what there is, oldest first.
    fn update(&mut self, now: BTreeSet<Problem>) -> Vec<Problem> {
        self.known.retain(|problem, _| {
            let stays = now.contains(problem);
            if !stays {
                info!("solved: {}", describe(problem));
            }
            stays
        });
        for problem in now {
            if !self.known.contains_key(&problem) {
                warn!("{}", describe(&problem));
                self.known.insert(problem, self.next);
                self.next += 1;
            }
        }
        let mut ordered: Vec<_> = self.known.iter().collect();
        ordered.sort_by_key(|(_, order)| **order);
        ordered
            .into_iter()
            .map(|(problem, _)| problem.clone())
            .collect()
    }
}
