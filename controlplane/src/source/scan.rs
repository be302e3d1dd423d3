//! Compares a folder with what was read of it before and tells the difference as events.
//!
//! Guarantees: what cannot be read or told apart keeps its objects; what would take objects away
//! must be found again after a while ([`LOSS`], [`EMPTY`]), so that a file which is just being
//! written, replaced or moved never does; a folder that was replaced takes nothing away before it
//! had time to be filled; the files of a mounted ConfigMap are told together, as they were swapped; a
//! file is read only when it changed. It does not watch and does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_conf::message::controlplane::Problem;
use tracing::info;

use super::Event;
use super::files::{self, Fingerprint, Identity, is_manifest};
use super::manifest::{self, Manifest};
use crate::object::ObjectId;
use crate::words;

/// How long a file must be missing, without an object that it had, or without sense, before that is
/// believed: some tools delete a file and write it anew, and a long file is written in pieces.
pub(crate) const LOSS: Duration = Duration::from_millis(300);
/// How long a file must be empty: a file that is written anew is empty first, on ext4 under load for
/// a tenth of a second, and nobody empties a manifest on purpose and in a hurry.
pub(crate) const EMPTY: Duration = Duration::from_secs(1);
/// How long a folder that took the place of another may take to be filled.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// Torn scans in a row after which a state is told all the same, so that a ConfigMap which is
/// replaced all the time cannot hold back everything.
const MAX_TORN: u8 = 5;

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

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What leads from the last scan to what the folder holds now; empty when nothing changed.
    pub(crate) events: Vec<Event>,
    /// Whether the folder itself could be read.
    pub(crate) readable: bool,
    /// Whether all files were replaced at once meanwhile: what was found is partly the old state and
    /// partly the new one, and only the next scan makes it whole.
    pub(crate) torn: bool,
    /// When something doubtful is worth another look.
    pub(crate) again: Option<Duration>,
}

