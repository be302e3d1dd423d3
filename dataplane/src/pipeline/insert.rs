//! A new connection enters the table, with the source that its backend gets to see.

use sluice_conf::{Access, SourceNat};

use super::{Engine, Moment, Tracked};
use crate::conntrack::{ConnId, Connection, Handling, InsertError};
use crate::flow::{End, scale};
use crate::verdict::DropReason;

/// Records that are looked at for one that a full table can do without.
const LOOK: u32 = 64;

/// Candidates that a connection may need before its worker's source ports count as scarce: with
/// nine of ten ports taken, one in six needs more.
const SCARCE: usize = 16;

impl Engine {
    /// Whether the backend of a new connection gets to see the client's address.
    pub(super) fn keeps_source<A: Tracked>(
        &self,
        connection: &Connection<A>,
        access: Access,
        moment: Moment<'_>,
    ) -> bool {
        if connection.handling != Handling::Translated {
            return true;
        }
        // A backend that talks to itself through the Vip must not see its own address as source: it
        // would answer itself and never the gateway (kube-proxy's hairpin rule).
        let is_hairpin = connection.original.source.address == connection.backend().address;
        // Between two backends nobody can tell from an answer alone which of them is the client; a
        // source port of ours leads it to the worker that knows.
        let comes_back = || self.other_owner(&connection.reply, moment).is_none();
        access.source_nat == SourceNat::Preserve && !is_hairpin && comes_back()
    }

    /// Inserts both directions of a connection. `own` is the address that masquerade uses when the
    /// settings name none, `random` what its source port is drawn by.
    pub(super) fn insert<A: Tracked>(
        &mut self,
        connection: Connection<A>,
        access: Access,
        own: A,
        random: u64,
        moment: Moment<'_>,
    ) -> Result<ConnId, DropReason> {
        if self.keeps_source(&connection, access, moment) {
            match self.insert_or_evict(connection) {
                Ok(id) => return Ok(id),
                Err(InsertError::Full) => return Err(DropReason::ConnectionTableFull),
                // The client uses one port towards two frontends with a common backend: only
                // another source can keep the two apart.
                Err(InsertError::InUse(_)) if connection.handling == Handling::Translated => {}
                Err(InsertError::InUse(_)) => return Err(DropReason::SourcePortsExhausted),
            }
        }
        let address = A::lane(self).source.unwrap_or(own);
        self.insert_masqueraded(connection, address, random)
    }

    fn insert_masqueraded<A: Tracked>(
        &mut self,
        mut connection: Connection<A>,
        address: A,
        random: u64,
    ) -> Result<ConnId, DropReason> {
        let mut ended = None;
        for (tried, port) in self.picker.candidates(random).enumerate() {
            if tried == SCARCE {
                self.count(|counters| counters.source_ports_scarce.add(1));
            }
            connection.reply.destination = End::new(address, port);
            match self.insert_or_evict(connection) {
                Ok(id) => return Ok(id),
                Err(InsertError::Full) => return Err(DropReason::ConnectionTableFull),
                Err(InsertError::InUse(other)) => {
                    let has_ended = A::lane(self).table.get(other).state.has_ended();
                    ended = ended.or(has_ended.then_some((other, port)));
                }
            }
        }
        // All taken: one that has ended gives up its port before its time.
        let (other, port) = ended.ok_or(DropReason::SourcePortsExhausted)?;
        let table = &mut A::lane_mut(self).table;
        table.remove(other);
        connection.reply.destination = End::new(address, port);
        table
            .insert(connection)
            .map_err(|_| DropReason::SourcePortsExhausted)
    }

    /// Inserts a connection; a full table gives up one that is not established for it.
    pub(super) fn insert_or_evict<A: Tracked>(
        &mut self,
        connection: Connection<A>,
    ) -> Result<ConnId, InsertError> {
        match A::lane_mut(self).table.insert(connection) {
            Err(InsertError::Full) => {}
            done => return done,
        }
        let random = self.next_random();
        let table = &mut A::lane_mut(self).table;
        let from = scale(random, table.capacity()) as u32;
        let expendable = table.expendable(from, LOOK).ok_or(InsertError::Full)?;
        table.remove(expendable);
        let inserted = table.insert(connection);
        self.count(|counters| counters.connections_evicted.add(1));
        inserted
    }
}
