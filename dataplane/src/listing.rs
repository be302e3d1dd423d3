//! Listing and counting connections for the operator without holding up packets: a worker looks at
//! a bounded number of records between two bursts.

mod counting;

use std::net::{Ipv4Addr, Ipv6Addr};

use crossbeam::channel::Sender;
use sluice_conf::message::dataplane::explain::{Explanation, Question};
use sluice_conf::message::dataplane::{Connection as Listed, ConnectionFilter};

pub use self::counting::{Counting, Tally};
use crate::clock::Time;
use crate::pipeline::{Engine, Tracked};
use crate::service::ServiceMap;

/// Records that a worker looks at in one turn.
const RECORDS_PER_TURN: u32 = 512;

/// A question for a worker.
#[derive(Debug)]
pub enum Query {
    /// Which of its connections match?
    List(Wanted),
    /// How many connections do these Service ports have?
    Count(Tally),
    /// What would become of this packet? Only the owner of its flow answers.
    Explain {
        /// The packet.
        question: Question,
        /// Where the answer goes.
        answer: Sender<Explanation>,
    },
}

/// Connections to list.
#[derive(Debug)]
pub struct Wanted {
    /// What to list.
    pub filter: ConnectionFilter,
    /// Where the answer goes: at most `filter.limit` and one more connections.
    pub answer: Sender<Vec<Listed>>,
}

/// A listing or a count that is being made: first of the IPv4 connections, then of those of IPv6.
#[derive(Debug)]
pub struct Listing {
    task: Task,
    family: Family,
    from: u32,
}

#[derive(Debug)]
enum Task {
    List { wanted: Wanted, found: Vec<Listed> },
    Count { tally: Tally, counting: Counting },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Listing {
    /// Lists from the first record on.
    pub fn new(wanted: Wanted) -> Self {
        let found = Vec::new();
        Self::of(Task::List { wanted, found })
    }

    /// Counts from the first record on.
    pub fn count(tally: Tally) -> Self {
        let counting = Counting::default();
        Self::of(Task::Count { tally, counting })
    }

    const fn of(task: Task) -> Self {
        Self {
            task,
            family: Family::V4,
            from: 0,
        }
    }

    /// Looks at some records more; `None` when the answer has been sent.
    pub fn go_on(mut self, engine: &Engine, services: &ServiceMap, now: Time) -> Option<Self> {
        let next = match self.family {
            Family::V4 => self.look::<Ipv4Addr>(engine, services, now),
            Family::V6 => self.look::<Ipv6Addr>(engine, services, now),
        };
        let is_full = self.task.is_full();
        match (next, self.family) {
            (Some(from), _) if !is_full => self.from = from,
            (None, Family::V4) if !is_full => (self.family, self.from) = (Family::V6, 0),
            _ => {
                self.task.answer();
                return None;
            }
        }
        Some(self)
    }

    fn look<A: Tracked>(
        &mut self,
        engine: &Engine,
        services: &ServiceMap,
        now: Time,
    ) -> Option<u32> {
        let (ids, next) = engine.table::<A>().page(self.from, RECORDS_PER_TURN);
        match &mut self.task {
            Task::List { wanted, found } => {
                let filter = &wanted.filter;
                // One more than asked for tells that there are more.
                let room = (filter.limit as usize + 1).saturating_sub(found.len());
                let listed = ids.map(|id| engine.describe::<A>(id, services, now));
                found.extend(listed.filter(|one| matches(filter, one)).take(room));
            }
            Task::Count { tally, counting } => {
                let ends = ids.filter_map(|id| engine.ends::<A>(id, services));
                for (service, frontend, backend) in ends {
                    if tally.services.contains(service) {
                        counting.add(service, (frontend, backend), 1);
                    }
                }
            }
        }
        next
    }
}

impl Task {
    const fn is_full(&self) -> bool {
        match self {
            Task::List { wanted, found } => found.len() > wanted.filter.limit as usize,
            Task::Count { .. } => false,
        }
    }

    /// Nobody waits any more when the client has gone.
    fn answer(self) {
        match self {
            Task::List { wanted, found } => drop(wanted.answer.send(found)),
            Task::Count { tally, counting } => drop(tally.answer.send(counting.finish())),
        }
    }
}

fn matches(filter: &ConnectionFilter, connection: &Listed) -> bool {
    let name = connection.service.as_ref();
    let is = |wanted: &Option<String>, actual: Option<&String>| {
        wanted.as_ref().is_none_or(|wanted| actual == Some(wanted))
    };
    is(&filter.namespace, name.map(|name| &name.namespace))
        && is(&filter.service, name.map(|name| &name.name))
        && filter
            .client
            .is_none_or(|client| connection.client.ip() == client)
}
