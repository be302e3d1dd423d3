//! Mistakes of operators and strangers are named, and harm nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::daemon::{self, LIMIT, Paths};
use sluice_tests::manifests::Service;
use sluice_tests::process::Finished;
use sluice_tests::scene;
use sluice_tests::topology::{Topology, VIP};
use sluice_tests::{clock, nginx, traffic};

/// Exit code for a mistake of the operator.
const MISTAKE: i32 = 2;

fn web(topology: &Topology) -> Vec<Service> {
    vec![Service::on("web", VIP, nginx::PORT, &topology.backends)]
}

#[test]
fn a_malformed_manifest_is_reported_by_place_and_the_others_apply() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: broken\nspec:\n  clusterIP: 10.96.9.9\n  ports:\n  - port: 70000\n";
        scene.folder.write_text("broken.yaml", text)?;
        let mut link = scene.ask_controlplane()?;
        let problem = clock::wait_for("the problem in the status", LIMIT, || {
            let problems = link.status()?.problems;
            Ok(problems
                .into_iter()
                .find(|each| each.file.ends_with("broken.yaml")))
        })?;
        ensure!(problem.line == Some(8), "{problem:?}");
        ensure!(
            problem.field.as_deref() == Some("spec.ports[0].port"),
            "{problem:?}"
        );
        let shown = daemon::sluicectl(scene.paths(), &["status"])?;
        for part in ["broken.yaml", "spec.ports[0].port"] {
            ensure!(shown.contains(part), "{part} is not in:\n{shown}");
        }

        let other = SocketAddrV4::new(VIP, 8000);
        let mut service = Service::on("other", VIP, nginx::PORT, &scene.topology.backends);
        service = service.port(other.port(), sluice_conf::Protocol::Tcp);
        scene.apply(&service)?;
        scene.answering(other)?;
        scene.answering(SocketAddrV4::new(VIP, 80))?;

        scene.folder.remove("broken.yaml")?;
        clock::wait_for("the problem gone from the status", LIMIT, || {
            let problems = link.status()?.problems;
            Ok((!problems
                .iter()
                .any(|each| each.file.ends_with("broken.yaml")))
            .then_some(()))
        })
    })
}

#[test]
fn a_manifest_that_breaks_keeps_the_service_it_had() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        scene
            .folder
            .write_text("web.yaml", "kind: Service\n  name: [")?;
        let mut link = scene.ask_controlplane()?;
        clock::wait_for("the problem in the status", LIMIT, || {
            Ok((!link.status()?.problems.is_empty()).then_some(()))
        })?;
        let report = traffic::http(&scene.topology.client, &format!("http://{VIP}/"), 50, 4)?;
        ensure!(report.failed == 0, "{report:?}");
        Ok(())
    })
}

/// Sends `bytes` to a control socket and reads until the daemon closes or stays silent.
fn insult(socket: &Path, bytes: &[u8]) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    // The daemon may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(())
}

