//! The table in force and its number.
//!
//! Guarantees: a table that differs from the one before gets the next generation, an equal one
//! keeps it; generations never go back, not even below what a dataplane has seen of an earlier
//! control plane.

use std::sync::Arc;

use sluice_conf::{Generation, ServiceTable, TableChange};
use tokio::sync::watch;

/// Holds the newest table and tells everybody who waits for it.
#[derive(Debug)]
pub struct Tables {
    state: watch::Sender<State>,
}

/// The newest table.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Generation given last.
    pub generation: Generation,
    /// The table; `None` before the first was compiled.
    pub table: Option<Arc<ServiceTable>>,
    /// The past generation of which it is a copy that nothing may change.
    pub pinned: Option<Generation>,
    /// The table that was published last, while another is pinned.
    waiting: Option<Arc<ServiceTable>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(State::default()),
        }
    }
}

impl Tables {
    /// Puts `table` in force under the next generation, whatever its own, unless an equal one is
    /// already. Returns what has changed, if anything has; in the first table all is new. While a
    /// generation is pinned nothing changes, and the table waits for the release.
    pub fn publish(&self, table: ServiceTable) -> Option<TableChange> {
        let mut changed = None;
        self.state.send_if_modified(|state| {
            if state.pinned.is_some() {
                state.waiting = Some(Arc::new(table));
                return false;
            }
            changed = state.follow(table);
            changed.is_some()
        });
        changed
    }

    /// Puts `table`, a copy of the generation `of`, in force and keeps it there.
    pub fn pin(&self, table: ServiceTable, of: Generation) {
        self.state.send_modify(|state| {
            if state.pinned.is_none() {
                state.waiting.clone_from(&state.table);
            }
            state.pinned = Some(of);
            state.follow(table);
        });
    }

    /// Puts the table in force that was published last. Returns the generation that was pinned.
    pub fn release(&self) -> Option<Generation> {
        let mut pinned = None;
        self.state.send_if_modified(|state| {
            pinned = state.pinned.take();
            if let Some(table) = state.waiting.take() {
                state.follow((*table).clone());
            }
            pinned.is_some()
        });
        pinned
    }

    /// Makes sure that the generation is above `seen`.
    pub fn raise_above(&self, seen: Generation) {
        self.state.send_if_modified(|state| {
            if state.generation > seen {
                return false;
            }
            match state.table.take() {
                Some(table) => state.advance((*table).clone(), seen),
                None => state.generation = seen,
            }
            true
        });
    }

    /// The newest table.
    pub fn newest(&self) -> State {
        self.state.borrow().clone()
    }

    /// Tells of every newer table.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

impl State {
    /// Puts a table in force if it is another; returns what has changed.
    fn follow(&mut self, table: ServiceTable) -> Option<TableChange> {
        let nothing = Arc::default();
        let newest = self.table.as_ref().unwrap_or(&nothing);
        let mut change = table.since(newest);
        let same = change.edits.is_empty() && change.networks == newest.networks;
        if same && self.table.is_some() {
            return None;
        }
        // What is equal becomes the same, so that nobody need compare it again.
        let table = change.clone().apply(newest).unwrap_or(table);
        self.advance(table, self.generation);
        change.generation = self.generation;
        Some(change)
    }

    fn advance(&mut self, table: ServiceTable, above: Generation) {
        self.generation = Generation(above.0.saturating_add(1));
        self.table = Some(Arc::new(ServiceTable {
            generation: self.generation,
            ..table
        }));
    }
}

#[cfg(test)]
mod tests {
    use sluice_conf::{Protocol, Service, ServiceName};

    use super::*;

    #[test]
    fn the_first_table_is_generation_one_even_when_empty() {
        let tables = Tables::default();
        assert!(tables.publish(ServiceTable::default()).is_some());
        assert_eq!(tables.newest().generation, Generation(1));
    }

    #[test]
    fn an_equal_table_keeps_its_generation() {
        let tables = Tables::default();
        tables.publish(ServiceTable::default());
        assert!(tables.publish(ServiceTable::default()).is_none());
        assert_eq!(tables.newest().generation, Generation(1));
    }

    #[test]
    fn what_is_equal_in_two_tables_is_shared() {
        let service = |name: &str| {
            Arc::new(Service::new(ServiceName {
                namespace: "default".into(),
                name: name.into(),
                port: String::new(),
                protocol: Protocol::Tcp,
            }))
        };
        let tables = Tables::default();
        let publish = |names: &[&str]| {
            tables.publish(ServiceTable {
                services: names.iter().map(|name| service(name)).collect(),
                ..ServiceTable::default()
            });
            tables.newest().table.unwrap().services.clone()
        };
        let (first, second) = (publish(&["a", "b"]), publish(&["b", "c"]));
        assert!(Arc::ptr_eq(&first[1], &second[0]));
        assert_eq!(second, [service("b"), service("c")]);
    }

    #[test]
    fn other_networks_make_another_table() {
        let tables = Tables::default();
        tables.publish(ServiceTable::default());
        let mut table = ServiceTable::default();
        table.networks.pods = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(tables.publish(table.clone()).is_some());
        assert!(tables.publish(table.clone()).is_none());
        tables.raise_above(Generation(9));
        let newest = tables.newest().table.unwrap();
        assert_eq!(newest.networks, table.networks);
        assert_eq!(newest.generation, Generation(10));
    }

    #[test]
    fn the_generation_rises_above_what_the_dataplane_has_seen() {
        let tables = Tables::default();
        tables.raise_above(Generation(41));
        tables.publish(ServiceTable::default());
        assert_eq!(tables.newest().generation, Generation(42));
        tables.raise_above(Generation(7));
        assert_eq!(tables.newest().generation, Generation(42));
        tables.raise_above(Generation(42));
        let state = tables.newest();
        assert_eq!(state.generation, Generation(43));
        assert_eq!(state.table.unwrap().generation, Generation(43));
    }
}
