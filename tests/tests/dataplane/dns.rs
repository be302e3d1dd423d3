//! UDP with a real DNS server and real clients.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use sluice_conf::Protocol;
use sluice_tests::dns;
use sluice_tests::manifests::Service;
use sluice_tests::netns::Netns;
use sluice_tests::scene;
use sluice_tests::topology::{Builder, Topology, VIP};

/// Source ports; each asks [`QUERIES`] times.
const PORTS: u16 = 200;
const QUERIES: usize = 5;
const THREADS: u16 = 4;

/// The answers to the queries of every `THREADS`th port, counted.
fn ask(client: &Netns, own: &str, part: u16) -> Result<usize> {
    let at = format!("@{VIP}");
    let mut answers = 0;
    for port in (20_000 + part..20_000 + PORTS).step_by(THREADS.into()) {
        let from = format!("{own}#{port}");
        let mut words = vec!["dig", &at, "-b", &from, "+short", "+tries=1", "+time=5"];
        words.extend(["www.example.test"; QUERIES]);
        let printed = client.run(&words, Duration::from_secs(60))?;
        answers += printed.lines().filter(|line| *line == dns::ANSWER).count();
    }
    Ok(answers)
}

fn thousand_queries(topology: Builder, mode: &'static str) -> Result<()> {
    let services = |topology: &Topology| {
        let service = Service::on("dns", VIP, dns::PORT, &topology.backends);
        vec![service.port(53, Protocol::Udp).source_nat(mode)]
    };
    scene::with(topology, services, |scene| {
        let hosts = &scene.topology.backends;
        let _servers: Vec<_> = hosts
            .iter()
            .map(|host| dns::start(host, scene.dir()))
            .collect::<Result<_>>()?;
        let client = &scene.topology.client;
        let own = scene.topology.client_address().to_string();
        let answers = thread::scope(|scope| {
            let own = own.as_str();
            let parts: Vec<_> = (0..THREADS)
                .map(|part| scope.spawn(move || ask(client, own, part)))
                .collect();
            let joined = parts.into_iter().map(|part| part.join());
            joined
                .map(|part| part.unwrap_or_else(|_| bail!("a thread panicked")))
                .sum::<Result<usize>>()
        })?;
        ensure!(answers == usize::from(PORTS) * QUERIES, "{answers} answers");
        Ok(())
    })
}

#[test]
fn a_thousand_queries_from_two_hundred_ports_are_all_answered() -> Result<()> {
    thousand_queries(Topology::builder(), "masquerade")
}

#[test]
fn a_thousand_queries_are_all_answered_over_two_queues_with_client_addresses_kept() -> Result<()> {
    thousand_queries(Topology::builder().queues(2), "preserve")
}
