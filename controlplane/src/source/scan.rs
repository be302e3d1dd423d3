//! Compares a folder with what was read of it before and tells the difference as events.
//!
//! Guarantees: what cannot be read or told apart keeps its objects; a file is read only when it
//! changed; nothing but regular files (also through links) is opened for reading, at most
//! [`MAX_FILE`] bytes of each. It does not watch and does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sluice_conf::message::controlplane::Problem;
use tracing::info;

use super::Event;
use super::manifest::{self, Manifest};
use crate::object::ObjectId;

/// Largest manifest file, in bytes.
pub(crate) const MAX_FILE: u64 = 16 << 20;

/// Which files a scan treats specially.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Nothing but `written` has changed: the other files need no look.
    pub(crate) only: bool,
    /// Written to the end: read them whatever their time stamps say.
    pub(crate) written: BTreeSet<OsString>,
    /// Being written: leave them for later.
    pub(crate) open: BTreeSet<OsString>,
}

/// What is known of a folder.
#[derive(Debug)]
pub(crate) struct Scanner {
    folder: PathBuf,
    files: BTreeMap<OsString, Known>,
    folder_failed: bool,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` when the last attempt to read failed: the next scan tries again.
    fingerprint: Option<Fingerprint>,
    objects: BTreeSet<ObjectId>,
    problems: Vec<Problem>,
    notes: Vec<String>,
    found_empty: Option<Fingerprint>,
}

/// Two equal fingerprints mean the same content, as far as time stamps can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    inode: (u64, u64),
    size: u64,
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

impl Scanner {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            files: BTreeMap::new(),
            folder_failed: false,
        }
    }

    /// Events that lead from the last scan to what the folder holds now; empty when nothing
    /// changed. Whether the folder itself could be read is the second value.
    pub(crate) fn scan(&mut self, hints: &Hints) -> (Vec<Event>, bool) {
        let mut events = Vec::new();
        if hints.only && !self.folder_failed && self.folder.is_dir() {
            self.scan_written(hints, &mut events);
            return (events, true);
        }
        let names = match list(&self.folder) {
            Ok(names) => names,
            Err(error) => {
                if !self.folder_failed {
                    let message = format!("cannot be read ({error}); what it held stays in use");
                    events.push(self.folder_report(Some(message)));
                }
                self.folder_failed = true;
                return (events, false);
            }
        };
        if std::mem::take(&mut self.folder_failed) {
            events.push(self.folder_report(None));
        }
        for name in &names {
            if !hints.open.contains(name) {
                self.visit(name, hints.written.contains(name), &mut events);
            }
        }
        // Deletions come last, so that an object that moved to another file is never away.
        self.forget(|name| !names.contains(name), &mut events);
        (events, true)
    }

    fn scan_written(&mut self, hints: &Hints, events: &mut Vec<Event>) {
        let mut missing = BTreeSet::new();
        for name in hints.written.iter().filter(|name| is_manifest(name)) {
            match self.folder.join(name).symlink_metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    missing.insert(name);
                }
                _ => self.visit(name, true, events),
            }
        }
        if !missing.is_empty() {
            self.forget(|name| missing.contains(name), events);
        }
    }

    fn folder_report(&self, message: Option<String>) -> Event {
        let file = self.folder.display().to_string();
        let problems = message.map(|message| Problem {
            file: file.clone(),
            line: None,
            object: None,
            field: None,
            message,
        });
        Event::Report {
            file,
            problems: problems.into_iter().collect(),
        }
    }

    fn visit(&mut self, name: &OsStr, written: bool, events: &mut Vec<Event>) {
        let path = self.folder.join(name);
        let file = path.display().to_string();
        let known = self.files.entry(name.to_owned()).or_default();
        if !written && known.is_unchanged(&path) {
            return;
        }
        match read(&path) {
            Ok((bytes, fingerprint)) => {
                if !written && known.is_just_emptied(fingerprint) {
                    return;
                }
                known.fingerprint = Some(fingerprint);
                known.update(&file, manifest::read(&file, &bytes), events);
            }
            // Removed since the folder was listed: the next scan does not find it any more.
            Err(_) if path.symlink_metadata().is_err() => {}
            Err(reason) => known.fail(&file, reason, events),
        }
    }

    fn forget(&mut self, gone: impl Fn(&OsString) -> bool, events: &mut Vec<Event>) {
        let folder = &self.folder;
        self.files.retain(|name, known| {
            if !gone(name) {
                return true;
            }
            let file = folder.join(name).display().to_string();
            for id in std::mem::take(&mut known.objects) {
                let file = file.clone();
                events.push(Event::Delete { id, file });
            }
            let problems = Vec::new();
            events.push(Event::Report { file, problems });
            false
        });
    }
}

impl Known {
    fn is_unchanged(&self, path: &Path) -> bool {
        let Some(known) = self.fingerprint else {
            return false;
        };
        std::fs::metadata(path).is_ok_and(|meta| Fingerprint::from(&meta) == known)
    }

    /// Whether a file that had objects is found empty for the first time: most likely somebody
    /// is just writing it, so it counts only when the next scan finds it so, too.
    fn is_just_emptied(&mut self, fingerprint: Fingerprint) -> bool {
        let first = fingerprint.size == 0
            && !self.objects.is_empty()
            && self.found_empty != Some(fingerprint);
        self.found_empty = first.then_some(fingerprint);
        first
    }

    fn update(&mut self, file: &str, manifest: Manifest, events: &mut Vec<Event>) {
        for note in &manifest.notes {
            if !self.notes.contains(note) {
                info!("{note}");
            }
        }
        self.notes = manifest.notes;
        let mut objects = BTreeSet::new();
        for found in manifest.objects {
            objects.insert(found.id.clone());
            if let Some(object) = found.object {
                events.push(Event::Apply {
                    id: found.id,
                    origin: found.origin,
                    object,
                    lines: found.lines,
                });
            }
        }
        if manifest.complete {
            for id in self.objects.difference(&objects) {
                events.push(Event::Delete {
                    id: id.clone(),
                    file: file.to_owned(),
                });
            }
            self.objects = objects;
        } else {
            self.objects.append(&mut objects);
        }
        self.report(file, manifest.problems, events);
    }

    fn fail(&mut self, file: &str, reason: String, events: &mut Vec<Event>) {
        self.fingerprint = None;
        let kept = match self.objects.len() {
            0 => "",
            _ => "; what it held stays in use",
        };
        let problem = Problem {
            file: file.to_owned(),
            line: None,
            object: None,
            field: None,
            message: format!("{reason}{kept}"),
        };
        if self.problems != [problem.clone()] {
            self.report(file, vec![problem], events);
        }
    }

    fn report(&mut self, file: &str, problems: Vec<Problem>, events: &mut Vec<Event>) {
        self.problems.clone_from(&problems);
        events.push(Event::Report {
            file: file.to_owned(),
            problems,
        });
    }
}

/// Names of the folder that are manifests.
fn list(folder: &Path) -> std::io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if is_manifest(&name) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Whether a file of this name is a manifest and not an editor's: `.web.yaml.swp`, `web.yaml~`,
/// `#web.yaml#`, `web.yaml.tmp` and all dotfiles are not.
pub(crate) fn is_manifest(name: &OsStr) -> bool {
    let hidden = matches!(name.as_encoded_bytes().first(), Some(b'.' | b'#') | None);
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// The content of a file and the fingerprint that it had before it was read.
fn read(path: &Path) -> Result<(Vec<u8>, Fingerprint), String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let (file, meta) = open(path).map_err(cannot)?;
    if !meta.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    if meta.len() <= MAX_FILE {
        let mut file = file.take(MAX_FILE + 1);
        file.read_to_end(&mut bytes).map_err(cannot)?;
    }
    if meta.len().max(bytes.len() as u64) > MAX_FILE {
        let limit = MAX_FILE >> 20;
        return Err(format!("is over the limit of {limit} MiB for a manifest"));
    }
    Ok((bytes, Fingerprint::from(&meta)))
}

fn open(path: &Path) -> std::io::Result<(File, Metadata)> {
    // Without NONBLOCK a named pipe would hold the scan until somebody writes to it.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let meta = file.metadata()?;
    Ok((file, meta))
}
