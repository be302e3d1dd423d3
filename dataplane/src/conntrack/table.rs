//! The connection table of one worker: two index entries and one record a connection.
//!
//! ```text
//!   hash(tuple) --> bucket (10 x 16-bit tag, 10 x record number and direction)
//!                     | full?                        \
//!                     '--> second bucket              '--> record: Connection
//! ```
//!
//! Not shared, so nothing is locked. Every operation touches at most two buckets and the records
//! whose tag matches. Removing leaves no tombstones.

use super::bucket::{Bucket, EMPTY};
use super::expiry::Wheel;
use super::records::{Hot, Records};
use super::tags::WAYS;
use super::{Binding, Connection, Seconds, Shortcut};
use crate::flow::{Direction, FiveTuple, Key, Secret, scale};
use crate::memory::{prefetch, reserved};
use crate::wire::Family;
use sluice_conf::settings::dataplane::Timeouts;

/// Ways of which a full table uses 19: with two buckets to choose from and entries that can be
/// moved, an insertion then practically always finds room.
const WAYS_FOR_19: usize = 20;

/// Entries that are moved in a chain to make room for one.
const MOVES: u32 = 3;

/// Number of a record. Numbers are used again after a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(u32);

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
    buckets: Box<[Bucket]>,
    records: Records<A>,
    /// Numbers of records that were in use; never longer than the table.
    free: Vec<u32>,
    /// Records from this number on have never been in use.
    fresh: u32,
    wheel: Wheel,
    timeouts: Timeouts,
    secret: Secret,
}

/// The index entry that a hash most likely leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likely(u32);

impl Likely {
    /// To none.
    pub const NONE: Self = Self(EMPTY);

    /// The connection.
    pub const fn id(self) -> ConnId {
        ConnId(self.0 >> 1)
    }
}

impl<A: Family> ConnTable<A> {
    /// A table for `capacity` connections. `seed` should be random.
    pub fn new(capacity: u32, timeouts: Timeouts, seed: u64, now: Seconds) -> Self {
        let capacity = capacity as usize;
        let entries = capacity * 2;
        let buckets = (entries * WAYS_FOR_19).div_ceil(WAYS * 19).max(2);
        Self {
            buckets: reserved(Bucket::NEW, buckets),
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
        prefetch(&self.buckets[self.first(hash)]);
    }

    /// Has the processor fetch what every packet needs of the record that a hash most likely leads
    /// to. The bucket should have been fetched before.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) -> Likely {
        let bucket = &self.buckets[self.first(hash)];
        let way = bucket.matching(tag(hash)).trailing_zeros() as usize;
        let slot = bucket.slots.get(way).copied().unwrap_or(EMPTY);
        self.records.prefetch(slot >> 1);
        Likely(slot)
    }

