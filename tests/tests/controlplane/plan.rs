//! What a change would do, with its live connections, and the way back from one that was made.

use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_tests::clock;
use sluice_tests::daemon::{self, LIMIT};
use sluice_tests::manifests::{Endpoint, Service};
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{CLUSTER_IP, Topology, VIP};
use sluice_tests::traffic::{self, Held, Step};

const ECHO: u16 = 7000;
const NODE_PORT: u16 = 30_080;

fn echo_service(topology: &Topology) -> Service {
    Service::on("echo", VIP, ECHO, &topology.backends)
}

/// What `sluicectl plan` says of `text`, and with which exit code.
fn plan(scene: &Scene, text: &str) -> Result<(Value, i32)> {
    let file = scene.dir().join("planned.yaml");
    fs::write(&file, text)?;
    let file = file.display().to_string();
    let words = ["-o", "json", "plan", "-f", &file];
    let finished = daemon::try_sluicectl(scene.paths(), &words)?;
    let plan = serde_json::from_str(&finished.stdout).context("the plan")?;
    Ok((plan, finished.status.code().unwrap_or(-1)))
}

#[test]
fn a_plan_counts_the_connections_that_a_change_touches_and_changes_nothing() -> Result<()> {
    let services = |topology: &Topology| vec![echo_service(topology)];
    scene::with(Topology::builder().queues(2), services, |scene| {
        let hosts = scene.topology.backends.iter();
        let _servers = hosts
            .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
            .collect::<Result<Vec<_>>>()?;
        let frontend = SocketAddrV4::new(VIP, 80);
        let mut held = (0..9)
            .map(|_| Held::connect(&scene.topology.client, frontend))
            .collect::<Result<Vec<_>>>()?;
        let gone = &scene.topology.backends[0];
        let there = held
            .iter()
            .filter(|each| each.backend() == gone.name)
            .count();
        let before = scene.ask_dataplane()?.status()?.generation;

        let less = echo_service(&scene.topology).without(gone.address);
        let (told, code) = plan(scene, &less.yaml())?;
        ensure!(code == 0, "exit code {code}: {told}");
        ensure!(
            told["services"][0]["backends"][0]["change"] == "removed",
            "{told}"
        );
        ensure!(
            told["services"][0]["backends"][0]["connections"] == there,
            "{told}"
        );
        ensure!(told["touched"]["ended"] == there, "{told}");
        let kept = less.backend_gone("keep");
        let (told, _) = plan(scene, &kept.yaml())?;
        ensure!(told["touched"]["kept"] == there, "{told}");
        let mut other = echo_service(&scene.topology);
        other.load_balancers = vec!["203.0.113.77".parse()?];
        let (told, _) = plan(scene, &other.yaml())?;
        ensure!(told["touched"]["ended"] == 9, "{told}");

        let (told, code) = plan(scene, &echo_service(&scene.topology).yaml())?;
        ensure!(
            code == 0 && told["services"] == Value::Array(Vec::new()),
            "{told}"
        );
        let wrong = echo_service(&scene.topology)
            .yaml()
            .replace("port: 80", "port: 99999");
        let (told, code) = plan(scene, &wrong)?;
        ensure!(code == 1, "exit code {code}: {told}");
        ensure!(
            told["refused"][0]["field"] == "spec.ports[0].port",
            "{told}"
        );

        ensure!(
            scene.ask_dataplane()?.status()?.generation == before,
            "something changed"
        );
        for each in &mut held {
            let step = each.step()?;
            ensure!(step == Step::Echoed, "{step} after plans");
        }
        Ok(())
    })
}

/// A connection to `to` for each of `count`, through the gateway.
fn hold(scene: &Scene, to: SocketAddrV4, count: usize) -> Result<Vec<Held>> {
    let client = &scene.topology.client;
    (0..count).map(|_| Held::connect(client, to)).collect()
}

