//! A whole stage: topology, nginx behind it, both daemons, a manifest folder; and the waits that
//! belong to them.
//!
//! When a check on a scene fails, the ends of the daemons' logs are printed with it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sluice_conf::Generation;
use sluice_conf::message;
use tempfile::TempDir;

use crate::clock;
use crate::control;
use crate::daemon::{self, LIMIT, Paths};
use crate::family::Family;
use crate::manifests::{Folder, Service};
use crate::process::Process;
use crate::topology::{Builder, Topology};

/// Topology, daemons and manifests of one test.
#[derive(Debug)]
pub struct Scene {
    // In this order: processes end before their namespaces go, and both before the folder.
    /// The control plane.
    pub controlplane: Process,
    /// The dataplane.
    pub dataplane: Process,
    /// The namespaces.
    pub topology: Topology,
    /// The watched manifests.
    pub folder: Folder,
    paths: Paths,
    settings: Settings,
    dir: TempDir,
}

#[derive(Debug)]
struct Settings {
    dataplane: String,
    controlplane: String,
}

/// Builds a topology, starts both daemons with `services`, waits until they are in use, and runs
/// `check` on the scene.
///
/// # Errors
/// A part cannot be started, or the check's own.
pub fn with(
    topology: Builder,
    services: impl FnOnce(&Topology) -> Vec<Service>,
    check: impl FnOnce(&mut Scene) -> Result<()>,
) -> Result<()> {
    with_settings(topology, More::default(), services, check)
}

/// What a test adds to the settings of the daemons.
#[derive(Debug, Clone, Copy, Default)]
pub struct More<'a> {
    /// To the dataplane's.
    pub dataplane: &'a str,
    /// To the control plane's.
    pub controlplane: &'a str,
}

/// As [`with`], with more settings.
///
/// # Errors
/// A part cannot be started, or the check's own.
pub fn with_settings(
    topology: Builder,
    more: More<'_>,
    services: impl FnOnce(&Topology) -> Vec<Service>,
    check: impl FnOnce(&mut Scene) -> Result<()>,
) -> Result<()> {
    let mut scene = Scene::start_with(topology.build()?, services, more)?;
    let checked = check(&mut scene);
    if checked.is_err() {
        scene.print_logs();
    }
    checked
}

impl Scene {
    /// Starts both daemons on a topology; `more` is appended to the dataplane's settings.
    ///
    /// # Errors
    /// A part cannot be started.
    pub fn start(
        topology: Topology,
        services: impl FnOnce(&Topology) -> Vec<Service>,
        more: &str,
    ) -> Result<Self> {
        let more = More {
            dataplane: more,
            ..More::default()
        };
        Self::start_with(topology, services, more)
    }

    /// Starts both daemons on a topology.
    ///
    /// # Errors
    /// A part cannot be started.
    pub fn start_with(
        topology: Topology,
        services: impl FnOnce(&Topology) -> Vec<Service>,
        more: More<'_>,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sluice-").tempdir()?;
        let paths = Paths {
            dir: dir.path().to_owned(),
        };
        let folder = Folder::create(dir.path().join("services"))?;
        for service in services(&topology) {
            folder.write(&service)?;
        }
        let node_ports = Family::BOTH.map(|family| topology.node_at(family));
        let (interfaces, folder_path) = (topology.tagged_interfaces(), folder.path());
        let settings = Settings {
            dataplane: daemon::tagged_settings(&paths, &interfaces, more.dataplane),
            controlplane: daemon::controlplane_settings(
                &paths,
                folder_path,
                &node_ports,
                more.controlplane,
            ),
        };
        let gateway = &topology.gateway;
        let mut dataplane =
            daemon::start("sluice-dataplane", gateway, &paths, &settings.dataplane)?;
        daemon::dataplane_ready(&mut dataplane, &paths)?;
        let controlplane = daemon::start(
            "sluice-controlplane",
            gateway,
            &paths,
            &settings.controlplane,
        )?;
        let mut scene = Self {
            controlplane,
            dataplane,
            topology,
            folder,
            paths,
            settings,
            dir,
        };
        scene.settled()?;
        Ok(scene)
    }

    /// Folder for files of the test itself.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sockets and logs.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Waits until the dataplane uses the control plane's newest table.
    ///
    /// # Errors
    /// It does not happen.
    pub fn settled(&mut self) -> Result<message::controlplane::Status> {
        daemon::settled(&mut self.controlplane, &self.paths)
    }

    /// Makes a change to the manifests that must reach the dataplane, and waits until it has.
    ///
    /// # Errors
    /// The change fails or no new table arrives.
    pub fn change(&mut self, change: impl FnOnce(&Folder) -> Result<()>) -> Result<Generation> {
        let mut link = self.ask_dataplane()?;
        let before = link.status()?.generation;
        change(&self.folder)?;
        clock::wait_for("a new table in the dataplane", LIMIT, || {
            let now = link.status()?.generation;
            Ok(now.filter(|_| now > before))
        })
    }

    /// Writes the file of a Service and waits until the dataplane uses it.
    ///
    /// # Errors
    /// It cannot be written or does not arrive.
    pub fn apply(&mut self, service: &Service) -> Result<Generation> {
        self.change(|folder| folder.write(service))
    }

    /// A connection to the dataplane's control socket.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask_dataplane(&self) -> Result<control::Dataplane> {
        control::Dataplane::connect(&self.paths.dataplane_socket())
    }

    /// A connection to the control plane's control socket.
    ///
    /// # Errors
    /// It does not answer.
    pub fn ask_controlplane(&self) -> Result<control::Controlplane> {
        control::Controlplane::connect(&self.paths.controlplane_socket())
    }

    /// Starts the dataplane again after it has ended.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_dataplane(&mut self) -> Result<()> {
        let gateway = &self.topology.gateway;
        let settings = &self.settings.dataplane;
        self.dataplane = daemon::start("sluice-dataplane", gateway, &self.paths, settings)?;
        Ok(())
    }

    /// Starts the control plane again after it has ended.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_controlplane(&mut self) -> Result<()> {
        let gateway = &self.topology.gateway;
        let settings = &self.settings.controlplane;
        self.controlplane = daemon::start("sluice-controlplane", gateway, &self.paths, settings)?;
        Ok(())
    }

    /// Kills a daemon as a crash would.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill(process: &mut Process) -> Result<()> {
        process.end(Signal::SIGKILL, LIMIT).map(drop)
    }

    /// What curl prints in the client's namespace; the arguments come after `--silent`.
    ///
    /// # Errors
    /// curl fails.
    pub fn curl(&self, words: &[&str], limit: Duration) -> Result<String> {
        let mut line = vec!["curl", "--silent", "--show-error", "--fail"];
        line.extend(words);
        self.topology.client.run(&line, limit)
    }

    /// Waits until a connection to `to` is taken.
    ///
    /// # Errors
    /// It never is.
    pub fn answering(&self, to: impl Into<SocketAddr>) -> Result<String> {
        let to = to.into();
        let url = format!("http://{to}/");
        clock::wait_until_ok(&url, LIMIT, || {
            crate::traffic::get(&self.topology.client, &url, Duration::from_millis(500))
        })
        .with_context(|| format!("an answer from {to}"))
    }

    /// Prints what was dropped and the ends of both logs, for a failed test.
    pub fn print_logs(&self) {
        match daemon::sluicectl(&self.paths, &["drops"]) {
            Ok(drops) => eprintln!("{drops}"),
            Err(error) => eprintln!("no drops: {error:#}"),
        }
        for process in [&self.dataplane, &self.controlplane] {
            eprintln!("{}", process.tail());
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}
