//! Two gateways that were given the same objects pick the same backend for the same five-tuple.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::manifests::Service;
use sluice_tests::scene;
use sluice_tests::topology::{Topology, VIP};
use sluice_tests::traffic::{self, Picks};

const ECHO: u16 = 7000;
const TUPLES: u16 = 10_000;

fn picks(queues: u32) -> Result<Picks> {
    let services = |topology: &Topology| {
        let service = Service::on("echo", VIP, ECHO, &topology.backends);
        vec![service.port(7, Protocol::Udp).source_nat("preserve")]
    };
    let mut picks = Picks::new();
    scene::with(Topology::builder().queues(queues), services, |scene| {
        let hosts = scene.topology.backends.iter();
        let _servers: Vec<_> = hosts
            .map(|host| traffic::echo(&host.namespace, &host.name, ECHO, scene.dir()))
            .collect::<Result<_>>()?;
        picks = traffic::udp(
            &scene.topology.client,
            SocketAddrV4::new(VIP, 7),
            20_000,
            TUPLES,
        )?;
        ensure!(
            picks.len() == usize::from(TUPLES),
            "only {} answered",
            picks.len()
        );
        Ok(())
    })?;
    Ok(picks)
}

#[test]
fn ten_thousand_five_tuples_get_the_same_backends_from_two_gateways() -> Result<()> {
    let first = picks(1)?;
    let second = picks(1)?;
    let moved = first
        .iter()
        .filter(|(port, name)| second.get(port) != Some(name))
        .count();
    ensure!(
        moved == 0,
        "{moved} of {TUPLES} five-tuples got another backend"
    );
    Ok(())
}

#[test]
fn the_number_of_queues_does_not_change_the_backend_of_a_five_tuple() -> Result<()> {
    let (one, two) = (picks(1)?, picks(2)?);
    let moved = one
        .iter()
        .filter(|(port, name)| two.get(port) != Some(name))
        .count();
    ensure!(
        moved == 0,
        "{moved} of {TUPLES} five-tuples got another backend"
    );
    Ok(())
}
