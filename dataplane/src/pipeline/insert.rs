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

/// Which source the backend of a new connection gets to see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<A> {
    /// Whether it is the client's.
    pub(super) is_kept: bool,
    /// Else, or if the client's cannot be told apart from others.
    pub(super) masquerade: A,
    /// What its source port is drawn by.
    pub(super) random: u64,
}

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

    /// Inserts both directions of a connection; its original tuple is nobody's. `hashes` are those of
    /// its tuples. The source that it gets in the end stands in `connection` then.
    pub(super) fn insert<A: Tracked>(
        &mut self,
        connection: &mut Connection<A>,
        hashes: [u64; 2],
        source: &Source<A>,
    ) -> Result<ConnId, DropReason> {
        match self.insert_or_evict(connection, hashes) {
            Ok(id) => Ok(id),
            Err(InsertError::Full) => Err(DropReason::ConnectionTableFull),
            // The client uses one port towards two frontends with a common backend: only another
            // source can keep the two apart.
            Err(InsertError::InUse(_)) if connection.handling == Handling::Translated => {
                self.insert_masqueraded(connection, hashes[0], source)
            }
            Err(InsertError::InUse(_)) => Err(DropReason::SourcePortsExhausted),
        }
    }

    /// As [`Engine::insert`]; tries one source port after the other.
    #[cold]
    fn insert_masqueraded<A: Tracked>(
        &mut self,
        connection: &mut Connection<A>,
        hash: u64,
        source: &Source<A>,
    ) -> Result<ConnId, DropReason> {
        let mut ended = None;
        for (tried, port) in self.picker.candidates(source.random).enumerate() {
            if tried == SCARCE {
                self.count(|counters| counters.source_ports_scarce.add(1));
            }
            connection.reply.destination = End::new(source.masquerade, port);
            let reply = A::lane(self).table.hash(&connection.reply);
            match self.insert_or_evict(connection, [hash, reply]) {
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
        connection.reply.destination = End::new(source.masquerade, port);
        table
            .insert(*connection)
            .map_err(|_| DropReason::SourcePortsExhausted)
    }

    /// Inserts a connection of which the original tuple is nobody's; a full table gives up one that
    /// is not established for it.
    #[inline]
    pub(super) fn insert_or_evict<A: Tracked>(
        &mut self,
        connection: &Connection<A>,
        hashes: [u64; 2],
    ) -> Result<ConnId, InsertError> {
        match A::lane_mut(self).table.insert_new(connection, hashes) {
            Err(InsertError::Full) => self.evict_for(connection, hashes),
            done => done,
        }
    }

    #[cold]
    fn evict_for<A: Tracked>(
        &mut self,
        connection: &Connection<A>,
        hashes: [u64; 2],
    ) -> Result<ConnId, InsertError> {
        let random = self.next_random();
        let table = &mut A::lane_mut(self).table;
        let from = scale(random, table.capacity()) as u32;
        let expendable = table.expendable(from, LOOK).ok_or(InsertError::Full)?;
        table.remove(expendable);
        let inserted = table.insert_new(connection, hashes);
        self.count(|counters| counters.connections_evicted.add(1));
        inserted
    }
}
