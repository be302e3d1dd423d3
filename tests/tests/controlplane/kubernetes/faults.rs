//! What served goes on serving, whatever the API server does.

use anyhow::{Result, ensure};
use sluice_conf::ServiceTable;
use sluice_tests::kubernetes::faults::{End, Habits};
use sluice_tests::kubernetes::gateway::{Gateway, serves};

use super::{Ground, SERVICES, SLICES};

/// Three Services with an endpoint each, served.
fn served() -> Result<(Ground, Gateway)> {
    let mut ground = Ground::stand_in()?;
    ground.pool("192.0.2.10-192.0.2.20")?;
    for name in ["a", "b", "c"] {
        ground.balanced(name)?;
        ground.slice(&format!("{name}-1"), name, &["10.1.0.1"])?;
    }
    let gateway = Gateway::start(&ground.cluster, "")?;
    gateway.wait("all served", whole)?;
    for (name, address) in [
        ("a", "192.0.2.10"),
        ("b", "192.0.2.11"),
        ("c", "192.0.2.12"),
    ] {
        ground.wait_status(name, address)?;
    }
    gateway.wait_link("a link", |link| link.connected)?;
    Ok((ground, gateway))
}

/// Whether the table holds all three, each with an endpoint.
fn whole(table: &ServiceTable) -> bool {
    ["a", "b", "c"].iter().all(|name| {
        let mut services = table.services.iter();
        let with_backend = |s: &&std::sync::Arc<sluice_conf::Service>| {
            s.name.name == **name && !s.backends.is_empty() && !s.frontends.is_empty()
        };
        services.any(|service| with_backend(&service))
    })
}

#[test]
fn the_last_state_serves_on_without_an_api_server() -> Result<()> {
    let (mut ground, gateway) = served()?;
    let before = gateway.pushed();
    ground.cluster.server()?.stop();
    gateway.wait_link("no link", |link| !link.connected && link.reason.is_some())?;
    let link = gateway.link()?;
    ensure!(link.synced, "{link:?}");
    ensure!(gateway.status()?.services == 3);
    ground.cluster.server()?.resume()?;
    gateway.wait_link("a link again", |link| link.connected)?;
    ground.move_slice("a-1", &["10.1.0.9"])?;
    gateway.wait("what changed later", |table| {
        serves(table, "a", "192.0.2.10", &["10.1.0.9"])
    })?;
    ensure!(gateway.tables(before).iter().all(whole));
    Ok(())
}

#[test]
fn a_change_that_the_server_has_forgotten_arrives_by_a_new_list() -> Result<()> {
    let (mut ground, gateway) = served()?;
    let before = gateway.pushed();
    let held = Habits {
        held: true,
        ..Habits::default()
    };
    ground.cluster.server()?.habits(held);
    ground.move_slice("b-1", &["10.1.0.7"])?;
    let server = ground.cluster.server()?;
    server.compact();
    for plural in [SLICES, SERVICES] {
        server.end_watches(plural, End::Expire);
    }
    server.habits(Habits {
        paged: true,
        ..Habits::default()
    });
    gateway.wait("what was missed", |table| {
        serves(table, "b", "192.0.2.11", &["10.1.0.7"])
    })?;
    gateway.wait_link("a link", |link| link.connected)?;
    ensure!(gateway.tables(before).iter().all(whole));
    Ok(())
}

#[test]
fn nothing_is_pushed_before_everything_was_read() -> Result<()> {
    let (mut ground, mut gateway) = served()?;
    gateway.stop()?;
    let before = gateway.pushed();
    ground.cluster.server()?.stop();
    gateway.resume()?;
    gateway.wait_link("no link", |link| !link.synced && link.reason.is_some())?;
    ensure!(gateway.pushed() == before, "pushed what it could not know");
    ground.cluster.server()?.resume()?;
    gateway.wait_link("a link", |link| link.connected)?;
    gateway.wait("all served again", whole)?;
    ensure!(gateway.tables(before).iter().all(whole));
    Ok(())
}
