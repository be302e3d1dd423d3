//! Listing connections for the operator without holding up packets: a worker looks at a bounded
//! number of records between two bursts.

use std::net::{Ipv4Addr, SocketAddr};

use crossbeam::channel::Sender;
use sluice_conf::message::dataplane::{Connection as Listed, ConnectionFilter};

use crate::clock::Time;
use crate::conntrack::{ConnId, ConnTable};
use crate::flow::End;
use crate::service::ServiceMap;

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

/// A query that is being answered.
#[derive(Debug)]
pub struct Listing {
    query: Query,
    from: u32,
    found: Vec<Listed>,
}

impl Listing {
    /// Starts at the first record.
    pub fn new(query: Query) -> Self {
        Self {
            query,
            from: 0,
            found: Vec::new(),
        }
    }

    /// Looks at some records more; `None` when the answer has been sent.
    pub fn go_on(
        mut self,
        table: &ConnTable<Ipv4Addr>,
        services: &ServiceMap,
        worker: u16,
        now: Time,
    ) -> Option<Self> {
        let (ids, next) = table.page(self.from, RECORDS_PER_TURN);
        let filter = &self.query.filter;
        // One more than asked for tells that there are more.
        let room = (filter.limit as usize + 1).saturating_sub(self.found.len());
        let listed = ids.map(|id| list(table, services, worker, now, id));
        self.found
            .extend(listed.filter(|one| matches(filter, one)).take(room));
        match next {
            Some(from) if self.found.len() <= self.query.filter.limit as usize => {
                self.from = from;
                Some(self)
            }
            _ => {
                // Nobody waits any more when the client has gone.
                let _ = self.query.answer.send(self.found);
                None
            }
        }
    }
}

fn list(
    table: &ConnTable<Ipv4Addr>,
    services: &ServiceMap,
    worker: u16,
    now: Time,
    id: ConnId,
) -> Listed {
    let connection = table.get(id);
    let frontend = connection.original.destination;
    let service = services.frontend(frontend, connection.original.protocol);
    Listed {
        service: service.map(|(_, service)| service.entry.name.clone()),
        protocol: connection.original.protocol,
        client: socket(connection.original.source),
        frontend: socket(frontend),
        source: socket(connection.reply.destination),
        backend: socket(connection.reply.source),
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

fn socket(end: End<Ipv4Addr>) -> SocketAddr {
    (end.address, end.port).into()
}
