//! What leads from one table to the next, so that whoever has the first is sent the difference only.
//!
//! ```text
//!   base     a  b  c  d
//!   edits       |     '-- Edit { place: 3, removed: 1, added: [e, f] }
//!               '-------- Edit { place: 1, removed: 1, added: [b'] }
//!   table    a  b' c  e  f
//! ```
//!
//! Guarantees: a change applied to its base is the table that it was made from, for any two tables,
//! sorted or not. Between sorted ones it holds a Service only if that is new or other than before.
//! What two tables share is not looked into.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::service::Service;
use crate::table::{Generation, Networks, ServiceTable};

/// What makes one table of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// Version of the table that is changed.
    pub base: Generation,
    /// Version of the table that comes out.
    pub generation: Generation,
    /// Networks of the cluster.
    pub networks: Networks,
    /// Where Services differ, in order and apart from each other.
    pub edits: Vec<Edit>,
}

/// Services of the base that make room for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// Place of the first one in the base.
    pub place: usize,
    /// How many of the base go.
    pub removed: usize,
    /// What comes instead.
    #[serde(with = "services")]
    pub added: Vec<Arc<Service>>,
}

impl Edit {
    /// First place of the base behind it.
    const fn end(&self) -> usize {
        self.place.saturating_add(self.removed)
    }
}

/// A change that cannot have been made from a table of this size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the change has an edit at place {place}, which does not fit a table of {services} services"
)]
pub struct ChangeError {
    place: usize,
    services: usize,
}

impl TableChange {
    /// Whether the edits fit a table of so many Services.
    ///
    /// # Errors
    /// One lies outside of it, or on another.
    pub fn check(&self, services: usize) -> Result<(), ChangeError> {
        let mut end = 0;
        for edit in &self.edits {
            if edit.place < end || edit.end() > services {
                let place = edit.place;
                return Err(ChangeError { place, services });
            }
            end = edit.end();
        }
        Ok(())
    }

    /// The table that it makes of its base, with which that shares what has not changed.
    ///
    /// # Errors
    /// It belongs to another base, as far as the number of Services can tell.
    pub fn apply(self, base: &ServiceTable) -> Result<ServiceTable, ChangeError> {
        self.check(base.services.len())?;
        let mut services = Vec::with_capacity(base.services.len());
        let mut place = 0;
        for edit in self.edits {
            services.extend_from_slice(&base.services[place..edit.place]);
            place = edit.end();
            services.extend(edit.added);
        }
        services.extend_from_slice(&base.services[place..]);
        Ok(ServiceTable {
            generation: self.generation,
            networks: self.networks,
            services,
        })
    }
}

impl ServiceTable {
    /// What makes this table of `base`.
    pub fn since(&self, base: &ServiceTable) -> TableChange {
        TableChange {
            base: base.generation,
            generation: self.generation,
            networks: self.networks.clone(),
            edits: differences(
                base.services.iter().map(|service| &**service),
                &self.services,
            ),
        }
    }
}

/// What makes the Services `new` of `old`.
pub fn differences<'a>(
    old: impl Iterator<Item = &'a Service>,
    new: &'a [Arc<Service>],
) -> Vec<Edit> {
    let (mut old, mut new) = (old.peekable(), new.iter().peekable());
    let (mut edits, mut place) = (Vec::new(), 0);
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return edits,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) if is_same(before, after) => {
                old.next();
                new.next();
                place += 1;
                continue;
            }
            (Some(before), Some(after)) => before.name.cmp(&after.name),
        };
        if edits.last().is_none_or(|edit: &Edit| edit.end() != place) {
            let (removed, added) = (0, Vec::new());
            edits.push(Edit {
                place,
                removed,
                added,
            });
        }
        let Some(edit) = edits.last_mut() else {
            continue;
        };
        if order.is_le() {
            old.next();
            place += 1;
            edit.removed += 1;
        }
        if order.is_ge() {
            edit.added.extend(new.next().cloned());
        }
    }
}

fn is_same(before: &Service, after: &Arc<Service>) -> bool {
    std::ptr::eq(before, &**after) || *before == **after
}

/// How shared Services are written and read, for `#[serde(with)]`: as any list of Services.
pub(crate) mod services {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::service::Service;