    /// Has the processor fetch all of the record that a hash most likely leads to.
    pub fn prefetch_whole(&self, hash: u64) {
        let Likely(slot) = self.prefetch_record(hash);
        self.records.prefetch_cold(slot >> 1);
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

    /// Where a hash leads for certain.
    pub fn look(&self, hash: u64, key: &Key<A>) -> Likely {
        let found = self.search(hash, key);
        found.map_or(Likely::NONE, |(id, direction)| {
            Likely(id.0 << 1 | direction as u32)
        })
    }

    /// What every packet needs of the connection that a hash likely leads to, if it is the right
    /// one: the record may have changed hands since.
    #[inline]
    pub fn likely(&mut self, likely: Likely, key: &Key<A>) -> Option<(&mut Hot<A>, Direction)> {
        let Likely(slot) = likely;
        let direction = direction_of(slot);
        let hot = self.records.likely(slot >> 1)?;
        hot.has(direction, key).then_some((hot, direction))
    }

    /// The connection that has this tuple, and in which direction. `hash` is the tuple's.
    #[inline]
    pub fn lookup(&self, hash: u64, tuple: &FiveTuple<A>) -> Option<(ConnId, Direction)> {
        let bucket = &self.buckets[self.first(hash)];
        match bucket.matching(tag(hash)) == 0 && bucket.spilled == 0 {
            true => None,
            false => self.search(hash, &Key::from(tuple)),
        }
    }

    #[inline(never)]
    fn search(&self, hash: u64, key: &Key<A>) -> Option<(ConnId, Direction)> {
        let first = self.first(hash);
        let found = self.find(first, tag(hash), key);
        if found.is_some() || self.buckets[first].spilled == 0 {
            return found;
        }
        self.find(self.second(hash), tag(hash), key)
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
        // Before the index: making room for the second entry may have to move the first one.
        self.records.set(number, connection);
        let indexed = self.index(hashes[0], number << 1);
        if !indexed || !self.index(hashes[1], number << 1 | 1) {
            if indexed {
                self.unindex(hashes[0], number << 1);
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
        self.unindex(self.hash(&connection.original), id.0 << 1);
        self.unindex(self.hash(&connection.reply), id.0 << 1 | 1);
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
    /// they are gone from the table.
    pub fn expire(&mut self, now: Seconds, budget: usize, mut gone: impl FnMut(Connection<A>)) {
        for _ in 0..budget {
            let Some(number) = self.wheel.due(now) else {
                return;
            };
            let deadline = self.records.deadline(number, &self.timeouts);
            if deadline <= now {
                gone(self.remove(ConnId(number)));
            } else {
                self.wheel.schedule(number, deadline);
            }
        }
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

    /// The bucket that a hash leads to first.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        scale(hash, self.buckets.len())
    }

    /// The other one.
    fn second(&self, hash: u64) -> usize {
        let count = self.buckets.len();
        let (first, second) = (self.first(hash), scale(hash.rotate_left(39), count));
        // The two must differ, or a second choice would be none.
        match second == first {
            true => (first + 1) % count,
            false => second,
        }
    }

    #[inline]
    fn find(&self, bucket: usize, tag: u16, key: &Key<A>) -> Option<(ConnId, Direction)> {
        let bucket = &self.buckets[bucket];
        let mut ways = bucket.matching(tag);
        while ways != 0 {
            let slot = bucket.slots[ways.trailing_zeros() as usize % WAYS];
            ways &= ways - 1;
            let direction = direction_of(slot);
            let number = slot >> 1;
            // An empty way leads to no record.
            let hot = self.records.hot(number);
            if hot.is_some_and(|hot| hot.has(direction, key)) {
                return Some((ConnId(number), direction));
            }
        }
        None
    }

    fn index(&mut self, hash: u64, slot: u32) -> bool {
        let (first, tag) = (self.first(hash), tag(hash));
        if self.buckets[first].put(tag, slot) {
            return true;
        }
        let second = self.second(hash);
        if self.buckets[second].put(tag, slot) {
            self.buckets[first].spilled += 1;
            return true;
        }
        if self.make_room(first, MOVES) {
            return self.buckets[first].put(tag, slot);
        }
        let moved = self.make_room(second, MOVES) && self.buckets[second].put(tag, slot);
        self.buckets[first].spilled += u32::from(moved);
        moved
    }

    /// Moves one entry of a full bucket to its other bucket, making room there first if need be
    /// (cuckoo hashing; the number of moves is bounded by 8 to the power of `depth`).
    fn make_room(&mut self, bucket: usize, depth: u32) -> bool {
        for way in 0..WAYS {
            let (tag, slot) = (
                self.buckets[bucket].tags[way],
                self.buckets[bucket].slots[way],
            );
            if slot == EMPTY {
                return true;
            }
            let hot = self.records.hot_mut(slot >> 1);
            let key = hot.key(direction_of(slot));
            let hash = self.hash_of(&key);
            let first = self.first(hash);
            let is_home = first == bucket;
            let other = if is_home { self.second(hash) } else { first };
            let has_room =
                self.buckets[other].has_room() || (depth > 1 && self.make_room(other, depth - 1));
            // The search may have come round to this bucket and moved this very entry.
            if self.buckets[bucket].slots[way] != slot {
                return true;
            }
            if !has_room || !self.buckets[other].put(tag, slot) {
                continue;
            }
            self.buckets[bucket].slots[way] = EMPTY;
            let spilled = &mut self.buckets[first].spilled;
            *spilled = if is_home { *spilled + 1 } else { *spilled - 1 };
            return true;
        }
        false
    }

    fn unindex(&mut self, hash: u64, slot: u32) {
        let first = self.first(hash);
        if !self.buckets[first].take(slot) && self.buckets[self.second(hash)].take(slot) {
            self.buckets[first].spilled -= 1;
        }
    }
}

/// Bits of a hash that choose neither bucket in a table of up to 8 million.
const fn tag(hash: u64) -> u16 {
    (hash >> 25) as u16
}

const fn direction_of(slot: u32) -> Direction {
    if slot & 1 == 0 {
        Direction::Original
    } else {
        Direction::Reply
    }
}

#[cfg(test)]
mod tests;