/// What is known of a folder.
#[derive(Debug)]
pub(crate) struct Scanner {
    folder: PathBuf,
    /// The folder that the files were found in.
    identity: Option<Identity>,
    files: BTreeMap<OsString, Known>,
    /// Subfolders that were named in the log.
    subfolders: BTreeSet<OsString>,
    /// What is wrong with the folder.
    failure: Option<String>,
    /// Until when a folder that was replaced takes nothing away.
    settled: Duration,
    /// Torn scans in a row.
    torn: u8,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` when the last attempt to read failed or is in doubt: the next scan tries again.
    fingerprint: Option<Fingerprint>,
    objects: BTreeSet<ObjectId>,
    problems: Vec<Problem>,
    notes: Vec<String>,
    doubt: Option<Doubt>,
}

/// A state of a file that would take objects away.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    /// `None` when the file is missing.
    state: Option<Fingerprint>,
    since: Duration,
}

impl Doubt {
    /// When the loss is believed, in a folder that is `settled` then.
    fn sure_at(&self, settled: Duration) -> Duration {
        match self.state {
            None => (self.since + LOSS).max(settled),
            Some(Fingerprint { size: 0, .. }) => self.since + EMPTY,
            Some(_) => self.since + LOSS,
        }
    }
}

impl Scanner {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            identity: None,
            files: BTreeMap::new(),
            subfolders: BTreeSet::new(),
            failure: None,
            settled: Duration::ZERO,
            torn: 0,
        }
    }

    /// Compares the folder with the last scan; `now` is any clock that never goes backwards.
    pub(crate) fn scan(&mut self, hints: &Hints, now: Duration) -> Found {
        let mut found = Found::default();
        let mounted = files::mounted(&self.folder);
        if hints.only && self.failure.is_none() && self.folder.is_dir() {
            found.readable = true;
            self.scan_written(hints, now, &mut found);
        } else {
            self.scan_all(hints, now, &mut found);
        }
        let torn = files::mounted(&self.folder) != mounted && self.torn < MAX_TORN;
        self.torn = if torn { self.torn + 1 } else { 0 };
        found.torn = torn;
        let doubts = self.files.values().filter_map(|known| known.doubt);
        // A doubt that is due and still there belongs to a file that somebody is writing; its
        // closing leads to a scan.
        let due = doubts.map(|doubt| doubt.sure_at(self.settled));
        found.again = due.filter(|due| *due > now).min();
        found
    }

    fn scan_all(&mut self, hints: &Hints, now: Duration, found: &mut Found) {
        let listed = match files::list(&self.folder) {
            Ok(listed) => listed,
            Err(error) => {
                let why = words::plain(&error);
                let message = format!("cannot be read: {why}; what it held stays in use");
                return self.fail(message, found);
            }
        };
        if self.identity != Some(listed.identity) {
            let had_files = !self.files.is_empty();
            if had_files && listed.manifests.is_empty() {
                // A mount that is gone looks the same as a folder that was emptied on purpose.
                let message = "is another folder than before and holds no manifest; what the \
                               other held stays in use until this one holds a manifest";
                return self.fail(message.to_owned(), found);
            }
            self.identity = Some(listed.identity);
            if had_files {
                self.settled = now + SETTLE;
            }
        }
        found.readable = true;
        if self.failure.take().is_some() {
            found.events.push(self.folder_report());
        }
        self.note_subfolders(listed.subfolders);
        for name in &listed.manifests {
            if !hints.open.contains(name) {
                self.visit(name, hints.written.contains(name), now, &mut found.events);
            }
        }
        // Losses come last, so that an object that moved to another file is never away.
        let missing = |name: &OsString| !listed.manifests.contains(name);
        self.forget(missing, now, &mut found.events);
    }

    fn scan_written(&mut self, hints: &Hints, now: Duration, found: &mut Found) {
        let mut missing = BTreeSet::new();
        for name in hints.written.iter().filter(|name| is_manifest(name)) {
            match self.folder.join(name).symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.insert(name);
                }
                _ => self.visit(name, true, now, &mut found.events),
            }
        }
        if !missing.is_empty() {
            self.forget(|name| missing.contains(name), now, &mut found.events);
        }
    }

    fn fail(&mut self, message: String, found: &mut Found) {
        if self.failure.as_ref() != Some(&message) {
            self.failure = Some(message);
            found.events.push(self.folder_report());
        }
    }

    fn note_subfolders(&mut self, subfolders: BTreeSet<OsString>) {
        for name in subfolders.difference(&self.subfolders) {
            let path = self.folder.join(name);
            info!("{} is a subfolder and is not read", path.display());
        }
        self.subfolders = subfolders;
    }

    fn folder_report(&self) -> Event {
        let file = self.folder.display().to_string();
        let problem = self.failure.clone().map(|message| Problem {
            file: file.clone(),
            line: None,
            object: None,
            field: None,
            message,
        });
        Event::Report {
            file,
            problems: problem.into_iter().collect(),
        }
    }

    fn visit(&mut self, name: &OsStr, written: bool, now: Duration, events: &mut Vec<Event>) {
        let path = self.folder.join(name);
        let file = path.display().to_string();
        if now < self.settled && !self.files.contains_key(name) {
            self.settled = now + SETTLE;
        }
        let settled = self.settled;
        let known = self.files.entry(name.to_owned()).or_default();
        if !written && known.is_unchanged(&path) {
            return;
        }
        let content = match files::read(&path) {
            Ok(content) => content,
            // Removed since the folder was listed: the next scan does not find it any more.
            Err(_) if path.symlink_metadata().is_err() => return,
            Err(reason) => return known.fail(&file, reason, events),
        };
        let manifest = manifest::read(&file, &content.bytes);
        let lost = known.lost(&manifest);
        if content.moved || !lost.is_empty() {
            let doubt = known.doubt(Some(content.fingerprint), now);
            if now < doubt.sure_at(settled) {
                // Half a document tells nothing of its objects.
                if doubt.since == now && manifest.complete {
                    events.extend(doubts(&file, lost));
                }
                return;
            }
        }
        known.doubt = None;
        known.fingerprint = Some(content.fingerprint);
        known.update(&file, manifest, lost, events);
    }

    fn forget(&mut self, gone: impl Fn(&OsString) -> bool, now: Duration, events: &mut Vec<Event>) {
        let (folder, settled) = (&self.folder, self.settled);
        self.files.retain(|name, known| {
            if !gone(name) {
                return true;
            }
            let file = folder.join(name).display().to_string();
            if !known.objects.is_empty() {
                let doubt = known.doubt(None, now);
                if now < doubt.sure_at(settled) {
                    if doubt.since == now {
                        events.extend(doubts(&file, known.objects.iter().cloned()));
                    }
                    return true;
                }
            }
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

    /// Objects that the file had and that are not in `manifest`.
    fn lost(&self, manifest: &Manifest) -> Vec<ObjectId> {
        let listed: BTreeSet<&ObjectId> = manifest.objects.iter().map(|found| &found.id).collect();
        let lost = self.objects.iter().filter(|id| !listed.contains(id));
        lost.cloned().collect()
    }

    /// Since when the file is in this state, which would take objects away.
    fn doubt(&mut self, state: Option<Fingerprint>, now: Duration) -> Doubt {
        self.fingerprint = None;
        let new = Doubt { state, since: now };
        let same = self.doubt.filter(|doubt| doubt.state == state);
        *self.doubt.insert(same.unwrap_or(new))
    }

    fn update(
        &mut self,
        file: &str,
        manifest: Manifest,
        lost: Vec<ObjectId>,
        events: &mut Vec<Event>,
    ) {
        for note in &manifest.notes {
            if !self.notes.contains(note) {
                info!("{note}");
            }
        }
        self.notes = manifest.notes;
        let mut objects = BTreeSet::new();
        for found in manifest.objects {
            objects.insert(found.id.clone());
            events.push(Event::from(found));
        }
        let mut problems = manifest.problems;
        if manifest.complete {
            let file = file.to_owned();
            events.extend(lost.into_iter().map(|id| Event::Delete {
                id,
                file: file.clone(),
            }));
            self.objects = objects;
        } else {
            let unreadable = problems.iter_mut().filter(|p| p.object.is_none());
            unreadable.for_each(|problem| problem.message.push_str(kept(lost.len())));
            events.extend(doubts(file, lost));
            self.objects.append(&mut objects);
        }
        self.report(file, problems, events);
    }

    fn fail(&mut self, file: &str, reason: String, events: &mut Vec<Event>) {
        self.fingerprint = None;
        self.doubt = None;
        let kept = kept(self.objects.len());
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

fn doubts(file: &str, objects: impl IntoIterator<Item = ObjectId>) -> impl Iterator<Item = Event> {
    objects.into_iter().map(move |id| Event::Doubt {
        id,
        file: file.to_owned(),
    })
}

/// How a problem of a file ends that may still hold so many objects.
fn kept(objects: usize) -> &'static str {
    match objects {
        0 => "",
        _ => "; what it held stays in use",
    }
}

#[cfg(test)]
mod tests;
