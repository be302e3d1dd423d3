//! What the dataplane answers to each request.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, bounded};
use sluice_conf::message::dataplane::explain::{Explanation, Question};
use sluice_conf::message::dataplane::tap::{TapBatch, TapSettings};
use sluice_conf::message::dataplane::{
    BackendStats, Connection, ConnectionFilter, Connections, Drop, Evidence, Interface, Mark,
    Reply, Request, ServiceStats, Stats, Status, Worker,
};
use sluice_conf::{Generation, ServiceName, ServiceTable, TableChange};

use super::evidence;
use crate::clock::Clock;
use crate::gateway::{Base, ChangeRefused, Gateway};
use crate::listing::{Counting, Query, Tally, Wanted};
use crate::service::{CompiledBackend, CompiledService};
use crate::stats::{self, Totals, WorkerCounters};
use crate::tap::{Around, Session, Tap};
use crate::verdict::{DropReason, KernelDrop};

/// Most connections of one listing.
const MAX_LISTED: u32 = 100_000;

/// How long the workers may take for a listing.
const PATIENCE: Duration = Duration::from_secs(10);

const SILENT_WORKERS: &str = "the workers did not answer in time";

/// What does not change while the process runs.
#[derive(Debug, Clone)]
pub struct About {
    /// Interfaces, as they are served.
    pub interfaces: Vec<Interface>,
    /// Core of each worker.
    pub cores: Vec<Option<u32>>,
    /// Connections that a worker can hold.
    pub capacity: u32,
}

/// Answers requests.
pub struct Answers {
    gateway: Arc<Gateway>,
    tap: Arc<Tap>,
    about: About,
    clock: Clock,
}

impl Answers {
    /// Answers for this gateway.
    pub fn new(gateway: Arc<Gateway>, tap: Arc<Tap>, about: About, clock: Clock) -> Self {
        Self {
            gateway,
            tap,
            about,
            clock,
        }
    }

    /// The answer to a hello.
    pub fn hello(&self) -> Reply {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        Reply::Hello {
            release,
            generation: self.gateway.snapshot().services.generation(),
        }
    }

    /// The answer to a request of the client whose `base` this is.
    pub fn answer(&self, request: Request, base: &mut Base) -> Reply {
        match request {
            // Answered by many replies, which is not for here.
            Request::Tap(_) => Reply::Refused("a tap is no single answer".into()),
            Request::Hello(_) => self.hello(),
            Request::Status => Reply::Status(self.status()),
            Request::Stats => Reply::Stats(self.stats()),
            Request::Evidence { since } => Reply::Evidence(self.evidence(&since)),
            Request::Connections(filter) => self.connections(filter),
            Request::Count(services) => self.count(services),
            Request::Explain(question) => self.explain(question),
            Request::Push(table) => self.push(table, base),
            Request::Change(change) => self.change(change, base),
        }
    }

    fn push(&self, table: ServiceTable, base: &mut Base) -> Reply {
        let generation = table.generation;
        self.told(generation, self.gateway.apply(table, base))
    }

    fn change(&self, change: TableChange, base: &mut Base) -> Reply {
        let generation = change.generation;
        match self.gateway.amend(change, base) {
            Err(ChangeRefused::OtherBase) => Reply::NeedsWhole(generation),
            Err(ChangeRefused::Invalid(reason)) => self.told(generation, Err(reason)),
            Ok(applied) => self.told(generation, Ok(applied)),
        }
    }

    /// What the client and the log are told of a table.
    fn told(&self, generation: Generation, result: Result<Generation, String>) -> Reply {
        match result {
            Ok(generation) => {
                let services = self.gateway.snapshot().services.services().len();
                tracing::info!(%generation, services, "service table applied");
                self.gateway.confirm_fresh_next_hops();
                Reply::Applied(generation)
            }
            Err(reason) => {
                tracing::error!(%generation, reason, "service table refused, the old one stays");
                Reply::Rejected { generation, reason }
            }
        }
    }

    /// Switches the tap on.
    ///
    /// # Errors
    /// In words: somebody else has it.
    pub fn tap(&self, settings: &TapSettings) -> Result<Session, String> {
        let taken = "another sluicectl trace or capture is running; end that one first";
        self.tap.start(settings).ok_or_else(|| taken.to_owned())
    }

    /// What the tap has seen since the last batch.
    pub fn tapped(&self, session: &Session) -> TapBatch {
        let counters = self.gateway.counters().of(0);
        let interface_name =
            |id| counters.map_or_else(String::new, |counters| counters.interface_name(id));
        session.batch(&Around {
            services: &self.gateway.snapshot().services,
            clock: &self.clock,
            interface_name: &interface_name,
        })
    }

    /// How the dataplane is.
    pub fn status(&self) -> Status {
        let services = Arc::clone(&self.gateway.snapshot().services);
        Status {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.clock.now().seconds().0.into(),
            generation: services.generation(),
            services: services.services().len(),
            frontends: services.frontend_count(),
            backends: services.backend_count(),
            last_rejection: self.gateway.last_rejection(),
            interfaces: self.about.interfaces.clone(),
            workers: self.workers(),
        }
    }

