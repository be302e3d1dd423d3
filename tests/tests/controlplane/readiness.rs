//! Who serves: probes, what the dataplane sees, weights, tiers, ramps and health check ports, with
//! real servers behind the real dataplane.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_conf::ServiceTable;
use sluice_tests::alone::Alone;
use sluice_tests::clock;
use sluice_tests::manifests::{Endpoint, Service};
use sluice_tests::nginx::{self, Nginx};
use sluice_tests::scene::{self, More, Scene};
use sluice_tests::topology::{Host, Topology, VIP};
use sluice_tests::traffic::{self, Report};

/// Probes, evidence and what follows take some seconds.
const LIMIT: Duration = Duration::from_secs(60);

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: ServicePolicy\nmetadata: {{name: web}}\nspec:\n  \
         targets: [web]\n{spec}"
    )
}

fn web(topology: &Topology) -> Vec<Service> {
    vec![Service::on("web", VIP, nginx::PORT, &topology.backends)]
}

fn start(scene: &Scene) -> Result<Vec<Nginx>> {
    nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())
}

/// Sends requests until those of one round are as `done` wants them.
fn until(scene: &Scene, what: &str, done: impl Fn(&Report) -> bool) -> Result<Report> {
    let url = format!("http://{VIP}/");
    let mut last = None;
    clock::wait_for(what, LIMIT, || {
        let report = traffic::http(&scene.topology.client, &url, 60, 4)?;
        let found = done(&report).then(|| report.clone());
        last = Some(report);
        Ok(found)
    })
    .with_context(|| format!("the last round: {last:?}"))
}

/// All requests are answered, by these backends and no others.
fn until_answered_by(scene: &Scene, backends: &[u8]) -> Result<Report> {
    let expected: BTreeSet<String> = backends.iter().map(|n| format!("backend-{n}")).collect();
    until(scene, &format!("answers of {expected:?}"), |report| {
        let bodies = report.by_body.keys().map(|body| body.trim());
        report.failed == 0 && bodies.eq(expected.iter().map(String::as_str))
    })
}

/// Waits until a problem says so, or until none does any more.
fn until_told(scene: &Scene, what: &str, there: bool) -> Result<()> {
    let mut link = scene.ask_controlplane()?;
    clock::wait_for(what, LIMIT, || {
        let status = link.status()?;
        let told = status.problems.iter().any(|p| p.message.contains(what));
        Ok((told == there).then_some(()))
    })
}

fn a_dead_nginx_goes_and_comes_back(question: &str) -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let mut nginx = start(scene)?;
        let probe = format!("  probe: {{{question}, periodSeconds: 1, failureThreshold: 2}}\n");
        scene.folder.write_text("policy.yaml", &policy(&probe))?;
        until_answered_by(scene, &[1, 2, 3])?;
        drop(nginx.remove(0));
        until_answered_by(scene, &[2, 3])?;
        let first = &scene.topology.backends[0];
        nginx.push(Nginx::start(first, scene.dir(), scene.dir())?);
        until_answered_by(scene, &[1, 2, 3])?;
        Ok(())
    })
}

#[test]
fn a_tcp_probe_takes_a_dead_nginx_out_and_back_in() -> Result<()> {
    a_dead_nginx_goes_and_comes_back("tcp: {}")
}

#[test]
fn an_http_probe_takes_a_dead_nginx_out_and_back_in() -> Result<()> {
    a_dead_nginx_goes_and_comes_back("http: {path: /client}")
}

#[test]
fn below_the_floor_health_is_ignored_and_told() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let mut nginx = start(scene)?;
        let probe = "  probe: {tcp: {}, periodSeconds: 1, failureThreshold: 1}\n  \
                     failOpenPercent: 50\n";
        scene.folder.write_text("policy.yaml", &policy(probe))?;
        drop(nginx.remove(0));
        until_answered_by(scene, &[2, 3])?;
        drop(nginx.remove(0));
        until_told(
            scene,
            "health is ignored: 1 of 3 healthy, less than 50 %",
            true,
        )?;
        until(scene, "requests to the dead as well", |report| {
            report.failed > 0
        })?;
        nginx.push(Nginx::start(
            &scene.topology.backends[1],
            scene.dir(),
            scene.dir(),
        )?);
        until_told(scene, "health is ignored", false)?;
        until_answered_by(scene, &[2, 3]).map(drop)
    })
}

/// Takes SYNs and says nothing.
fn fall_silent(host: &Host) -> Result<()> {
    let rules = "table inet t { chain c { type filter hook input priority 0; \
                 tcp dport 8080 tcp flags syn drop; }; }";
    host.namespace.run(&["nft", rules], LIMIT).map(drop)
}

