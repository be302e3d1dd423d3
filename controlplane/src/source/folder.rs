//! Watches a folder of manifests and reports every change as events.
//!
//! Guarantees: a file that was written to its end or renamed into place is reported about 10 ms
//! later (what takes objects away later than that, see `scan`); a file that is being
//! written is left alone until its writer closes it, one that is written again and again is read
//! every 100 ms all the same; when the kernel's notices fail, a scan every two seconds finds the
//! change. A folder that vanishes is one problem and takes nothing away. Subfolders are not read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Event;
use super::files::{Identity, is_manifest};
use super::scan::{Found, Hints, Scanner};
use crate::clock::Clock;
use crate::words;

/// How long notices are collected after the last one.
const QUIET: Duration = Duration::from_millis(10);
/// How long notices are collected at most, so that a stream of them cannot hold back a change.
const COLLECT: Duration = Duration::from_millis(40);
/// How long a file that is written again and again is left alone at most.
const HOLD: Duration = Duration::from_millis(100);
/// How long a writer that does not close its file is waited for.
const WRITER: Duration = Duration::from_secs(1);
/// Time between scans that look at every file.
const RESCAN: Duration = Duration::from_secs(2);
/// The same while the folder cannot be read or watched.
const RETRY: Duration = Duration::from_millis(200);

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
    sender: Sender<notify::Result<notify::Event>>,
    pending: Pending,
    watch_failed: bool,
    /// When every file is looked at again.
    rescan: Duration,
}

/// A watch holds on to the folder that it was made for, not to its name.
struct Watching {
    identity: Identity,
    _watcher: RecommendedWatcher,
}

impl Folder {
    fn new(path: PathBuf, clock: Clock) -> Self {
        let (sender, notices) = channel();
        Self {
            scanner: Scanner::new(path.clone()),
            path,
            clock,
            watcher: None,
            notices,
            sender,
            pending: Pending::default(),
            watch_failed: false,
            rescan: Duration::ZERO,
        }
    }

