//! Events in, tables out: the one task that owns the index.
//!
//! Guarantees: a table is compiled only at points where the source is in sync; a table is one line
//! of the log, which names the Services that differ; a problem is logged once when it appears and
//! once when it is gone, of many at once the first [`MAX_LOGGED`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_conf::message::controlplane::Problem;
use sluice_conf::{Service, ServiceTable};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use crate::compile::{Rules, compile, count_without_local};
use crate::endpoints::Slice;
use crate::index::{Index, Known};
use crate::metrics;
use crate::object::describe;
use crate::service::ServiceSpec;
use crate::source::Event;
use crate::tables::Tables;
use crate::words;

/// Problems that appear or go at once and are logged one by one.
pub const MAX_LOGGED: usize = 20;
/// Services that a line of the log names.
const MAX_NAMED: usize = 3;

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
        match compiled.table.validate() {
            Ok(()) => {
                metrics::without_local(count_without_local(&compiled.table.services));
                let before = self.tables.newest().table;
                if self.tables.publish(compiled.table) {
                    self.log_table(before.as_deref());
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

    fn log_table(&self, before: Option<&ServiceTable>) {
        let state = self.tables.newest();
        let generation = state.generation;
        metrics::generation(generation);
        let old = before.map(by_name).unwrap_or_default();
        let new = state.table.as_deref().map(by_name).unwrap_or_default();
        match differences(&old, &new) {
            Some(changes) => info!("generation {generation}: {changes}; {}", sizes(&new)),
            None => info!("generation {generation}: {}", sizes(&new)),
        }
    }
}

/// The ports of each Service by its namespace and name.
type Services<'a> = BTreeMap<(&'a str, &'a str), &'a [Arc<Service>]>;

fn by_name(table: &ServiceTable) -> Services<'_> {
    fn name(service: &Service) -> (&str, &str) {
        (&service.name.namespace, &service.name.name)
    }
    let of_services = table.services.chunk_by(|a, b| name(a) == name(b));
    let named = of_services.filter_map(|ports| Some((name(ports.first()?), ports)));
    named.collect()
}

/// Which Services differ; `None` when none does.
fn differences(old: &Services<'_>, new: &Services<'_>) -> Option<String> {
    let added = new.keys().filter(|name| !old.contains_key(*name));
    let changed = new
        .iter()
        .filter(|(name, ports)| old.get(*name).is_some_and(|before| before != *ports));
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    let parts = [
        list("added", added),
        list("changed", changed.map(|(name, _)| name)),
        list("removed", removed),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn list<'a>(word: &str, names: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Option<String> {
    let mut names = names.map(|(namespace, name)| format!("{namespace}/{name}"));
    let named: Vec<String> = names.by_ref().take(MAX_NAMED).collect();
    let told = named.join(", ");
    match names.count() {
        _ if named.is_empty() => None,
        0 => Some(format!("{word} {told}")),
        more => Some(format!("{word} {told} and {more} more")),
    }
}

fn sizes(services: &Services<'_>) -> String {
    let ports = || services.values().copied().flatten();
    let frontends: usize = ports().map(|port| port.frontends.len()).sum();
    let backends: usize = ports().map(|port| port.backends.len()).sum();
    match ports().count() {
        0 => "nothing to serve".to_owned(),
        count => format!(
            "now {}, {}, {}",
            words::count(count, "service port"),
            words::count(frontends, "frontend"),
            words::count(backends, "backend")
        ),
    }
}

/// Remembers the order in which problems appeared. A problem whose line changed, because something
/// was written above it, is the same problem.
#[derive(Debug, Default)]
struct ProblemLog {
    known: BTreeMap<Problem, Appeared>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Appeared {
    order: u64,
    line: Option<u32>,
}

impl ProblemLog {
    /// Logs what is new and what is gone; returns what there is, oldest first.
    fn update(&mut self, now: BTreeSet<Problem>) -> Vec<Problem> {
        let mut lines: BTreeMap<Problem, Option<u32>> = BTreeMap::new();
        for mut problem in now.iter().cloned() {
            let line = problem.line.take();
            lines.entry(problem).or_insert(line);
        }
        let mut solved = Vec::new();
        self.known.retain(|problem, appeared| {
            let line = lines.get(problem);
            match line {
                Some(line) => appeared.line = *line,
                None => solved.push(describe_at(problem, appeared.line)),
            }
            line.is_some()
        });
        let mut new = Vec::new();
        for (problem, line) in lines {
            if !self.known.contains_key(&problem) {
                new.push(describe_at(&problem, line));
                let order = self.next;
                self.known.insert(problem, Appeared { order, line });
                self.next += 1;
            }
        }
        for text in solved.iter().take(MAX_LOGGED) {
            info!("solved: {text}");
        }
        if let Some(more) = solved
            .len()
            .checked_sub(MAX_LOGGED)
            .filter(|more| *more > 0)
        {
            info!("solved: {}", words::count(more, "more problem"));
        }
        for text in new.iter().take(MAX_LOGGED) {
            warn!("{text}");
        }
        if let Some(more) = new.len().checked_sub(MAX_LOGGED).filter(|more| *more > 0) {
            let more = words::count(more, "more problem");
            warn!("{more}; sluicectl status lists all");
        }
        let mut ordered: Vec<Problem> = now.into_iter().collect();
        ordered.sort_by_cached_key(|problem| {
            let mut key = problem.clone();
            key.line = None;
            let order = self.known.get(&key).map(|appeared| appeared.order);
            (order, problem.line)
        });
        ordered
    }
}

fn describe_at(problem: &Problem, line: Option<u32>) -> String {
    describe(&Problem {
        line,
        ..problem.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, service};

    fn table(services: &[(&str, &str)]) -> ServiceTable {
        let mut index = Index::default();
        for (name, address) in services {
            apply(&mut index, name, &service(name, address));
        }
        compile(&index, &Rules::default()).table
    }

    #[test]
    fn a_change_is_told_by_the_services_that_differ() {
        let old = table(&[("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")]);
        let new = table(&[("a", "10.0.0.1"), ("b", "10.0.0.9"), ("d", "10.0.0.4")]);
        assert_eq!(
            differences(&by_name(&old), &by_name(&new)).unwrap(),
            "added default/d, changed default/b, removed default/c"
        );
        assert_eq!(differences(&by_name(&old), &by_name(&old)), None);
    }

    fn problem(file: &str, line: u32) -> Problem {
        Problem {
            file: file.into(),
            line: Some(line),
            object: None,
            field: None,
            message: "is wrong".into(),
        }
    }

    #[test]
    fn problems_are_listed_in_the_order_in_which_they_appeared() {
        let mut log = ProblemLog::default();
        log.update(BTreeSet::from([problem("b", 1)]));
        let both = BTreeSet::from([problem("a", 1), problem("b", 1), problem("b", 7)]);
        let listed = [problem("b", 1), problem("b", 7), problem("a", 1)];
        assert_eq!(log.update(both), listed);
    }

    #[test]
    fn a_problem_that_only_moved_is_the_same_problem() {
        let mut log = ProblemLog::default();
        log.update(BTreeSet::from([problem("b", 1)]));
        log.update(BTreeSet::from([problem("a", 1), problem("b", 1)]));
        let moved = BTreeSet::from([problem("a", 1), problem("b", 3)]);
        assert_eq!(log.update(moved), [problem("b", 3), problem("a", 1)]);
        assert_eq!(log.next, 2);
        assert!(log.update(BTreeSet::new()).is_empty());
        assert!(log.known.is_empty());
    }

    #[test]
    fn of_many_changed_services_a_few_are_named() {
        let many = ["a", "b", "c", "d", "e"].map(|name| (name, "10.0.0.1"));
        let new = table(&many);
        assert_eq!(
            differences(&Services::new(), &by_name(&new)).unwrap(),
            "added default/a, default/b, default/c and 2 more"
        );
        assert_eq!(
            sizes(&by_name(&new)),
            "now 5 service ports, 1 frontend, 0 backends"
        );
        assert_eq!(sizes(&Services::new()), "nothing to serve");
    }
}