#[test]
fn a_backend_that_drops_syns_is_taken_out_by_what_the_dataplane_sees() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let _nginx = start(scene)?;
        let passive = "  passive: {enabled: true, failures: 2, seconds: 3600}\n";
        scene.folder.write_text("policy.yaml", &policy(passive))?;
        until_answered_by(scene, &[1, 2, 3])?;
        fall_silent(&scene.topology.backends[0])?;
        let url = format!("http://{VIP}/");
        clock::wait_for("thirty answers in a row", LIMIT, || {
            let patience = Duration::from_millis(1500);
            let all = (0..30).all(|_| traffic::get(&scene.topology.client, &url, patience).is_ok());
            Ok(all.then_some(()))
        })?;
        until_answered_by(scene, &[2, 3]).map(drop)
    })
}

#[test]
fn weights_of_a_policy_divide_new_connections() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let _nginx = start(scene)?;
        let [first, second] = [0, 1].map(|index| scene.topology.backends[index].address);
        let weights =
            format!("  weights: {{default: 1, endpoints: {{{first}: 8, {second}: 0}}}}\n");
        scene.change(|folder| folder.write_text("policy.yaml", &policy(&weights)))?;
        let url = format!("http://{VIP}/");
        let report = traffic::http(&scene.topology.client, &url, 450, 4)?;
        ensure!(report.failed == 0, "{report:?}");
        let of = |n: u8| {
            let mut bodies = report.by_body.iter();
            let found = bodies.find(|(body, _)| body.trim() == format!("backend-{n}"));
            found.map_or(0, |(_, count)| *count)
        };
        ensure!(of(2) == 0, "{report:?}");
        // Eight to one of 450, far within what chance does.
        ensure!(
            (350..=430).contains(&of(1)) && of(1) + of(3) == 450,
            "{report:?}"
        );
        Ok(())
    })
}

fn pods(hosts: &[Host], labels: [&str; 3], more: &str) -> String {
    let mut text = String::new();
    for (host, labels) in hosts.iter().zip(labels) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  labels: {{app: web{labels}}}\n\
             spec:\n  containers:\n  - name: nginx\n    ports: [{{containerPort: 8080}}]\n{more}\
             status:\n  podIP: {}\n",
            host.name, host.address
        );
        if more.is_empty() {
            text.push_str("  conditions: [{type: Ready, status: \"True\"}]\n");
        }
    }
    text
}

fn selecting(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: LoadBalancer\n  \
         {address}selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

const POOL: &str = "apiVersion: sluice.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: public}\n\
    spec: {addresses: [203.0.113.10/32]}\n";
const NETWORKS: More<'static> = More {
    dataplane: "",
    controlplane: "[cluster]\nservice_networks = [\"10.96.0.0/16\"]\n",
};

#[test]
fn tiers_by_labels_of_pods_are_followed_and_so_is_a_new_label() -> Result<()> {
    scene::with_settings(
        Topology::builder(),
        NETWORKS,
        |_| Vec::new(),
        |scene| {
            let _nginx = start(scene)?;
            let tiers = "  tiers:\n  - {tier: 1, podSelector: {matchLabels: {spare: \"yes\"}}}\n";
            let spare = ", spare: \"yes\"";
            scene.folder.write_text("policy.yaml", &policy(tiers))?;
            scene.folder.write_text("pool.yaml", POOL)?;
            scene.folder.write_text("web.yaml", &selecting(""))?;
            let write = |labels| {
                let text = pods(&scene.topology.backends, labels, "");
                scene.folder.write_text("pods.yaml", &text)
            };
            write(["", spare, spare])?;
            until_answered_by(scene, &[1])?;
            write([spare, spare, ""])?;
            until_answered_by(scene, &[3])?;
            write(["", "", ""])?;
            until_answered_by(scene, &[1, 2, 3]).map(drop)
        },
    )
}

#[test]
fn pods_of_a_file_are_judged_by_their_readiness_probes() -> Result<()> {
    scene::with_settings(
        Topology::builder(),
        NETWORKS,
        |_| Vec::new(),
        |scene| {
            let mut nginx = start(scene)?;
            let probe = "    readinessProbe:\n      httpGet: {path: /client, port: 8080}\n      \
                     periodSeconds: 1\n      failureThreshold: 1\n";
            let text = pods(&scene.topology.backends, [""; 3], probe);
            scene.folder.write_text("pods.yaml", &text)?;
            scene.folder.write_text("pool.yaml", POOL)?;
            scene.folder.write_text("web.yaml", &selecting(""))?;
            until_answered_by(scene, &[1, 2, 3])?;
            drop(nginx.remove(1));
            until_answered_by(scene, &[1, 3])?;
            let second = &scene.topology.backends[1];
            nginx.push(Nginx::start(second, scene.dir(), scene.dir())?);
            until_answered_by(scene, &[1, 2, 3]).map(drop)
        },
    )
}