#[test]
fn garbage_on_a_control_socket_harms_nothing() -> Result<()> {
    scene::with(Topology::builder(), web, |scene| {
        let _nginx = nginx::start_all(&scene.topology.backends, scene.dir(), scene.dir())?;
        let sockets = [
            scene.paths().dataplane_socket(),
            scene.paths().controlplane_socket(),
        ];
        let noise: Vec<u8> = (0..100_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for socket in &sockets {
            insult(socket, b"GET / HTTP/1.1\r\n\r\n")?;
            insult(socket, &noise)?;
            insult(socket, b"Sl\x01\0\xff\xff\xff\xff")?;
            insult(socket, b"Sl\x63\0\x01\0\0\0x")?;
            insult(socket, b"Sl\x01\0\x04\0\0\0\xff\xff\xff\xff")?;
            insult(socket, b"Sl\x01")?;
        }
        // Half a message that never goes on must not keep others waiting.
        let _waiting: Vec<UnixStream> = sockets
            .iter()
            .map(|socket| {
                let mut stream = UnixStream::connect(socket)?;
                stream.write_all(b"Sl\x01\0\x40")?;
                Ok(stream)
            })
            .collect::<Result<_>>()?;
        scene.ask_dataplane()?.status()?;
        scene.settled()?;
        let service = Service::on("web", VIP, nginx::PORT, &scene.topology.backends[..2]);
        scene.apply(&service)?;
        let report = traffic::http(&scene.topology.client, &format!("http://{VIP}/"), 100, 4)?;
        ensure!(
            report.failed == 0 && report.by_body.len() == 2,
            "{report:?}"
        );
        Ok(())
    })
}

/// A topology and a folder for daemons that will not start.
fn stage() -> Result<(Topology, tempfile::TempDir, Paths)> {
    let dir = tempfile::tempdir()?;
    let paths = Paths {
        dir: dir.path().to_owned(),
    };
    Ok((Topology::builder().backends(1).build()?, dir, paths))
}

/// The daemon ended with the exit code for mistakes and one line that has every part.
fn ensure_mistake(ended: &Finished, parts: &[&str]) -> Result<()> {
    ensure!(ended.status.code() == Some(MISTAKE), "{ended:?}");
    let complaint = ended.stderr.lines().last().context("no complaint")?;
    for part in parts {
        ensure!(
            complaint.contains(part),
            "{part:?} is not in {complaint:?} of {ended:?}"
        );
    }
    Ok(())
}

#[test]
fn wrong_settings_are_refused_by_file_line_and_key() -> Result<()> {
    let (topology, _dir, paths) = stage()?;
    let text = "[[interfaces]]\nname = \"c0\"\n\n[frames]\nring = 100\n";
    for arguments in [[].as_slice(), &["--check"]] {
        let ended = daemon::run(
            "sluice-dataplane",
            &topology.gateway,
            &paths,
            text,
            arguments,
        )?;
        let place = "sluice-dataplane-once.toml:5: frames.ring: 100 is not a power of two";
        ensure_mistake(&ended, &[place])?;
        let text = "[manifests]\nfolder = \"/x\"\n[nonsense]\n";
        let ended = daemon::run(
            "sluice-controlplane",
            &topology.gateway,
            &paths,
            text,
            arguments,
        )?;
        ensure_mistake(&ended, &["sluice-controlplane-once.toml:3: nonsense"])?;
    }
    Ok(())
}

#[test]
fn right_settings_pass_the_check() -> Result<()> {
    let (topology, _dir, paths) = stage()?;
    let text = daemon::dataplane_settings(&paths, topology.interfaces(), "");
    daemon::run(
        "sluice-dataplane",
        &topology.gateway,
        &paths,
        &text,
        &["--check"],
    )?
    .success()?;
    let text = daemon::controlplane_settings(&paths, &paths.dir, &[], "");
    daemon::run(
        "sluice-controlplane",
        &topology.gateway,
        &paths,
        &text,
        &["--check"],
    )?
    .success()?;
    Ok(())
}

#[test]
fn a_missing_interface_is_named() -> Result<()> {
    let (topology, _dir, paths) = stage()?;
    let text = daemon::dataplane_settings(&paths, &["c0", "nowhere0"], "");
    let ended = daemon::run("sluice-dataplane", &topology.gateway, &paths, &text, &[])?;
    ensure_mistake(&ended, &["nowhere0"])?;
    ensure!(
        daemon::interfaces_with_xdp(&topology.gateway)?.is_empty(),
        "XDP stays on c0"
    );
    Ok(())
}

#[test]
fn an_mtu_that_does_not_fit_a_frame_is_named() -> Result<()> {
    let (topology, _dir, paths) = stage()?;
    topology.gateway.ip_batch("link set c0 mtu 3000\n")?;
    let text = daemon::dataplane_settings(&paths, topology.interfaces(), "");
    let ended = daemon::run("sluice-dataplane", &topology.gateway, &paths, &text, &[])?;
    ensure_mistake(&ended, &["c0", "3000", "1778"])
}

#[test]
fn a_dataplane_without_permission_says_so() -> Result<()> {
    let (topology, _dir, paths) = stage()?;
    let settings = paths.dir.join("dataplane.toml");
    fs::write(
        &settings,
        daemon::dataplane_settings(&paths, topology.interfaces(), ""),
    )?;
    let binary = daemon::binary("sluice-dataplane")?;
    // Still the owner of its files, but without a single capability.
    let words = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        &binary.to_string_lossy(),
        "--config",
        &settings.to_string_lossy(),
    ];
    let ended = topology.gateway.try_run(&words, LIMIT)?;
    ensure_mistake(&ended, &["permi"])
}
