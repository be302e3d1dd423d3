//! A real control plane beside a cluster, in front of a stand-in dataplane that takes every table and
//! keeps it.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use sluice_conf::ServiceTable;
use sluice_conf::codec::{self, HEADER_LEN, MAX_BODY};
use sluice_conf::message::controlplane::{KubernetesLink, Status};
use sluice_conf::message::dataplane::{Reply, Request};
use tempfile::TempDir;

use super::cluster::Cluster;
use crate::clock::wait_for;
use crate::control;
use crate::daemon::{self, LIMIT, Paths};
use crate::process::Process;

/// The tables that came, oldest first.
type Tables = Arc<Mutex<Vec<ServiceTable>>>;

fn lock(tables: &Tables) -> MutexGuard<'_, Vec<ServiceTable>> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A control plane as a child, what it stores and what it has pushed.
pub struct Gateway {
    home: TempDir,
    paths: Paths,
    process: Option<Process>,
    tables: Tables,
}

impl Gateway {
    /// Starts one that reads the cluster's namespace; `more` is appended to its settings.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, more: &str) -> Result<Self> {
        let home = TempDir::new()?;
        let paths = Paths {
            dir: home.path().to_owned(),
        };
        fs::create_dir(home.path().join("manifests"))?;
        // Several of them run at once.
        let names = match more.contains("[dns]") {
            true => "",
            false => "[dns]\nlisten = []\n",
        };
        let settings = format!(
            "[kubernetes]\nkubeconfig = \"{}\"\nnamespaces = [\"{}\"]\n\
             [load_balancers]\nunset_class = false\n[store]\npath = \"{}\"\n\
             [dataplane]\nsocket = \"{}\"\n[control]\nsocket = \"{}\"\n\
             {names}{more}",
            cluster.kubeconfig().display(),
            cluster.namespace,
            home.path().join("controlplane.redb").display(),
            paths.dataplane_socket().display(),
            paths.controlplane_socket().display(),
        );
        let folder = home.path().join("manifests");
        let settings = settings.replace("FOLDER", &folder.to_string_lossy());
        fs::write(home.path().join("controlplane.toml"), settings)?;
        let tables = Tables::default();
        let listener = UnixListener::bind(paths.dataplane_socket())?;
        let kept = Arc::clone(&tables);
        // It ends with the process: nobody connects once the folder is gone.
        thread::spawn(move || accept(&listener, &kept));
        let mut gateway = Self {
            home,
            paths,
            process: None,
            tables,
        };
        gateway.resume()?;
        Ok(gateway)
    }

    /// Starts the control plane again after [`Gateway::stop`].
    ///
    /// # Errors
    /// It cannot be started.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = Command::new(daemon::binary("sluice-controlplane")?);
        let file = |name: &str| self.home.path().join(name);
        command.arg("--config").arg(file("controlplane.toml"));
        let process = Process::start(
            "sluice-controlplane",
            &mut command,
            &file("controlplane.log"),
        )?;
        self.process = Some(process);
        Ok(())
    }

    /// Tells the control plane to stop and waits until it has.
    ///
    /// # Errors
    /// It does not, or ends otherwise than well.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it was stopped before")?;
        let status = process.end(Signal::SIGTERM, LIMIT)?;
        ensure!(status.success(), "{status}: {}", process.tail());
        Ok(())
    }

    /// Writes a manifest; the settings must name `FOLDER`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let folder = self.home.path().join("manifests");
        Ok(fs::write(folder.join(name), text)?)
    }

    /// How the control plane is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status> {
        control::Controlplane::connect(&self.paths.controlplane_socket())?.status()
    }

    /// How its link to the API is.
    ///
    /// # Errors
    /// It does not answer, or reads no API.
    pub fn link(&self) -> Result<KubernetesLink> {
        self.status()?.kubernetes.context("it reads no API")
    }

    /// Waits for a link that is so.
    ///
    /// # Errors
    /// None is.
    pub fn wait_link(&self, what: &str, is: impl Fn(&KubernetesLink) -> bool) -> Result<()> {
        let found = wait_for(what, LIMIT, || {
            Ok(self.link().ok().filter(|link| is(link)).map(drop))
        });
        found.with_context(|| self.tail())
    }

    /// How many tables have come so far.
    pub fn pushed(&self) -> usize {
        lock(&self.tables).len()
    }

    /// Everything that came since there were `since` tables.
    pub fn tables(&self, since: usize) -> Vec<ServiceTable> {
        lock(&self.tables).iter().skip(since).cloned().collect()
    }

    /// Waits until the newest table is so.
    ///
    /// # Errors
    /// None is.
    pub fn wait(&self, what: &str, is: impl Fn(&ServiceTable) -> bool) -> Result<()> {
        let found = wait_for(what, LIMIT, || {
            let tables = lock(&self.tables);
            Ok(tables.last().filter(|table| is(table)).map(drop))
        });
        found.with_context(|| format!("{:?}\n{}", lock(&self.tables).last(), self.tail()))
    }

    fn tail(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, Process::tail)
    }
}

/// Whether a Service is served at `address`, by just these backends.
pub fn serves(table: &ServiceTable, name: &str, address: &str, backends: &[&str]) -> bool {
    let ip = |text: &str| text.parse::<IpAddr>().ok();
    let mut services = table.services.iter().filter(|s| s.name.name == name);
    services.any(|service| {
        let here = service
            .frontends
            .iter()
            .any(|f| ip(address) == Some(f.address));
        let mut found: Vec<_> = service.backends.iter().map(|b| Some(b.address)).collect();
        let mut wanted: Vec<_> = backends.iter().map(|text| ip(text)).collect();
        found.sort();
        wanted.sort();
        here && found == wanted
    })
}

fn accept(listener: &UnixListener, tables: &Tables) {
    for stream in listener.incoming().flatten() {
        let tables = Arc::clone(tables);
        // The control plane connects anew where an answer fails.
        thread::spawn(move || converse(stream, &tables).unwrap_or_default());
    }
}

fn converse(mut stream: UnixStream, tables: &Tables) -> Result<()> {
    loop {
        let reply = match receive(&mut stream)? {
            Request::Push(table) => {
                let generation = table.generation;
                lock(tables).push(table);
                Reply::Applied(generation)
            }
            Request::Change(change) => Reply::NeedsWhole(change.generation),
            Request::Hello(_) => Reply::Hello {
                release: env!("CARGO_PKG_VERSION").to_owned(),
                generation: None,
            },
            other => bail!("a stand-in knows no {other:?}"),
        };
        stream.write_all(&codec::encode(&reply)?)?;
    }
}

fn receive(stream: &mut UnixStream) -> Result<Request> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; codec::body_len(&header, MAX_BODY)?];
    stream.read_exact(&mut body)?;
    Ok(codec::decode(&body)?)
}

/// The folder of CRD files in this source tree.
pub fn crds() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds"))
}