    pub fn serialize<S: Serializer>(services: &[Arc<Service>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(services.iter().map(|service| &**service))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<Service>>, D::Error> {
        let services = Vec::<Service>::deserialize(from)?;
        Ok(services.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{HEADER_LEN, decode, encode};
    use crate::service::{Protocol, ServiceName};

    /// Services by number, each with a policy that may change.
    fn table(generation: u64, services: &BTreeMap<u8, u16>, reversed: bool) -> ServiceTable {
        let service = |(number, mss): (&u8, &u16)| {
            Arc::new(Service {
                mss_clamp: Some(*mss),
                ..Service::new(ServiceName {
                    namespace: "default".into(),
                    name: format!("s{number:03}"),
                    port: String::new(),
                    protocol: Protocol::Tcp,
                })
            })
        };
        let mut services: Vec<_> = services.iter().map(service).collect();
        if reversed {
            services.reverse();
        }
        ServiceTable {
            generation: Generation(generation),
            services,
            ..ServiceTable::default()
        }
    }

    fn edits_of(old: &[(u8, u16)], new: &[(u8, u16)]) -> Vec<(usize, usize, usize)> {
        let [old, new] = [old, new].map(|services| {
            let services = services.iter().copied().collect();
            table(1, &services, false)
        });
        let edits = new.since(&old).edits.into_iter();
        edits
            .map(|edit| (edit.place, edit.removed, edit.added.len()))
            .collect()
    }

    #[test]
    fn a_change_holds_what_differs_and_no_more() {
        let old = [(1, 1), (2, 1), (3, 1), (4, 1)];
        assert_eq!(edits_of(&old, &old), []);
        assert_eq!(
            edits_of(&old, &[(1, 1), (2, 7), (3, 1), (4, 1)]),
            [(1, 1, 1)]
        );
        assert_eq!(
            edits_of(&old, &[(1, 1), (2, 7), (3, 1), (5, 1), (6, 1)]),
            [(1, 1, 1), (3, 1, 2)]
        );
        assert_eq!(edits_of(&old, &old[..1]), [(1, 3, 0)]);
        assert_eq!(edits_of(&[], &old), [(0, 0, 4)]);
        assert_eq!(
            edits_of(&old, &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]),
            [(0, 0, 1)]
        );
    }

    #[test]
    fn a_change_that_does_not_fit_is_refused() {
        let base = table(1, &BTreeMap::from([(1, 1), (2, 1)]), false);
        let edit = |place, removed| Edit {
            place,
            removed,
            added: Vec::new(),
        };
        let change = |edits: &[Edit]| TableChange {
            edits: edits.to_vec(),
            ..base.since(&base)
        };
        for edits in [
            &[edit(3, 0)][..],
            &[edit(1, 2)],
            &[edit(usize::MAX, usize::MAX)],
            &[edit(0, usize::MAX)],
            &[edit(0, 2), edit(1, 1)],
            &[edit(1, 1), edit(0, 1)],
        ] {
            let error = change(edits).apply(&base).unwrap_err();
            assert!(
                error.to_string().contains("a table of 2 services"),
                "{error}"
            );
        }
        assert_eq!(
            change(&[edit(0, 1), edit(1, 1)])
                .apply(&base)
                .unwrap()
                .services,
            []
        );
    }

    fn services() -> impl Strategy<Value = (BTreeMap<u8, u16>, bool)> {
        let services = proptest::collection::btree_map(0u8..12, 1u16..4, 0..12);
        (services, prop::bool::weighted(0.2))
    }

    proptest! {
        #[test]
        fn a_change_applied_to_its_base_is_the_table_that_it_was_made_from(
            old in services(), new in services(),
        ) {
            let (old, new) = (table(7, &old.0, old.1), table(9, &new.0, new.1));
            let change = new.since(&old);
            prop_assert_eq!((change.base, change.generation), (Generation(7), Generation(9)));
            let sent = encode(&change).unwrap();
            let received: TableChange = decode(&sent[HEADER_LEN..]).unwrap();
            prop_assert_eq!(&received, &change);
            let made = received.apply(&old).unwrap();
            prop_assert_eq!(encode(&made).unwrap(), encode(&new).unwrap());
            let same = |service: &&Arc<Service>| old.services.iter().any(|old| Arc::ptr_eq(old, service));
            let added: usize = change.edits.iter().map(|edit| edit.added.len()).sum();
            prop_assert_eq!(made.services.iter().filter(same).count() + added, new.services.len());
        }
    }
}
