//! The network, the processes and the manifest folder of the demo.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sluice_conf::message::dataplane::ConnectionFilter;
use sluice_tests::clock;
use sluice_tests::control;
use sluice_tests::daemon::{self, LIMIT, Paths};
use sluice_tests::manifests::Folder;
use sluice_tests::netns::Netns;
use sluice_tests::nginx::{Nginx, start_all};
use sluice_tests::process::{self, Process};
use sluice_tests::topology::Topology;
use sluice_tests::traffic::Report;
use tempfile::TempDir;

use crate::tally::{self, Tally};

/// Programs that the demo runs, and how each tells that it is there.
const PROGRAMS: [[&str; 2]; 6] = [
    ["ip", "-Version"],
    ["tc", "-Version"],
    ["ethtool", "--version"],
    ["nginx", "-v"],
    ["curl", "--version"],
    ["xargs", "--version"],
];
/// Requests between two looks at whether the demo was interrupted.
const BATCH: u32 = 50;
/// States of TCP connections that need nothing from their backend any more.
const OVER: [&str; 2] = ["TIME_WAIT", "CLOSE"];

/// What the demo runs on. Dropping it removes everything.
pub struct Stage {
    // In this order: processes end before their namespaces go, and both before the folder.
    daemons: Option<Daemons>,
    _nginx: Vec<Nginx>,
    topology: Topology,
    manifests: Folder,
    paths: Paths,
    _dir: TempDir,
}

struct Daemons {
    controlplane: Process,
    dataplane: Process,
}

/// A backend by name and address.
#[derive(Clone)]
pub struct Backend {
    pub name: String,
    pub address: Ipv4Addr,
}

/// Whether the demo can run here.
pub fn check_machine() -> Result<()> {
    for [program, question] in PROGRAMS {
        let asked = process::run(Command::new(program).arg(question), "", LIMIT);
        asked.with_context(|| format!("{program} is needed; `make deps` installs it"))?;
    }
    for program in [
        "sluice-dataplane",
        "sluice-controlplane",
        "sluicectl",
        "traffic",
    ] {
        daemon::binary(program)?;
    }
    Ok(())
}

impl Stage {
    pub fn build() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sluice-demo-").tempdir()?;
        let topology = Topology::builder().build()?;
        let nginx = start_all(&topology.backends, dir.path(), dir.path())?;
        Ok(Self {
            daemons: None,
            _nginx: nginx,
            topology,
            manifests: Folder::create(dir.path().join("services"))?,
            paths: Paths {
                dir: dir.path().to_owned(),
            },
            _dir: dir,
        })
    }

    pub fn start_daemons(&mut self) -> Result<()> {
        let gateway = &self.topology.gateway;
        let settings = daemon::dataplane_settings(&self.paths, self.topology.interfaces(), "");
        let mut dataplane = daemon::start("sluice-dataplane", gateway, &self.paths, &settings)?;
        daemon::dataplane_ready(&mut dataplane, &self.paths)?;
        let node_ports = [self.node_address().into()];
        let folder = self.manifests.path();
        let settings = daemon::controlplane_settings(&self.paths, folder, &node_ports, "");
        let mut controlplane =
            daemon::start("sluice-controlplane", gateway, &self.paths, &settings)?;
        daemon::settled(&mut controlplane, &self.paths)?;
        self.daemons = Some(Daemons {
            controlplane,
            dataplane,
        });
        Ok(())
    }

    pub fn folder(&self) -> &Path {
        self.manifests.path()
    }

    pub fn client(&self) -> &Netns {
        &self.topology.client
    }

    pub fn node_address(&self) -> Ipv4Addr {
        self.topology.gateway_towards_client()
    }

    pub fn backend(&self, index: usize) -> Result<Backend> {
        let host = self
            .topology
            .backends
            .get(index)
            .context("too few backends")?;
        Ok(Backend {
            name: host.name.clone(),
            address: host.address,
        })
    }

    /// Writes the manifest and waits until the dataplane uses what it says.
    pub fn write_manifest(&mut self, text: &str) -> Result<()> {
        let mut link = self.ask_dataplane()?;
        let before = link.status()?.generation;
        self.manifests.write_text("web.yaml", text)?;
        let waited = clock::wait_for("the new table in the dataplane", LIMIT, || {
            Ok((link.status()?.generation > before).then_some(()))
        });
        waited.with_context(|| self.logs())
    }

    /// Waits until no connection needs `backend` any more.
    pub fn wait_for_drained(&mut self, backend: Ipv4Addr) -> Result<()> {
        let mut link = self.ask_dataplane()?;
        let filter = ConnectionFilter {
            limit: u32::MAX,
            ..ConnectionFilter::default()
        };
        let waited = clock::wait_for("the end of its connections", LIMIT, || {
            let listed = link.connections(filter.clone())?.connections;
            let needed = listed.iter().any(|connection| {
                connection.backend.ip() == backend && !OVER.contains(&connection.state.as_str())
            });
            Ok((!needed).then_some(()))
        });
        waited.with_context(|| self.logs())
    }

    fn ask_dataplane(&mut self) -> Result<control::Dataplane> {
        let Some(daemons) = &mut self.daemons else {
            bail!("the dataplane was not started");
        };
        daemons.dataplane.still_running()?;
        control::Dataplane::connect(&self.paths.dataplane_socket())
    }

    /// Sends requests with curl, prints a row of the table, and returns who answered how often.
    pub fn requests(
        &self,
        tally: &mut Tally,
        to: &str,
        count: u32,
    ) -> Result<BTreeMap<String, u64>> {
        let mut report = Report::default();
        for done in (0..count).step_by(BATCH as usize) {
            report.add(self.curl(to, BATCH.min(count - done))?);
        }
        tally.add(&report);
        println!("{}", tally::row(to, &self.names(), &report));
        Ok(report.by_body)
    }

    fn curl(&self, to: &str, count: u32) -> Result<Report> {
        let script = format!(
            "seq {count} | xargs -P 4 -I NUMBER curl --silent --fail --max-time 5 http://{to}/ || true"
        );
        let printed = self.client().run(&["sh", "-c", &script], LIMIT * 10)?;
        let mut report = Report::default();
        for name in printed.lines() {
            *report.by_body.entry(name.to_owned()).or_default() += 1;
            report.ok += 1;
        }
        ensure!(
            report.ok <= count.into(),
            "curl printed too much:\n{printed}"
        );
        report.failed = u64::from(count) - report.ok;
        Ok(report)
    }

    pub fn tally_heading(&self) -> String {
        tally::heading(&self.names())
    }

    fn names(&self) -> Vec<&str> {
        self.topology
            .backends
            .iter()
            .map(|host| host.name.as_str())
            .collect()
    }

    /// Runs `sluicectl` and shows what it prints.
    pub fn show(&self, words: &[&str]) -> Result<()> {
        println!("   $ sluicectl {}", words.join(" "));
        for line in daemon::sluicectl(&self.paths, words)?.lines() {
            println!("   {line}");
        }
        println!();
        Ok(())
    }

    fn logs(&self) -> String {
        self.daemons.as_ref().map_or_else(String::new, |daemons| {
            format!(
                "{}\n{}",
                daemons.dataplane.tail(),
                daemons.controlplane.tail()
            )
        })
    }
}
