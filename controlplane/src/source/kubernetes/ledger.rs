//! What was told of the objects of one kind, and what an answer changes in it. No I/O.
//!
//! Guarantees: an object is gone only by an event that says so or by a complete list without it;
//! what was told already, or is older than that, changes nothing; events out of order are noticed.

use std::collections::{BTreeMap, BTreeSet};

use crate::object::ObjectId;

/// Most objects of one kind.
const MAX_OBJECTS: usize = 1_000_000;

/// Why what the server tells is not to be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistrust {
    /// An event is older than one before it, so some other may be missing too.
    Disordered,
    /// There are too many objects.
    TooMany,
}

/// The objects of one kind as they were told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The version of each object.
    known: BTreeMap<ObjectId, String>,
    /// The version to go on from; without it everything is to be listed.
    from: Option<String>,
    /// The newest version since the list.
    newest: u64,
    /// What a list that is not complete has held so far.
    listed: Option<BTreeSet<ObjectId>>,
}

impl Ledger {
    /// The version to watch from; without it everything is to be listed.
    pub(super) fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// How many objects are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Everything is to be listed again; what is known stays until that is done.
    pub(super) fn distrust(&mut self) {
        self.from = None;
    }

    /// A list begins, or begins anew.
    pub(super) fn begin(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// Whether a list has begun and is not complete.
    pub(super) fn is_listing(&self) -> bool {
        self.listed.is_some()
    }

    /// Takes in that the object is there in this version; returns whether that is news.
    pub(super) fn there(&mut self, id: &ObjectId, version: &str) -> Result<bool, Mistrust> {
        let before = self.known.get(id).map(String::as_str);
        let same = before == Some(version);
        if let Some(listed) = &mut self.listed {
            listed.insert(id.clone());
            if listed.len() > MAX_OBJECTS {
                return Err(Mistrust::TooMany);
            }
        } else {
            if same || before.is_some_and(|before| order(before) > order(version)) {
                return Ok(false);
            }
            if self.known.len() >= MAX_OBJECTS && before.is_none() {
                return Err(Mistrust::TooMany);
            }
            self.in_order(version)?;
        }
        if !same {
            self.known.insert(id.clone(), version.to_owned());
        }
        Ok(!same)
    }

    /// Takes in that the object is gone since this version; returns whether that is news.
    pub(super) fn gone(&mut self, id: &ObjectId, version: &str) -> Result<bool, Mistrust> {
        let before = self.known.get(id);
        if let Some(listed) = &mut self.listed {
            listed.remove(id);
        } else if let Some(before) = before {
            if order(before) > order(version) {
                return Ok(false);
            }
            self.in_order(version)?;
        } else {
            self.advance(version);
        }
        Ok(self.known.remove(id).is_some())
    }

    /// Takes in that nothing else happened up to this version.
    pub(super) fn advance(&mut self, version: &str) {
        let order = order(version);
        if self.listed.is_none() && (order == 0 || order >= self.newest) {
            self.newest = order;
            self.from = Some(version.to_owned());
        }
    }

    /// Takes in that the list is complete at `version`, or, without one, that the server has no such
    /// kind; returns what is gone.
    pub(super) fn complete(&mut self, version: Option<&str>) -> Vec<ObjectId> {
        let listed = self.listed.take().unwrap_or_default();
        self.newest = version.map_or(0, order);
        self.from = version.map(str::to_owned);
        let vanished = self.known.extract_if(.., |id, _| !listed.contains(id));
        vanished.map(|(id, _)| id).collect()
    }

    fn in_order(&mut self, version: &str) -> Result<(), Mistrust> {
        let order = order(version);
        if order != 0 && order < self.newest {
            return Err(Mistrust::Disordered);
        }
        self.advance(version);
        Ok(())
    }
}

/// Place of a resource version among those of its kind (KEP-5504: they are numbers that grow); 0
/// for one that is no number, which has no place and is believed.
fn order(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;
    use proptest::prelude::*;

    fn id(number: u8) -> ObjectId {
        ObjectId {
            kind: Kind::Service,
            namespace: "demo".into(),
            name: format!("s{number}"),
        }
    }

    fn listed(objects: &[(u8, &str)], version: &str) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.begin();
        for (object, version) in objects {
            assert_eq!(ledger.there(&id(*object), version), Ok(true));
        }
        assert_eq!(ledger.complete(Some(version)), []);
        ledger
    }

