//! Either daemon dies and comes back while clients go on.

use std::net::SocketAddrV4;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use sluice_tests::daemon::{self, LIMIT};
use sluice_tests::manifests::Service;
use sluice_tests::netns::Netns;
use sluice_tests::process;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Topology, VIP};
use sluice_tests::traffic::{self, Ongoing};
use sluice_tests::{clock, nginx};

fn web(topology: &Topology) -> Vec<Service> {
    vec![Service::on("web", VIP, nginx::PORT, &topology.backends)]
}

fn url() -> String {
    format!("http://{VIP}/")
}

/// Waits until the backends together have answered `more` requests than now.
fn some_requests(nginx: &[nginx::Nginx], more: usize) -> Result<()> {
    let total = || -> Result<usize> {
        let counts = nginx.iter().map(|each| Ok(each.clients()?.len()));
        counts.sum()
    };
    let enough = total()? + more;
    clock::wait_for("more requests", LIMIT, || {
        Ok((total()? >= enough).then_some(()))
    })
}

/// Processes in the gateway's namespace.
fn processes(gateway: &Netns) -> Result<Vec<u32>> {
    let mut command = Command::new("ip");
    command.args(["netns", "pids", gateway.name()]);
    let printed = process::run(&mut command, "", LIMIT)?.success()?.stdout;
    let pids: Result<Vec<u32>, _> = printed.lines().map(|line| line.trim().parse()).collect();
    Ok(pids?)
}

fn control_plane_dies(queues: u32) -> Result<()> {
    scene::with(Topology::builder().queues(queues), web, |scene| {
        let nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let ongoing = Ongoing::start(&scene.topology.client, &url(), 4)?;
        some_requests(&nginx, 100)?;
        Scene::kill(&mut scene.controlplane)?;
        some_requests(&nginx, 100)?;
        scene.start_controlplane()?;
        scene.settled()?;
        some_requests(&nginx, 100)?;
        let report = ongoing.finish()?;
        eprintln!("{report:?}");
        ensure!(report.failed == 0, "{report:?}");
        Ok(())
    })
}

#[test]
fn no_request_fails_when_the_control_plane_is_killed_and_started_again() -> Result<()> {
    control_plane_dies(1)
}

#[test]
fn no_request_fails_over_two_queues_when_the_control_plane_is_killed() -> Result<()> {
    control_plane_dies(2)
}

/// Ends the dataplane by `signal`, looks at what is left, starts it again and measures the pause.
fn dataplane_ends(queues: u32, signal: Signal) -> Result<()> {
    scene::with(Topology::builder().queues(queues), web, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        scene.answering(SocketAddrV4::new(VIP, 80))?;
        let gateway = &scene.topology.gateway;
        ensure!(
            daemon::interfaces_with_xdp(gateway)?.len() == 2,
            "no XDP before"
        );
        scene.dataplane.end(signal, LIMIT)?;
        let gateway = &scene.topology.gateway;
        clock::wait_for("XDP programs gone", LIMIT, || {
            let gone = daemon::interfaces_with_xdp(gateway)?.is_empty();
            Ok(gone.then_some(()))
        })?;
        let left = processes(gateway)?;
        ensure!(
            left == [scene.controlplane.pid()],
            "processes {left:?} are left"
        );

        // An AF_XDP socket that was left would hold its queue, and the new one could not be bound.
        let start = clock::now();
        scene.start_dataplane()?;
        clock::wait_until_ok("an answer after the restart", LIMIT, || {
            traffic::get(&scene.topology.client, &url(), Duration::from_millis(100))
        })?;
        eprintln!(
            "answers again {:?} after the start ({signal})",
            start.elapsed()
        );
        let gateway = &scene.topology.gateway;
        ensure!(
            daemon::interfaces_with_xdp(gateway)?.len() == 2,
            "XDP programs after"
        );
        let report = traffic::http(&scene.topology.client, &url(), 300, 4)?;
        ensure!(report.failed == 0, "{report:?}");
        Ok(())
    })
}

#[test]
fn a_killed_dataplane_leaves_nothing_behind_and_serves_again_after_a_start() -> Result<()> {
    dataplane_ends(1, Signal::SIGKILL)
}

#[test]
fn a_killed_dataplane_with_two_queues_leaves_nothing_behind() -> Result<()> {
    dataplane_ends(2, Signal::SIGKILL)
}

#[test]
fn a_terminated_dataplane_leaves_nothing_behind_and_serves_again_after_a_start() -> Result<()> {
    dataplane_ends(1, Signal::SIGTERM)
}

#[test]
fn both_daemons_end_with_success_when_they_are_told_to() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        for process in [&mut scene.controlplane, &mut scene.dataplane] {
            let status = process.end(Signal::SIGTERM, LIMIT)?;
            ensure!(status.success(), "{} ended with {status}", process.name());
        }
        Ok(())
    })
}
