//! Session affinity (`sessionAffinity: ClientIP`): which backend a client was last given.
//!
//! One table for all workers, without locks and of fixed size. An entry is two words that are
//! written one after the other, so a reader can meet one word of the old entry and one of the new.
//! The first word therefore holds the client's fingerprint combined with the backend (Hyatt's
//! lockless hash table): such a mixture matches no client, or a client whose backend it truly is.
//! What a race can cost is an entry: the client is then balanced afresh. What `get` returns was
//! given to that client, as far as 64 seeded bits can tell clients apart; still, it may name a
//! backend that is gone or of an older table, so the caller uses it only if one of the Service's
//! backends has that fingerprint.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::flow::{mix, scale};

/// Slots of a bucket: two cache lines.
const WAYS: usize = 8;

/// Slots for each client asked for: at half load one client in a hundred finds its bucket full.
const SLOTS_PER_CLIENT: usize = 2;

// Odd constants that keep a seed or a key of 0 from multiplying everything away.
const SALT: u64 = 0x9e37_79b9_7f4a_7c15;
const PEPPER: u64 = 0x2545_f491_4f6c_dd1d;

/// Identifies a backend in the table: 32 well-mixed bits of its address and port, the same in every
/// process. Two backends of one Service share them with a chance of 1 in 2^32; a client's
/// connections could then go to either.
pub fn fingerprint(address_bits: u64, port: u16) -> u32 {
    let mixed = mix(address_bits ^ SALT, u64::from(port) ^ PEPPER);
    (mix(mixed ^ PEPPER, SALT) >> 32) as u32
}

/// Who was given which backend, and when. Times are seconds of any clock that all workers share;
/// workers may differ by a reading.
#[derive(Debug)]
pub struct AffinityTable {
    buckets: Box<[Bucket]>,
    seed: u64,
    /// Longest timeout that was ever asked with: what is older is live for no Service.
    longest_timeout: AtomicU32,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Slot; WAYS]);

/// An empty slot reads as fingerprint 0, which is nobody's.
#[derive(Debug, Default)]
struct Slot {
    /// Fingerprint of Service and client, exclusive-or the backend.
    key: AtomicU64,
    /// Backend in the upper half, seconds of the last use in the lower.
    value: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    backend: u32,
    used: u32,
}

impl Entry {
    fn to_bits(self) -> u64 {
        u64::from(self.backend) << 32 | u64::from(self.used)
    }

    fn idle(self, now: u32) -> u32 {
        now.saturating_sub(self.used)
    }
}

impl Slot {
    fn read(&self) -> (u64, Entry) {
        let value = self.value.load(Relaxed);
        let entry = Entry {
            backend: (value >> 32) as u32,
            used: value as u32,
        };
        (self.key.load(Relaxed) ^ u64::from(entry.backend), entry)
    }

    fn write(&self, owner: u64, entry: Entry) {
        self.key.store(owner ^ u64::from(entry.backend), Relaxed);
        self.value.store(entry.to_bits(), Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.key.load(Relaxed) == 0
    }
}

impl AffinityTable {
    /// A table for about `clients` pairs of Service and client at once: 32 bytes for each, taken
    /// here and never more. The seed should be random, so that nobody outside can aim at a bucket.
    pub fn new(clients: u32, seed: u64) -> Self {
        let buckets = (clients as usize * SLOTS_PER_CLIENT).div_ceil(WAYS).max(1);
        Self {
            buckets: std::iter::repeat_with(Bucket::default)
                .take(buckets)
                .collect(),
            seed,
            longest_timeout: AtomicU32::new(0),
        }
    }

    /// The backend that the client was last given for the Service; `None` when that was more than
    /// `timeout` seconds ago, when it never was, or when its entry had to make room.
    pub fn get(&self, service: u64, client: u64, now: u32, timeout: u32) -> Option<u32> {
        // Written only when it grows: the line stays shared among the cores.
        if timeout > self.longest_timeout.load(Relaxed) {
            self.longest_timeout.fetch_max(timeout, Relaxed);
        }
        self.look(service, client, now, timeout)
            .map(|(backend, _)| backend)
    }

    /// As [`Self::get`], and for how many seconds more the client is remembered; changes nothing.
    pub fn look(&self, service: u64, client: u64, now: u32, timeout: u32) -> Option<(u32, u32)> {
        let owner = self.owner(service, client);
        let mut slots = self.bucket(owner).iter().map(Slot::read);
        let (_, entry) = slots.find(|(of, entry)| *of == owner && entry.idle(now) <= timeout)?;
        Some((entry.backend, timeout - entry.idle(now)))
    }

