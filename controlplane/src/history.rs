//! Past tables, and the way back to one of them.
//!
//! ```text
//!   tables --(at most one each PAUSE)--> record: when, what changed, the table --> a store of its own
//!      ^                                                                              |
//!      '----- pin: a copy, under a new generation, until it is released <-- rollback -'
//! ```
//!
//! Guarantees: recording runs beside the engine and the push and never holds them up; a table is
//! recorded only when it differs from the one recorded before; of changes that follow closely the
//! outcome is recorded. A pinned table is in force as it was recorded: nothing that happens to
//! objects, health or drains changes it, so an endpoint that has died since gets connections, too.
//! All that is compiled meanwhile waits and is in force with the release. A pin outlives a restart,
//! because the newest record tells of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_conf::message::controlplane::history::{Force, GenerationRow};
use sluice_conf::{Generation, ServiceTable};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::engine::differences::differences;
use crate::metrics;
use crate::store::{SharedStore, StoreError};
use crate::tables::{State, Tables};

mod record;

use record::{Header, RecordError};

/// Time between two records.
const PAUSE: Duration = Duration::from_secs(3);
/// How often the log is reminded of a pin.
const REMINDER: Duration = Duration::from_secs(600);

/// Why the past could not be told or brought back.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of a generation.
    #[error("generation {0}: {1}")]
    Record(Generation, RecordError),
    /// It is not recorded.
    #[error("generation {generation} is not recorded; sluicectl history lists those that are")]
    Unknown {
        /// Which.
        generation: Generation,
    },
    /// Nothing is pinned.
    #[error("no generation is pinned; there is nothing to release")]
    NotPinned,
    /// It was released, but a restart will not know that.
    #[error(
        "it is released, but that cannot be stored, so that a restart before the next change pins \
         it again: {0}"
    )]
    Forgetful(Box<HistoryError>),
    /// The process ends.
    #[error("the control plane is stopping")]
    Stopping,
}

/// The past; clones are the same.
#[derive(Debug, Clone)]
pub struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: SharedStore,
    tables: Arc<Tables>,
    keep: usize,
    clock: Clock,
    past: Mutex<Past>,
}

/// What is recorded.
#[derive(Debug, Default)]
struct Past {
    /// Oldest first.
    headers: Vec<(Generation, Header)>,
    /// The table of the newest one.
    newest: Option<Arc<ServiceTable>>,
}

impl Past {
    /// Whether the newest record is of this table, pinned or not as it is.
    fn is_newest(&self, table: &ServiceTable, pinned: Option<Generation>) -> bool {
        let newest = self.headers.last().map(|(_, header)| header.pinned);
        newest == Some(pinned) && self.holds(table)
    }

    fn holds(&self, table: &ServiceTable) -> bool {
        self.newest.as_ref().is_some_and(|newest| {
            newest.networks == table.networks && newest.services == table.services
        })
    }
}

impl History {
    /// Takes up the past of earlier processes, of which the last `keep` tables are kept.
    /// Generations go on behind theirs; a pin that was not released is put in force again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(
        store: SharedStore,
        tables: Arc<Tables>,
        keep: u16,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let past = load(&store)?;
        if let Some((generation, _)) = past.headers.last() {
            tables.raise_above(*generation);
        }
        let pinned = past.headers.last().and_then(|(_, header)| header.pinned);
        if let (Some(pinned), Some(table)) = (pinned, &past.newest) {
            tables.pin((**table).clone(), pinned);
            remind(pinned);
        }
        metrics::pinned(tables.newest().pinned.is_some());
        Ok(Self(Arc::new(Inner {
            store,
            tables,
            keep: keep.max(1).into(),
            clock,
            past: Mutex::new(past),
        })))
    }

    /// Records; goes on for ever.
    pub async fn run(self) {
        let mut newest = self.0.tables.subscribe();
        loop {
            newest.mark_unchanged();
            let history = self.clone();
            let recorded = blocking(move || history.0.record()).await;
            if let Err(error) = recorded {
                warn!("the table is in force and not recorded: {error}");
            }
            tokio::time::sleep(PAUSE).await;
            self.wait(&mut newest).await;
        }
    }

    /// Waits for another table.
    async fn wait(&self, newest: &mut watch::Receiver<State>) {
        // The sender lives in `self`: this only ever ends with a change or with the time.
        while tokio::time::timeout(REMINDER, newest.changed())
            .await
            .is_err()
        {
            if let Some(pinned) = self.0.tables.newest().pinned {
                remind(pinned);
            }
        }
    }

    /// The past tables that are kept, oldest first.
    ///
    /// # Errors
    /// The process ends.
    pub async fn rows(&self) -> Result<Vec<GenerationRow>, HistoryError> {
        let history = self.clone();
        blocking(move || Ok(history.0.rows())).await
    }

    /// Puts a copy of the table of `generation` in force and keeps it there.
    ///
    /// # Errors
    /// It is not recorded or cannot be read, or the pin cannot be recorded. Nothing has changed
    /// then.
    pub async fn roll_back(&self, generation: Generation) -> Result<Force, HistoryError> {
        let history = self.clone();
        blocking(move || history.0.roll_back(generation)).await
    }

    /// Lets the table follow the objects again.
    ///
    /// # Errors
    /// Nothing is pinned, or the release cannot be recorded.
    pub async fn release(&self) -> Result<Force, HistoryError> {
        let history = self.clone();
        blocking(move || history.0.release()).await
    }
}

