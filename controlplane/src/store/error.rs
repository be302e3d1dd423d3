//! What can be wrong with the store's file, and the way out.

use std::io;
use std::path::{Path, PathBuf};

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use thiserror::Error;

use super::SCHEMA;
use crate::words::plain;

/// Something is wrong with the store.
#[derive(Debug, Error)]
#[error("store {path}: {kind}", path = .path.display())]
pub struct StoreError {
    /// The store's file.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: Kind,
}

/// What is wrong with a store.
#[derive(Debug, Error)]
pub enum Kind {
    /// It cannot be opened.
    #[error("cannot be opened: {}; its folder must be there and writable", plain(.0))]
    Open(io::Error),
    /// Another process has it.
    #[error("is in use by another process; only one control plane may use a store")]
    InUse,
    /// It is no store, or not as it was written.
    #[error(
        "is damaged ({0}); restore it from a backup, or move it away to begin with a new one: \
         addresses and ports that no manifest writes are then given anew"
    )]
    Damaged(String),
    /// It was written by another version.
    #[error(
        "has the layout {found}, this version of Sluice has {SCHEMA}; use the version that wrote \
         it, or move it away to begin with a new one"
    )]
    Version {
        /// The layout's version.
        found: u32,
    },
    /// It cannot be read or written.
    #[error("cannot be read or written: {}; nothing was changed{}", plain(.0), advice(.0))]
    Io(io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => ", free some space",
        io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ", raise the limit",
        _ => "",
    }
}

/// What went wrong, before the file is named.
#[derive(Debug)]
pub(super) enum Failure {
    Open(io::Error),
    /// An earlier failure closed the file.
    Closed,
    Kind(Kind),
    Storage(StorageError),
}

impl Failure {
    pub(super) fn at(self, path: &Path) -> StoreError {
        let kind = match self {
            Failure::Open(error) => Kind::Open(error),
            Failure::Closed => closed(),
            Failure::Kind(kind) => kind,
            Failure::Storage(error) => storage(error),
        };
        StoreError {
            path: path.to_owned(),
            kind,
        }
    }
}

fn closed() -> Kind {
    Kind::Io(io::Error::other("an earlier write failed"))
}

fn storage(error: StorageError) -> Kind {
    match error {
        // The library's word for a file that is not its own.
        StorageError::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Kind::Damaged(plain(&error))
        }
        StorageError::Io(error) => Kind::Io(error),
        StorageError::PreviousIo | StorageError::DatabaseClosed => closed(),
        StorageError::Corrupted(why) => Kind::Damaged(why),
        other => Kind::Io(io::Error::other(other.to_string())),
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Failure::Storage(error)
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                Failure::Kind(Kind::InUse)
            }
            DatabaseError::Storage(error) => Failure::Storage(error),
            other => Failure::Kind(Kind::Damaged(other.to_string())),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => Failure::Storage(error),
            other => Failure::Kind(Kind::Damaged(other.to_string())),
        }
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => Failure::Storage(error),
            other => Failure::Kind(Kind::Io(io::Error::other(other.to_string()))),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => Failure::Storage(error),
            other => Failure::Kind(Kind::Io(io::Error::other(other.to_string()))),
        }
    }
}