    /// Remembers the backend of a new connection; the timeout starts again.
    ///
    /// Takes the client's own entry, else an empty one, else the one of the bucket that was unused
    /// for the longest time. Returns whether that one was another client's and still live, by the
    /// longest timeout that [`Self::get`] was ever asked with.
    pub fn put(&self, service: u64, client: u64, backend: u32, now: u32) -> bool {
        let owner = self.owner(service, client);
        let bucket = self.bucket(owner);
        let fresh = Entry { backend, used: now };
        if let Some(own) = bucket.iter().find(|slot| slot.read().0 == owner) {
            own.write(owner, fresh);
            return false;
        }
        let room = |slot: &&Slot| (slot.is_empty(), slot.read().1.idle(now));
        let Some(victim) = bucket.iter().max_by_key(room) else {
            return false;
        };
        let (was_empty, idle) = room(&victim);
        victim.write(owner, fresh);
        !was_empty && idle <= self.longest_timeout.load(Relaxed)
    }

    /// Seeded fingerprint of Service and client; its upper bits choose the bucket, all of it is
    /// compared.
    fn owner(&self, service: u64, client: u64) -> u64 {
        let both = mix(
            service ^ self.seed ^ SALT,
            client ^ self.seed.rotate_left(32) ^ PEPPER,
        );
        mix(both ^ SALT, self.seed ^ PEPPER).max(1)
    }

