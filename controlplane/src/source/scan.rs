//! Compares a folder with what was read of it before and tells the difference as events.
//!
//! Guarantees: what cannot be read or told apart keeps its objects; what would take objects away
//! must be found again after a while ([`LOSS`], [`EMPTY`]), so that a file which is just being
//! written, replaced or moved never does; a folder that was replaced takes nothing away before it
//! had time to be filled; the files of a mounted ConfigMap are told together, as they were swapped; a
//! file is read only when it changed. It does not watch and does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sluice_conf::message::controlplane::Problem;
use tracing::info;

use super::Event;
use super::batch::{Batch, Reading, State};
use super::files::{self, Fingerprint, Identity, fingerprint, is_manifest};
use super::manifest::Manifest;
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

/// Takes what leads from the last scan to what the folder holds now.
type Tell<'a> = &'a mut dyn FnMut(Event);

/// What a scan found beside events.
#[derive(Debug, Default)]
pub(crate) struct Found {
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

    /// Compares the folder with the last scan and tells the difference as it is found; `now` is any
    /// clock that never goes backwards.
    pub(crate) fn scan(&mut self, hints: &Hints, now: Duration, tell: Tell<'_>) -> Found {
        let mut found = Found::default();
        let mounted = files::mounted(&self.folder);
        if hints.only && self.failure.is_none() && self.folder.is_dir() {
            found.readable = true;
            self.scan_written(hints, now, tell);
        } else {
            found.readable = self.scan_all(hints, now, tell);
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

    /// Returns whether the folder can be read.
    fn scan_all(&mut self, hints: &Hints, now: Duration, tell: Tell<'_>) -> bool {
        let listed = match files::list(&self.folder) {
            Ok(listed) => listed,
            Err(error) => {
                let why = words::plain(&error);
                let message = format!("cannot be read: {why}; what it held stays in use");
                self.fail(message, tell);
                return false;
            }
        };
        if self.identity != Some(listed.identity) {
            let had_files = !self.files.is_empty();
            if had_files && listed.manifests.is_empty() {
                // A mount that is gone looks the same as a folder that was emptied on purpose.
                let message = "is another folder than before and holds no manifest; what the \
                               other held stays in use until this one holds a manifest";
                self.fail(message.to_owned(), tell);
                return false;
            }
            self.identity = Some(listed.identity);
            if had_files {
                self.settled = now + SETTLE;
            }
        }
        if self.failure.take().is_some() {
            tell(self.folder_report());
        }
        self.note_subfolders(listed.subfolders);
        let closed = listed.manifests.iter();
        let closed = closed.filter(|name| !hints.open.contains(*name));
        self.visit(closed, &hints.written, now, tell);
        // Losses come last, so that an object that moved to another file is never away.
        let missing = |name: &OsString| !listed.manifests.contains(name);
        self.forget(missing, now, tell);
        true
    }

    fn scan_written(&mut self, hints: &Hints, now: Duration, tell: Tell<'_>) {
        let is_missing = |name: &&OsString| match self.folder.join(name).symlink_metadata() {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(_) => false,
        };
        let written = hints.written.iter().filter(|name| is_manifest(name));
        let (missing, there): (BTreeSet<_>, BTreeSet<_>) = written.partition(is_missing);
        self.visit(there, &hints.written, now, tell);
        if !missing.is_empty() {
            self.forget(|name| missing.contains(name), now, tell);
        }
    }

    fn fail(&mut self, message: String, tell: Tell<'_>) {
        if self.failure.as_ref() != Some(&message) {
            self.failure = Some(message);
            tell(self.folder_report());
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

    /// Reads those of the files that were `written` or look changed, many at a time.
    fn visit<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n OsString>,
        written: &BTreeSet<OsString>,
        now: Duration,
        tell: Tell<'_>,
    ) {
        let mut batch = Batch::default();
        for name in names {
            if now < self.settled && !self.files.contains_key(name) {
                self.settled = now + SETTLE;
            }
            let path = self.folder.join(name);
            let fingerprint = fingerprint(&path);
            let known = self.files.entry(name.clone()).or_default();
            if !written.contains(name) && known.is_unchanged(fingerprint) {
                continue;
            }
            let size = fingerprint.map_or(0, |fingerprint| fingerprint.size);
            batch.add(name, path, size);
            if batch.is_full() {
                self.take_in(std::mem::take(&mut batch), now, tell);
            }
        }
        self.take_in(batch, now, tell);
    }

    fn take_in(&mut self, batch: Batch<'_>, now: Duration, tell: Tell<'_>) {
        let settled = self.settled;
        for (name, reading) in batch.read() {
            let known = self.files.entry(name.clone()).or_default();
            known.take_in(reading, settled, now, tell);
        }
    }

    fn forget(&mut self, gone: impl Fn(&OsString) -> bool, now: Duration, tell: Tell<'_>) {
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
                        doubts(&file, known.objects.iter().cloned()).for_each(&mut *tell);
                    }
                    return true;
                }
            }
            for id in std::mem::take(&mut known.objects) {
                let file = file.clone();
                tell(Event::Delete { id, file });
            }
            let problems = Vec::new();
            tell(Event::Report { file, problems });
            false
        });
    }
}

impl Known {
    fn is_unchanged(&self, fingerprint: Option<Fingerprint>) -> bool {
        self.fingerprint.is_some() && self.fingerprint == fingerprint
    }

    fn take_in(&mut self, reading: Reading, settled: Duration, now: Duration, tell: Tell<'_>) {
        let Reading { file, state } = reading;
        let (manifest, fingerprint, moved) = match state {
            State::Read {
                manifest,
                fingerprint,
                moved,
            } => (manifest, fingerprint, moved),
            State::Gone => return,
            State::Unreadable(reason) => return self.fail(&file, reason, tell),
        };
        let lost = self.lost(&manifest);
        if moved || !lost.is_empty() {
            let doubt = self.doubt(Some(fingerprint), now);
            if now < doubt.sure_at(settled) {
                // Half a document tells nothing of its objects.
                if doubt.since == now && manifest.complete {
                    doubts(&file, lost).for_each(tell);
                }
                return;
            }
        }
        self.doubt = None;
        self.fingerprint = Some(fingerprint);
        self.update(&file, manifest, lost, tell);
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

    fn update(&mut self, file: &str, manifest: Manifest, lost: Vec<ObjectId>, tell: Tell<'_>) {
        for note in &manifest.notes {
            if !self.notes.contains(note) {
                info!("{note}");
            }
        }
        self.notes = manifest.notes;
        let mut objects = BTreeSet::new();
        for found in manifest.objects {
            objects.insert(found.id.clone());
            tell(Event::from(found));
        }
        let mut problems = manifest.problems;
        if manifest.complete {
            let file = file.to_owned();
            let delete = |id| Event::Delete {
                id,
                file: file.clone(),
            };
            lost.into_iter().map(delete).for_each(&mut *tell);
            self.objects = objects;
        } else {
            let unreadable = problems.iter_mut().filter(|p| p.object.is_none());
            unreadable.for_each(|problem| problem.message.push_str(kept(lost.len())));
            doubts(file, lost).for_each(&mut *tell);
            self.objects.append(&mut objects);
        }
        self.report(file, problems, tell);
    }

    fn fail(&mut self, file: &str, reason: String, tell: Tell<'_>) {
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
            self.report(file, vec![problem], tell);
        }
    }

    fn report(&mut self, file: &str, problems: Vec<Problem>, tell: Tell<'_>) {
        self.problems.clone_from(&problems);
        tell(Event::Report {
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
