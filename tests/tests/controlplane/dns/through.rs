//! A Service whose endpoint is the control plane's own DNS server: clients ask a Vip, and the gateway
//! carries the questions like any other traffic.
//!
//! An endpoint cannot be an address of the gateway itself, because what is translated leaves by an
//! interface. So the control plane lives in a namespace behind one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use sluice_conf::Protocol;
use sluice_tests::daemon::{self, Paths};
use sluice_tests::family::Family;
use sluice_tests::manifests::{Endpoint, Folder, Port, Service};
use sluice_tests::names::{self, LIMIT, Resolver, dig, of_service};
use sluice_tests::topology::{Host, Topology};
use sluice_tests::{clock, nginx};

/// Where the server listens.
const PORT: u16 = 5353;

/// The Vip of the DNS server.
fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, 53).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x53).into(),
    }
}

fn names_service(server: &Host) -> Service {
    let port = |name, protocol| Port {
        name,
        port: 53,
        backend_port: PORT,
        node_port: None,
        protocol,
    };
    Service {
        name: "kube-dns",
        cluster_ips: Family::BOTH.map(vip).to_vec(),
        load_balancers: Vec::new(),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        endpoints: Family::BOTH
            .map(|family| Endpoint::ready(server.at(family)))
            .to_vec(),
        weights: Default::default(),
        annotations: Default::default(),
        spec: Vec::new(),
    }
}

fn web(hosts: &[Host]) -> Service {
    let mut web = Service::dual("web", nginx::PORT, hosts);
    web.load_balancers.clear();
    let [four, six] = Family::BOTH.map(Family::cluster_ip);
    web.cluster_ip(four).cluster_ip(six)
}

#[test]
fn a_service_for_dns_can_point_at_the_gateways_own_server() -> Result<()> {
    let topology = Topology::builder().build()?;
    let server = topology.attach("names", "d0", 4)?;
    let dir = tempfile::Builder::new().prefix("sluice-").tempdir()?;
    let paths = Paths {
        dir: dir.path().to_owned(),
    };
    let folder = Folder::create(dir.path().join("services"))?;
    folder.write(&names_service(&server))?;
    folder.write(&web(&topology.backends))?;
    let _nginx = nginx::start_all(&topology.backends, dir.path(), dir.path())?;
    let settings = daemon::dataplane_settings(&paths, &["c0", "b0", "d0"], "");
    let mut dataplane = daemon::start("sluice-dataplane", &topology.gateway, &paths, &settings)?;
    daemon::dataplane_ready(&mut dataplane, &paths)?;
    let listen = Family::BOTH.map(|family| SocketAddr::new(server.at(family), PORT));
    let settings =
        daemon::controlplane_settings(&paths, folder.path(), &[], &names::listening(&listen));
    let mut controlplane =
        daemon::start("sluice-controlplane", &server.namespace, &paths, &settings)?;
    daemon::settled(&mut controlplane, &paths)?;

    let client = &topology.client;
    for family in Family::BOTH {
        let at = SocketAddr::new(vip(family), 53);
        for transport in ["+notcp", "+tcp"] {
            let words = [transport, &of_service("web"), "A"];
            let reply = clock::wait_until_ok("an answer", LIMIT, || dig(Some(client), at, &words))?;
            ensure!(reply.data("A") == ["10.96.0.10"], "{reply:?}");
        }
        let resolver = Resolver::new(client, dir.path(), &[vip(family)])?;
        let words = ["curl", "--silent", "--show-error", "--fail", "http://web/"];
        let body = clock::wait_until_ok("nginx by its name", LIMIT, || resolver.run(&words))?;
        ensure!(body.starts_with("backend-"), "{body}");
    }
    let connections = daemon::sluicectl(&paths, &["connections", "--service", "kube-dns"])?;
    for protocol in ["UDP", "TCP"] {
        ensure!(
            connections.contains(protocol),
            "no {protocol} in: {connections}"
        );
    }
    Ok(())
}
