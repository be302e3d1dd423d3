//! What names say in the course of time: before everything is known, when endpoints come and go, and
//! over starts and ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use sluice_conf::{BackendState, ServiceTable};
use sluice_tests::clock;
use sluice_tests::daemon;
use sluice_tests::inside;
use sluice_tests::kubernetes::cluster::Cluster;
use sluice_tests::kubernetes::gateway::Gateway;
use sluice_tests::names::{self, LIMIT, dig, of_service};
use tokio::net::TcpStream;

use super::{SERVER, ask, pair, still_answers, until_named, with_pair};

const STAYS: &str = "10.1.0.1";
const LEAVES: &str = "10.1.0.2";

/// What a backend of the Vip may get; `None` when it is not listed.
fn state(table: &ServiceTable, address: &str) -> Option<BackendState> {
    let backends = table.services.iter().flat_map(|service| &service.backends);
    let mut found = backends.filter(|backend| backend.address.to_string() == address);
    found.next().map(|backend| backend.state)
}

#[test]
fn a_draining_endpoint_leaves_dns_first_and_the_vip_last() -> Result<()> {
    let notice = "[draining]\nnotice_seconds = 4\n";
    let mut alone = with_pair(notice, &[(STAYS, true), (LEAVES, true)])?;
    let active = Some(BackendState::Active);
    alone.until("both", |table| state(table, LEAVES) == active)?;
    daemon::sluicectl(&alone.paths, &["drain", LEAVES, "--timeout", "2"])?;
    until_named(&alone, &[STAYS])?;
    let newest = alone.dataplane.newest().context("no table")?;
    ensure!(
        state(&newest, LEAVES) == active,
        "it left the Vip together with its name"
    );
    alone.until("no new connections", |table| {
        state(table, LEAVES) == Some(BackendState::Draining)
    })?;
    until_named(&alone, &[STAYS])?;
    alone.until("out of use", |table| state(table, LEAVES).is_none())?;
    daemon::sluicectl(&alone.paths, &["undrain", LEAVES])?;
    alone.until("back in use", |table| state(table, LEAVES) == active)?;
    until_named(&alone, &[STAYS, LEAVES])
}

/// How long after the file was written the name goes by it.
async fn until_answered(wanted: usize, began: Instant) -> Result<Duration> {
    loop {
        if ask(&of_service("db")).await?.addresses.len() == wanted {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < LIMIT, "the name does not follow");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn names_follow_readiness_before_the_dataplane_hears_of_it() -> Result<()> {
    let mut alone = with_pair("", &[(STAYS, true), (LEAVES, true)])?;
    let active = Some(BackendState::Active);
    alone.until("both", |table| state(table, LEAVES) == active)?;
    let mut delays = Vec::new();
    for round in 0..20 {
        let ready = round % 2 == 1;
        let count = alone.dataplane.count();
        let text = pair(&[(STAYS, true), (LEAVES, ready)]);
        let began = clock::now();
        alone.folder.write_text("pair.yaml", &text)?;
        if round < 10 {
            let wanted = 1 + usize::from(ready);
            delays.push(inside::run(
                &alone.namespace,
                until_answered(wanted, began),
            )?);
        }
        alone.until("the change", |table| {
            (state(table, LEAVES) == active) == ready
        })?;
        ensure!(alone.dataplane.count() > count, "no table of its own");
        let answer = inside::run(&alone.namespace, ask(&of_service("db")))?;
        ensure!(
            answer.addresses.len() == 1 + usize::from(ready),
            "{answer:?}"
        );
    }
    delays.sort_unstable();
    // A file is collected for up to 40 ms before it counts.
    eprintln!("from the file to the name, in order: {delays:?}");
    Ok(())
}

/// An address of this machine's loopback network that no other test has, with a port that is free.
fn own_address() -> Result<SocketAddr> {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = IpAddr::V4(Ipv4Addr::new(127, 53, high, low.clamp(1, 254)));
    let port = TcpListener::bind((address, 0))?.local_addr()?.port();
    Ok(SocketAddr::new(address, port))
}

#[test]
fn nothing_is_denied_before_everything_is_known() -> Result<()> {
    let mut cluster = Cluster::stand_in()?;
    let ports = json!([{ "name": "http", "port": 80, "protocol": "TCP" }]);
    let spec = json!({ "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
        "ipFamilies": ["IPv4"], "type": "ClusterIP", "ports": ports });
    cluster.create(
        "services",
        json!({ "metadata": { "name": "web" }, "spec": spec }),
    )?;
    let name = format!("web.{}.svc.{}", cluster.namespace, names::ZONE);
    cluster.server()?.stop();
    let at = own_address()?;
    let _gateway = Gateway::start(&cluster, &names::listening(&[at]))?;
    for question in [name.as_str(), "nobody.default.svc.cluster.local"] {
        let reply = clock::wait_until_ok("an answer", LIMIT, || dig(None, at, &[question, "A"]))?;
        ensure!(reply.status == "SERVFAIL", "{question}: {reply:?}");
    }
    cluster.server()?.resume()?;
    clock::wait_until_ok("the Service", LIMIT, || {
        let reply = dig(None, at, &[&name, "A"])?;
        ensure!(reply.data("A") == ["10.96.0.1"], "{reply:?}");
        Ok(())
    })?;
    let reply = dig(None, at, &["nobody.default.svc.cluster.local", "A"])?;
    ensure!(reply.status == "NXDOMAIN", "{reply:?}");
    Ok(())
}

#[test]
fn an_address_that_is_taken_is_named_and_who_has_it_goes_on() -> Result<()> {
    let mut alone = with_pair("", &[(STAYS, true)])?;
    let finished = alone.second(|settings| {
        let settings = settings.replace("controlplane.sock", "second.sock");
        let settings = settings.replace("controlplane.redb", "second.redb");
        settings.replace(daemon::CONTROLPLANE_METRICS, "127.0.0.1:9475")
    })?;
    ensure!(finished.status.code() == Some(2), "{finished:?}");
    ensure!(finished.stderr.contains("dns.listen"), "{finished:?}");
    ensure!(
        finished.stderr.contains(&SERVER.to_string()),
        "{finished:?}"
    );
    still_answers(&mut alone)
}

#[test]
fn ctrl_c_ends_the_server_with_clients_at_it_and_it_can_start_again() -> Result<()> {
    let mut alone = with_pair("", &[(STAYS, true)])?;
    let namespace = &alone.namespace;
    let _client = inside::run(namespace, async { Ok(TcpStream::connect(SERVER).await?) })?;
    let status = alone.process.end(Signal::SIGINT, LIMIT)?;
    ensure!(status.success(), "{status}");
    alone.restart()?;
    until_named(&alone, &[STAYS])?;
    still_answers(&mut alone)
}
