//! What Sluice sets in the kernel of its host, and that it takes it back.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use sluice_tests::clock;
use sluice_tests::daemon;
use sluice_tests::family::{CLUSTER_IP6, Family};
use sluice_tests::manifests::Service;
use sluice_tests::nginx;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{CLUSTER_IP, Topology};
use sluice_tests::traffic;

const LIMIT: Duration = Duration::from_secs(30);
/// The default of `source_nat.ports`, as the kernel writes it.
const RESERVED: &str = "16384-29999";

/// Destinations of the blackhole routes, sorted.
fn blackholes(scene: &Scene) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let words = ["ip", family.flag(), "route", "show", "proto", "83"];
        let printed = scene.topology.gateway.run(&words, LIMIT)?;
        for line in printed.lines() {
            ensure!(line.starts_with("blackhole "), "{line}");
            found.extend(line.split(' ').nth(1).map(str::to_owned));
        }
    }
    found.sort();
    Ok(found)
}

fn reserved_ports(scene: &Scene) -> Result<String> {
    let words = ["cat", "/proc/sys/net/ipv4/ip_local_reserved_ports"];
    Ok(scene.topology.gateway.run(&words, LIMIT)?.trim().to_owned())
}

fn has_tun(scene: &Scene) -> Result<bool> {
    let words = ["ip", "-o", "link", "show", "type", "tun"];
    Ok(scene
        .topology
        .gateway
        .run(&words, LIMIT)?
        .contains("sluice0"))
}

fn expected(services: &[&Service]) -> Vec<String> {
    let mut vips: Vec<_> = services
        .iter()
        .flat_map(|service| service.cluster_ips.iter().chain(&service.load_balancers))
        .map(ToString::to_string)
        .collect();
    vips.sort();
    vips
}

fn ensure_blackholes(scene: &Scene, services: &[&Service]) -> Result<()> {
    let wanted = expected(services);
    clock::wait_for("the blackhole routes", LIMIT, || {
        Ok((blackholes(scene)? == wanted).then_some(()))
    })
    .or_else(|error| {
        let found = blackholes(scene)?;
        Err(error.context(format!("found {found:?}, wanted {wanted:?}")))
    })
}

fn web(topology: &Topology) -> Service {
    Service::dual("web", nginx::PORT, &topology.backends)
}

#[test]
fn what_is_set_in_the_kernel_follows_the_services_and_is_set_once() -> Result<()> {
    scene::with(
        Topology::builder(),
        |topology| vec![web(topology)],
        |scene| {
            let web = web(&scene.topology);
            let mut inner = Service::dual("inner", nginx::PORT, &scene.topology.backends);
            inner.load_balancers.clear();
            let inner = inner.cluster_ip(CLUSTER_IP).cluster_ip(CLUSTER_IP6);
            ensure_blackholes(scene, &[&web])?;
            ensure!(
                reserved_ports(scene)? == RESERVED,
                "{}",
                reserved_ports(scene)?
            );
            ensure!(has_tun(scene)?, "no TUN device");
            scene.apply(&inner)?;
            ensure_blackholes(scene, &[&web, &inner])?;
            scene.change(|folder| folder.remove("inner.yaml"))?;
            ensure_blackholes(scene, &[&web])?;

            Scene::kill(&mut scene.dataplane)?;
            ensure!(
                blackholes(scene)? == expected(&[&web]),
                "while nobody serves"
            );
            ensure!(!has_tun(scene)?, "the TUN device outlived its process");
            scene.start_dataplane()?;
            let paths = scene.paths().clone();
            daemon::dataplane_ready(&mut scene.dataplane, &paths)?;
            scene.settled()?;
            ensure_blackholes(scene, &[&web])?;
            ensure!(
                reserved_ports(scene)? == RESERVED,
                "{}",
                reserved_ports(scene)?
            );
            let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
            for family in Family::BOTH {
                scene.answering(family.frontend(80))?;
                let url = format!("http://{}/", family.frontend(80));
                let report = traffic::http(&scene.topology.client, &url, 50, 4)?;
                ensure!(report.failed == 0, "{family}: {report:?}");
            }

            let status = scene.dataplane.end(Signal::SIGTERM, LIMIT)?;
            ensure!(status.success(), "the dataplane ended with {status}");
            ensure!(
                blackholes(scene)?.is_empty(),
                "{:?} stay",
                blackholes(scene)?
            );
            ensure!(!has_tun(scene)?, "the TUN device stays");
            let attached = daemon::interfaces_with_xdp(&scene.topology.gateway)?;
            ensure!(attached.is_empty(), "XDP stays at {attached:?}");
            Ok(())
        },
    )
}

#[test]
fn ports_that_the_host_had_reserved_itself_stay_reserved() -> Result<()> {
    let services = |topology: &Topology| {
        let path = "net/ipv4/ip_local_reserved_ports";
        topology.gateway.write_sysctl(path, "8000,20000-20010").ok();
        vec![web(topology)]
    };
    scene::with(Topology::builder(), services, |scene| {
        let both = format!("8000,{RESERVED}");
        ensure!(reserved_ports(scene)? == both, "{}", reserved_ports(scene)?);
        scene.dataplane.end(Signal::SIGTERM, LIMIT)?;
        let left = reserved_ports(scene)?;
        ensure!(left == "8000,20000-20010", "{left}");
        Ok(())
    })
}
