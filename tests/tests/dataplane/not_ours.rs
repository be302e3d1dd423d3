//! What is not Sluice's goes on as if Sluice were not there.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::manifests::Service;
use sluice_tests::nginx;
use sluice_tests::scene;
use sluice_tests::topology::{Arms, Builder, Topology, VIP};
use sluice_tests::traffic::{self, Held, Step};

const LIMIT: Duration = Duration::from_secs(30);
/// A service of the gateway's own kernel, like its secure shell.
const HOST_PORT: u16 = 22;

fn kernel_traffic_goes_on(topology: Builder) -> Result<()> {
    let web = |topology: &Topology| {
        vec![Service::on("web", VIP, nginx::PORT, &topology.backends).node_port(30080)]
    };
    scene::with(topology, web, |scene| {
        let topology = &scene.topology;
        let _nginx = nginx::start_all(&topology.backends, scene.dir(), scene.dir())?;
        let _host = traffic::echo(&topology.gateway, "gateway", HOST_PORT, scene.dir())?;
        let own = topology.gateway_towards_client();

        let mut held = Held::connect(&topology.client, SocketAddrV4::new(own, HOST_PORT))?;
        ensure!(held.backend() == "gateway", "{}", held.backend());
        for _ in 0..10 {
            ensure!(held.step()? == Step::Echoed, "the host's connection broke");
        }
        let picks = traffic::udp(
            &topology.client,
            SocketAddrV4::new(own, HOST_PORT),
            20_000,
            50,
        )?;
        ensure!(
            picks.len() == 50,
            "{} datagrams of the host answered",
            picks.len()
        );
        topology
            .client
            .run(&["ping", "-c2", "-i0.1", "-W2", &own.to_string()], LIMIT)?;
        // Larger than the link's MTU: fragments, reassembled by the kernel.
        topology.client.run(
            &[
                "ping",
                "-c2",
                "-i0.1",
                "-W2",
                "-s",
                "4000",
                &own.to_string(),
            ],
            LIMIT,
        )?;

        for host in &topology.backends {
            let url = format!("http://{}:{}/", host.address, nginx::PORT);
            for from in [&topology.client, &topology.gateway] {
                let report = traffic::http(from, &url, 50, 4)?;
                ensure!(
                    report.by_body.get(&host.name) == Some(&50),
                    "{url}: {report:?}"
                );
            }
            topology
                .client
                .run(&["ping", "-c1", "-W2", &host.address.to_string()], LIMIT)?;
        }
        ensure!(held.step()? == Step::Echoed, "the host's connection broke");
        Ok(())
    })
}

#[test]
fn the_hosts_own_services_and_routed_traffic_go_on() -> Result<()> {
    kernel_traffic_goes_on(Topology::builder())
}

#[test]
fn the_hosts_own_services_and_routed_traffic_go_on_with_two_queues() -> Result<()> {
    kernel_traffic_goes_on(Topology::builder().queues(2))
}

#[test]
fn the_hosts_own_services_go_on_with_one_arm() -> Result<()> {
    kernel_traffic_goes_on(Topology::builder().arms(Arms::One))
}
