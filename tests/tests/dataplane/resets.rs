//! A connection whose backend leaves ends at both ends, without either of them sending anything.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::clock;
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::process::Process;
use sluice_tests::scene::{self, Scene};
use sluice_tests::topology::{Builder, Topology};
use sluice_tests::traffic::{self, Held, Step};

const ECHO: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(20);

/// How a connection of one family to backend 1 stands, with its server.
struct Pair {
    family: Family,
    held: Held,
}

fn echo(topology: &Topology, mode: &'static str, policy: &'static str) -> Service {
    let echo = Service::dual("echo", ECHO, &topology.backends);
    echo.source_nat(mode).backend_gone(policy)
}

/// Connections of both families, after which nobody serves any more. New ones are refused, so
/// nothing else comes to the server.
fn left(
    scene: &mut Scene,
    mode: &'static str,
    policy: &'static str,
) -> Result<(Process, Vec<Pair>)> {
    let host = &scene.topology.backends[0];
    let server = traffic::echo(&host.namespace, &host.name, ECHO, scene.dir())?;
    let mut pairs = Vec::new();
    for family in Family::BOTH {
        let mut held = Held::connect(&scene.topology.client, family.frontend(80))?;
        ensure!(held.step()? == Step::Echoed, "{family}: at first");
        pairs.push(Pair { family, held });
    }
    let mut nobody = echo(&scene.topology, mode, policy);
    nobody.endpoints.clear();
    scene.apply(&nobody)?;
    Ok((server, pairs))
}

fn ensure_reset_at_both_ends(server: &Process, pairs: &mut [Pair]) -> Result<()> {
    for Pair { family, held } in pairs {
        let step = held.listen()?;
        ensure!(step == Step::Reset, "{family}: the client was told: {step}");
    }
    clock::wait_for("resets at the server", LIMIT, || {
        let resets = server.log().matches("ConnectionReset").count();
        Ok((resets == Family::BOTH.len()).then_some(()))
    })
    .with_context(|| server.tail())
}

fn both_ends_are_reset(topology: Builder, mode: &'static str, policy: &'static str) -> Result<()> {
    let services = |topology: &Topology| vec![echo(topology, mode, policy)];
    scene::with(topology.backends(1), services, |scene| {
        let (server, mut pairs) = left(scene, mode, policy)?;
        if policy != "reset" {
            for Pair { family, held } in &mut pairs {
                let step = held.step()?;
                ensure!(step == Step::Echoed, "{family}: while it drains: {step}");
            }
        }
        ensure_reset_at_both_ends(&server, &mut pairs)
    })
}

#[test]
fn reset_ends_both_ends_with_masquerade() -> Result<()> {
    both_ends_are_reset(Topology::builder(), "masquerade", "reset")
}

#[test]
fn reset_ends_both_ends_with_client_addresses_kept() -> Result<()> {
    both_ends_are_reset(Topology::builder().queues(2), "preserve", "reset")
}

#[test]
fn reset_ends_both_ends_over_four_queues() -> Result<()> {
    both_ends_are_reset(Topology::builder().queues(4), "masquerade", "reset")
}

#[test]
fn drain_lets_connections_go_on_and_then_ends_both_ends() -> Result<()> {
    both_ends_are_reset(Topology::builder().queues(2), "masquerade", "drain=2")
}

#[test]
fn drain_ends_both_ends_with_client_addresses_kept() -> Result<()> {
    both_ends_are_reset(Topology::builder(), "preserve", "drain=2")
}

#[test]
fn keep_lets_connections_go_on() -> Result<()> {
    for mode in ["masquerade", "preserve"] {
        let services = |topology: &Topology| vec![echo(topology, mode, "keep")];
        scene::with(Topology::builder().backends(1), services, |scene| {
            let (server, mut pairs) = left(scene, mode, "keep")?;
            for Pair { family, held } in &mut pairs {
                for _ in 0..3 {
                    let step = held.step()?;
                    ensure!(step == Step::Echoed, "{family}: {step}");
                }
            }
            ensure!(
                !server.log().contains("ConnectionReset"),
                "{}",
                server.tail()
            );
            Ok(())
        })?;
    }
    Ok(())
}