    fn workers(&self) -> Vec<Worker> {
        let counters = self.gateway.counters().iter();
        let worker = |((id, counters), core): ((u32, &WorkerCounters), &Option<u32>)| Worker {
            id,
            core: *core,
            connections: counters.connections.get(),
            connections_capacity: self.about.capacity.into(),
            received: counters.received.get().frames,
            dropped: counters.all_drops(),
        };
        (0..)
            .zip(counters)
            .zip(&self.about.cores)
            .map(worker)
            .collect()
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let counters = || self.gateway.counters().iter();
        let drops = DropReason::ALL.iter().map(|reason| Drop {
            reason: reason.name().to_owned(),
            description: reason.sentence().to_owned(),
            remedy: reason.remedy().to_owned(),
            frames: counters().map(|c| c.drops(*reason)).sum(),
        });
        Stats {
            received: stats::total(counters().map(|c| c.received.get())),
            transmitted: stats::total(counters().map(|c| c.transmitted.get())),
            to_kernel: counters().map(|c| c.to_kernel.get()).sum(),
            own: counters().map(|c| c.own_frames.get()).sum(),
            drops: drops.chain(self.kernel_drops()).collect(),
            services: self
                .gateway
                .snapshot()
                .services
                .services()
                .map(service_stats)
                .collect(),
        }
    }

    fn evidence(&self, since: &Mark) -> Evidence {
        let services = Arc::clone(&self.gateway.snapshot().services);
        evidence::gather(&services, self.gateway.counters().iter(), since)
    }

    /// What was ours and never reached a worker.
    fn kernel_drops(&self) -> impl Iterator<Item = Drop> {
        KernelDrop::ALL.iter().map(|reason| Drop {
            reason: reason.name().to_owned(),
            description: reason.sentence().to_owned(),
            remedy: reason.remedy().to_owned(),
            frames: self.kernel_dropped(*reason),
        })
    }

    fn kernel_dropped(&self, reason: KernelDrop) -> u64 {
        let counters = self.gateway.counters().iter();
        let rings = counters.flat_map(WorkerCounters::rings).map(|r| r.get());
        match reason {
            KernelDrop::RxRingFull => rings.map(|ring| ring.rx_ring_full).sum(),
            KernelDrop::FillRingEmpty => rings.map(|ring| ring.fill_ring_empty).sum(),
            KernelDrop::RxDropped => rings.map(|ring| ring.rx_dropped).sum(),
            KernelDrop::NoSocket => self
                .gateway
                .steer_stats()
                .map_or(0, |stats| stats.redirect_failed),
        }
    }

    fn connections(&self, filter: ConnectionFilter) -> Reply {
        let limit = filter.limit.min(MAX_LISTED);
        let filter = ConnectionFilter { limit, ..filter };
        let (answer, answered) = bounded(self.gateway.queries().len());
        let asked = self.ask_workers(|| {
            let (filter, answer) = (filter.clone(), answer.clone());
            Query::List(Wanted { filter, answer })
        });
        drop(answer);
        let gather = |()| -> Option<Vec<Vec<Connection>>> {
            let workers = self.gateway.queries().iter();
            workers
                .map(|_| answered.recv_timeout(PATIENCE).ok())
                .collect()
        };
        let Some(gathered) = asked.and_then(gather) else {
            return Reply::Refused(SILENT_WORKERS.into());
        };
        let mut connections = gathered.concat();
        connections.sort_by_key(|connection| (connection.client, connection.frontend));
        let truncated = connections.len() > limit as usize;
        connections.truncate(limit as usize);
        Reply::Connections(Connections {
            connections,
            truncated,
        })
    }

    fn count(&self, services: Vec<ServiceName>) -> Reply {
        let services = Arc::new(services.into_iter().collect());
        let (answer, answered) = bounded(self.gateway.queries().len());
        let tally = Tally { services, answer };
        let asked = self.ask_workers(|| Query::Count(tally.clone()));
        drop(tally);
        let mut all = Counting::default();
        let gather = |()| {
            let mut workers = self.gateway.queries().iter();
            workers.try_for_each(|_| {
                let counts = answered.recv_timeout(PATIENCE).ok()?;
                all.add_all(&counts);
                Some(())
            })
        };
        match asked.and_then(gather) {
            Some(()) => Reply::Counts(all.finish()),
            None => Reply::Refused(SILENT_WORKERS.into()),
        }
    }

    fn explain(&self, question: Question) -> Reply {
        if question.source.is_ipv4() != question.destination.is_ipv4() {
            let Question {
                source,
                destination,
                ..
            } = question;
            return Reply::Refused(format!(
                "{source} and {destination} are of two address families; no packet has both"
            ));
        }
        let (answer, answered) = bounded(self.gateway.queries().len());
        let asked = self.ask_workers(|| {
            let answer = answer.clone();
            Query::Explain { question, answer }
        });
        drop(answer);
        let silent = || Reply::Refused(SILENT_WORKERS.into());
        if asked.is_none() {
            return silent();
        }
        match answered.recv_timeout(PATIENCE) {
            Ok(explanation) => Reply::Explained(Box::new(Explanation {
                steered: Some(self.gateway.steers(&question)),
                ..explanation
            })),
            Err(RecvTimeoutError::Timeout) => silent(),
            // Each worker took the flow for another one's: some knew the new table already.
            Err(RecvTimeoutError::Disconnected) => {
                Reply::Refused("the table changed during the question; ask again".into())
            }
        }
    }

    /// Puts a question to every worker; `None` when one does not take it in time.
    fn ask_workers(&self, query: impl Fn() -> Query) -> Option<()> {
        let mut workers = self.gateway.queries().iter();
        workers.try_for_each(|worker| worker.send_timeout(query(), PATIENCE).ok())
    }
}

fn service_stats(service: &CompiledService) -> ServiceStats {
    let name = service.entry.name.clone();
    ServiceStats {
        name,
        backends: service.backends.iter().map(backend_stats).collect(),
    }
}

fn backend_stats(backend: &CompiledBackend) -> BackendStats {
    let Totals {
        connections,
        original,
        reply,
        attempts,
    } = Totals::of(&backend.counters);
    BackendStats {
        address: backend.address(),
        connections,
        original,
        reply,
        attempts,
    }
}
