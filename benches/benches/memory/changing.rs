//! A connection table that changes: batches of new connections, and their end.

use std::hint::black_box;

use sluice_benches::harness::BATCH;
use sluice_benches::traffic::{Numbered, connection};
use sluice_conf::settings::dataplane::{Connections, Timeouts};
use sluice_dataplane::conntrack::{ConnTable, Connection, Seconds, State, TcpState};

/// A table of its own, with new connections for it.
pub struct Changing<A: Numbered> {
    table: ConnTable<A>,
    next: u32,
    now: Seconds,
    batch: Vec<Connection<A>>,
}

impl<A: Numbered> Changing<A> {
    /// An empty table of the size that the daemon ships.
    pub fn new() -> Self {
        let (room, now) = (Connections::default().capacity, Seconds(0));
        Self {
            table: ConnTable::new(room, Timeouts::default(), 0x5eed, now),
            next: 0,
            now,
            batch: Vec::with_capacity(BATCH),
        }
    }

    /// Makes the next batch of connections.
    pub fn prepare(&mut self) {
        let (first, now) = (self.next, self.now);
        let opened = |number| {
            let original = connection::<A>(number);
            // A reply tuple like a masqueraded one's; as unique as the original.
            let mut reply = original.invert();
            reply.source.port = 8080;
            Connection {
                original,
                reply,
                state: State::Tcp(TcpState::SynSent),
                last_seen: now,
                ..Connection::UNUSED
            }
        };
        self.batch.clear();
        self.batch.extend((first..).take(BATCH).map(opened));
        self.next = self.next.wrapping_add(BATCH as u32);
    }

    /// Inserts the batch.
    pub fn insert(&mut self) {
        for connection in &self.batch {
            let _ = black_box(self.table.insert(*connection));
        }
    }

    /// Lets the timeouts of all connections run out.
    pub fn pass(&mut self) {
        self.now.0 += 200;
    }

    /// Takes out a batch of connections whose timeouts have run out.
    pub fn expire(&mut self) {
        let mut gone = 0;
        self.table.expire(self.now, BATCH, |_| gone += 1);
        black_box(gone);
    }
}
