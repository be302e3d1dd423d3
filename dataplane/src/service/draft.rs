//! A table held against the map before: what has to be compiled, and in place of what.

use std::ops::Range;
use std::sync::Arc;

use foldhash::HashMap as FastMap;
use sluice_conf::change::{Edit, differences};
use sluice_conf::{Generation, Networks, Service, ServiceName, ServiceTable, TableChange};

use super::{CompiledService, MapError, ServiceMap};

/// A table that is not compiled yet; only good beside the map that it was held against.
#[derive(Debug)]
pub struct Draft {
    pub(super) generation: Generation,
    pub(super) networks: Networks,
    pub(super) steps: Vec<Step>,
}

/// Services that take the place of others.
#[derive(Debug)]
pub(super) struct Step {
    /// Places in the map before.
    pub gone: Range<usize>,
    pub added: Vec<Added>,
}

/// A Service that the map before does not have there, or not like this.
#[derive(Debug)]
pub(super) struct Added {
    pub entry: Arc<Service>,
    /// Where the Service of this name was.
    pub old: Option<usize>,
}

impl Draft {
    /// A table that came whole.
    pub fn of(table: ServiceTable, previous: &ServiceMap) -> Self {
        let old = previous.services().map(|service| &service.entry);
        let edits = differences(old, &table.services);
        Self::new(table.generation, table.networks, edits, previous)
    }

    /// What a change makes of the table of `previous`.
    ///
    /// # Errors
    /// The change cannot have been made from that table.
    pub fn by(change: TableChange, previous: &ServiceMap) -> Result<Self, MapError> {
        change.check(previous.services.len())?;
        let TableChange {
            generation,
            networks,
            edits,
            ..
        } = change;
        Ok(Self::new(generation, networks, edits, previous))
    }

    fn new(
        generation: Generation,
        networks: Networks,
        edits: Vec<Edit>,
        previous: &ServiceMap,
    ) -> Self {
        let gone = |edit: &Edit| edit.place..edit.place + edit.removed;
        let places = edits.iter().flat_map(gone);
        let named = places.filter_map(|place| Some((previous.name(place)?, place)));
        let names: FastMap<&ServiceName, usize> = named.collect();
        let step = |edit: Edit| {
            let gone = gone(&edit);
            let added = |entry: Arc<Service>| Added {
                old: names.get(&entry.name).copied(),
                entry,
            };
            let added = edit.added.into_iter().map(added).collect();
            Step { gone, added }
        };
        Self {
            generation,
            networks,
            steps: edits.into_iter().map(step).collect(),
        }
    }

    /// The Services that have to be looked at.
    pub(super) fn added(&self) -> impl Iterator<Item = &Service> {
        let added = self.steps.iter().flat_map(|step| &step.added);
        added.map(|added| &*added.entry)
    }

    /// How much of something there is in the table, if there is `before` of it in `previous`.
    pub(super) fn count(
        &self,
        previous: &ServiceMap,
        before: usize,
        of: impl Fn(&Service) -> usize,
    ) -> usize {
        let places = self.steps.iter().flat_map(|step| step.gone.clone());
        let gone = places.filter_map(|place| previous.services.get(place));
        let gone: usize = gone.map(|service| of(&service.entry)).sum();
        before - gone + self.added().map(&of).sum::<usize>()
    }

    /// The Services of the table.
    pub(super) fn entries<'a>(&'a self, previous: &'a ServiceMap) -> Vec<&'a Service> {
        let mut old = previous.services().map(|service| &service.entry);
        let (mut entries, mut place) = (Vec::new(), 0);
        for step in &self.steps {
            entries.extend(old.by_ref().take(step.gone.start - place));
            place = step.gone.end;
            old.by_ref().take(step.gone.len()).for_each(drop);
            entries.extend(step.added.iter().map(|added| &*added.entry));
        }
        entries.extend(old);
        entries
    }

    /// Whether every Service is where it was and clients use it as before.
    pub(super) fn only_changes_backends(&self, previous: &ServiceMap) -> bool {
        let stays = |(place, added): (usize, &Added)| {
            let old = previous.services.get(place);
            added.old == Some(place)
                && old.is_some_and(|old| old.entry.frontends == added.entry.frontends)
        };
        self.steps.iter().all(|step| {
            step.gone.len() == step.added.len() && step.gone.clone().zip(&step.added).all(stays)
        })
    }
}

impl Added {
    /// Compiles it, unless it was only elsewhere before.
    pub fn compile(self, previous: &ServiceMap, workers: u16) -> Arc<CompiledService> {
        let old = self.old.and_then(|place| previous.services.get(place));
        match old {
            Some(old) if old.entry == *self.entry => Arc::clone(old),
            old => {
                let entry = Arc::unwrap_or_clone(self.entry);
                let old = old.map(|old| &**old);
                Arc::new(CompiledService::new(entry, old, workers))
            }
        }
    }
}