impl Inner {
    fn past(&self) -> MutexGuard<'_, Past> {
        // It is only ever changed by what was stored already: a panic leaves nothing half done.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> Vec<GenerationRow> {
        let table = self.tables.newest().table;
        let past = self.past();
        let in_force = table.is_some_and(|table| past.holds(&table));
        let last = past.headers.last().map(|(generation, _)| *generation);
        let row = |(generation, header): &(Generation, Header)| GenerationRow {
            generation: *generation,
            unix_seconds: header.unix_seconds,
            summary: header.summary.clone(),
            in_force: in_force && last == Some(*generation),
            rolled_back_to: header.pinned,
        };
        past.headers.iter().map(row).collect()
    }

    /// Records the newest table.
    fn record(&self) -> Result<(), HistoryError> {
        let mut past = self.past();
        // Not before: somebody else may have recorded a newer one meanwhile.
        let state = self.tables.newest();
        let Some(table) = &state.table else {
            return Ok(());
        };
        if past.is_newest(table, state.pinned) {
            return Ok(());
        }
        let unix_seconds = u64::try_from(self.clock.time().as_second()).unwrap_or_default();
        let header = Header {
            unix_seconds,
            summary: summary(past.newest.as_deref(), table),
            pinned: state.pinned,
        };
        let generation = table.generation;
        let bytes = record::write(&header, table);
        let bytes = bytes.map_err(|error| HistoryError::Record(generation, error))?;
        let mut store = self.store.lock();
        store.record(generation.0, &bytes, self.keep as u64)?;
        past.headers.retain(|(recorded, _)| *recorded != generation);
        past.headers.push((generation, header));
        let surplus = past.headers.len().saturating_sub(self.keep);
        past.headers.drain(..surplus);
        past.newest = Some(Arc::clone(table));
        Ok(())
    }

    fn roll_back(&self, generation: Generation) -> Result<Force, HistoryError> {
        let bytes = self.store.lock().generation(generation.0)?;
        let bytes = bytes.ok_or(HistoryError::Unknown { generation })?;
        let table = record::table(&bytes);
        let table = table.map_err(|error| HistoryError::Record(generation, error))?;
        let before = self.tables.newest();
        self.tables.pin(table, generation);
        if let Err(error) = self.record() {
            match (before.pinned, before.table) {
                (Some(pinned), Some(table)) => self.tables.pin((*table).clone(), pinned),
                _ => drop(self.tables.release()),
            }
            return Err(error);
        }
        remind(generation);
        metrics::pinned(true);
        Ok(self.force())
    }

    fn release(&self) -> Result<Force, HistoryError> {
        let pinned = self.tables.release().ok_or(HistoryError::NotPinned)?;
        metrics::pinned(false);
        info!("generation {pinned} is not pinned any more: the table follows the objects again");
        let recorded = self.record();
        recorded.map_err(|error| HistoryError::Forgetful(Box::new(error)))?;
        Ok(self.force())
    }

    fn force(&self) -> Force {
        let State {
            generation, pinned, ..
        } = self.tables.newest();
        Force { generation, pinned }
    }
}

/// What is stored. What cannot be read is left out: another release may have written it.
fn load(store: &SharedStore) -> Result<Past, StoreError> {
    let mut past = Past::default();
    let store = store.lock();
    for generation in store.generations()? {
        let Some(bytes) = store.generation(generation)? else {
            continue;
        };
        match record::header(&bytes) {
            Ok(header) => {
                past.headers.push((Generation(generation), header));
                past.newest = record::table(&bytes).ok().map(Arc::new);
            }
            Err(error) => warn!("left generation {generation} out of the history: {error}"),
        }
    }
    Ok(past)
}

/// In what a table differs from the one recorded before, in a line.
fn summary(before: Option<&ServiceTable>, table: &ServiceTable) -> String {
    let nothing = ServiceTable::default();
    let before = before.unwrap_or(&nothing);
    let told = differences(&before.services, &table.since(before));
    told.unwrap_or_else(|| match before.networks == table.networks {
        true => "the same".to_owned(),
        false => "other networks".to_owned(),
    })
}

fn remind(pinned: Generation) {
    warn!(
        "generation {pinned} is pinned: no change of objects, health or drains has any effect \
         before `sluicectl rollback --release`"
    );
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(HistoryError::Stopping))
}

#[cfg(test)]
mod tests;
