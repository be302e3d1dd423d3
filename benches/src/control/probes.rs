//! What it takes to probe very many endpoints.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_tests::clock;
use sluice_tests::daemon::{self, Paths};
use sluice_tests::nginx::Nginx;
use sluice_tests::scene::Scene;

use crate::cpu;
use crate::report::Report;

/// Endpoints that are probed, each every 5 s.
const TARGETS: usize = 10_000;
/// Of a slice.
const OF_SLICE: usize = 1000;
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Measures the share of a core that probing takes, by TCP and by HTTP.
///
/// # Errors
/// The endpoints cannot be made.
pub fn run(probing: Duration, scene: &mut Scene, report: &mut Report) -> Result<()> {
    report.section("10,000 endpoints, probed every 5 s");
    make_endpoints(scene)?;
    let _nginx = Nginx::start(&scene.topology.backends[0], scene.dir(), scene.dir())?;
    for (probe, name) in [
        ("tcp: {}", "CPU time of probes by TCP"),
        ("http: {path: /}", "CPU time of probes by HTTP"),
    ] {
        scene.folder.write_text("probed.yaml", &manifests(probe))?;
        // The first round is spread over a period.
        clock::pause(Duration::from_secs(7))?;
        let share = cpu::share_of_process(scene.controlplane.pid(), probing)?;
        report.add(name, "%", &[100.0 * share]);
    }
    // Who refuses is probed more cheaply, and makes work of another kind.
    let paths = Paths {
        dir: scene.dir().to_owned(),
    };
    let events = daemon::sluicectl(&paths, &["events"])?;
    ensure!(!events.contains("Unhealthy"), "not all passed: {events}");
    scene.folder.remove("probed.yaml")
}

/// Gives the first backend, whose nginx listens everywhere, all addresses of the endpoints.
fn make_endpoints(scene: &Scene) -> Result<()> {
    let (gateway, backend) = (&scene.topology.gateway, &scene.topology.backends[0]);
    let local = ["ip", "route", "add", "local", "10.50.0.0/16", "dev", "lo"];
    backend.namespace.run(&local, LIMIT)?;
    let via = backend.address.to_string();
    let route = ["ip", "route", "add", "10.50.0.0/16", "via", &via];
    gateway.run(&route, LIMIT).map(drop)
}

fn manifests(probe: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: probed}}\n\
         spec: {{clusterIP: 10.97.255.2, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: sluice.dev/v1alpha1\nkind: ServicePolicy\nmetadata: {{name: probed}}\n\
         spec: {{targets: [probed], probe: {{{probe}, periodSeconds: 5}}}}\n---\n"
    );
    for first in (0..TARGETS).step_by(OF_SLICE) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: probed-{first}, \
             labels: {{kubernetes.io/service-name: probed}}}}\naddressType: IPv4\n\
             ports: [{{port: 8080}}]\nendpoints:\n"
        );
        for number in first..first + OF_SLICE {
            let _ = writeln!(
                text,
                "- addresses: [10.50.{}.{}]",
                number / 250,
                number % 250 + 1
            );
        }
        text.push_str("---\n");
    }
    text
}
