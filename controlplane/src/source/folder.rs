//! Watches a folder of manifests and reports every change as events.
//!
//! Guarantees: a file that was written to its end or renamed into place is reported at once; if
//! others were just before it, they are collected and reported 10 to 40 ms later (what takes objects
//! away later than that, see `scan`); a file that is being
//! written is left alone until its writer closes it, one that is written again and again is read
//! every 100 ms all the same; when the kernel's notices fail, a scan every two seconds finds the
//! change. A folder that vanishes is one problem and takes nothing away. Subfolders are not read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::files::{Identity, is_manifest};
use super::scan::{Found, Hints, Scanner};
use super::{Event, Source};
use crate::clock::Clock;
use crate::words;

/// How long notices are collected after the last one.
const QUIET: Duration = Duration::from_millis(10);
/// How long notices are collected at most: a stream of them cannot hold back a change, and what is
/// collected meanwhile keeps no core for long.
const COLLECT: Duration = Duration::from_millis(20);
/// How long a file that is written again and again is left alone at most.
const HOLD: Duration = Duration::from_millis(100);
/// How long a writer that does not close its file is waited for.
const WRITER: Duration = Duration::from_secs(1);
/// Time between scans that look at every file.
const RESCAN: Duration = Duration::from_secs(2);
/// The same while the folder cannot be read or watched.
const RETRY: Duration = Duration::from_millis(200);

/// Notices that wait for the scanning thread at most, so that writers who are faster than it cost no
/// memory. What does not fit is made up for by a scan of everything.
const MAX_NOTICES: usize = 4096;

/// Why a folder cannot be served from the start.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be listed.
    #[error("manifests.folder {}: cannot be read: {}", folder.display(), words::plain(source))]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start a thread: {}", words::plain(.0))]
    Thread(std::io::Error),
}

/// Starts a thread that reads `folder` and goes on until the receiver of `events` is gone.
///
/// # Errors
/// The folder cannot be listed; later it may vanish and come back.
pub fn watch(
    folder: PathBuf,
    events: mpsc::Sender<Event>,
    clock: Clock,
) -> Result<JoinHandle<()>, FolderError> {
    std::fs::read_dir(&folder).map_err(|source| FolderError::Unreadable {
        folder: folder.clone(),
        source,
    })?;
    std::thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || Folder::new(folder, clock).run(&events))
        .map_err(FolderError::Thread)
}

struct Folder {
    path: PathBuf,
    clock: Clock,
    scanner: Scanner,
    watcher: Option<Watching>,
    notices: Receiver<notify::Result<notify::Event>>,
    noticing: Noticing,
    pending: Pending,
    watch_failed: bool,
    /// When every file is looked at again.
    rescan: Duration,
}

/// Where the watch puts its notices.
#[derive(Clone)]
struct Noticing {
    sender: SyncSender<notify::Result<notify::Event>>,
    /// Whether one did not fit.
    lost: Arc<AtomicBool>,
}

/// A watch holds on to the folder that it was made for, not to its name.
struct Watching {
    identity: Identity,
    _watcher: RecommendedWatcher,
}

impl Folder {
    fn new(path: PathBuf, clock: Clock) -> Self {
        let (sender, notices) = sync_channel(MAX_NOTICES);
        let lost = Arc::default();
        Self {
            scanner: Scanner::new(path.clone()),
            path,
            clock,
            watcher: None,
            notices,
            noticing: Noticing { sender, lost },
            pending: Pending::default(),
            watch_failed: false,
            rescan: Duration::ZERO,
        }
    }

    fn run(mut self, events: &mpsc::Sender<Event>) {
        let mut readable_once = false;
        // Whether something was told that is not a state yet.
        let mut owed = false;
        while !events.is_closed() {
            self.keep_watching();
            let start = self.clock.now();
            let mut hints = self.pending.take(start);
            let full = start >= self.rescan || !hints.only;
            hints.only = !full;
            let mut listener = Listener {
                events,
                told: 0,
                gone: false,
            };
            let Found {
                readable,
                torn,
                again,
            } = (self.scanner).scan(&hints, start, &mut |event| listener.tell(event));
            let changes = listener.told;
            if changes > 0 {
                let took = self.clock.now().saturating_sub(start);
                debug!("{changes} changes in the folder, found and told in {took:?}");
            }
            // The first state of a folder is told even when it is empty, so that the control
            // plane can tell "nothing" from "not yet".
            owed |= changes > 0 || (readable && !readable_once);
            readable_once |= readable;
            if owed && !torn && readable_once {
                listener.tell(Event::Synced {
                    source: Source::Folder,
                });
            }
            owed &= torn;
            if listener.gone {
                return;
            }
            if full || !readable {
                let healthy = readable && self.watcher.is_some();
                self.rescan = self.clock.now() + if healthy { RESCAN } else { RETRY };
            }
            self.rescan = again.map_or(self.rescan, |again| again.min(self.rescan));
            if torn {
                self.rescan = Duration::ZERO;
            } else {
                self.wait(self.rescan);
            }
        }
    }

