//! What a scan reads of the file system: the listing of a folder, and files whole.
//!
//! Guarantees: nothing but regular files (also through links) is opened, at most [`MAX_FILE`] bytes
//! of each are read, and no read waits.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::words;

/// Largest manifest file, in bytes.
pub(crate) const MAX_FILE: u64 = 16 << 20;
/// Tells a folder from another of the same name. Inode numbers are used again at once, so the time
/// of birth belongs to it, on file systems that know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    inode: (u64, u64),
    born: Option<SystemTime>,
}

impl From<&Metadata> for Identity {
    fn from(meta: &Metadata) -> Self {
        Self {
            inode: (meta.dev(), meta.ino()),
            born: meta.created().ok(),
        }
    }
}

/// Two equal fingerprints mean the same content, as far as time stamps can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    inode: (u64, u64),
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Fingerprint {
    fn from(meta: &Metadata) -> Self {
        Self {
            inode: (meta.dev(), meta.ino()),
            size: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What the file has now; `None` when that cannot be told.
pub(super) fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Fingerprint::from(&meta))
}

/// The link that mounted ConfigMaps and Secrets swap to replace all their files at once
/// (k8s.io/kubernetes pkg/volume/util/atomic_writer.go).
const SWAPPED: &str = "..data";

/// Where the files of a mounted ConfigMap are now; `None` in other folders.
pub(super) fn mounted(folder: &Path) -> Option<PathBuf> {
    std::fs::read_link(folder.join(SWAPPED)).ok()
}

/// What a folder holds.
pub(crate) struct Listed {
    pub(crate) identity: Identity,
    pub(crate) manifests: BTreeSet<OsString>,
    pub(crate) subfolders: BTreeSet<OsString>,
}

pub(crate) fn list(folder: &Path) -> io::Result<Listed> {
    let meta = std::fs::metadata(folder)?;
    let mut listed = Listed {
        identity: Identity::from(&meta),
        manifests: BTreeSet::new(),
        subfolders: BTreeSet::new(),
    };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_manifest(&name) {
            listed.manifests.insert(name);
        } else if !name.as_encoded_bytes().starts_with(b".")
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            listed.subfolders.insert(name);
        }
    }
    Ok(listed)
}

/// Whether a file of this name is a manifest and not an editor's: `.web.yaml.swp`, `web.yaml~`,
/// `#web.yaml#`, `web.yaml.tmp` and all dotfiles are not.
pub(crate) fn is_manifest(name: &OsStr) -> bool {
    let hidden = matches!(name.as_encoded_bytes().first(), Some(b'.' | b'#') | None);
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    let ours = |extension: &str| {
        let known = ["yaml", "yml", "json"];
        known.iter().any(|e| extension.eq_ignore_ascii_case(e))
    };
    !hidden && extension.is_some_and(ours)
}

/// A file as it was read.
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// What it had before it was read.
    pub(crate) fingerprint: Fingerprint,
    /// Whether it changed meanwhile.
    pub(crate) moved: bool,
}

pub(crate) fn read(path: &Path) -> Result<Content, String> {
    let cannot = |error: io::Error| format!("cannot be read: {}", words::plain(&error));
    // Opening alone does things to some devices, so this looks first.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let (mut file, meta) = open(path).map_err(cannot)?;
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    if meta.len() <= MAX_FILE {
        let mut limited = (&mut file).take(MAX_FILE + 1);
        limited.read_to_end(&mut bytes).map_err(cannot)?;
    }
    if meta.len().max(bytes.len() as u64) > MAX_FILE {
        let limit = MAX_FILE >> 20;
        return Err(format!("is over the limit of {limit} MiB for a manifest"));
    }
    let fingerprint = Fingerprint::from(&meta);
    let after = Fingerprint::from(&file.metadata().map_err(cannot)?);
    Ok(Content {
        bytes,
        fingerprint,
        moved: after != fingerprint,
    })
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // It may have become a named pipe meanwhile, which would hold the scan without NONBLOCK.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let meta = file.metadata()?;
    Ok((file, meta))
}
