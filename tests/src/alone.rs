//! A control plane alone in a namespace, in front of a dataplane that the test plays and that takes
//! every table.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sluice_conf::codec::{self, HEADER_LEN, MAX_BODY};
use sluice_conf::message::controlplane::{ServiceRow, Status};
use sluice_conf::message::dataplane::{Evidence, Reply, Request};
use sluice_conf::{Generation, ServiceTable};
use tempfile::TempDir;

use crate::clock;
use crate::control::Controlplane;
use crate::daemon::{self, Paths};
use crate::manifests::Folder;
use crate::netns::Netns;
use crate::process::{Finished, Process};

const PROGRAM: &str = "sluice-controlplane";
/// Generous: ten thousand files on a busy machine take their time.
const LIMIT: Duration = Duration::from_secs(120);

/// A control plane, its folder and the tables that it has pushed.
#[derive(Debug)]
pub struct Alone {
    // In this order: the process ends before its namespace goes, and both before the folder.
    /// The control plane.
    pub process: Process,
    /// Where it lives.
    pub namespace: Netns,
    /// The watched manifests.
    pub folder: Folder,
    /// The dataplane.
    pub dataplane: Taker,
    /// Sockets, store and logs.
    pub paths: Paths,
    settings: String,
    /// Tables of its earlier processes.
    earlier: usize,
    _dir: TempDir,
}

impl Alone {
    /// Starts it on a folder that `prepare` fills, with more settings; does not wait for it.
    ///
    /// # Errors
    /// A part cannot be started, or `prepare`'s own.
    pub fn start(more: &str, prepare: impl FnOnce(&Folder) -> Result<()>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sluice-").tempdir()?;
        let paths = Paths {
            dir: dir.path().to_owned(),
        };
        let folder = Folder::create(dir.path().join("services"))?;
        prepare(&folder)?;
        let node = ["192.0.2.1".parse()?];
        let settings = daemon::controlplane_settings(&paths, folder.path(), &node, more);
        let dataplane = Taker::listen(&paths.dataplane_socket())?;
        let namespace = Netns::create("control")?;
        let process = daemon::start(PROGRAM, &namespace, &paths, &settings)?;
        Ok(Self {
            process,
            namespace,
            folder,
            dataplane,
            paths,
            settings,
            earlier: 0,
            _dir: dir,
        })
    }

    /// Starts it again after it has ended.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process = daemon::start(PROGRAM, &self.namespace, &self.paths, &self.settings)?;
        Ok(())
    }

    /// Kills it as a crash would. Returns when all that it has pushed was taken.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::SIGKILL, LIMIT)?;
        clock::wait_for("the end of its connections", LIMIT, || {
            Ok((self.dataplane.taken().connections == 0).then_some(()))
        })?;
        self.earlier = self.dataplane.count();
        Ok(())
    }

    /// Runs a second one with changed settings, which is expected to end by itself.
    ///
    /// # Errors
    /// It goes on running.
    pub fn second(&self, change: impl FnOnce(String) -> String) -> Result<Finished> {
        let settings = change(self.settings.clone());
        daemon::run(PROGRAM, &self.namespace, &self.paths, &settings, &[])
    }

    /// What it says on its control socket.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status> {
        Controlplane::connect(&self.paths.controlplane_socket())?.status()
    }

    /// The Services that it shows, in all namespaces.
    ///
    /// # Errors
    /// It does not answer.
    pub fn services(&self) -> Result<Vec<ServiceRow>> {
        Controlplane::connect(&self.paths.controlplane_socket())?.services()
    }

    /// Waits until the newest table of this process is as `done` wants it.
    ///
    /// # Errors
    /// It ended, or that does not happen.
    pub fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&ServiceTable) -> bool,
    ) -> Result<ServiceTable> {
        let (process, dataplane) = (&mut self.process, &self.dataplane);
        let earlier = self.earlier;
        clock::wait_for(what, LIMIT, || {
            process.still_running()?;
            let newest = dataplane.newest().filter(|_| dataplane.count() > earlier);
            Ok(newest.filter(&mut done))
        })
        .with_context(|| self.process.tail())
    }

    /// Waits until the problems, as `FILE FIELD: MESSAGE`, are as `done` wants them.
    ///
    /// # Errors
    /// It ended, or that does not happen; tells the last problems.
    pub fn until_problems(
        &mut self,
        what: &str,
        mut done: impl FnMut(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        let mut last = Vec::new();
        let waited = clock::wait_for(what, LIMIT, || {
            self.process.still_running()?;
            let Ok(status) = self.status() else {
                return Ok(None);
            };
            last = self.problems_of(&status);
            Ok(done(&last).then(|| last.clone()))
        });
        waited.with_context(|| format!("the last problems: {last:?}"))
    }

    /// Problems but those of Services without endpoints.
    fn problems_of(&self, status: &Status) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let without_endpoints = "has no EndpointSlice";
        let problems = status.problems.iter();
        let problems = problems.filter(|problem| !problem.message.contains(without_endpoints));
        problems
            .map(|problem| {
                let file = problem.file.replace(&folder, "");
                let field = problem.field.as_deref().unwrap_or_default();
                format!("{file} {field}: {}", problem.message)
            })
            .collect()
    }

    /// The most memory that it has had so far, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_memory(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.pid());
        let text = std::fs::read_to_string(&path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let line = line.with_context(|| format!("no VmHWM in {path}"))?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes << 10)
    }
}

