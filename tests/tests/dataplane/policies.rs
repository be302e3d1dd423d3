//! Who may use a Service, who serves whom, and what the others get.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::capture::Capture;
use sluice_tests::family::Family;
use sluice_tests::manifests::{Endpoint, Service};
use sluice_tests::process::Finished;
use sluice_tests::scene::{self, More, Scene};
use sluice_tests::topology::{Builder, Host, Topology};
use sluice_tests::{clock, nginx, traffic};

const LIMIT: Duration = Duration::from_secs(60);
/// curl's exit code for a time limit.
const CURL_TIMED_OUT: i32 = 28;

/// A second address of the client's.
fn second(scene: &Scene, family: Family) -> Result<IpAddr> {
    let address = family.address(1, 11);
    let lines = format!("address replace {address}/{} dev eth0\n", family.prefix());
    scene.topology.client.ip_batch(&lines)?;
    Ok(address)
}

/// Who answers twenty connections from one address.
fn answered_by(scene: &Scene, family: Family, from: IpAddr) -> Result<BTreeSet<String>> {
    let url = format!("http://{}/?[1-20]", family.frontend(80));
    let from = from.to_string();
    let words = [
        "--interface",
        &from,
        "--header",
        "Connection: close",
        "--max-time",
        "10",
        &url,
    ];
    let printed = scene.curl(&words, LIMIT)?;
    let bodies = printed.lines().filter(|line| line.starts_with("backend-"));
    Ok(bodies.map(str::to_owned).collect())
}

/// One request from an address that is not expected to be answered.
fn refused(scene: &Scene, family: Family, from: IpAddr) -> Result<Finished> {
    let (url, from) = (format!("http://{}/", family.frontend(80)), from.to_string());
    let words = [
        "curl",
        "--silent",
        "--show-error",
        "--interface",
        &from,
        "--max-time",
        "1",
        &url,
    ];
    scene.topology.client.try_run(&words, LIMIT)
}

/// Frames dropped so far for a reason.
fn dropped(scene: &Scene, reason: &str) -> Result<u64> {
    let stats = scene.ask_dataplane()?.stats()?;
    let found = stats.drops.iter().find(|drop| drop.reason == reason);
    Ok(found.map_or(0, |drop| drop.frames))
}

/// Waits until frames have been dropped for this reason since `before` was read.
fn ensure_more_dropped(scene: &Scene, reason: &str, before: u64) -> Result<()> {
    clock::wait_for(reason, LIMIT, || {
        Ok((dropped(scene, reason)? > before).then_some(()))
    })
}

fn clients_stay(topology: Builder, mode: &'static str) -> Result<()> {
    let sticky = |hosts: &[Host]| {
        let web = Service::dual("web", nginx::PORT, hosts);
        web.with("sessionAffinity: ClientIP").source_nat(mode)
    };
    scene::with(
        topology,
        |topology| vec![sticky(&topology.backends[..2])],
        |scene| {
            let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
            let mut chosen = Vec::new();
            for family in Family::BOTH {
                for from in [scene.topology.client_at(family), second(scene, family)?] {
                    let by = answered_by(scene, family, from)?;
                    ensure!(by.len() == 1, "{from} was answered by {by:?}");
                    chosen.push((family, from, by));
                }
            }
            let three = sticky(&scene.topology.backends);
            scene.apply(&three)?;
            for (family, from, by) in &chosen {
                let now = answered_by(scene, *family, *from)?;
                ensure!(now == *by, "{from} went from {by:?} to {now:?}");
            }
            Ok(())
        },
    )
}

#[test]
fn a_client_stays_with_its_backend_also_when_another_one_comes() -> Result<()> {
    clients_stay(Topology::builder(), "masquerade")
}

#[test]
fn a_client_stays_with_its_backend_over_four_queues() -> Result<()> {
    clients_stay(Topology::builder().queues(4), "preserve")
}

