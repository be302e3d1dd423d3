//! Sluice's two daemons.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use sluice_tests::daemon::{self, Paths};
use sluice_tests::manifests::Folder;
use sluice_tests::process::Process;
use tempfile::TempDir;

use super::super::rig::{
    BACKEND_PORT, BACKENDS, GENERATOR_CPU, INTERFACES, PEER_CPU, PORT, Rig, backend, vip,
};
use super::{Origin, STATES, cluster_ip, protocol};
use crate::cpu;

/// Threads of the dataplane that stay on the peer's CPU.
const WORKERS: Option<&str> = Some("worker-");

/// Sluice's daemons and their folder, which go in this order.
pub struct Sluice {
    _controlplane: Process,
    pub(in crate::wire) dataplane: Process,
    /// What the control plane reads.
    pub(in crate::wire) folder: Folder,
    pub(in crate::wire) paths: Paths,
    _dir: TempDir,
}

pub(super) fn start(rig: &Rig, services: u32, origin: Origin, polling: &str) -> Result<Sluice> {
    let dir = tempfile::tempdir().context("a folder for Sluice")?;
    let paths = Paths {
        dir: dir.path().to_owned(),
    };
    let folder = Folder::create(dir.path().join("services"))?;
    folder.write_text("services.yaml", &manifests(services, protocol(rig)))?;
    let timeouts =
        STATES.map(|(_, state)| format!("tcp_{state} = {}\n", origin.seconds(rig, state)));
    // As many source ports as the kernel uses.
    let more = format!(
        "[workers]\ncores = [{PEER_CPU}]\npolling = \"{polling}\"\n[connections]\ncapacity = 2097152\n\
         [source_nat]\nports = \"1024-65535\"\n[timeouts]\n{}",
        timeouts.concat()
    );
    let settings =
        daemon::dataplane_settings(&paths, &INTERFACES, &more).replace("\"debug\"", "\"warn\"");
    let mut dataplane = daemon::start("sluice-dataplane", &rig.gateway, &paths, &settings)?;
    daemon::dataplane_ready(&mut dataplane, &paths)?;
    cpu::prefer_process(dataplane.pid())?;
    let settings = daemon::controlplane_settings(&paths, folder.path(), &[], "")
        .replace("\"debug\"", "\"warn\"");
    let mut controlplane = daemon::start("sluice-controlplane", &rig.gateway, &paths, &settings)?;
    daemon::settled(&mut controlplane, &paths)?;
    // As any gateway's worker, this one has its CPU to itself.
    cpu::claim_for_process(dataplane.pid(), GENERATOR_CPU, WORKERS)?;
    cpu::claim_for_process(controlplane.pid(), GENERATOR_CPU, None)?;
    Ok(Sluice {
        _controlplane: controlplane,
        dataplane,
        folder,
        paths,
        _dir: dir,
    })
}

fn manifests(services: u32, protocol: &str) -> String {
    let protocol = protocol.to_uppercase();
    let mut text = String::new();
    for service in 0..services {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: default}}\n\
             spec:\n  type: LoadBalancer\n  clusterIP: {}\n  loadBalancerIP: {}\n  \
             ports: [{{name: p, protocol: {protocol}, port: {PORT}}}]\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{service}-1, namespace: default, labels: {{kubernetes.io/service-name: s{service}}}}}\n\
             addressType: IPv4\nports: [{{name: p, protocol: {protocol}, port: {BACKEND_PORT}}}]\nendpoints:\n",
            cluster_ip(service),
            vip(service)
        );
        for number in 0..BACKENDS {
            let _ = writeln!(text, "  - addresses: [\"{}\"]", backend(number));
        }
    }
    text
}
