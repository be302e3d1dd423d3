//! What a cluster asks for is served and written back.

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_tests::clock::wait_for;
use sluice_tests::kubernetes::follower::LIMIT;
use sluice_tests::kubernetes::gateway::{Gateway, serves};

use super::{Ground, SERVICES};

pub fn a_service_and_its_slices_become_a_table_and_a_status(ground: &mut Ground) -> Result<()> {
    ground.pool("192.0.2.10-192.0.2.11")?;
    ground.balanced("web")?;
    ground.slice("web-1", "web", &["10.1.0.1"])?;
    let gateway = Gateway::start(&ground.cluster, "")?;
    gateway.wait("web served", |table| {
        serves(table, "web", "192.0.2.10", &["10.1.0.1"])
    })?;
    ground.wait_status("web", "192.0.2.10")?;
    wait_for("an event", LIMIT, || {
        let notes = ground.notes("IPAllocated")?;
        Ok((notes == ["gave it 192.0.2.10"]).then_some(()))
    })?;
    let version = || -> Result<serde_json::Value> {
        let service = ground.cluster.get(SERVICES, "web")?;
        Ok(service["metadata"]["resourceVersion"].clone())
    };
    let written = version()?;
    ground.move_slice("web-1", &["10.1.0.1", "10.1.0.2"])?;
    gateway.wait("another endpoint", |table| {
        serves(table, "web", "192.0.2.10", &["10.1.0.1", "10.1.0.2"])
    })?;
    // Another Service is written, which proves that there was nothing more to write before.
    ground.balanced("web2")?;
    ground.wait_status("web2", "192.0.2.11")?;
    ensure!(version()? == written, "written again without need");
    let link = gateway.link()?;
    ensure!(link.connected && link.synced && link.leads, "{link:?}");
    ground.cluster.delete(SERVICES, "web")?;
    gateway.wait("web gone", |table| {
        table.services.iter().all(|s| s.name.name != "web")
    })
}

pub fn a_service_that_no_pool_serves_is_told_why(ground: &mut Ground) -> Result<()> {
    ground.pool("192.0.2.10/32")?;
    ground.balanced("first")?;
    let gateway = Gateway::start(&ground.cluster, "")?;
    ground.wait_status("first", "192.0.2.10")?;
    ground.balanced("second")?;
    ground.slice("second-1", "second", &["10.1.0.1"])?;
    let notes = wait_for("an event", LIMIT, || {
        let notes = ground.notes("AllocationFailed")?;
        Ok((!notes.is_empty()).then_some(notes))
    })?;
    ensure!(notes.len() == 1, "{notes:?}");
    ensure!(ground.entries("second")?.is_null());
    ground.pool("192.0.2.20/32")?;
    ground.wait_status("second", "192.0.2.20")?;
    gateway.wait("the second served", |table| {
        serves(table, "second", "192.0.2.20", &["10.1.0.1"])
    })?;
    ensure!(ground.notes("AllocationFailed")? == notes, "told again");
    Ok(())
}

pub fn a_restart_takes_the_addresses_over(ground: &mut Ground) -> Result<()> {
    ground.pool("192.0.2.10-192.0.2.20")?;
    let mut gateway = Gateway::start(&ground.cluster, "")?;
    // Against the order of names, in which they would be given their addresses all at once.
    for (name, address) in [
        ("c", "192.0.2.10"),
        ("b", "192.0.2.11"),
        ("a", "192.0.2.12"),
    ] {
        ground.balanced(name)?;
        ground.slice(&format!("{name}-1"), name, &["10.1.0.1"])?;
        ground.wait_status(name, address)?;
    }
    let same = |table: &_| {
        serves(table, "a", "192.0.2.12", &["10.1.0.1"])
            && serves(table, "b", "192.0.2.11", &["10.1.0.1"])
            && serves(table, "c", "192.0.2.10", &["10.1.0.1"])
    };
    gateway.wait("all served", same)?;
    gateway.stop()?;
    // What goes and comes meanwhile changes nothing for the others.
    ground.balanced("0")?;
    let before = gateway.pushed();
    gateway.resume()?;
    ground.wait_status("0", "192.0.2.13")?;
    gateway.wait("all served again", same)?;
    let tables = gateway.tables(before);
    ensure!(tables.iter().all(same), "{tables:?}");
    Ok(())
}

pub fn files_and_the_api_serve_side_by_side(ground: &mut Ground) -> Result<()> {
    ground.pool("192.0.2.10/32")?;
    ground.balanced("web")?;
    ground.slice("web-1", "web", &["10.1.0.1"])?;
    let gateway = Gateway::start(&ground.cluster, "[manifests]\nfolder = \"FOLDER\"\n")?;
    gateway.write(
        "files.yaml",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: local\n  namespace: files\nspec:\n  \
         clusterIP: 10.97.0.1\n  ports:\n  - port: 80\n",
    )?;
    gateway.wait("both served", |table| {
        serves(table, "web", "192.0.2.10", &["10.1.0.1"])
            && serves(table, "local", "10.97.0.1", &[])
    })?;
    let source = gateway.status()?.source;
    ensure!(
        source.contains("folder ") && source.contains("kubernetes "),
        "{source}"
    );
    Ok(())
}

pub fn only_the_leader_writes(ground: &mut Ground) -> Result<()> {
    ground.pool("192.0.2.10-192.0.2.20")?;
    let settings = |identity: &str| {
        format!(
            "[kubernetes.election]\nnamespace = \"{}\"\nidentity = \"{identity}\"\n",
            ground.cluster.namespace
        )
    };
    let mut first = Gateway::start(&ground.cluster, &settings("first"))?;
    first.wait_link("a leader", |link| link.leads)?;
    let second = Gateway::start(&ground.cluster, &settings("second"))?;
    second.wait_link("a second gateway", |link| link.connected && !link.leads)?;
    // Both serve the addresses that the leader has given, in the order of its giving.
    for (name, address) in [("b", "192.0.2.10"), ("a", "192.0.2.11")] {
        ground.balanced(name)?;
        ground.slice(&format!("{name}-1"), name, &["10.1.0.1"])?;
        for gateway in [&first, &second] {
            gateway.wait(name, |table| serves(table, name, address, &["10.1.0.1"]))?;
        }
        ground.wait_status(name, address)?;
    }
    // An Event is written after the status that it tells of.
    let expected = json!(["gave it 192.0.2.10", "gave it 192.0.2.11"]);
    wait_for("an Event of each", LIMIT, || {
        let given = json!(ground.notes("IPAllocated")?);
        Ok((given == expected).then_some(()))
    })?;
    first.stop()?;
    second.wait_link("another leader", |link| link.leads)?;
    ground.balanced("c")?;
    ground.wait_status("c", "192.0.2.12")?;
    for (name, address) in [("b", "192.0.2.10"), ("a", "192.0.2.11")] {
        ground.wait_status(name, address)?;
    }
    Ok(())
}
