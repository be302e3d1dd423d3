//! Events in, tables out: the one task that owns the index.
//!
//! Guarantees: a table is compiled only at points where the source is in sync; a table is one line
//! of the log, which names the Services that differ; a problem is logged once when it appears and
//! once when it is gone, of many at once the first [`MAX_LOGGED`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use crate::admission::{Admission, Decision};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::compile::{Compiler, Endpoints};
use crate::endpoints::Slice;
use crate::env::concerned::Concerned;
use crate::evidence::News;
use crate::health::{Health, Judged};
use crate::health_check::{HealthCheckServer, ProxyHealth};
use crate::index::{Index, Known};
use crate::kinds::policy::PolicySpec;
use crate::kinds::pool::PoolSpec;
use crate::metrics;
use crate::object::{Kind, NamespacedName, ObjectId};
use crate::readiness::{Moment, Readiness};
use crate::rules::Rules;
use crate::service::ServiceSpec;
use crate::slices::deriver::{Deriver, Refreshed};
use crate::slices::{self};
use crate::source::{Event, Source};
use crate::status::Wishes;
use crate::status::election::Leading;
use crate::store::SharedStore;
use crate::tables::Tables;

mod announced;
mod answers;
mod checks;
pub(crate) mod differences;
mod due;
mod events;
mod intake;
mod names;
mod problems;
mod questions;
mod rehearsal;
mod wishes;

pub(crate) use answers::stage;
use checks::Checks;
pub use events::{Event as Happened, Events, MAX_KEPT};
use events::{Steps, Waiting};
use names::Names;
pub use problems::MAX_LOGGED;
use problems::ProblemLog;
use questions::Question;
pub use questions::{Detail, Inventory, Questions, Standing, Standings, Stopping, View};
pub use rehearsal::{Outcome, Rehearsal, Situation};
use wishes::WishList;

/// Events that are taken in before a table is compiled, so that a source which never rests cannot
/// hold it back.
const MAX_AT_ONCE: usize = 10_000;
/// How many times as long as verdicts took they rest, so that thousands of endpoints that fail one
/// after the other do not have their Service compiled all the time.
const VERDICTS_REST: u32 = 4;

/// What comes to the engine from elsewhere.
#[derive(Debug)]
pub struct Feeds {
    /// Objects of the sources.
    pub events: mpsc::Receiver<Event>,
    /// Who judges backends.
    pub health: Health,
    /// What the dataplane sees of backends.
    pub evidence: mpsc::Receiver<Vec<News>>,
}

/// Owns the objects.
pub struct Engine {
    index: Index,
    pools: BTreeMap<String, PoolSpec>,
    policies: BTreeMap<NamespacedName, Arc<PolicySpec>>,
    admission: Admission,
    /// Whether what an earlier process has left was looked through.
    restored: bool,
    deriver: Deriver,
    readiness: Readiness,
    rules: Arc<Rules>,
    catalog: Catalog,
    compiler: Compiler,
    tables: Arc<Tables>,
    /// Sources that have not told all yet.
    awaited: BTreeSet<Source>,
    problems: ProblemLog,
    questions: mpsc::Receiver<Question>,
    asker: Questions,
    store: Option<SharedStore>,
    checks: Checks,
    names: Names,
    events: Events,
    steps: Steps,
    /// Services that wait for an address.
    unbalanced: Waiting,
    wishes: WishList,
    environment: Option<Concerned>,
}

impl Engine {
    /// An engine that knows nothing yet, and compiles nothing before these sources have told all.
    pub fn new(
        rules: Rules,
        admission: Admission,
        readiness: Readiness,
        sources: &[Source],
        tables: Arc<Tables>,
    ) -> Self {
        let rules = Arc::new(rules);
        let (sender, questions) = mpsc::channel(questions::MAX_WAITING);
        Self {
            index: Index::default(),
            pools: BTreeMap::new(),
            policies: BTreeMap::new(),
            admission,
            restored: false,
            deriver: Deriver::new(slices::Settings {
                needs_node: false,
                ..slices::Settings::default()
            }),
            readiness,
            rules: Arc::clone(&rules),
            catalog: Catalog::new(Arc::clone(&rules)),
            compiler: Compiler::new(rules),
            tables,
            awaited: sources.iter().copied().collect(),
            problems: ProblemLog::default(),
            store: None,
            checks: Checks::default(),
            names: Names::default(),
            events: Events::default(),
            steps: Steps::default(),
            unbalanced: Waiting::default(),
            wishes: WishList::default(),
            environment: None,
            questions,
            asker: Questions(sender),
        }
    }

