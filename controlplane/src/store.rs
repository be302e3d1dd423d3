//! What has to outlive the control plane: admitted Services with what they were given, drains, and
//! past generations.
//!
//! Guarantees: what [`Store::commit`] acknowledged is there after a crash at any moment, whole
//! batches or nothing (one durable transaction each); a damaged file is refused, never trusted; one
//! process at a time. Does not read what it keeps: values are bytes, as a rule JSON.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use crate::object::NamespacedName;

mod error;
#[cfg(test)]
mod tests;

use error::Failure;
pub use error::{Kind, StoreError};

/// Version of the layout below; a file of another version is refused.
const SCHEMA: u32 = 1;
/// Memory that the database may use for its cache, in bytes.
const CACHE: usize = 16 << 20;

const META: TableDefinition<&str, u32> = TableDefinition::new("meta");
const SERVICES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("services");
const DRAINS: TableDefinition<&str, &[u8]> = TableDefinition::new("drains");
const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");

/// A Service that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Which Service.
    pub name: NamespacedName,
    /// The bytes that were committed.
    pub bytes: Vec<u8>,
}

/// One change of what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Keeps a Service in these bytes.
    Keep(NamespacedName, Vec<u8>),
    /// Forgets a Service.
    Forget(NamespacedName),
    /// Keeps the drain of a target in these bytes.
    Drain(String, Vec<u8>),
    /// Forgets the drain of a target.
    Undrain(String),
}

/// The store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Absent after a failed write, when the database has to be opened again.
    database: Option<Database>,
}

/// A store that several parts use; clones are the same.
#[derive(Debug, Clone)]
pub struct SharedStore(Arc<Mutex<Store>>);

impl From<Store> for SharedStore {
    fn from(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }
}

impl SharedStore {
    /// The store, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        // Every operation is a transaction: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens the file, and creates it when there is none; its folder must be there. The whole file
    /// is verified.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, damaged or of another version.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        match open(&path) {
            Ok(database) => Ok(Self {
                path,
                database: Some(database),
            }),
            Err(failure) => Err(failure.at(&path)),
        }
    }

    /// All Services, by namespace and name.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> Result<Vec<Stored>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(SERVICES)?;
            let mut services = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                let (namespace, name) = key.value();
                services.push(Stored {
                    name: NamespacedName::new(namespace, name),
                    bytes: value.value().to_vec(),
                });
            }
            Ok(services)
        })
    }

    /// All drains by target.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn drains(&self) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(DRAINS)?;
            let mut drains = BTreeMap::new();
            for entry in table.iter()? {
                let (target, value) = entry?;
                drains.insert(target.value().to_owned(), value.value().to_vec());
            }
            Ok(drains)
        })
    }

    /// The generations that are kept, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn generations(&self) -> Result<Vec<u64>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(HISTORY)?;
            let keys = table.iter()?.map(|entry| Ok(entry?.0.value()));
            keys.collect()
        })
    }

    /// What was recorded of a generation, if it is still kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn generation(&self, generation: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|database| {
            let table = database.begin_read()?.open_table(HISTORY)?;
            Ok(table.get(generation)?.map(|value| value.value().to_vec()))
        })
    }

    /// Makes all changes in their order, or none. When it returns they are on disk.
    ///
    /// # Errors
    /// The disk refuses; nothing was changed, and the next commit tries again.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.write(|database| {
            let transaction = database.begin_write()?;
            {
                let mut services = transaction.open_table(SERVICES)?;
                let mut drains = transaction.open_table(DRAINS)?;
                for change in changes {
                    match change {
                        Change::Keep(name, bytes) => {
                            services.insert(key(name), bytes.as_slice())?;
                        }
                        Change::Forget(name) => {
                            services.remove(key(name))?;
                        }
                        Change::Drain(target, bytes) => {
                            drains.insert(target.as_str(), bytes.as_slice())?;
                        }
                        Change::Undrain(target) => {
                            drains.remove(target.as_str())?;
                        }
                    }
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Records a generation and forgets all but the last `keep`.
    ///
    /// # Errors
    /// As with [`Store::commit`].
    pub fn record(&mut self, generation: u64, bytes: &[u8], keep: u64) -> Result<(), StoreError> {
        self.write(|database| {
            let transaction = database.begin_write()?;
            {
                let mut history = transaction.open_table(HISTORY)?;
                history.insert(generation, bytes)?;
                while history.len()? > keep && history.pop_first()?.is_some() {}
            }
            Ok(transaction.commit()?)
        })
    }

    fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let database = self.database.as_ref().ok_or(Failure::Closed);
        database
            .and_then(work)
            .map_err(|failure| failure.at(&self.path))
    }

    fn write(
        &mut self,
        work: impl FnOnce(&Database) -> Result<(), Failure>,
    ) -> Result<(), StoreError> {
        let result = self.reopened().and_then(work);
        if result.is_err() {
            // After a failed write the library refuses everything until the file is opened again.
            self.database = None;
            self.database = open(&self.path).ok();
        }
        result.map_err(|failure| failure.at(&self.path))
    }

    fn reopened(&mut self) -> Result<&Database, Failure> {
        if self.database.is_none() {
            self.database = Some(open(&self.path)?);
        }
        self.database.as_ref().ok_or(Failure::Closed)
    }
}

fn key(name: &NamespacedName) -> (&str, &str) {
    (&name.namespace, &name.name)
}

fn open(path: &Path) -> Result<Database, Failure> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Failure::Open)?;
    let database = Builder::new()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(FileBackend::new(file)?)?;
    prepare(&database)?;
    // The file's own name must survive a power cut as well.
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Failure::Open)?;
    }
    Ok(database)
}

/// Creates what a new file lacks, and refuses a file of another version.
fn prepare(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("schema")?.map(|version| version.value());
        match found {
            Some(SCHEMA) => {}
            Some(found) => return Err(Failure::Kind(Kind::Version { found })),
            None => {
                meta.insert("schema", SCHEMA)?;
            }
        }
        transaction.open_table(SERVICES)?;
        transaction.open_table(DRAINS)?;
        transaction.open_table(HISTORY)?;
    }
    Ok(transaction.commit()?)
}
