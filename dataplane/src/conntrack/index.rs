//! The index of a connection table: from hashes to the records that may have them.
//!
//! Each hash has a bucket, and a second one for when that is full. Two buckets of an entry tell each
//! other by its tag alone (partial-key cuckoo hashing: Fan et al., "Cuckoo Filter", CoNEXT 2014,
//! section 3.1), so making room looks at no record. Every operation touches at most two buckets,
//! but for an insertion that finds both full. Removing leaves no tombstones.

use super::bucket::{Bucket, Entry};
use super::tags::WAYS;
use crate::flow::{mix, scale};
use crate::memory::{prefetch, reserved};

/// Ways of which a full index uses 19: with two buckets to choose from and entries that can be
/// moved, an insertion then practically always finds room.
const WAYS_FOR_19: usize = 20;

/// Entries that are moved in a chain to make room for one.
const MOVES: u32 = 3;

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
}

impl Index {
    /// For so many entries.
    pub(super) fn new(entries: usize) -> Self {
        let buckets = (entries * WAYS_FOR_19).div_ceil(WAYS * 19).max(2);
        Self {
            buckets: reserved(Bucket::NEW, buckets),
        }
    }

    /// Has the processor fetch the bucket of a hash.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.first(hash)]);
    }

    /// Has the processor fetch the second bucket of a hash, if something like it may stand there or
    /// have to go there. The first one should have been fetched before.
    #[inline]
    pub(super) fn prefetch_second(&self, hash: u64) {
        let first = self.first(hash);
        let bucket = &self.buckets[first];
        if bucket.spilled > 0 || !bucket.has_room() {
            prefetch(&self.buckets[self.other(first, tag(hash))]);
        }
    }

    /// Where a hash most likely leads. The bucket should have been fetched before; of one that may
    /// lead to its second bucket, that is fetched.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Entry {
        let first = self.first(hash);
        let bucket = &self.buckets[first];
        let entry = bucket.likely(tag(hash));
        if entry == Entry::NONE && bucket.spilled > 0 {
            prefetch(&self.buckets[self.other(first, tag(hash))]);
        }
        entry
    }

    /// Where a hash most likely leads that finds nothing in its first bucket.
    #[inline]
    pub(super) fn likely_second(&self, hash: u64) -> Entry {
        let first = self.first(hash);
        match self.buckets[first].spilled {
            0 => Entry::NONE,
            _ => self.buckets[self.other(first, tag(hash))].likely(tag(hash)),
        }
    }

    /// Whether nothing has this hash for certain, for all that its first bucket says.
    #[inline]
    pub(super) fn is_missing(&self, hash: u64) -> bool {
        let bucket = &self.buckets[self.first(hash)];
        bucket.matching(tag(hash)) == 0 && bucket.spilled == 0
    }

    /// The entry of this hash that is the right one, among those that may be.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_right: impl Fn(Entry) -> bool) -> Option<Entry> {
        let first = self.first(hash);
        let found = self.find_in(first, tag(hash), &is_right);
        if found.is_some() || self.buckets[first].spilled == 0 {
            return found;
        }
        self.find_in(self.other(first, tag(hash)), tag(hash), &is_right)
    }

    #[inline]
    fn find_in(&self, bucket: usize, tag: u16, is_right: impl Fn(Entry) -> bool) -> Option<Entry> {
        let bucket = &self.buckets[bucket];
        let mut ways = bucket.matching(tag);
        while ways != 0 {
            let entry = bucket.entries[ways.trailing_zeros() as usize % WAYS];
            ways &= ways - 1;
            // An empty way leads to no record.
            if is_right(entry) {
                return Some(entry);
            }
        }
        None
    }

    /// False, and nothing changed, when there is no room.
    pub(super) fn insert(&mut self, hash: u64, entry: Entry) -> bool {
        let (first, tag) = (self.first(hash), tag(hash));
        if self.buckets[first].put(tag, entry) {
            return true;
        }
        let second = self.other(first, tag);
        if self.buckets[second].put(tag, entry.moved()) {
            self.buckets[first].spilled += 1;
            return true;
        }
        if self.make_room(first, MOVES) {
            return self.buckets[first].put(tag, entry);
        }
        let moved = self.make_room(second, MOVES) && self.buckets[second].put(tag, entry.moved());
        self.buckets[first].spilled += u32::from(moved);
        moved
    }

    /// Moves one entry of a full bucket to its other bucket, making room there first if need be (the
    /// number of moves is bounded by 10 to the power of `depth`).
    #[cold]
    fn make_room(&mut self, bucket: usize, depth: u32) -> bool {
        for tag in self.buckets[bucket].tags {
            prefetch(&self.buckets[self.other(bucket, tag)]);
        }
        for way in 0..WAYS {
            let Bucket { tags, entries, .. } = &self.buckets[bucket];
            let (tag, entry) = (tags[way], entries[way]);
            if entry == Entry::NONE {
                return true;
            }
            let other = self.other(bucket, tag);
            let has_room =
                self.buckets[other].has_room() || (depth > 1 && self.make_room(other, depth - 1));
            // The search may have come round to this bucket and moved this very entry.
            if self.buckets[bucket].entries[way] != entry {
                return true;
            }
            if !has_room || !self.buckets[other].put(tag, entry.moved()) {
                continue;
            }
            self.buckets[bucket].entries[way] = Entry::NONE;
            match entry.is_second() {
                true => self.buckets[other].spilled -= 1,
                false => self.buckets[bucket].spilled += 1,
            }
            return true;
        }
        false
    }

    /// Takes out an entry, wherever it stands.
    pub(super) fn remove(&mut self, hash: u64, entry: Entry) {
        let first = self.first(hash);
        if self.buckets[first].take(entry) {
            return;
        }
        let second = self.other(first, tag(hash));
        if self.buckets[second].take(entry.moved()) {
            self.buckets[first].spilled -= 1;
        }
    }

    /// The bucket that a hash leads to first.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        scale(hash, self.buckets.len())
    }

    /// The other bucket of an entry with this tag. The other one's other one is this one again; a few
    /// tags of a bucket have none but itself.
    #[inline]
    fn other(&self, bucket: usize, tag: u16) -> usize {
        let count = self.buckets.len();
        // Any well-mixed number will do: both buckets add up to it, modulo their count.
        let sum = scale(mix(u64::from(tag) ^ ODD, ODD), count);
        match sum.checked_sub(bucket) {
            Some(other) => other,
            None => sum + count - bucket,
        }
    }

    #[cfg(test)]
    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }
}