    fn run(mut self, events: &mpsc::Sender<Event>) {
        let mut readable_once = false;
        while !events.is_closed() {
            self.keep_watching();
            let start = self.clock.now();
            let mut hints = self.pending.take(start);
            let full = start >= self.rescan || !hints.only;
            hints.only = !full;
            let Found {
                events: changes,
                readable,
                again,
            } = self.scanner.scan(&hints, start);
            if !changes.is_empty() {
                let took = self.clock.now().saturating_sub(start);
                debug!("{} changes in the folder, found in {took:?}", changes.len());
            }
            // The first state of a folder is told even when it is empty, so that the control
            // plane can tell "nothing" from "not yet".
            let tell = !changes.is_empty() || (readable && !readable_once);
            readable_once |= readable;
            let end = (tell && readable_once).then_some(Event::Synced);
            for event in changes.into_iter().chain(end) {
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
            if full || !readable {
                let healthy = readable && self.watcher.is_some();
                self.rescan = self.clock.now() + if healthy { RESCAN } else { RETRY };
            }
            self.rescan = again.map_or(self.rescan, |again| again.min(self.rescan));
            self.wait(self.rescan);
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
        match start_watcher(&self.path, self.sender.clone()) {
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
            let due = self.pending.due().map_or(end, |due| due.min(end));
            if now >= due {
                return;
            }
            match self.notices.recv_timeout(due - now) {
                Ok(notice) => self.pending.notice(self.clock.now(), notice),
                Err(RecvTimeoutError::Timeout) => {}
                // Cannot happen while `self.sender` lives; waiting keeps the thread from spinning.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(due - now),
            }
        }
    }
}

fn start_watcher(
    folder: &Path,
    sender: Sender<notify::Result<notify::Event>>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |notice| {
        // The receiver is gone only when the thread ends.
        let _ = sender.send(notice);
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
    /// Something changed that cannot be told by file names.
    elsewhere: bool,
}

#[derive(Debug, Clone, Copy)]
struct Noticed {
    first: Duration,
    at: Duration,
    /// Written into and not closed since.
    open: bool,
}

impl Noticed {
    /// When the file is worth reading.
    fn due(&self) -> Duration {
        match self.open {
            true => self.at + WRITER,
            false => (self.at + QUIET).min(self.first + HOLD),
        }
    }
}

impl Pending {
    fn notice(&mut self, now: Duration, notice: notify::Result<notify::Event>) {
        let Ok(event) = notice else {
            self.elsewhere = true;
            return self.touch(now);
        };
        let open = match event.kind {
            // Our own reading makes these.
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => true,
            _ => false,
        };
        self.elsewhere |= event.need_rescan() || event.paths.is_empty();
        for name in event.paths.iter().filter_map(|path| path.file_name()) {
            self.elsewhere |= !is_manifest(name) && !is_hidden(name);
            let known = self.files.get(name);
            let first = known.map_or(now, |noticed| noticed.first);
            let noticed = Noticed {
                first,
                at: now,
                open,
            };
            self.files.insert(name.to_owned(), noticed);
        }
        // Data in a file that is still open is not worth a scan yet.
        if !open {
            self.touch(now);
        }
    }

    fn touch(&mut self, now: Duration) {
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// When the next scan is worth it.
    fn due(&self) -> Option<Duration> {
        let collected = self
            .first
            .map(|first| (self.last + QUIET).min(first + COLLECT));
        // Files that are closed are collected together; those that are left over from a scan come
        // on their own.
        let alone = |noticed: &&Noticed| noticed.open || self.first.is_none();
        let files = self.files.values().filter(alone).map(Noticed::due).min();
        collected.into_iter().chain(files).min()
    }

    /// What a scan at `now` should know; files that are being written stay pending.
    fn take(&mut self, now: Duration) -> Hints {
        let mut hints = Hints {
            only: !std::mem::take(&mut self.elsewhere),
            ..Hints::default()
        };
        self.first = None;
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
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, RemoveKind};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn event(kind: EventKind, name: &str) -> notify::Result<notify::Event> {
        Ok(notify::Event::new(kind).add_path(Path::new("/m").join(name)))
    }

    fn data() -> EventKind {
        EventKind::Modify(ModifyKind::Data(DataChange::Any))
    }

    fn close() -> EventKind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
    }

    #[test]
    fn our_own_reading_is_no_change() {
        let mut pending = Pending::default();
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Read));
        pending.notice(ms(0), event(opened, "a.yaml"));
        pending.notice(ms(0), event(closed, "a.yaml"));
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn notices_are_collected_until_it_is_quiet_but_not_for_ever() {
        let mut pending = Pending::default();
        pending.notice(ms(0), event(EventKind::Create(CreateKind::File), "a.yaml"));
        assert_eq!(pending.due(), Some(QUIET));
        for now in (0..100).step_by(5) {
            pending.notice(
                ms(now),
                event(EventKind::Remove(RemoveKind::File), "b.yaml"),
            );
        }
        assert_eq!(pending.due(), Some(COLLECT));
        let hints = pending.take(ms(105));
        assert_eq!(hints.written.len(), 2);
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn a_file_that_is_written_again_and_again_is_left_alone_but_not_for_ever() {
        let mut pending = Pending::default();
        for now in (0..40).step_by(5) {
            pending.notice(ms(now), event(close(), "a.yaml"));
        }
        let hints = pending.take(COLLECT);
        assert!(hints.open.contains(&OsString::from("a.yaml")));
        assert_eq!(pending.due(), Some(ms(35) + QUIET));
        for now in (40..HOLD.as_millis() as u64).step_by(5) {
            pending.notice(ms(now), event(close(), "a.yaml"));
            pending.take(ms(now));
        }
        assert_eq!(pending.due(), Some(HOLD));
        assert!(pending.take(HOLD).open.is_empty());
    }

    #[test]
    fn a_writer_is_waited_for_until_it_closes() {
        let mut pending = Pending::default();
        pending.notice(ms(0), event(data(), "a.yaml"));
        assert_eq!(pending.due(), Some(WRITER));
        let hints = pending.take(ms(50));
        assert!(hints.open.contains(&OsString::from("a.yaml")));
        pending.notice(ms(60), event(close(), "a.yaml"));
        assert_eq!(pending.due(), Some(ms(60) + QUIET));
        assert!(
            pending
                .take(ms(70))
                .written
                .contains(&OsString::from("a.yaml"))
        );
    }

    #[test]
    fn a_writer_that_never_closes_is_not_waited_for_longer_than_the_limit() {
        let mut pending = Pending::default();
        pending.notice(ms(0), event(data(), "a.yaml"));
        assert!(pending.take(WRITER).open.is_empty());
    }

    #[test]
    fn a_lost_notice_leads_to_a_scan_of_everything() {
        let mut pending = Pending::default();
        pending.notice(ms(0), Err(notify::Error::generic("overflow")));
        assert_eq!(pending.due(), Some(QUIET));
        assert!(!pending.take(QUIET).only);
    }

    #[test]
    fn only_what_was_noticed_is_looked_at_unless_it_is_no_file_of_ours() {
        for (name, only) in [
            ("a.yaml", true),
            (".a.yaml.swp", true),
            ("..data", false),
            ("current", false),
        ] {
            let mut pending = Pending::default();
            pending.notice(ms(0), event(close(), name));
            assert_eq!(pending.take(QUIET).only, only, "{name}");
        }
    }
}
