//! The harness itself, without Sluice: if one of these fails, the other cases prove nothing.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::capture::Capture;
use sluice_tests::nginx::{self, Nginx};
use sluice_tests::topology::{Arms, Topology};
use sluice_tests::traffic::{self, Held, Ongoing, Step};
use sluice_tests::{clock, dns};

const LIMIT: Duration = Duration::from_secs(20);

fn variants() -> Result<Vec<Topology>> {
    [
        (1, Arms::Two),
        (2, Arms::Two),
        (1, Arms::One),
        (2, Arms::One),
    ]
    .into_iter()
    .map(|(queues, arms)| Topology::builder().queues(queues).arms(arms).build())
    .collect()
}

#[test]
fn client_gateway_and_backends_reach_one_another_in_every_topology() {
    for topology in variants().unwrap() {
        let gateway = topology.gateway_towards_client().to_string();
        topology
            .client
            .run(&["ping", "-c1", "-W2", &gateway], LIMIT)
            .unwrap();
        for host in &topology.backends {
            let address = host.address.to_string();
            topology
                .client
                .run(&["ping", "-c1", "-W2", &address], LIMIT)
                .unwrap();
            topology
                .gateway
                .run(&["ping", "-c1", "-W2", &address], LIMIT)
                .unwrap();
        }
    }
}

#[test]
fn interfaces_have_the_queues_that_were_asked_for_and_no_offloads() {
    for queues in [1, 2] {
        let topology = Topology::builder().queues(queues).build().unwrap();
        for name in topology.interfaces() {
            let channels = topology
                .gateway
                .run(&["ethtool", "-l", name], LIMIT)
                .unwrap();
            let expected = format!("RX:\t\t{queues}\nTX:\t\t{queues}");
            assert_eq!(channels.matches(&expected).count(), 2, "{name}: {channels}");
            let features = topology
                .gateway
                .run(&["ethtool", "-k", name], LIMIT)
                .unwrap();
            for feature in [
                "tx-checksumming",
                "tcp-segmentation-offload",
                "generic-segmentation-offload",
                "generic-receive-offload",
            ] {
                assert!(
                    features.contains(&format!("\n{feature}: off")),
                    "{feature} of {name}"
                );
            }
        }
    }
}

#[test]
fn nginx_answers_through_the_gateways_kernel_and_checksums_are_right_on_every_link() {
    let topology = Topology::builder().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let big = dir.path().join("big");
    std::fs::write(&big, vec![7; 1 << 20]).unwrap();
    let host = &topology.backends[0];
    let nginx = Nginx::start(host, dir.path(), &big).unwrap();
    let client = Capture::start(&topology.client, "eth0", "", dir.path()).unwrap();
    let backend = Capture::start(&host.namespace, "eth0", "", dir.path()).unwrap();

    let curl = |path: &str| -> Result<String> {
        let url = format!("http://{}:{}/{path}", host.address, nginx::PORT);
        topology.client.run(
            &["curl", "--silent", "--fail", "--max-time", "10", &url],
            LIMIT,
        )
    };
    assert_eq!(curl("").unwrap(), "backend-1\n");
    assert_eq!(curl("client").unwrap(), "10.0.1.10\n");
    assert_eq!(curl("big").unwrap().len(), 1 << 20);
    let url = format!("http://{}:{}/", host.address, nginx::PORT);
    let report = traffic::http(&topology.client, &url, 200, 8).unwrap();
    assert_eq!((report.ok, report.failed), (200, 0), "{report:?}");
    assert_eq!(report.by_body["backend-1"], 200);
    assert_eq!(nginx.clients().unwrap().len(), 203);

    for capture in [client, backend] {
        let seen = capture.finish().unwrap();
        assert_eq!(seen.bad, [""; 0]);
        assert!(seen.packets.len() > 1000, "{} packets", seen.packets.len());
        assert!(
            seen.packets
                .iter()
                .any(|packet| packet.is_tcp_from(host.address, nginx::PORT))
        );
    }
}

#[test]
fn the_echo_server_answers_datagrams_and_held_connections() {
    let topology = Topology::builder().backends(1).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let host = &topology.backends[0];
    let mut echo = traffic::echo(&host.namespace, &host.name, 7000, dir.path()).unwrap();
    let to = SocketAddrV4::new(host.address, 7000);

    let picks = traffic::udp(&topology.client, to, 20_000, 300).unwrap();
    assert_eq!(picks.len(), 300);
    assert!(picks.values().all(|name| name == "backend-1"));

    let mut held = Held::connect(&topology.client, to).unwrap();
    assert_eq!(held.backend(), "backend-1");
    assert_eq!(held.step().unwrap(), Step::Echoed);
    assert_eq!(held.step().unwrap(), Step::Echoed);
    echo.end(nix::sys::signal::Signal::SIGKILL, LIMIT).unwrap();
    assert!(matches!(held.step().unwrap(), Step::Reset | Step::Closed));
}

#[test]
fn failed_requests_are_counted_and_ongoing_ones_end_on_demand() {
    let topology = Topology::builder().backends(1).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let big = dir.path().join("big");
    std::fs::write(&big, b"x").unwrap();
    let host = &topology.backends[0];
    let url = format!("http://{}:{}/", host.address, nginx::PORT);
    let refused = traffic::http(&topology.client, &url, 3, 1).unwrap();
    assert_eq!((refused.ok, refused.failed), (0, 3), "{refused:?}");

    let nginx = Nginx::start(host, dir.path(), &big).unwrap();
    let ongoing = Ongoing::start(&topology.client, &url, 2).unwrap();
    clock::wait_for("some requests", LIMIT, || {
        Ok((nginx.clients()?.len() > 50).then_some(()))
    })
    .unwrap();
    let report = ongoing.finish().unwrap();
    assert!(report.ok > 50 && report.failed == 0, "{report:?}");
}

#[test]
fn a_real_dns_server_answers_dig() {
    let topology = Topology::builder().backends(1).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let host = &topology.backends[0];
    let _server = dns::start(host, dir.path()).unwrap();
    let (at, port) = (format!("@{}", host.address), dns::PORT.to_string());
    let mut words = vec!["dig", &at, "-b", "10.0.1.10#20000", "-p", &port, "+short"];
    words.extend(["www.example.test"; 5]);
    let answers = topology.client.run(&words, LIMIT).unwrap();
    assert_eq!(answers.lines().collect::<Vec<_>>(), [dns::ANSWER; 5]);
}

#[test]
fn a_flood_of_frames_and_garbage_reaches_the_gateway() -> Result<()> {
    let topology = Topology::builder().build()?;
    let link = topology
        .gateway
        .run(&["cat", "/sys/class/net/c0/address"], LIMIT)?;
    let to = SocketAddrV4::new(topology.backends[0].address, 9);
    let count = |counter: &str| -> Result<u64> {
        let path = format!("/sys/class/net/c0/statistics/{counter}");
        Ok(topology
            .gateway
            .run(&["cat", &path], LIMIT)?
            .trim()
            .parse()?)
    };
    let before = count("rx_packets")?;
    let from = topology.client_address();
    traffic::flood(&topology.client, link.trim(), from, to, 5000, 10)?;
    let received = count("rx_packets")? - before;
    ensure!(received >= 5000, "{received} frames of 5000 arrived");
    Ok(())
}
