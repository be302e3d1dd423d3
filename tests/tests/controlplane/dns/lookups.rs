//! dig, drill, host and a libc, at the gateway's own addresses.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use sluice_tests::daemon;
use sluice_tests::dns;
use sluice_tests::family::Family;
use sluice_tests::manifests::Service;
use sluice_tests::names::{self, LIMIT, Resolver, dig, of_service};
use sluice_tests::nginx;
use sluice_tests::scene::{self, More, Scene};
use sluice_tests::topology::Topology;
use sluice_tests::{clock, topology};

const ADDRESS: &str = "10.96.0.10";
const ADDRESS6: &str = "fd00:96::10";

const OUTSIDE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: outside}\n\
    spec: {type: ExternalName, externalName: www.example.test}\n";

fn web(topology: &Topology) -> Vec<Service> {
    let mut web = Service::dual("web", nginx::PORT, &topology.backends);
    web.load_balancers.clear();
    web.ports[0].name = "http";
    let [four, six] = Family::BOTH.map(Family::cluster_ip);
    vec![web.cluster_ip(four).cluster_ip(six)]
}

/// The gateway's own address towards clients.
fn own(family: Family) -> SocketAddr {
    SocketAddr::new(family.address(1, 1), 53)
}

/// Both daemons, nginx at every backend, and at the first also the server that others are asked of.
fn with_names(check: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    let upstream = Family::V4.address(2, 11);
    let settings = names::listening(&Family::BOTH.map(own))
        + &format!(
            "[dns.forward]\nupstreams = [\"{upstream}:{}\"]\n",
            dns::PORT
        );
    let more = More {
        controlplane: &settings,
        ..More::default()
    };
    scene::with_settings(Topology::builder(), more, web, |scene| {
        let hosts = &scene.topology.backends;
        let _nginx = nginx::start_all(hosts, scene.dir(), scene.dir())?;
        let _nsd = dns::start(&hosts[0], scene.dir())?;
        scene.folder.write_text("outside.yaml", OUTSIDE)?;
        let client = Some(&scene.topology.client);
        clock::wait_until_ok("the last Service by name", LIMIT, || {
            let reply = dig(client, own(Family::V4), &[&of_service("outside"), "CNAME"])?;
            ensure!(reply.status == "NOERROR", "{reply:?}");
            Ok(())
        })?;
        check(scene)
    })
}

#[test]
fn dig_is_told_addresses_ports_and_reverse_names_by_udp_and_tcp() -> Result<()> {
    with_names(|scene| {
        let client = Some(&scene.topology.client);
        let web = of_service("web");
        let service = format!("_http._tcp.{web}");
        // A weight of 100 is shared out over both addresses.
        let target = format!("0 50 80 {web}.");
        let back = format!("{web}.");
        let cases: [(&[&str], &str, &str); 6] = [
            (&[&web, "A"], "A", ADDRESS),
            (&[&web, "AAAA"], "AAAA", ADDRESS6),
            (&[&service, "SRV"], "SRV", &target),
            (&["-x", ADDRESS], "PTR", &back),
            (&["-x", ADDRESS6], "PTR", &back),
            (&["dns-version.cluster.local", "TXT"], "TXT", "\"1.1.0\""),
        ];
        for family in Family::BOTH {
            for (question, kind, wanted) in cases {
                for transport in ["+notcp", "+tcp"] {
                    let mut words = vec![transport];
                    words.extend(question);
                    let reply = dig(client, own(family), &words)?;
                    ensure!(reply.status == "NOERROR", "{words:?}: {reply:?}");
                    ensure!(reply.data(kind) == [wanted], "{words:?}: {reply:?}");
                    ensure!(reply.flags.iter().any(|flag| flag == "aa"), "{reply:?}");
                }
            }
        }
        let reply = dig(client, own(Family::V4), &[&of_service("nobody"), "A"])?;
        ensure!(reply.status == "NXDOMAIN", "{reply:?}");
        let reply = dig(client, own(Family::V4), &[&web, "MX"])?;
        ensure!(
            reply.status == "NOERROR" && reply.records.is_empty(),
            "{reply:?}"
        );
        let shouted = web.to_uppercase();
        let reply = dig(client, own(Family::V4), &[&shouted, "A"])?;
        ensure!(reply.data("A") == [ADDRESS], "{reply:?}");
        ensure!(reply.records[0].name == format!("{shouted}."), "{reply:?}");
        Ok(())
    })
}