#[test]
fn only_clients_in_the_source_ranges_are_served() -> Result<()> {
    let guarded = |topology: &Topology| {
        let web = Service::dual("web", nginx::PORT, &topology.backends);
        vec![web.with("loadBalancerSourceRanges: [\"10.0.1.10/32\", \"2001:db8:1::a/128\"]")]
    };
    scene::with(Topology::builder().queues(2), guarded, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        for family in Family::BOTH {
            let by = answered_by(scene, family, scene.topology.client_at(family))?;
            ensure!(!by.is_empty(), "{family}: nobody answered");
            let before = dropped(scene, "source_not_allowed")?;
            let other = second(scene, family)?;
            let ended = refused(scene, family, other)?;
            ensure!(ended.status.code() == Some(CURL_TIMED_OUT), "{ended:?}");
            ensure_more_dropped(scene, "source_not_allowed", before)?;
        }
        Ok(())
    })
}

#[test]
fn with_policy_local_only_endpoints_of_local_nodes_serve() -> Result<()> {
    let more = More {
        controlplane: "[cluster]\nlocal_nodes = [\"node-1\"]\n",
        ..More::default()
    };
    let on_nodes = |topology: &Topology, nodes: [&'static str; 2]| {
        let mut web = Service::dual("web", nginx::PORT, &[]).with("externalTrafficPolicy: Local");
        for (host, node) in topology.backends.iter().zip(nodes) {
            for family in Family::BOTH {
                let mut endpoint = Endpoint::ready(host.at(family));
                endpoint.node = Some(node);
                web.endpoints.push(endpoint);
            }
        }
        web
    };
    let topology = Topology::builder().backends(2);
    let at_first = |topology: &Topology| vec![on_nodes(topology, ["node-1", "node-2"])];
    scene::with_settings(topology, more, at_first, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        for family in Family::BOTH {
            let by = answered_by(scene, family, scene.topology.client_at(family))?;
            ensure!(
                by == BTreeSet::from(["backend-1".to_owned()]),
                "{family}: {by:?}"
            );
        }
        let elsewhere = on_nodes(&scene.topology, ["node-3", "node-2"]);
        scene.apply(&elsewhere)?;
        for family in Family::BOTH {
            let before = dropped(scene, "no_local_backend")?;
            let ended = refused(scene, family, scene.topology.client_at(family))?;
            ensure!(ended.status.code() == Some(CURL_TIMED_OUT), "{ended:?}");
            ensure_more_dropped(scene, "no_local_backend", before)?;
        }
        Ok(())
    })
}

#[test]
fn with_refusal_tcp_reset_a_client_is_reset_without_icmp() -> Result<()> {
    let empty = |_: &Topology| {
        vec![Service::dual("web", nginx::PORT, &[]).annotated("sluice.dev/refusal", "tcp-reset")]
    };
    scene::with(Topology::builder().queues(2), empty, |scene| {
        let client = &scene.topology.client;
        let capture = Capture::start(client, "eth0", "", scene.dir())?;
        for family in Family::BOTH {
            let url = format!("http://{}/", family.frontend(80));
            let report = traffic::http(client, &url, 3, 1)?;
            let refused = report
                .errors
                .keys()
                .all(|error| error.contains("ECONNREFUSED"));
            ensure!(report.failed == 3 && refused, "{family}: {report:?}");
        }
        let seen = capture.finish()?;
        ensure!(seen.bad.is_empty(), "wrong packets: {:?}", seen.bad);
        for family in Family::BOTH {
            let vip = family.vip();
            let resets = seen
                .packets
                .iter()
                .filter(|packet| packet.is_tcp_from(vip, 80))
                .count();
            ensure!(resets == 3, "{family}: {resets} answers");
            let mut icmp = seen.packets.iter().filter(|packet| packet.source == vip);
            ensure!(
                icmp.all(|packet| packet.icmp.is_none()),
                "{family}: an ICMP message"
            );
        }
        Ok(())
    })
}

#[test]
fn with_refusal_drop_a_client_hears_nothing() -> Result<()> {
    let empty = |_: &Topology| {
        vec![Service::dual("web", nginx::PORT, &[]).annotated("sluice.dev/refusal", "drop")]
    };
    scene::with(Topology::builder(), empty, |scene| {
        for family in Family::BOTH {
            let before = dropped(scene, "refused")?;
            let ended = refused(scene, family, scene.topology.client_at(family))?;
            ensure!(ended.status.code() == Some(CURL_TIMED_OUT), "{ended:?}");
            ensure_more_dropped(scene, "refused", before)?;
        }
        Ok(())
    })
}