/// Body and status of what is answered at the health check node port.
fn asked(scene: &Scene, port: u16) -> Result<(Value, String)> {
    let own = scene.topology.gateway_towards_client();
    let url = format!("http://{own}:{port}/");
    let words = [
        "curl",
        "--silent",
        "--max-time",
        "2",
        "--write-out",
        " %{http_code}",
        &url,
    ];
    let answer = scene.topology.client.run(&words, LIMIT)?;
    let (body, status) = answer.rsplit_once(' ').context("no status")?;
    Ok((serde_json::from_str(body)?, status.to_owned()))
}

#[test]
fn a_health_check_port_answers_from_outside_as_endpoints_go() -> Result<()> {
    let local = |topology: &Topology| {
        let mut service = Service::on("web", VIP, nginx::PORT, &topology.backends[..1]);
        service.endpoints[0].node = Some("node-1");
        vec![
            service
                .with("externalTrafficPolicy: Local")
                .with("healthCheckNodePort: 32000"),
        ]
    };
    scene::with(Topology::builder(), local, |scene| {
        let mut nginx = start(scene)?;
        let until_status = |scene: &Scene, wanted: &str| {
            clock::wait_for(&format!("the status {wanted}"), LIMIT, || {
                let answer = asked(scene, 32_000).ok();
                let wanted = answer.filter(|(_, status)| status == wanted);
                Ok(wanted.map(|(body, _)| body))
            })
        };
        let answer = until_status(scene, "200")?;
        ensure!(answer["localEndpoints"] == 1, "{answer}");
        let probe = "  probe: {tcp: {}, periodSeconds: 1, failureThreshold: 1}\n";
        scene.folder.write_text("policy.yaml", &policy(probe))?;
        drop(nginx.remove(0));
        let answer = until_status(scene, "503")?;
        ensure!(answer["localEndpoints"] == 0, "{answer}");
        let first = &scene.topology.backends[0];
        nginx.push(Nginx::start(first, scene.dir(), scene.dir())?);
        until_status(scene, "200")?;
        let mut leaving = local(&scene.topology).remove(0);
        leaving.endpoints[0] = Endpoint {
            node: Some("node-1"),
            ..Endpoint::draining(first.address)
        };
        scene.folder.write(&leaving)?;
        until_status(scene, "503")?;
        // It fails although traffic still flows, so that who is in front leaves in time.
        until_answered_by(scene, &[1]).map(drop)
    })
}

/// Weights of the backends of a table.
fn weights(table: &ServiceTable) -> BTreeMap<IpAddr, u16> {
    let backends = table.services.iter().flat_map(|service| &service.backends);
    backends
        .map(|backend| (backend.address, backend.weight))
        .collect()
}

#[test]
fn the_weight_of_a_new_endpoint_grows_step_by_step() -> Result<()> {
    let [old, new]: [IpAddr; 2] = ["10.0.2.11".parse()?, "10.0.2.12".parse()?];
    let with = |endpoints: Vec<Endpoint>| Service {
        endpoints,
        ..Service::on("web", VIP, nginx::PORT, &[])
    };
    let mut alone = Alone::start("", |folder| {
        folder.write_text(
            "policy.yaml",
            &policy("  slowStart: {seconds: 2, from: 10}\n"),
        )?;
        folder.write(&with(vec![Endpoint::ready(old)]))
    })?;
    let full = alone.until("the old one", |table| weights(table).len() == 1)?;
    let full = weights(&full)[&old];
    alone
        .folder
        .write(&with(vec![Endpoint::ready(old), Endpoint::ready(new)]))?;
    alone.until("both in full", |table| {
        weights(table).get(&new) == Some(&full)
    })?;
    let mut steps: Vec<u16> = Vec::new();
    for table in alone.dataplane.unseen() {
        let weights = weights(&table);
        ensure!(
            weights[&old] == full,
            "the old one's weight changed: {weights:?}"
        );
        steps.extend(weights.get(&new));
    }
    steps.dedup();
    ensure!(steps.len() >= 3, "{steps:?}");
    ensure!(steps.is_sorted() && steps[0] * 4 < full, "{steps:?}");
    Ok(())
}
