//! What becomes of an open connection when the table changes around it.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use sluice_tests::manifests::{Endpoint, Service};
use sluice_tests::process::Process;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Topology, VIP};
use sluice_tests::traffic::{self, Held, Step};

const ECHO: u16 = 7000;
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);

fn frontend() -> SocketAddrV4 {
    SocketAddrV4::new(VIP, 80)
}

fn echo_service(topology: &Topology) -> Service {
    Service::on("echo", VIP, ECHO, &topology.backends)
}

fn start_echo_servers(scene: &Scene) -> Result<Vec<Process>> {
    let hosts = scene.topology.backends.iter();
    hosts
        .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
        .collect()
}

fn address_of(scene: &Scene, name: &str) -> Result<Ipv4Addr> {
    let host = scene
        .topology
        .backends
        .iter()
        .find(|host| host.name == name);
    Ok(host
        .with_context(|| format!("no backend is called {name:?}"))?
        .address)
}

fn ensure_step(held: &mut Held, expected: &Step, when: &str) -> Result<()> {
    let step = held.step()?;
    ensure!(step == *expected, "{when}: {step} instead of {expected}");
    Ok(())
}

/// Opens a connection, takes its backend out of a Service of this policy, and expects `expected`.
fn backend_leaves(queues: u32, policy: &'static str, expected: &Step) -> Result<()> {
    let services = |topology: &Topology| vec![echo_service(topology).backend_gone(policy)];
    scene::with(Topology::builder().queues(queues), services, |scene| {
        let _servers = start_echo_servers(scene)?;
        let mut held = Held::connect(&scene.topology.client, frontend())?;
        ensure_step(&mut held, &Step::Echoed, "before the change")?;
        let gone = address_of(scene, held.backend())?;
        let rest = echo_service(&scene.topology)
            .backend_gone(policy)
            .without(gone);
        scene.apply(&rest)?;
        ensure_step(&mut held, expected, "after its backend left")?;
        if *expected == Step::Echoed {
            ensure_step(&mut held, expected, "later")?;
        }
        for _ in 0..20 {
            let other = Held::connect(&scene.topology.client, frontend())?;
            ensure!(
                other.backend() != held.backend(),
                "a new connection to the backend that left"
            );
        }
        Ok(())
    })
}

#[test]
fn a_connection_survives_other_services_other_weights_and_another_backend() -> Result<()> {
    for queues in [1, 2] {
        let two_of_three =
            |topology: &Topology| vec![Service::on("echo", VIP, ECHO, &topology.backends[..2])];
        scene::with(Topology::builder().queues(queues), two_of_three, |scene| {
            let _servers = start_echo_servers(scene)?;
            let mut held = (0..8)
                .map(|_| Held::connect(&scene.topology.client, frontend()))
                .collect::<Result<Vec<_>>>()?;
            let mut all_echo = |when: &str| -> Result<()> {
                held.iter_mut()
                    .try_for_each(|each| ensure_step(each, &Step::Echoed, when))
            };
            all_echo("at first")?;

            let other = Service::on("other", OTHER_VIP, ECHO, &scene.topology.backends);
            scene.apply(&other)?;
            all_echo("after another Service came")?;
            scene.change(|folder| folder.remove("other.yaml"))?;
            all_echo("after the other Service left")?;

            let [first, second, ..] = scene.topology.backends.as_slice() else {
                anyhow::bail!("fewer than two backends");
            };
            let (first, second) = (first.address, second.address);
            let two = Service::on("echo", VIP, ECHO, &scene.topology.backends[..2]);
            scene.apply(&two.weight(first, 1000).weight(second, 1))?;
            all_echo("after the weights changed")?;
            let three = Service::on("echo", VIP, ECHO, &scene.topology.backends);
            scene.apply(&three)?;
            all_echo("after another backend came")
        })?;
    }
    Ok(())
}

#[test]
fn with_reset_a_connection_of_a_backend_that_left_is_reset_at_its_next_packet() -> Result<()> {
    backend_leaves(1, "reset", &Step::Reset)
}

#[test]
fn with_reset_a_connection_of_a_backend_that_left_is_reset_over_two_queues() -> Result<()> {
    backend_leaves(2, "reset", &Step::Reset)
}

#[test]
fn with_keep_a_connection_of_a_backend_that_left_goes_on() -> Result<()> {
    backend_leaves(1, "keep", &Step::Echoed)
}

#[test]
fn with_keep_a_connection_of_a_backend_that_left_goes_on_over_two_queues() -> Result<()> {
    backend_leaves(2, "keep", &Step::Echoed)
}

#[test]
fn a_draining_backend_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let services = |topology: &Topology| vec![echo_service(topology)];
    scene::with(Topology::builder(), services, |scene| {
        let _servers = start_echo_servers(scene)?;
        let mut held = Held::connect(&scene.topology.client, frontend())?;
        let leaving = address_of(scene, held.backend())?;
        let mut draining = echo_service(&scene.topology);
        for endpoint in &mut draining.endpoints {
            if endpoint.address == leaving {
                *endpoint = Endpoint::draining(leaving);
            }
        }
        scene.apply(&draining)?;
        ensure_step(&mut held, &Step::Echoed, "while its backend drains")?;
        for _ in 0..20 {
            let other = Held::connect(&scene.topology.client, frontend())?;
            ensure!(
                other.backend() != held.backend(),
                "a new connection to a draining backend"
            );
        }
        ensure_step(&mut held, &Step::Echoed, "after others connected")
    })
}