#[test]
fn connections_of_node_ports_that_go_and_of_backends_that_begin_to_drain_are_counted() -> Result<()>
{
    let on_node_port = |topology: &Topology| {
        let mut echo = echo_service(topology).node_port(NODE_PORT);
        echo.load_balancers.clear();
        echo.cluster_ip(CLUSTER_IP)
    };
    let services = |topology: &Topology| vec![on_node_port(topology)];
    scene::with(Topology::builder(), services, |scene| {
        let hosts = scene.topology.backends.iter();
        let _servers = hosts
            .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
            .collect::<Result<Vec<_>>>()?;
        let own = scene.topology.gateway_towards_client();
        let held = hold(scene, SocketAddrV4::new(own, NODE_PORT), 6)?;
        let inside = hold(scene, SocketAddrV4::new(CLUSTER_IP, 80), 2)?;

        let mut inner = on_node_port(&scene.topology);
        inner.ports[0].node_port = None;
        let (told, code) = plan(scene, &inner.yaml())?;
        ensure!(code == 0, "exit code {code}: {told}");
        let frontends = &told["services"][0]["frontends"];
        let gone = |f: &&Value| f["change"] == "removed" && f["address"] == own.to_string();
        let gone = frontends.as_array().into_iter().flatten().find(gone);
        let gone = gone.with_context(|| told.to_string())?;
        ensure!(gone["connections"] == 6 && gone["fate"] == "end", "{told}");
        ensure!(told["touched"]["ended"] == 6, "{told}");

        let mut draining = on_node_port(&scene.topology);
        let leaving = &scene.topology.backends[0];
        draining.endpoints[0] = Endpoint::draining(leaving.address);
        let there = held.iter().chain(&inside);
        let there = there.filter(|each| each.backend() == leaving.name).count();
        let (told, _) = plan(scene, &draining.yaml())?;
        let backend = &told["services"][0]["backends"][0];
        ensure!(backend["altered"][0]["after"] == "draining", "{told}");
        ensure!(backend["connections"] == there, "{there}: {told}");
        ensure!(told["touched"]["kept"] == there, "{there}: {told}");
        Ok(())
    })
}

#[test]
fn connections_go_on_when_a_port_is_given_a_name_as_the_plan_says() -> Result<()> {
    let services = |topology: &Topology| vec![echo_service(topology)];
    scene::with(Topology::builder(), services, |scene| {
        let hosts = scene.topology.backends.iter();
        let _servers = hosts
            .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
            .collect::<Result<Vec<_>>>()?;
        let mut held = hold(scene, SocketAddrV4::new(VIP, 80), 6)?;
        let mut named = echo_service(&scene.topology);
        named.ports[0].name = "echo";
        let (told, _) = plan(scene, &named.yaml())?;
        ensure!(told["services"][0]["change"] == "removed", "{told}");
        ensure!(told["touched"]["ended"] == 0, "{told}");
        scene.apply(&named)?;
        for each in &mut held {
            let step = each.step()?;
            ensure!(step == Step::Echoed, "{step} after the change");
        }
        Ok(())
    })
}

/// Generations that the history lists, newest first.
fn recorded(scene: &Scene) -> Result<Vec<u64>> {
    let text = daemon::sluicectl(scene.paths(), &["history", "-o", "json"])?;
    let rows: Vec<Value> = serde_json::from_str(&text)?;
    let generations = rows
        .iter()
        .rev()
        .filter_map(|row| row["generation"].as_u64());
    Ok(generations.collect())
}

#[test]
fn a_rollback_stays_in_force_over_changes_and_a_restart_until_it_is_released() -> Result<()> {
    let services = |topology: &Topology| vec![echo_service(topology)];
    scene::with(Topology::builder(), services, |scene| {
        let backends =
            |scene: &Scene| -> Result<usize> { Ok(scene.ask_dataplane()?.status()?.backends) };
        let first = clock::wait_for("the first record", LIMIT, || {
            Ok(recorded(scene)?.first().copied())
        })?;
        let gone = scene.topology.backends[0].address;
        scene.apply(&echo_service(&scene.topology).without(gone))?;
        ensure!(backends(scene)? == 2, "{} backends", backends(scene)?);

        daemon::sluicectl(scene.paths(), &["rollback", &first.to_string()])?;
        scene.settled()?;
        ensure!(backends(scene)? == 3, "{} backends", backends(scene)?);
        let status = daemon::sluicectl(scene.paths(), &["status"])?;
        ensure!(status.contains("NO CHANGE has any effect"), "{status}");

        Scene::kill(&mut scene.controlplane)?;
        scene.start_controlplane()?;
        scene.settled()?;
        ensure!(backends(scene)? == 3, "{} backends", backends(scene)?);

        clock::wait_for("the release", LIMIT, || {
            let released = daemon::sluicectl(scene.paths(), &["rollback", "--release"]);
            Ok(released.ok())
        })?;
        clock::wait_for("the table of the manifests", LIMIT, || {
            Ok((backends(scene)? == 2).then_some(()))
        })?;
        let status = daemon::sluicectl(scene.paths(), &["status"])?;
        ensure!(!status.contains("NO CHANGE"), "{status}");
        Ok(())
    })
}
