//! What the dataplane answers to each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use sluice_conf::message::dataplane::{
    BackendStats, Connection, ConnectionFilter, Connections, Drop, Interface, Reply, Request,
    ServiceStats, Stats, Status, Worker,
};

use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::listing::Query;
use crate::service::{CompiledBackend, CompiledService};
use crate::stats::{self, Totals, WorkerCounters};
use crate::verdict::DropReason;

/// Most connections of one listing.
const MAX_LISTED: u32 = 100_000;

/// How long the workers may take for a listing.
const PATIENCE: Duration = Duration::from_secs(10);

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
    about: About,
    clock: Clock,
}

impl Answers {
    /// Answers for this gateway.
    pub fn new(gateway: Arc<Gateway>, about: About, clock: Clock) -> Self {
        Self {
            gateway,
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

    /// The answer to a request.
    pub fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Hello(_) => self.hello(),
            Request::Status => Reply::Status(self.status()),
            Request::Stats => Reply::Stats(self.stats()),
            Request::Connections(filter) => self.connections(filter),
            Request::Push(table) => {
                let generation = table.generation;
                let services = table.services.len();
                match self.gateway.apply(table) {
                    Ok(generation) => {
                        tracing::info!(%generation, services, "service table applied");
                        self.gateway.confirm_next_hops();
                        Reply::Applied(generation)
                    }
                    Err(reason) => {
                        tracing::error!(%generation, reason, "service table refused, the old one stays");
                        Reply::Rejected { generation, reason }
                    }
                }
            }
        }
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
            backends: services
                .services()
                .map(|service| service.backends.len())
                .sum(),
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

    /// What was ours and never reached a worker.
    fn kernel_drops(&self) -> [Drop; 4] {
        let rings = || {
            self.gateway
                .counters()
                .iter()
                .flat_map(|c| c.rings())
                .map(|r| r.get())
        };
        let no_socket = self
            .gateway
            .steer_stats()
            .map_or(0, |stats| stats.redirect_failed);
        [
            (
                "kernel_rx_ring_full",
                "The kernel found the receive ring full: the worker was too slow or frames.ring is too small.",
                rings().map(|ring| ring.rx_ring_full).sum(),
            ),
            (
                "kernel_fill_ring_empty",
                "The kernel found no free slot: the worker was too slow or frames.ring is too small.",
                rings().map(|ring| ring.fill_ring_empty).sum(),
            ),
            (
                "kernel_rx_dropped",
                "The kernel dropped the frame for another reason, for example because it is longer than a slot.",
                rings().map(|ring| ring.rx_dropped).sum(),
            ),
            (
                "kernel_no_socket",
                "The frame came in by a queue that no worker serves; the number of queues has changed since the start.",
                no_socket,
            ),
        ]
        .map(|(reason, description, frames)| Drop {
            reason: reason.to_owned(),
            description: description.to_owned(),
            frames,
        })
    }

    fn connections(&self, filter: ConnectionFilter) -> Reply {
        let limit = filter.limit.min(MAX_LISTED);
        let filter = ConnectionFilter { limit, ..filter };
        let asked: Option<Vec<Receiver<Vec<Connection>>>> = self
            .gateway
            .queries()
            .iter()
            .map(|worker| {
                let (answer, answered) = bounded(1);
                worker
                    .send_timeout(
                        Query {
                            filter: filter.clone(),
                            answer,
                        },
                        PATIENCE,
                    )
                    .ok()?;
                Some(answered)
            })
            .collect();
        let gather = |asked: Vec<Receiver<Vec<Connection>>>| {
            asked
                .iter()
                .map(|answered| answered.recv_timeout(PATIENCE).ok())
                .collect()
        };
        let gathered: Option<Vec<Vec<Connection>>> = asked.and_then(gather);
        let Some(gathered) = gathered else {
            return Reply::Refused("the workers did not answer in time".into());
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
    } = Totals::of(&backend.counters);
    let address = SocketAddr::new(backend.entry.address, backend.entry.port);
    BackendStats {
        address,
        connections,
        original,
        reply,
    }
}