    #[test]
    fn an_object_is_known_until_a_complete_list_is_without_it() {
        let mut ledger = listed(&[(1, "3"), (2, "4")], "9");
        ledger.distrust();
        ledger.begin();
        assert_eq!(ledger.there(&id(1), "3"), Ok(false));
        // The list breaks off and begins anew.
        ledger.begin();
        assert_eq!(ledger.there(&id(2), "11"), Ok(true));
        assert_eq!(ledger.complete(Some("12")), [id(1)]);
        assert_eq!(ledger.from(), Some("12"));
    }

    #[test]
    fn what_was_told_or_is_older_changes_nothing() {
        let mut ledger = listed(&[(1, "3")], "9");
        assert_eq!(ledger.there(&id(1), "12"), Ok(true));
        assert_eq!(ledger.there(&id(1), "12"), Ok(false));
        assert_eq!(ledger.there(&id(1), "11"), Ok(false));
        assert_eq!(ledger.gone(&id(1), "11"), Ok(false));
        assert_eq!(ledger.gone(&id(1), "13"), Ok(true));
        assert_eq!(ledger.gone(&id(1), "13"), Ok(false));
        assert_eq!(ledger.from(), Some("13"));
    }

    #[test]
    fn an_event_before_its_time_is_noticed() {
        let mut ledger = listed(&[(1, "3")], "9");
        assert_eq!(ledger.there(&id(2), "12"), Ok(true));
        assert_eq!(ledger.there(&id(1), "11"), Err(Mistrust::Disordered));
        // A deletion that overtook the creation.
        assert_eq!(ledger.gone(&id(3), "14"), Ok(false));
        assert_eq!(ledger.there(&id(3), "13"), Err(Mistrust::Disordered));
    }

    #[test]
    fn versions_that_are_no_numbers_are_believed() {
        let mut ledger = listed(&[(1, "a")], "b");
        assert_eq!(ledger.there(&id(1), "0a"), Ok(true));
        assert_eq!(ledger.there(&id(1), "0a"), Ok(false));
        assert_eq!(ledger.gone(&id(1), "9z"), Ok(true));
        assert_eq!(ledger.from(), Some("9z"));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Change(u8),
        Remove(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let change = (0..5_u8).prop_map(Step::Change);
        let remove = (0..5_u8).prop_map(Step::Remove);
        prop::collection::vec(prop_oneof![2 => change, 1 => remove], 0..40)
    }

    proptest! {
        /// Whatever events are lost, doubled or swapped on the way: where the ledger trusts the
        /// server, a swap has not changed what is known; after a new list all is as on the server.
        #[test]
        fn doubled_and_swapped_events_never_leave_a_wrong_state(
            steps in steps(),
            doubled in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            swapped in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let mut server: BTreeMap<ObjectId, String> = BTreeMap::new();
            let mut events = Vec::new();
            for (version, step) in (10_u64..).zip(steps) {
                let version = version.to_string();
                match step {
                    Step::Change(object) => {
                        server.insert(id(object), version.clone());
                        events.push((true, id(object), version));
                    }
                    Step::Remove(object) if server.remove(&id(object)).is_some() => {
                        events.push((false, id(object), version));
                    }
                    Step::Remove(_) => {}
                }
            }
            if !events.is_empty() {
                for index in doubled {
                    let at = index.index(events.len());
                    events.insert(at, events[at].clone());
                }
                for index in swapped {
                    let at = index.index(events.len());
                    let next = (at + 1) % events.len();
                    if next > at {
                        events.swap(at, next);
                    }
                }
            }
            let mut ledger = listed(&[], "9");
            let outcome = events.iter().try_for_each(|(there, id, version)| match there {
                true => ledger.there(id, version).map(drop),
                false => ledger.gone(id, version).map(drop),
            });
            if outcome.is_ok() {
                prop_assert_eq!(&ledger.known, &server);
            }
            ledger.distrust();
            ledger.begin();
            for (id, version) in &server {
                ledger.there(id, version).unwrap();
            }
            ledger.complete(Some("99"));
            prop_assert_eq!(&ledger.known, &server);
        }
    }
}