    fn bucket(&self, owner: u64) -> &[Slot] {
        self.buckets
            .get(scale(owner, self.buckets.len()))
            .map_or(&[], |bucket| &bucket.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const WEB: u64 = 1;

    #[test]
    fn a_client_stays_until_its_timeout_has_passed() {
        let table = AffinityTable::new(100, 7);
        assert_eq!(table.get(WEB, 10, 1000, 60), None);
        assert!(!table.put(WEB, 10, 5, 1000));
        assert_eq!(table.get(WEB, 10, 1060, 60), Some(5));
        assert_eq!(table.get(WEB, 10, 1061, 60), None);
        assert_eq!(table.get(WEB, 10, 1061, 61), Some(5));
        assert_eq!(table.get(WEB, 10, 999, 60), Some(5), "a clock behind");
    }

    #[test]
    fn every_new_connection_starts_the_timeout_again() {
        let table = AffinityTable::new(100, 7);
        for now in [1000, 1050, 1100] {
            table.put(WEB, 10, 5, now);
        }
        assert_eq!(table.get(WEB, 10, 1160, 60), Some(5));
        assert_eq!(table.get(WEB, 10, 1161, 60), None);
    }

    #[test]
    fn services_and_clients_do_not_share_entries() {
        let table = AffinityTable::new(100, 7);
        table.put(WEB, 10, 5, 0);
        assert_eq!(table.get(WEB + 1, 10, 0, 60), None);
        assert_eq!(table.get(WEB, 11, 0, 60), None);
        table.put(WEB, 10, 6, 0);
        assert_eq!(table.get(WEB, 10, 0, 60), Some(6));
    }

    #[test]
    fn zero_is_a_seed_a_service_a_client_and_a_backend_like_any_other() {
        let table = AffinityTable::new(0, 0);
        assert_eq!(table.get(0, 0, 0, 60), None);
        table.put(0, 0, 0, 0);
        assert_eq!(table.get(0, 0, 0, 60), Some(0));
        assert_eq!(table.get(0, 1, 0, 60), None);
    }

    #[test]
    fn a_full_bucket_gives_up_the_client_unseen_for_longest_and_says_so() {
        let table = AffinityTable::new(4, 7);
        assert_eq!(table.buckets.len(), 1);
        assert_eq!(table.get(WEB, 0, 0, 60), None);
        for client in 0..8 {
            assert!(!table.put(WEB, client, 5, client as u32));
        }
        table.put(WEB, 0, 5, 9);
        assert!(table.put(WEB, 100, 5, 10));
        assert_eq!(table.get(WEB, 1, 10, 60), None);
        assert_eq!(table.get(WEB, 0, 10, 60), Some(5));
        assert_eq!(table.get(WEB, 100, 10, 60), Some(5));
        assert!(!table.put(WEB, 101, 5, 63), "the oldest had expired");
    }

    #[test]
    fn the_promised_number_of_clients_hardly_evicts() {
        let table = AffinityTable::new(10_000, 7);
        table.get(WEB, 0, 0, 60);
        let evicted = (0..10_000).filter(|client| table.put(WEB, *client, 5, 1));
        assert!(evicted.count() < 150);
    }

    #[test]
    fn fingerprints_tell_backends_apart() {
        let ends = (0..100u64).flat_map(|address| (80..180).map(move |port| (address, port)));
        let mut seen: Vec<u32> = ends.map(|(a, p)| fingerprint(a, p)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10_000);
    }

    /// A half-written entry: a worker was replacing the client's by another's, or the other way.
    #[test]
    fn a_torn_entry_is_nobodys() {
        let table = AffinityTable::new(4, 7);
        let (old, new) = (table.owner(WEB, 10), table.owner(WEB, 11));
        let slot = &table.bucket(old)[0];
        let entry = |backend| Entry { backend, used: 0 };
        slot.write(old, entry(5));
        slot.key.store(new ^ 6, Relaxed);
        assert_eq!(table.get(WEB, 10, 0, 60), None);
        assert_eq!(table.get(WEB, 11, 0, 60), None);
        slot.write(old, entry(5));
        slot.value.store(entry(6).to_bits(), Relaxed);
        assert_eq!(table.get(WEB, 10, 0, 60), None);
        assert_eq!(table.get(WEB, 11, 0, 60), None);
    }

    #[test]
    fn workers_that_race_never_see_a_backend_of_another_client() {
        // One bucket and 64 clients: nearly every put replaces another client's entry.
        let table = AffinityTable::new(4, 7);
        let clients = 64u64;
        let found: u32 = std::thread::scope(|scope| {
            let worker = |number: u64| {
                let table = &table;
                move || {
                    let mut found = 0;
                    for turn in 0..200_000u64 {
                        let client = mix(turn ^ SALT, number + PEPPER) % clients;
                        let other = mix(turn ^ PEPPER, number + SALT) % clients;
                        let backend = (client * 1000 + turn % 1000) as u32;
                        table.put(WEB, client, backend, turn as u32);
                        if let Some(got) = table.get(WEB, other, turn as u32, u32::MAX) {
                            assert_eq!(u64::from(got) / 1000, other);
                            found += 1;
                        }
                    }
                    found
                }
            };
            let workers: Vec<_> = (0..4).map(|n| scope.spawn(worker(n))).collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert!(found > 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u64, u64, u32),
        Get(u64, u64, u32),
    }

    fn steps(clients: u64) -> impl Strategy<Value = Vec<(Step, u32)>> {
        let key = (0..3u64, 0..clients, 0..4u32);
        let timeout = (0..3u64, 0..clients, 0..100u32);
        let step = prop_oneof![
            key.prop_map(|(s, c, b)| Step::Put(s, c, b)),
            timeout.prop_map(|(s, c, t)| Step::Get(s, c, t)),
        ];
        // Time grows with every step, so that one entry of the model is the oldest.
        proptest::collection::vec((step, 1..20u32), 0..200)
    }

    /// Plays the steps on a table and on a map that holds at most `room` entries.
    fn compare(
        table: &AffinityTable,
        room: usize,
        steps: Vec<(Step, u32)>,
    ) -> Result<(), TestCaseError> {
        let mut model = HashMap::<(u64, u64), (u32, u32)>::new();
        let (mut now, mut longest) = (0, 0);
        for (step, passed) in steps {
            now += passed;
            match step {
                Step::Put(service, client, backend) => {
                    let oldest = model.iter().min_by_key(|(_, (_, used))| *used);
                    let oldest = oldest.map(|(key, (_, used))| (*key, *used));
                    let is_full = model.len() == room && !model.contains_key(&(service, client));
                    let evicted = oldest.filter(|_| is_full);
                    if let Some((key, _)) = evicted {
                        model.remove(&key);
                    }
                    model.insert((service, client), (backend, now));
                    let live = evicted.is_some_and(|(_, used)| now - used <= longest);
                    prop_assert_eq!(table.put(service, client, backend, now), live);
                }
                Step::Get(service, client, timeout) => {
                    longest = longest.max(timeout);
                    let expected = model.get(&(service, client));
                    let expected = expected.filter(|(_, used)| now - used <= timeout);
                    let got = table.get(service, client, now, timeout);
                    prop_assert_eq!(got, expected.map(|(backend, _)| *backend));
                }
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn one_bucket_is_a_map_of_eight_that_gives_up_its_oldest(
            seed in any::<u64>(), steps in steps(10),
        ) {
            compare(&AffinityTable::new(4, seed), WAYS, steps)?;
        }

        #[test]
        fn a_table_with_room_is_a_map(seed in any::<u64>(), steps in steps(20)) {
            compare(&AffinityTable::new(10_000, seed), usize::MAX, steps)?;
        }
    }
}
