//! Listing connections for the operator without holding up packets: a worker looks at a bounded
//! number of records between two bursts.

use std::net::{Ipv4Addr, Ipv6Addr};

use crossbeam::channel::Sender;
use sluice_conf::message::dataplane::explain::{Explanation, Question};
use sluice_conf::message::dataplane::{Connection as Listed, ConnectionFilter};

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

/// A listing that is being made: first the IPv4 connections, then those of IPv6.
#[derive(Debug)]
pub struct Listing {
    wanted: Wanted,
    family: Family,
    from: u32,
    found: Vec<Listed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Listing {
    /// Starts at the first record.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            family: Family::V4,
            from: 0,
            found: Vec::new(),
        }
    }

    /// Looks at some records more; `None` when the answer has been sent.
    pub fn go_on(mut self, engine: &Engine, services: &ServiceMap, now: Time) -> Option<Self> {
        let next = match self.family {
            Family::V4 => self.look::<Ipv4Addr>(engine, services, now),
            Family::V6 => self.look::<Ipv6Addr>(engine, services, now),
        };
        let is_full = self.found.len() > self.wanted.filter.limit as usize;
        match (next, self.family) {
            (Some(from), _) if !is_full => self.from = from,
            (None, Family::V4) if !is_full => (self.family, self.from) = (Family::V6, 0),
            _ => {
                // Nobody waits any more when the client has gone.
                let _ = self.wanted.answer.send(self.found);
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
        let filter = &self.wanted.filter;
        // One more than asked for tells that there are more.
        let room = (filter.limit as usize + 1).saturating_sub(self.found.len());
        let listed = ids.map(|id| engine.describe::<A>(id, services, now));
        self.found
            .extend(listed.filter(|one| matches(filter, one)).take(room));
        next
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
