//! Files that are read at the same time, many of them on all cores.
//!
//! Guarantees: what was read stands in the order in which the files were added; a batch is full
//! when its files have [`ENOUGH`] bytes, so that memory for reading does not grow with the folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::files::{self, Fingerprint};
use super::manifest::{self, Manifest};
use crate::parallel;

/// Bytes of files that are read at the same time.
const ENOUGH: u64 = 1 << 20;
/// Bytes up to which one core reads them all: files that change from time to time leave the other
/// cores to those who answer and forward meanwhile.
const FEW: u64 = 1 << 17;

/// Files that are to be read.
#[derive(Debug, Default)]
pub(super) struct Batch<'n> {
    files: Vec<(&'n OsString, PathBuf)>,
    size: u64,
}

impl<'n> Batch<'n> {
    /// Adds the file of this name, of about `size` bytes.
    pub(super) fn add(&mut self, name: &'n OsString, path: PathBuf, size: u64) {
        self.files.push((name, path));
        self.size += size;
    }

    pub(super) fn is_full(&self) -> bool {
        self.size >= ENOUGH
    }

    /// Reads the files.
    pub(super) fn read(self) -> impl Iterator<Item = (&'n OsString, Reading)> {
        let read = |(_, path): &(_, PathBuf)| Reading::of(path);
        let readings = match self.size <= FEW {
            true => self.files.iter().map(read).collect(),
            false => parallel::map(&self.files, read),
        };
        let names = self.files.into_iter().map(|(name, _)| name);
        names.zip(readings)
    }
}

/// What was read of a file.
#[derive(Debug)]
pub(super) struct Reading {
    /// The file, as problems name it.
    pub(super) file: String,
    pub(super) state: State,
}

/// How a file was found.
#[derive(Debug)]
pub(super) enum State {
    /// Readable.
    Read {
        manifest: Manifest,
        fingerprint: Fingerprint,
        /// Whether it changed while it was read.
        moved: bool,
    },
    /// Removed since the folder was listed.
    Gone,
    /// There, and why it cannot be read.
    Unreadable(String),
}

impl Reading {
    fn of(path: &Path) -> Self {
        let file = path.display().to_string();
        let state = match files::read(path) {
            Ok(content) => State::Read {
                manifest: manifest::read(&file, &content.bytes),
                fingerprint: content.fingerprint,
                moved: content.moved,
            },
            Err(_) if path.symlink_metadata().is_err() => State::Gone,
            Err(reason) => State::Unreadable(reason),
        };
        Self { file, state }
    }
}
