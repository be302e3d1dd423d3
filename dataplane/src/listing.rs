//! Listing connections for the operator without holding up packets: a worker looks at a bounded
//! number of records between two bursts.

use std::net::{Ipv4Addr, Ipv6Addr};

use crossbeam::channel::Sender;
use sluice_conf::message::dataplane::{Connection as Listed, ConnectionFilter};

use crate::clock::Time;
use crate::conntrack::{ConnId, ConnTable};
use crate::flow::Address;
use crate::pipeline::Engine;
use crate::service::{ServiceMap, Target};

/// Records that a worker looks at in one turn.
const RECORDS_PER_TURN: u32 = 512;

/// A question for a worker: which of its connections match?
#[derive(Debug)]
pub struct Query {
    /// What to list.
    pub filter: ConnectionFilter,
    /// Where the answer goes: at most `filter.limit` and one more connections.
    pub answer: Sender<Vec<Listed>>,
}

/// A query that is being answered: first the IPv4 connections, then those of IPv6.
#[derive(Debug)]
pub struct Listing {
    query: Query,
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
    pub fn new(query: Query) -> Self {
        Self {
            query,
            family: Family::V4,
            from: 0,
            found: Vec::new(),
        }
    }

    /// Looks at some records more; `None` when the answer has been sent.
    pub fn go_on(
        mut self,
        engine: &Engine,
        services: &ServiceMap,
        worker: u16,
        now: Time,
    ) -> Option<Self> {
        let next = match self.family {
            Family::V4 => self.look(engine.table::<Ipv4Addr>(), services, worker, now),
            Family::V6 => self.look(engine.table::<Ipv6Addr>(), services, worker, now),
        };
        let is_full = self.found.len() > self.query.filter.limit as usize;
        match (next, self.family) {
            (Some(from), _) if !is_full => self.from = from,
            (None, Family::V4) if !is_full => (self.family, self.from) = (Family::V6, 0),
            _ => {
                // Nobody waits any more when the client has gone.
                let _ = self.query.answer.send(self.found);
                return None;
            }
        }
        Some(self)
    }

    fn look<A: Address>(
        &mut self,
        table: &ConnTable<A>,
        services: &ServiceMap,
        worker: u16,
        now: Time,
    ) -> Option<u32> {
        let (ids, next) = table.page(self.from, RECORDS_PER_TURN);
        let filter = &self.query.filter;
        // One more than asked for tells that there are more.
        let room = (filter.limit as usize + 1).saturating_sub(self.found.len());
        let listed = ids.map(|id| list(table, services, worker, now, id));
        self.found
            .extend(listed.filter(|one| matches(filter, one)).take(room));
        next
    }
}

fn list<A: Address>(
    table: &ConnTable<A>,
    services: &ServiceMap,
    worker: u16,
    now: Time,
    id: ConnId,
) -> Listed {
    let connection = table.get(id);
    let frontend = connection.original.destination;
    let protocol = connection.original.protocol;
    let served = services.frontend(&Target::from_end(frontend, protocol));
    Listed {
        service: served.map(|served| served.service.entry.name.clone()),
        protocol,
        client: connection.original.source.into(),
        frontend: frontend.into(),
        source: connection.reply.destination.into(),
        backend: connection.backend().into(),
        state: connection.state.name().to_owned(),
        idle_seconds: now.seconds().0.saturating_sub(connection.last_seen.0),
        expires_seconds: table.expires_in(id, now.seconds()),
        worker: worker.into(),
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
