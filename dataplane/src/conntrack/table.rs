//! The connection table of one worker: two index entries and one record a connection.
//!
//! ```text
//!   hash(tuple) --> bucket (10 x 16-bit tag, 10 x record number and direction)
//!                     | full?                        \
//!                     '--> second bucket              '--> record: Connection
//! ```
//!
//! Not shared, so nothing is locked. Every operation touches the records whose tag matches and few
//! buckets of the index.

use super::bucket::Entry;
use super::expiry::Wheel;
use super::index::Index;
use super::records::{Hot, Records};
use super::{Binding, Connection, Seconds, Shortcut};
use crate::flow::{Direction, FiveTuple, Key, Secret};
use crate::wire::Family;
use sluice_conf::settings::dataplane::Timeouts;

/// Number of a record. Numbers are used again after a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(u32);

impl From<Entry> for ConnId {
    fn from(entry: Entry) -> Self {
        Self(entry.record())
    }
}

/// Why a connection was not inserted; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The table holds as many connections as it can.
    #[error("the connection table is full")]
    Full,
    /// Another connection has this tuple in one of its directions.
    #[error("the tuple belongs to another connection")]
    InUse(ConnId),
}

/// The table.
#[derive(Debug)]
pub struct ConnTable<A: Family> {
    index: Index,
    records: Records<A>,
    /// Numbers of records that were in use; never longer than the table.
    free: Vec<u32>,
    /// Records from this number on have never been in use.
    fresh: u32,
    wheel: Wheel,
    timeouts: Timeouts,
    secret: Secret,
}

impl<A: Family> ConnTable<A> {
    /// A table for `capacity` connections. `seed` should be random.
    pub fn new(capacity: u32, timeouts: Timeouts, seed: u64, now: Seconds) -> Self {
        let capacity = capacity as usize;
        Self {
            index: Index::new(capacity * 2),
            records: Records::new(capacity),
            free: Vec::with_capacity(capacity),
            fresh: 0,
            wheel: Wheel::new(capacity, now),
            timeouts,
            secret: Secret::new(seed),
        }
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.fresh as usize - self.free.len()
    }

    /// Whether no connection is in the table.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections that the table can hold.
    pub fn capacity(&self) -> usize {
        self.records.count()
    }

    /// The hash that this table files a tuple under.
    #[inline]
    pub fn hash(&self, tuple: &FiveTuple<A>) -> u64 {
        self.hash_of(&Key::from(tuple))
    }

    /// The same of a key.
    #[inline(always)]
    pub fn hash_of(&self, key: &Key<A>) -> u64 {
        key.hash(self.secret)
    }

    /// Has the processor fetch the bucket of a hash.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Has the processor fetch what an insertion of this hash will need beside its bucket, which
    /// should have been fetched before.
    #[inline]
    pub fn prefetch_room(&self, hash: u64) {
        self.index.prefetch_second(hash);
    }

