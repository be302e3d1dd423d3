//! A gateway without its loops: what its workers share.
//!
//! Settings are those that the daemon ships, but for the masquerade ports and what a [`Plan`] says.

use std::sync::Arc;

use sluice_conf::SourceNat;
use sluice_conf::settings::dataplane;
use sluice_dataplane::affinity::AffinityTable;
use sluice_dataplane::clock::Time;
use sluice_dataplane::pipeline::{Engine, EngineSettings};
use sluice_dataplane::service::ServiceMap;
use sluice_dataplane::snapshot::Snapshot;
use sluice_dataplane::stats::{PerWorker, WorkerCounters};

use crate::lane::Lane;
use crate::topology::{MASQUERADE_PORTS, both_families, compiled, network};

const SEED: u64 = 0x5eed;

/// When a lane's time begins.
const START: Time = Time(1_000_000_000);

/// What a gateway is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Policy of all Services.
    pub source_nat: SourceNat,
    /// Workers that share it.
    pub workers: u16,
    /// The connection table of each worker.
    pub connections: dataplane::Connections,
}

impl Plan {
    /// One worker with the table that the daemon ships.
    pub fn new(source_nat: SourceNat) -> Self {
        Self {
            source_nat,
            workers: 1,
            connections: dataplane::Connections::default(),
        }
    }

    /// With room for so many connections of each family, if that is more.
    #[must_use]
    pub fn with_room_for(mut self, connections: u32) -> Self {
        self.connections.capacity = self.connections.capacity.max(connections);
        self
    }
}

/// What the workers of a gateway share.
#[derive(Debug)]
pub struct Gateway {
    plan: Plan,
    snapshot: Snapshot,
    counters: Arc<PerWorker<WorkerCounters>>,
    affinity: Arc<AffinityTable>,
}

impl Gateway {
    /// A gateway for these Services.
    ///
    /// # Errors
    /// When the Services cannot be compiled.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        let table = both_families(plan.source_nat);
        let services = compiled(table, &ServiceMap::default(), plan.workers)?;
        Ok(Self {
            snapshot: Snapshot::new(Arc::new(services), Arc::new(network())),
            counters: PerWorker::new(plan.workers),
            affinity: Arc::new(AffinityTable::new(1024, SEED)),
            plan,
        })
    }

    /// One of its workers, without connections.
    pub fn lane(&self, worker: u16) -> Lane {
        let settings = EngineSettings {
            worker,
            workers: self.plan.workers,
            connections: self.plan.connections.clone(),
            timeouts: dataplane::Timeouts::default(),
            source_nat: dataplane::SourceNat {
                ports: MASQUERADE_PORTS,
                ..dataplane::SourceNat::default()
            },
            fragments: dataplane::Fragments::default(),
            answers: dataplane::Answers::default(),
            seed: SEED,
        };
        let (counters, affinity) = (Arc::clone(&self.counters), Arc::clone(&self.affinity));
        let engine = Engine::new(&settings, counters, affinity, START);
        Lane::with(engine, self.snapshot.clone(), START)
    }
}