    /// Asks this engine.
    pub fn questions(&self) -> Questions {
        self.asker.clone()
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// Keeps drains in this store.
    #[must_use]
    pub fn with_store(mut self, store: SharedStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Tells `server` of the health check node ports.
    #[must_use]
    pub fn with_health_checks(mut self, server: HealthCheckServer) -> Self {
        self.checks.serve(server);
        self
    }

    /// Tells `health` when the nodes that the gateway stands in front of are about to go.
    #[must_use]
    pub fn with_own_health(mut self, health: watch::Sender<ProxyHealth>) -> Self {
        self.checks.own(health);
        self
    }

    /// Tells `wishes` what the status of the Services of an API server should say, and gives those
    /// Services addresses only while this gateway leads.
    #[must_use]
    pub fn with_status(
        mut self,
        wishes: watch::Sender<Arc<Wishes>>,
        leading: watch::Receiver<Leading>,
    ) -> Self {
        let leads = self.wishes.serve(wishes, leading);
        self.lead(leads, Moment::default());
        self
    }

    /// Goes on until every sender of events is gone.
    pub async fn run(mut self, mut feeds: Feeds, clock: Clock) {
        let mut rested = Duration::ZERO;
        loop {
            let wake = self.next_step(Moment::of(&clock));
            tokio::select! {
                event = feeds.events.recv() => match event {
                    Some(event) => self.take_in(event, &mut feeds.events, &clock),
                    None => return,
                },
                Some(question) = self.questions.recv() => {
                    self.answer(question, Moment::of(&clock));
                }
                judged = changes(&feeds.health, rested.saturating_sub(clock.now())) => {
                    let moment = Moment::of(&clock);
                    self.take_in_verdicts(&judged, moment);
                    let end = clock.now();
                    rested = end + VERDICTS_REST * end.saturating_sub(moment.now);
                }
                leads = self.wishes.turn() => {
                    let moment = Moment::of(&clock);
                    self.lead(leads, moment);
                    self.look_again(BTreeSet::new(), moment);
                }
                Some(news) = feeds.evidence.recv() => self.readiness.evidence(&news),
                () = pause(wake) => self.step(Moment::of(&clock)),
            }
        }
    }

    /// Takes in an event and those behind it that are there already, then compiles once.
    fn take_in(&mut self, first: Event, events: &mut mpsc::Receiver<Event>, clock: &Clock) {
        let start = Moment::of(clock);
        let mut in_sync = self.handle(first, start.now);
        for _ in 0..MAX_AT_ONCE {
            let Ok(event) = events.try_recv() else { break };
            in_sync = self.handle(event, start.now);
        }
        if in_sync {
            self.settle(start);
            debug!("settled in {:?}", clock.now().saturating_sub(start.now));
        }
    }

    fn take_in_verdicts(&mut self, judged: &[Judged], moment: Moment) {
        let mut concerned = BTreeSet::new();
        for judged in judged {
            let services = self.readiness.concerned(std::slice::from_ref(judged));
            for service in &services {
                self.events.note(of_verdict(service, judged), moment.now);
            }
            concerned.extend(services);
        }
        self.look_again(concerned, moment);
    }

    /// Gives addresses to Services of an API server from now on, or no more.
    fn lead(&mut self, leads: bool, moment: Moment) {
        for decision in self.admission.set_leads(leads) {
            self.follow(decision, moment);
        }
        if !leads {
            self.wishes.clear();
        }
    }

    /// Compiles these Services anew.
    fn look_again(&mut self, services: BTreeSet<NamespacedName>, moment: Moment) {
        for service in services {
            self.catalog.concern(service);
        }
        if self.awaited.is_empty() {
            self.compile(moment);
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
    pub fn settle(&mut self, moment: Moment) {
        metrics::reloaded();
        let news = self.take_in_changes();
        // First, so that nothing is decided for them any more.
        let gone = self.gone(news.gone);
        self.admission.forget(&gone);
        for name in gone {
            self.wishes.concern(&name);
            self.concern_environment(&name);
            self.catalog.remove_service(&name);
            self.unbalanced.forget(&name);
            self.deriver.remove_service(&name);
        }
        let mut decisions = Vec::new();
        if news.pools {
            decisions.extend(self.admission.set_pools(self.pools.clone()));
        }
        if news.policies {
            let policies = self.attached_policies();
            decisions.extend(self.admission.set_policies(policies));
        }
        decisions.extend(self.admission.decide(news.asked));
        for decision in decisions {
            self.follow(decision, moment);
        }
        if news.nodes {
            self.checks.look_at(self.deriver.nodes(), self.rules.here());
        }
        self.derive();
        self.compile(moment);
        self.tell_environment();
    }

    /// Serves what was decided.
    fn follow(&mut self, decision: Decision, moment: Moment) {
        let Decision {
            name,
            served,
            issues,
            notes,
        } = decision;
        let id = ObjectId::of(Kind::Service, &name);
        for note in notes {
            info!("{id}: {note}");
        }
        self.index.judge(&id, issues);
        let before = self.catalog.service(&name).map(|known| &*known.object);
        let before = before.map(ServiceSpec::balancer_addresses);
        let before = before.unwrap_or_default();
        self.wishes.concern(&name);
        self.concern_environment(&name);
        let Some(served) = served else { return };
        let after = served.object.balancer_addresses();
        let pending = self.admission.pending(&name);
        for event in self.unbalanced.update(&name, (&before, &after), pending) {
            self.events.note(event, moment.now);
        }
        self.catalog.put_service(served);
        match self.admission.service(&name) {
            // An API server has a controller that makes its slices.
            Some((service, false)) => self.deriver.set_service(Arc::clone(service)),
            _ => self.deriver.remove_service(&name),
        }
    }

    /// Makes the slices of Services that select Pods.
    fn derive(&mut self) {
        for Refreshed {
            service, slices, ..
        } in self.deriver.refresh()
        {
            let known = self.catalog.service(&service);
            let known = known.map(|known| Known::at(known.origin.clone(), known.order));
            let slice = |slice: &Arc<slices::slice::Slice>| {
                let slice = slice.checked(&service.namespace, &service.name);
                Some(known.clone()?.with(slice))
            };
            let slices = slices.iter().filter_map(slice).collect();
            self.catalog.put_derived(&service, slices);
        }
    }

    fn compile(&mut self, moment: Moment) {
        let mut concerned = self.catalog.take_concerned();
        concerned.append(&mut self.compiler.due(moment.now).0);
        for name in &concerned {
            let spec = self.catalog.service(name).map(|known| &*known.object);
            let slices: Vec<&Slice> = self
                .catalog
                .slices_of(name)
                .map(|slice| &*slice.object)
                .collect();
            let pods = &self.deriver;
            self.readiness.watch(name, spec, &slices, pods, moment);
            self.names.tell(
                name,
                (spec, &slices),
                (&self.readiness, &self.rules),
                moment,
            );
            // A balancer in front goes by who is fit, not only by who is ready by its slice.
            let checked = spec.filter(|spec| spec.health_check_node_port.is_some());
            let look = checked.map(|s| self.readiness.look(s, slices.iter().copied(), moment));
            let seen = look.iter().flat_map(|look| &look.slices);
            let seen: Vec<&Slice> = seen.map(|slice| &**slice).collect();
            self.checks.count(name, spec, &seen, self.rules.here());
        }
        self.names.told_all();
        self.checks.tell();
        self.wishes.tell(&self.admission);
        let endpoints = Endpoints {
            readiness: &self.readiness,
            moment,
        };
        let differ = self.compiler.update(&self.catalog, &endpoints, concerned);
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
        let (catalog, deriver) = (&self.catalog, &self.deriver);
        let (pools, policies) = (&self.pools, &self.policies);
        let served = |id: &ObjectId| match id.kind {
            Kind::Service => catalog.service(&id.named()).is_some(),
            Kind::EndpointSlice => catalog.has_slice(&id.named()),
            Kind::Pod => deriver.pod(&id.named()).is_some(),
            Kind::Node => deriver.nodes().get(&id.name).is_some(),
            Kind::AddressPool => pools.contains_key(&id.name),
            Kind::ServicePolicy => policies.contains_key(&id.named()),
            Kind::Namespace => true,
        };
        let mut problems = self.index.problems(served);
        problems.extend(self.compiler.problems().cloned());
        self.problems.update(problems);
    }
}

/// A verdict as something that happened to a Service.
fn of_verdict(service: &NamespacedName, judged: &Judged) -> Happened {
    let (address, verdict) = (judged.target.address, &judged.verdict);
    let message = format!("{address}: {}", verdict.reason);
    match verdict.healthy {
        true => Happened::of_service(service, "Healthy", message),
        false => Happened::of_service(service, "Unhealthy", message).warning(),
    }
}

/// What targets became healthy or unhealthy, after a rest.
async fn changes(health: &Health, rest: Duration) -> Vec<Judged> {
    if !rest.is_zero() {
        tokio::time::sleep(rest).await;
    }
    health.changes().await
}

/// Waits so long; for ever without a time.
async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
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
        {
            let endpoints = Endpoints {
                readiness: &self.readiness,
                moment: Moment::default(),
            };
            crate::compile::compile(&self.catalog, &endpoints, Arc::clone(&self.rules))
        }
    }
}