    /// Has the processor fetch what every packet needs of the record that a hash most likely leads
    /// to; the bucket should have been fetched before. When it leads to none, its second bucket is
    /// fetched if it has to be looked at.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) -> Entry {
        let likely = self.index.likely(hash);
        self.records.prefetch(likely.record());
        likely
    }

    /// The same of a hash that leads to none by its first bucket.
    #[inline]
    pub fn prefetch_second_record(&self, hash: u64) -> Entry {
        let likely = self.index.likely_second(hash);
        self.records.prefetch(likely.record());
        likely
    }

    /// Has the processor fetch all of the record that a hash most likely leads to.
    pub fn prefetch_whole(&self, hash: u64) {
        let likely = self.prefetch_record(hash);
        self.records.prefetch_cold(likely.record());
    }

    /// Has the processor fetch the record that will be filled after so many others.
    pub fn prefetch_free(&self, ahead: usize) {
        let number = match self.free.len().checked_sub(ahead + 1) {
            Some(place) => self.free[place],
            None => self.fresh.saturating_add((ahead - self.free.len()) as u32),
        };
        self.records.prefetch(number);
        self.records.prefetch_cold(number);
        self.wheel.prefetch(number);
    }

    /// Where a key leads for certain. `hash` is the key's.
    #[inline(never)]
    pub fn look(&self, hash: u64, key: &Key<A>) -> Entry {
        let is_right = |entry: Entry| {
            let hot = self.records.hot(entry.record());
            hot.is_some_and(|hot| hot.has(entry.direction(), key))
        };
        self.index.find(hash, is_right).unwrap_or(Entry::NONE)
    }

    /// What every packet needs of the connection that a hash likely leads to, if it is the right
    /// one: the record may have changed hands since.
    #[inline]
    pub fn likely(&mut self, likely: Entry, key: &Key<A>) -> Option<(&mut Hot<A>, Direction)> {
        let direction = likely.direction();
        let hot = self.records.likely(likely.record())?;
        hot.has(direction, key).then_some((hot, direction))
    }

    /// The connection that has this tuple, and in which direction. `hash` is the tuple's.
    #[inline]
    pub fn lookup(&self, hash: u64, tuple: &FiveTuple<A>) -> Option<(ConnId, Direction)> {
        if self.index.is_missing(hash) {
            return None;
        }
        let entry = self.look(hash, &Key::from(tuple));
        (entry != Entry::NONE).then(|| (entry.into(), entry.direction()))
    }

    /// The connection of a number.
    pub fn get(&self, id: ConnId) -> Connection<A> {
        self.records.get(id.0)
    }

    /// Who serves the connection.
    pub fn binding(&self, id: ConnId) -> Binding {
        self.records.binding(id.0)
    }

    /// What was found out about the connection's way.
    #[inline]
    pub fn shortcut(&self, id: ConnId) -> Shortcut {
        self.records
            .hot(id.0)
            .map_or(Shortcut::NONE, |hot| hot.shortcut)
    }

    /// What every packet of the connection needs, to note one.
    #[inline]
    pub fn hot_mut(&mut self, id: ConnId) -> &mut Hot<A> {
        self.records.hot_mut(id.0)
    }

    /// Inserts both directions, or nothing.
    ///
    /// # Errors
    /// [`InsertError::InUse`] when either tuple is taken, [`InsertError::Full`] without room.
    pub fn insert(&mut self, connection: Connection<A>) -> Result<ConnId, InsertError> {
        let Connection {
            original, reply, ..
        } = &connection;
        let hashes = [self.hash(original), self.hash(reply)];
        match self.lookup(hashes[0], original) {
            Some((id, _)) => Err(InsertError::InUse(id)),
            None => self.insert_new(&connection, hashes),
        }
    }

    /// As [`ConnTable::insert`], of a connection whose original tuple is known to be nobody's.
    /// `hashes` are those of its tuples.
    ///
    /// # Errors
    /// As [`ConnTable::insert`].
    pub fn insert_new(
        &mut self,
        connection: &Connection<A>,
        hashes: [u64; 2],
    ) -> Result<ConnId, InsertError> {
        debug_assert_eq!(self.lookup(hashes[0], &connection.original), None);
        if let Some((id, _)) = self.lookup(hashes[1], &connection.reply) {
            return Err(InsertError::InUse(id));
        }
        let number = match self.free.last() {
            Some(number) => *number,
            None if (self.fresh as usize) < self.records.count() => self.fresh,
            None => return Err(InsertError::Full),
        };
        self.records.set(number, connection);
        let [original, reply] = Direction::BOTH.map(|direction| Entry::new(number, direction));
        let indexed = self.index.insert(hashes[0], original);
        if !indexed || !self.index.insert(hashes[1], reply) {
            if indexed {
                self.index.remove(hashes[0], original);
            }
            self.records.set(number, &Connection::UNUSED);
            return Err(InsertError::Full);
        }
        if self.free.pop().is_none() {
            self.fresh += 1;
        }
        self.wheel
            .schedule(number, connection.deadline(&self.timeouts));
        Ok(ConnId(number))
    }

    /// Takes a connection out, both directions.
    pub fn remove(&mut self, id: ConnId) -> Connection<A> {
        let connection = self.records.get(id.0);
        for direction in Direction::BOTH {
            let hash = self.hash(connection.tuple(direction));
            self.index.remove(hash, Entry::new(id.0, direction));
        }
        self.wheel.cancel(id.0);
        self.records.set(id.0, &Connection::UNUSED);
        self.free.push(id.0);
        connection
    }

    /// Notes what was found out about the connection's way, until its state changes.
    pub fn set_shortcut(&mut self, id: ConnId, shortcut: Shortcut) {
        self.records.set_shortcut(id.0, shortcut);
    }

    /// Gives the connection another place among the Services, and the end that comes with it.
    pub fn rebind(&mut self, id: ConnId, binding: Binding) {
        let has_other_end = self.records.rebind(id.0, binding);
        if has_other_end || binding.backend.is_none() {
            self.records.hot_mut(id.0).shortcut = Shortcut::NONE;
        }
        if has_other_end {
            self.schedule(id);
        }
    }

    /// Notes the state that follows from a packet, and the time.
    pub fn touch(&mut self, id: ConnId, state: super::State, now: Seconds) {
        self.records.hot_mut(id.0).last_seen = now;
        let cold = self.records.cold_mut(id.0);
        if cold.state != state {
            cold.state = state;
            self.records.hot_mut(id.0).shortcut = Shortcut::NONE;
            self.schedule(id);
        }
    }

    fn schedule(&mut self, id: ConnId) {
        let deadline = self.records.deadline(id.0, &self.timeouts);
        self.wheel.schedule(id.0, deadline);
    }

    /// The connection that a full table can best do without: the least valuable of so many records
    /// from record number `from` on, round the end; `None` when all of them are established
    /// (netfilter's early drop).
    pub fn expendable(&self, from: u32, records: u32) -> Option<ConnId> {
        let size = self.records.count() as u32;
        (0..records.min(size))
            .map(|step| ((u64::from(from) + u64::from(step)) % u64::from(size)) as u32)
            .filter_map(|number| self.in_use(number))
            .map(|id| (self.get(id).state.value(), id))
            .filter(|(value, _)| *value < super::Value::Established)
            .min_by_key(|(value, _)| *value)
            .map(|(_, id)| id)
    }

    /// Looks at up to `budget` connections that may be due and hands out those that have expired;
    /// they are gone from the table. True when the budget was used up, so that more may be due.
    pub fn expire(
        &mut self,
        now: Seconds,
        budget: usize,
        mut gone: impl FnMut(Connection<A>),
    ) -> bool {
        for _ in 0..budget {
            let Some(number) = self.wheel.due(now) else {
                return false;
            };
            let deadline = self.records.deadline(number, &self.timeouts);
            if deadline <= now {
                gone(self.remove(ConnId(number)));
            } else {
                self.wheel.schedule(number, deadline);
            }
        }
        true
    }

    /// Seconds that the connection has at least if nothing more comes.
    pub fn expires_in(&self, id: ConnId, now: Seconds) -> u32 {
        let deadline = self.records.deadline(id.0, &self.timeouts);
        deadline.0.saturating_sub(now.0.saturating_add(1))
    }

    /// No record from this number on has ever been in use.
    pub fn reach(&self) -> u32 {
        self.fresh
    }

    /// The connection of record `number`, if that is in use.
    pub fn in_use(&self, number: u32) -> Option<ConnId> {
        self.records.is_in_use(number).then_some(ConnId(number))
    }

    /// Up to `count` record numbers from number `from` on that are in use, and the number to go on
    /// from; `None` at the end.
    pub fn page(&self, from: u32, count: u32) -> (impl Iterator<Item = ConnId> + '_, Option<u32>) {
        let size = self.records.count() as u32;
        let end = from.saturating_add(count).min(size);
        let ids = (from.min(end)..end).filter_map(|number| self.in_use(number));
        (ids, (end < size).then_some(end))
    }
}

#[cfg(test)]
mod tests;
