//! What a backend makes of connections is counted and told, whatever it does with them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_conf::Protocol;
use sluice_conf::message::dataplane::{Attempts, Mark};
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::traffic::{self, Held};
use sluice_tests::{clock, control};

const PORT: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(20);
/// Longer than a client waits before it sends a SYN again (RFC 6298 section 2).
const PATIENCE: Duration = Duration::from_millis(2500);

/// Says that nobody is there.
const REJECT: &str = "table inet t { chain c { type filter hook input priority 0; \
    tcp dport 7000 reject with icmpx type port-unreachable; }; }";
/// Says nothing.
const DROP: &str = "table inet t { chain c { type filter hook input priority 0; \
    tcp dport 7000 tcp flags syn drop; }; }";

fn counts(answered: u64, refused: u64, silent: u64) -> Attempts {
    Attempts {
        answered,
        refused,
        silent,
    }
}

/// Asks what has changed, from one answer to the next.
struct Listener {
    link: control::Dataplane,
    mark: Mark,
}

impl Listener {
    /// Waits until the counts of the only backend of a family are these; whatever else is told
    /// meanwhile must be no more.
    fn hears(&mut self, backend: SocketAddr, expected: Attempts) -> Result<()> {
        let mut heard = None;
        clock::wait_for(&format!("{expected:?} of {backend}"), LIMIT, || {
            let told = self.link.evidence(std::mem::take(&mut self.mark))?;
            self.mark = told.mark;
            for (address, attempts) in told.services.into_iter().flat_map(|each| each.backends) {
                ensure!(address == backend, "{attempts:?} of {address}");
                heard = Some(attempts);
            }
            Ok((heard == Some(expected)).then_some(()))
        })
        .with_context(|| format!("the last that was told is {heard:?}"))?;
        let again = self.link.evidence(self.mark.clone())?;
        ensure!(again.services.is_empty(), "told again: {again:?}");
        ensure!(again.mark == self.mark, "{again:?}");
        Ok(())
    }
}

/// One connection that must not be made, and how that was told.
fn refused(scene: &Scene, family: Family, reason: &str) -> Result<()> {
    let url = format!("http://{}/", family.frontend(80));
    let got = traffic::get(&scene.topology.client, &url, PATIENCE);
    let error = got.err().context("it was answered")?;
    let told = format!("{error:#}");
    ensure!(told.contains(reason), "not {reason}: {told}");
    Ok(())
}

fn nft(scene: &Scene, rules: &str) -> Result<()> {
    let backend = &scene.topology.backends[0].namespace;
    backend.run(&["nft", rules], LIMIT).map(drop)
}

fn story(scene: &mut Scene, family: Family) -> Result<()> {
    let host = &scene.topology.backends[0];
    let backend = SocketAddr::new(host.at(family), PORT);
    let mut listener = Listener {
        link: scene.ask_dataplane()?,
        mark: Mark::default(),
    };
    listener.mark = listener.link.evidence(Mark::default())?.mark;
    let server = traffic::echo(&host.namespace, &host.name, PORT, scene.dir())?;
    let held = Held::connect(&scene.topology.client, family.frontend(80))?;
    listener.hears(backend, counts(1, 0, 0))?;
    drop(held);
    drop(server);
    refused(scene, family, "ECONNREFUSED").context("a reset")?;
    listener.hears(backend, counts(1, 1, 0))?;
    nft(scene, REJECT)?;
    refused(scene, family, "ECONNREFUSED").context("an ICMP error")?;
    listener.hears(backend, counts(1, 2, 0))?;
    nft(scene, "delete table inet t")?;
    nft(scene, DROP)?;
    refused(scene, family, "").context("silence")?;
    listener.hears(backend, counts(1, 2, 1))?;
    nft(scene, "delete table inet t")?;
    let stats = scene.ask_dataplane()?.stats()?;
    let mut all = stats.services.iter().flat_map(|each| &each.backends);
    let shown = all.find(|each| each.address == backend).context("stats")?;
    ensure!(shown.attempts == counts(1, 2, 1), "{shown:?}");
    ensure!(shown.connections == 4, "{shown:?}");
    Ok(())
}

fn is_told(topology: Builder, mode: &'static str) -> Result<()> {
    let services = |topology: &Topology| {
        let web = Service::dual("web", PORT, &topology.backends);
        vec![web.source_nat(mode)]
    };
    scene::with(topology.backends(1), services, |scene| {
        for family in Family::BOTH {
            story(scene, family).with_context(|| family.to_string())?;
        }
        Ok(())
    })
}

#[test]
fn what_a_backend_does_is_told_with_masquerade() -> Result<()> {
    is_told(Topology::builder(), "masquerade")
}

#[test]
fn what_a_backend_does_is_told_over_two_queues_with_client_addresses_kept() -> Result<()> {
    is_told(Topology::builder().queues(2), "preserve")
}

#[test]
fn datagrams_to_a_closed_port_are_told() -> Result<()> {
    let services = |topology: &Topology| {
        let dns = Service::dual("dns", PORT, &topology.backends);
        vec![dns.port(53, Protocol::Udp)]
    };
    scene::with(Topology::builder().backends(1), services, |scene| {
        let host = &scene.topology.backends[0];
        for family in Family::BOTH {
            let backend = SocketAddr::new(host.at(family), PORT);
            let mut link = scene.ask_dataplane()?;
            let mark = link.evidence(Mark::default())?.mark;
            let told = traffic::udp_error(&scene.topology.client, family.frontend(53))?;
            ensure!(told == "ConnectionRefused", "{told}");
            Listener { link, mark }.hears(backend, counts(0, 1, 0))?;
        }
        Ok(())
    })
}