    /// Makes the watch anew when the name leads to another folder than before.
    fn keep_watching(&mut self) {
        let identity = std::fs::metadata(&self.path)
            .ok()
            .map(|meta| Identity::from(&meta));
        if identity == self.watcher.as_ref().map(|w| w.identity) {
            return;
        }
        self.watcher = None;
        self.rescan = Duration::ZERO;
        let Some(identity) = identity else { return };
        match start_watcher(&self.path, self.noticing.clone()) {
            Ok(watcher) => {
                debug!("watching {}", self.path.display());
                self.watch_failed = false;
                self.watcher = Some(Watching {
                    identity,
                    _watcher: watcher,
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut self.watch_failed, true) {
                    let folder = self.path.display();
                    let why = words::plain(&error);
                    warn!("cannot watch {folder}, looking every {RETRY:?} instead: {why}");
                }
            }
        }
    }

    /// Waits until a change is worth a scan, at most until `end`.
    fn wait(&mut self, end: Duration) {
        loop {
            let now = self.clock.now();
            // A file that was opened again since it was closed is not read.
            for notice in self.notices.try_iter() {
                self.pending.notice(now, notice);
            }
            if self.noticing.lost.swap(false, Ordering::Relaxed) {
                self.pending.lost(now);
            }
            let due = self.pending.due().map_or(end, |due| due.min(end));
            if now >= due {
                return;
            }
            match self.notices.recv_timeout(due - now) {
                Ok(notice) => self.pending.notice(self.clock.now(), notice),
                Err(RecvTimeoutError::Timeout) => {}
                // Cannot happen while `self.noticing` lives; waiting keeps the thread from spinning.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(due - now),
            }
        }
    }
}

/// Who hears of changes.
struct Listener<'a> {
    events: &'a mpsc::Sender<Event>,
    told: usize,
    gone: bool,
}

impl Listener<'_> {
    fn tell(&mut self, event: Event) {
        self.told += 1;
        self.gone = self.gone || self.events.blocking_send(event).is_err();
    }
}

fn start_watcher(folder: &Path, noticing: Noticing) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |notice| {
        // The receiver is gone only when the thread ends.
        if let Err(TrySendError::Full(_)) = noticing.sender.try_send(notice) {
            noticing.lost.store(true, Ordering::Relaxed);
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Notices that wait for a scan. Pure: time is an argument.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeMap<OsString, Noticed>,
    first: Option<Duration>,
    last: Duration,
    /// Until when a finished file is one of many.
    busy: Duration,
    /// Something changed that cannot be told by file names.
    elsewhere: bool,
}

#[derive(Debug, Clone, Copy)]
struct Noticed {
    first: Duration,
    at: Duration,
    state: FileState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// Written into and not closed since.
    Open,
    /// Changed, and maybe not for the last time.
    Changed,
    /// Closed by its writer or renamed into place, the only one for a while.
    Finished,
}

impl Noticed {
    /// When the file is worth reading.
    fn due(&self) -> Duration {
        match self.state {
            FileState::Open => self.at + WRITER,
            FileState::Changed => (self.at + QUIET).min(self.first + HOLD),
            FileState::Finished => self.at,
        }
    }
}

impl Pending {
    fn notice(&mut self, now: Duration, notice: notify::Result<notify::Event>) {
        let Ok(event) = notice else {
            return self.lost(now);
        };
        let said = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => FileState::Finished,
            // Our own reading makes these.
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => FileState::Open,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => FileState::Finished,
            // Each of the two names had a notice of its own.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            _ => FileState::Changed,
        };
        let unknown = event.need_rescan() || event.paths.is_empty();
        self.elsewhere |= unknown;
        let mut collect = unknown;
        for name in event.paths.iter().filter_map(|path| path.file_name()) {
            if !is_hidden(name) {
                collect |= self.notice_file(now, name, said) == FileState::Changed;
            }
        }
        if collect {
            self.touch(now);
        }
    }

    /// Takes note that something changed of which no notice came.
    fn lost(&mut self, now: Duration) {
        self.elsewhere = true;
        self.touch(now);
    }

    /// Takes note of a file and returns what it is taken for: one that follows another closely is
    /// collected with it.
    fn notice_file(&mut self, now: Duration, name: &OsStr, said: FileState) -> FileState {
        let is_ours = is_manifest(name);
        self.elsewhere |= !is_ours;
        let finished = said == FileState::Finished;
        let state = match finished && (!is_ours || now < self.busy) {
            true => FileState::Changed,
            false => said,
        };
        if finished && is_ours {
            self.busy = now + QUIET;
        }
        let known = self.files.get(name);
        let first = known.map_or(now, |noticed| noticed.first);
        let at = now;
        self.files
            .insert(name.to_owned(), Noticed { first, at, state });
        state
    }

    fn touch(&mut self, now: Duration) {
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// Until when notices are collected.
    fn collected(&self) -> Option<Duration> {
        self.first
            .map(|first| (self.last + QUIET).min(first + COLLECT))
    }

    /// When the next scan is worth it.
    fn due(&self) -> Option<Duration> {
        // Files that have changed are collected together; those that are left over from a scan come
        // on their own.
        let due = |noticed: &Noticed| match noticed.state {
            FileState::Changed if self.first.is_some() => noticed.first + HOLD,
            _ => noticed.due(),
        };
        let files = self.files.values().map(due).min();
        self.collected().into_iter().chain(files).min()
    }

    /// What a scan at `now` should know; files that are being written stay pending.
    fn take(&mut self, now: Duration) -> Hints {
        let mut hints = Hints {
            only: true,
            ..Hints::default()
        };
        if self.collected().is_none_or(|due| now >= due) {
            hints.only = !std::mem::take(&mut self.elsewhere);
            self.first = None;
        }
        self.files.retain(|name, noticed| {
            let writing = now < noticed.due();
            let names = match writing {
                true => &mut hints.open,
                false => &mut hints.written,
            };
            names.insert(name.clone());
            writing
        });
        hints
    }
}

/// Files that editors and renames leave behind. Names with two dots are the links that mounted
/// ConfigMaps swap, and mean that everything changed.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && !name.starts_with(b"..")
}

#[cfg(test)]
mod tests;
