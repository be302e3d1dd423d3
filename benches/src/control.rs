//! The control plane under the load of a large cluster: real daemons in namespaces of their own.
//!
//! ```text
//!   folder: 10,000 Services, 100,000 endpoints --> sluice-controlplane --> sluice-dataplane
//!     start, cold and with its store         until the dataplane uses the table
//!     one endpoint comes or goes             until every worker goes by it
//!     changes of many Services, 1,000 a second
//!     10,000 endpoints probed every 5 s      CPU time of the control plane
//! ```
//!
//! What the dataplane uses is asked for at its control socket, again and again.

mod cluster;
mod probes;

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sluice_tests::clock;
use sluice_tests::control::Dataplane;
use sluice_tests::scene::Scene;
use sluice_tests::topology::Topology;

use crate::process;
use crate::report::Report;
use crate::statistics::{quantile, sorted};

pub use cluster::{ENDPOINTS, SERVICES};

/// How long any one step may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Time between two questions to the dataplane.
const GLANCE: Duration = Duration::from_micros(200);
/// Changes that are made a second in a storm, and for how long.
const STORM: (u32, Duration) = (1000, Duration::from_secs(5));

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Starts of each kind.
    pub starts: usize,
    /// Changes of one endpoint.
    pub changes: usize,
    /// How long probes are watched.
    pub probing: Duration,
}

/// Measures all of it.
///
/// # Errors
/// A daemon does not start, or does not get there.
pub fn run(options: Options, report: &mut Report) -> Result<()> {
    let mut scene = Scene::start(Topology::builder().build()?, |_| Vec::new(), "")?;
    let measured = measure(options, &mut scene, report);
    if measured.is_err() {
        scene.print_logs();
    }
    measured
}

fn measure(options: Options, scene: &mut Scene, report: &mut Report) -> Result<()> {
    let mut dataplane = scene.ask_dataplane()?;
    report.section("Start of the control plane");
    cluster::write(&scene.folder)?;
    let store = scene.dir().join("controlplane.redb");
    let (mut cold, mut warm, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.starts {
        stop(scene)?;
        fs::remove_file(&store).context("the store")?;
        cold.push(start(scene, &mut dataplane)?);
        resident
            .push(process::resident_of(scene.controlplane.pid()).context("VmRSS")? as f64 / 1e6);
        stop(scene)?;
        warm.push(start(scene, &mut dataplane)?);
    }
    report.add("cold start to table applied", "ms", &cold);
    report.add("start with its store to table applied", "ms", &warm);
    report.add("resident memory", "MB", &resident);

    report.section("One endpoint comes or goes");
    let mut changes = Vec::with_capacity(options.changes);
    for number in 1..=options.changes {
        changes.push(change(scene, &mut dataplane, number)?);
        clock::pause(Duration::from_millis(20))?;
    }
    let ascending = sorted(&changes);
    report.add("change of one endpoint to every worker", "ms", &changes);
    let late = quantile(&ascending, 0.99).context("no changes")?;
    report.add("change of one endpoint to every worker, p99", "ms", &[late]);

    report.section("1,000 changes a second");
    storm(scene, &mut dataplane, report)?;

    probes::run(options.probing, scene, report)
}

fn stop(scene: &mut Scene) -> Result<()> {
    scene.controlplane.end(Signal::SIGTERM, LIMIT).map(drop)
}

/// Milliseconds from the start of the process until the dataplane uses its table.
fn start(scene: &mut Scene, dataplane: &mut Dataplane) -> Result<f64> {
    let before = dataplane.status()?.generation;
    let began = clock::now();
    scene.start_controlplane()?;
    loop {
        let status = dataplane.status()?;
        // A control plane that starts counts on from what the dataplane has.
        if status.generation > before && status.services >= SERVICES {
            return Ok(began.elapsed().as_secs_f64() * 1e3);
        }
        ensure!(began.elapsed() < LIMIT, "no table of {SERVICES} Services");
        scene.controlplane.still_running()?;
        thread::sleep(GLANCE);
    }
}

/// Milliseconds from a written file until every worker goes by it.
fn change(scene: &Scene, dataplane: &mut Dataplane, number: usize) -> Result<f64> {
    let before = dataplane.status()?.generation;
    let began = clock::now();
    cluster::write_changing(&scene.folder, number)?;
    while dataplane.status()?.generation <= before {
        ensure!(began.elapsed() < LIMIT, "change {number} does not arrive");
        thread::sleep(GLANCE);
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn storm(scene: &Scene, dataplane: &mut Dataplane, report: &mut Report) -> Result<()> {
    let (rate, length) = STORM;
    let before = dataplane.status()?.generation.context("no table")?;
    let began = clock::now();
    let mut written = 0;
    while began.elapsed() < length {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        while written < due {
            cluster::write_of_storm(&scene.folder, written)?;
            written += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    let end = clock::now();
    cluster::write_changing(&scene.folder, usize::MAX)?;
    let mut newest = dataplane.status()?.generation;
    let mut quiet = clock::now();
    while quiet.elapsed() < Duration::from_secs(1) {
        let now = dataplane.status()?.generation;
        if now != newest {
            newest = now;
            quiet = clock::now();
        }
        ensure!(end.elapsed() < LIMIT, "the changes do not end");
        thread::sleep(Duration::from_millis(1));
    }
    let late = end.elapsed().saturating_sub(quiet.elapsed());
    let pushed = newest.context("no table")?.0.saturating_sub(before.0);
    report.add("changes written", "files", &[written as f64]);
    report.add("tables that they led to", "tables", &[pushed as f64]);
    report.add(
        "last change to every worker",
        "ms",
        &[late.as_secs_f64() * 1e3],
    );
    let resident = process::resident_of(scene.controlplane.pid()).context("VmRSS")?;
    report.add(
        "resident memory after the changes",
        "MB",
        &[resident as f64 / 1e6],
    );
    Ok(())
}