#[test]
fn drill_and_host_are_told_the_same() -> Result<()> {
    with_names(|scene| {
        let client = &scene.topology.client;
        let (web, server) = (of_service("web"), own(Family::V4).ip().to_string());
        let drilled = client.run(&["drill", &format!("@{server}"), &web, "A"], LIMIT)?;
        ensure!(drilled.contains("rcode: NOERROR"), "{drilled}");
        ensure!(drilled.contains(&format!("\t{ADDRESS}\n")), "{drilled}");
        for (question, wanted) in [
            (web.as_str(), format!("{web} has address {ADDRESS}")),
            (web.as_str(), format!("{web} has IPv6 address {ADDRESS6}")),
            (ADDRESS, format!("domain name pointer {web}.")),
        ] {
            let told = client.run(&["host", question, &server], LIMIT)?;
            ensure!(told.contains(&wanted), "no {wanted:?} in: {told}");
        }
        Ok(())
    })
}

#[test]
fn a_libc_finds_services_by_short_names_and_curl_reaches_them() -> Result<()> {
    with_names(|scene| {
        let servers: [IpAddr; 2] = Family::BOTH.map(|family| own(family).ip());
        for server in servers {
            let resolver = Resolver::new(&scene.topology.client, scene.dir(), &[server])?;
            for name in ["web", "web.default", "web.default.svc", &of_service("web")] {
                ensure!(resolver.hosts("ahostsv4", name)? == [ADDRESS], "{name}");
                ensure!(resolver.hosts("ahostsv6", name)? == [ADDRESS6], "{name}");
            }
            for flag in ["-4", "-6"] {
                let words = [
                    "curl",
                    flag,
                    "--silent",
                    "--show-error",
                    "--fail",
                    "http://web/",
                ];
                let body =
                    clock::wait_until_ok("nginx by its name", LIMIT, || resolver.run(&words))?;
                ensure!(body.starts_with("backend-"), "{body}");
            }
            let nobody = resolver.try_run(&["getent", "ahostsv4", "nobody"])?;
            ensure!(nobody.status.code() == Some(2), "{nobody:?}");
        }
        Ok(())
    })
}

#[test]
fn what_is_no_name_of_the_cluster_is_asked_of_others() -> Result<()> {
    with_names(|scene| {
        let resolver = Resolver::new(&scene.topology.client, scene.dir(), &[own(Family::V4).ip()])?;
        for name in ["www.example.test", "outside"] {
            let found = resolver.hosts("ahostsv4", name)?;
            ensure!(found == [dns::ANSWER], "{name}: {found:?}");
        }
        let client = Some(&scene.topology.client);
        let reply = dig(client, own(Family::V4), &[&of_service("outside"), "A"])?;
        ensure!(reply.data("CNAME") == ["www.example.test."], "{reply:?}");
        ensure!(reply.data("A") == [dns::ANSWER], "{reply:?}");
        Ok(())
    })
}

#[test]
fn sluicectl_tells_where_an_answer_comes_from() -> Result<()> {
    with_names(|scene| {
        let told = daemon::sluicectl(scene.paths(), &["dns", &of_service("web")])?;
        for wanted in ["default/web", ADDRESS] {
            ensure!(told.contains(wanted), "no {wanted:?} in: {told}");
        }
        let client = Some(&scene.topology.client);
        let refused = dig(client, own(Family::V4), &["-x", &topology::VIP.to_string()])?;
        ensure!(refused.records.is_empty(), "nobody's address: {refused:?}");
        Ok(())
    })
}