/// A dataplane that takes every table and remembers it.
#[derive(Debug, Clone, Default)]
pub struct Taker(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    newest: Option<ServiceTable>,
    unseen: Vec<ServiceTable>,
    count: usize,
    connections: usize,
}

impl Taker {
    /// Takes tables at `socket` until the process ends.
    fn listen(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let taker = Self::default();
        let accepting = taker.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taker = accepting.clone();
                taker.taken().connections += 1;
                thread::spawn(move || {
                    // The other side may be killed at any moment.
                    drop(taker.serve(stream));
                    taker.taken().connections -= 1;
                });
            }
        });
        Ok(taker)
    }

    /// The table in use.
    pub fn newest(&self) -> Option<ServiceTable> {
        self.taken().newest.clone()
    }

    /// The tables that came since the last call, in order.
    pub fn unseen(&self) -> Vec<ServiceTable> {
        std::mem::take(&mut self.taken().unseen)
    }

    /// How many tables came so far.
    pub fn count(&self) -> usize {
        self.taken().count
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: UnixStream) -> Result<()> {
        loop {
            let mut header = [0; HEADER_LEN];
            stream.read_exact(&mut header)?;
            let mut body = vec![0; codec::body_len(&header, MAX_BODY)?];
            stream.read_exact(&mut body)?;
            let reply = self.answer(codec::decode(&body)?)?;
            stream.write_all(&codec::encode(&reply)?)?;
        }
    }

    fn answer(&self, request: Request) -> Result<Reply> {
        let newest = self.newest();
        let generation = newest.as_ref().map(|table| table.generation);
        Ok(match request {
            Request::Hello(_) => Reply::Hello {
                release: env!("CARGO_PKG_VERSION").to_owned(),
                generation,
            },
            Request::Push(table) => self.take(table)?,
            Request::Change(change) => {
                let base = newest.filter(|table| table.generation == change.base);
                match base {
                    Some(base) => self.take(change.apply(&base)?)?,
                    None => Reply::NeedsWhole(generation.unwrap_or_default()),
                }
            }
            Request::Evidence { .. } => Reply::Evidence(Evidence::default()),
            other => Reply::Refused(format!("not played: {other:?}")),
        })
    }

    fn take(&self, table: ServiceTable) -> Result<Reply> {
        let mut taken = self.taken();
        let before = taken.newest.as_ref().map(|table| table.generation);
        ensure!(before < Some(table.generation), "{before:?} is not older");
        let generation: Generation = table.generation;
        taken.count += 1;
        taken.newest = Some(table.clone());
        taken.unseen.push(table);
        Ok(Reply::Applied(generation))
    }
}
