//! Sluice's daemons as children in the gateway's namespace, with generated settings.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluice_conf::message;

use crate::clock;
use crate::control;
use crate::netns::Netns;
use crate::process::{self, Finished, Process};

/// How long a daemon may take to be ready or to end.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Where the metrics are served, inside the gateway's namespace.
pub const DATAPLANE_METRICS: &str = "127.0.0.1:9464";
/// Where the metrics of the control plane are served, inside the gateway's namespace.
pub const CONTROLPLANE_METRICS: &str = "127.0.0.1:9465";

/// A binary of this workspace: in `SLUICE_BIN_DIR` when that is set, else beside this executable.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("the path of this executable")?;
    let mut folders: Vec<PathBuf> = env::var_os("SLUICE_BIN_DIR")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    // A test runs from target/<profile>/deps, a binary from target/<profile>.
    folders.extend(own.ancestors().skip(1).take(2).map(Path::to_owned));
    let found = folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not in {folders:?}; run `cargo build --workspace` first")
    })
}

/// Folders and sockets of one pair of daemons.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Settings and logs.
    pub dir: PathBuf,
}

impl Paths {
    /// The dataplane's control socket.
    pub fn dataplane_socket(&self) -> PathBuf {
        self.dir.join("dataplane.sock")
    }

    /// The control plane's control socket.
    pub fn controlplane_socket(&self) -> PathBuf {
        self.dir.join("controlplane.sock")
    }
}

/// Settings of a dataplane on `interfaces`; `more` is appended as it is.
pub fn dataplane_settings(paths: &Paths, interfaces: &[&str], more: &str) -> String {
    let untagged: Vec<(&str, &[u16])> = interfaces.iter().map(|name| (*name, &[][..])).collect();
    tagged_settings(paths, &untagged, more)
}

/// The same for interfaces whose frames carry VLAN tags.
pub fn tagged_settings(paths: &Paths, interfaces: &[(&str, &[u16])], more: &str) -> String {
    let mut text = String::new();
    for (name, tags) in interfaces {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[[interfaces]]\nname = \"{name}\"\nvlan = {tags:?}");
    }
    let socket = paths.dataplane_socket();
    text + &format!(
        "[control]\nsocket = \"{}\"\n[metrics]\nlisten = \"{DATAPLANE_METRICS}\"\n[log]\nlevel = \"debug\"\n{more}",
        socket.display()
    )
}

/// Settings of a control plane that reads `folder`; `more` is appended as it is.
pub fn controlplane_settings(
    paths: &Paths,
    folder: &Path,
    node_ports: &[IpAddr],
    more: &str,
) -> String {
    let addresses: Vec<String> = node_ports
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    format!(
        "[manifests]\nfolder = \"{}\"\n[store]\npath = \"{}\"\n[node_ports]\naddresses = [{}]\n[dataplane]\nsocket = \"{}\"\n\
         [control]\nsocket = \"{}\"\n[metrics]\nlisten = \"{CONTROLPLANE_METRICS}\"\n[log]\nlevel = \"debug\"\n{more}",
        folder.display(),
        paths.dir.join("controlplane.redb").display(),
        addresses.join(", "),
        paths.dataplane_socket().display(),
        paths.controlplane_socket().display(),
    )
}

/// Starts `program` (a daemon) in `gateway` with `settings`; does not wait for it to be ready.
///
/// # Errors
/// It cannot be started.
pub fn start(program: &str, gateway: &Netns, paths: &Paths, settings: &str) -> Result<Process> {
    let file = paths.dir.join(format!("{program}.toml"));
    fs::write(&file, settings)?;
    let binary = binary(program)?;
    let (binary, file) = (binary.to_string_lossy(), file.to_string_lossy());
    let log = paths.dir.join(format!("{program}.log"));
    gateway.start(program, &[&binary, "--config", &file], &log)
}

/// Runs a daemon that is expected to end by itself, with `settings` and `arguments`.
///
/// # Errors
/// It cannot be started or goes on running.
pub fn run(
    program: &str,
    gateway: &Netns,
    paths: &Paths,
    settings: &str,
    arguments: &[&str],
) -> Result<Finished> {
    let file = paths.dir.join(format!("{program}-once.toml"));
    fs::write(&file, settings)?;
    let mut command = gateway.command(binary(program)?);
    command.arg("--config").arg(&file).args(arguments);
    process::run(&mut command, "", LIMIT)
}

/// Waits until the dataplane answers on its socket; returns its status.
///
/// # Errors
/// It ended, or does not answer.
pub fn dataplane_ready(process: &mut Process, paths: &Paths) -> Result<message::dataplane::Status> {
    let socket = paths.dataplane_socket();
    clock::wait_for("the dataplane answering on its socket", LIMIT, || {
        process.still_running()?;
        let connected = control::Dataplane::connect(&socket);
        Ok(connected.and_then(|mut link| link.status()).ok())
    })
    .with_context(|| process.tail())
}

/// Waits until the dataplane uses the control plane's newest table; returns that status.
///
/// # Errors
/// The control plane ended, or that does not happen.
pub fn settled(process: &mut Process, paths: &Paths) -> Result<message::controlplane::Status> {
    let socket = paths.controlplane_socket();
    clock::wait_for("the newest table applied", LIMIT, || {
        process.still_running()?;
        let connected = control::Controlplane::connect(&socket);
        let status = connected.and_then(|mut link| link.status()).ok();
        Ok(status.filter(|status| control::newest_applied(status).is_some()))
    })
    .with_context(|| process.tail())
}

/// Runs `sluicectl` against the daemons of `paths`; what it prints.
///
/// # Errors
/// It is missing, fails, or hangs.
pub fn sluicectl(paths: &Paths, words: &[&str]) -> Result<String> {
    Ok(try_sluicectl(paths, words)?.success()?.stdout)
}

/// Runs `sluicectl` against the daemons of `paths`, also to see it fail.
///
/// # Errors
/// It is missing or hangs.
pub fn try_sluicectl(paths: &Paths, words: &[&str]) -> Result<Finished> {
    let mut command = Command::new(binary("sluicectl")?);
    command
        .arg("--dataplane-socket")
        .arg(paths.dataplane_socket());
    command
        .arg("--controlplane-socket")
        .arg(paths.controlplane_socket());
    command.args(words);
    process::run(&mut command, "", LIMIT)
}

/// Interfaces of `gateway` that have an XDP program, as the kernel tells.
///
/// # Errors
/// `ip` fails.
pub fn interfaces_with_xdp(gateway: &Netns) -> Result<Vec<String>> {
    let links = gateway.run(&["ip", "-details", "-json", "link"], LIMIT)?;
    let links: serde_json::Value = serde_json::from_str(&links)?;
    let Some(links) = links.as_array() else {
        bail!("`ip -json link` printed no list");
    };
    Ok(links
        .iter()
        .filter(|link| link.get("xdp").is_some())
        .filter_map(|link| Some(link.get("ifname")?.as_str()?.to_owned()))
        .collect())
}