/// Mixes tags: the golden ratio in 64 bits (Knuth, "The Art of Computer Programming", volume 3,
/// section 6.4).
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bits of a hash that do not choose its bucket in an index of up to 8 million buckets.
const fn tag(hash: u64) -> u16 {
    (hash >> 25) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Direction;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// All bits of it are as good as random.
    fn hash(number: u32) -> u64 {
        mix(u64::from(number) ^ 0x1234_5678_9abc_def1, ODD)
    }

    fn finds(index: &Index, number: u32, entry: Entry) -> bool {
        let same = |found: Entry| {
            (found.record(), found.direction()) == (entry.record(), entry.direction())
        };
        index.find(hash(number), same).is_some()
    }

    proptest! {
        #[test]
        fn two_buckets_of_an_entry_tell_each_other(buckets in 2usize..5000, hash in any::<u64>()) {
            let index = Index { buckets: vec![Bucket::NEW; buckets].into() };
            let first = index.first(hash);
            let second = index.other(first, tag(hash));
            prop_assert!(second < buckets);
            prop_assert_eq!(index.other(second, tag(hash)), first);
        }

        #[test]
        fn it_does_what_a_map_does(steps in proptest::collection::vec((0u32..60, any::<bool>()), 1..400)) {
            // Three buckets of ten: most are full most of the time.
            let mut index = Index { buckets: vec![Bucket::NEW; 3].into() };
            let mut model = HashMap::new();
            for (number, add) in steps {
                let entry = Entry::new(number, Direction::Reply);
                if add && !model.contains_key(&number) {
                    if index.insert(hash(number), entry) {
                        model.insert(number, entry);
                    }
                } else if !add && model.remove(&number).is_some() {
                    index.remove(hash(number), entry);
                }
                for number in 0..60 {
                    let entry = Entry::new(number, Direction::Reply);
                    prop_assert_eq!(finds(&index, number, entry), model.contains_key(&number));
                    prop_assert!(!index.is_missing(hash(number)) || !model.contains_key(&number));
                }
                let spilled: u32 = index.buckets.iter().map(|bucket| bucket.spilled).sum();
                let entries = index.buckets.iter().flat_map(|bucket| bucket.entries);
                let second = entries.filter(|entry| *entry != Entry::NONE && entry.is_second());
                prop_assert_eq!(second.count() as u32, spilled);
            }
        }
    }

    #[test]
    fn second_buckets_are_spread_evenly() {
        let index = Index {
            buckets: vec![Bucket::NEW; 1000].into(),
        };
        let mut seconds = [0u32; 1000];
        for number in 0..100_000 {
            let hash = hash(number);
            seconds[index.other(index.first(hash), tag(hash))] += 1;
        }
        assert!(seconds.iter().all(|count| (50..150).contains(count)));
    }

    #[test]
    fn what_does_not_stand_in_its_first_bucket_is_found_by_its_second() {
        let mut index = Index {
            buckets: vec![Bucket::NEW; 50].into(),
        };
        let numbers = 0..475;
        for number in numbers.clone() {
            assert!(index.insert(hash(number), Entry::new(number, Direction::Original)));
        }
        let mut second = 0;
        for number in numbers {
            let (likely, later) = (
                index.likely(hash(number)),
                index.likely_second(hash(number)),
            );
            assert!([likely, later].iter().any(|entry| entry.record() == number));
            second += u32::from(likely == Entry::NONE);
        }
        assert!(second > 10, "{second}");
    }
}
