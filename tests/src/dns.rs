//! A real DNS server (nsd) at a backend, authoritative for `example.test`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock;
use crate::process::Process;
use crate::topology::Host;

/// Port that every server listens on, not 53, so that the port is translated too.
pub const PORT: u16 = 5353;
/// What `www.example.test` resolves to.
pub const ANSWER: &str = "192.0.2.80";
/// The record `big.example.test` has so many strings of so many bytes.
pub const BIG_STRINGS: usize = 15;
/// Bytes of each of them.
pub const BIG_STRING: usize = 240;
/// How long the server may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// Starts nsd at a backend.
///
/// # Errors
/// It cannot be started or does not answer.
pub fn start(host: &Host, dir: &Path) -> Result<Process> {
    let folder = dir.join(format!("nsd-{}", host.name));
    fs::create_dir_all(&folder).context("nsd's folder")?;
    fs::write(folder.join("zone"), zone(host))?;
    let configuration = folder.join("nsd.conf");
    fs::write(&configuration, text(host, &folder))?;
    let file = configuration.to_string_lossy();
    let words = ["nsd", "-d", "-c", &file];
    let mut process = host.namespace.start("nsd", &words, &folder.join("log"))?;
    let (port, at) = (PORT.to_string(), format!("@{}", host.address));
    let question = [
        "dig",
        &at,
        "-p",
        &port,
        "+short",
        "+tries=1",
        "+time=1",
        "www.example.test",
    ];
    clock::wait_for("nsd answering", LIMIT, || {
        process.still_running()?;
        let answer = host.namespace.try_run(&question, LIMIT)?;
        Ok((answer.stdout.trim() == ANSWER).then_some(()))
    })?;
    Ok(process)
}

fn text(host: &Host, folder: &Path) -> String {
    let own = format!(
        "  ip-address: {}
  ip-address: {}
  ipv4-edns-size: 4096
  ipv6-edns-size: 4096
  port: {PORT}
",
        host.address, host.address6
    );
    configuration(&own, folder, "example.test", &folder.join("zone"))
}

/// The configuration of an nsd with one process that serves `zone` from `file` and keeps everything
/// in `folder`; `own` are its own lines about the server, where it listens first of all.
pub fn configuration(own: &str, folder: &Path, zone: &str, file: &Path) -> String {
    let (folder, file) = (folder.display(), file.display());
    format!(
        "server:
{own}  server-count: 1
  username: \"\"
  database: \"\"
  zonesdir: \"{folder}\"
  pidfile: \"{folder}/pid\"
  zonelistfile: \"{folder}/zone.list\"
  xfrdfile: \"{folder}/xfrd.state\"
  xfrdir: \"{folder}\"
remote-control:
  control-enable: no
zone:
  name: {zone}
  zonefile: \"{file}\"
"
    )
}

fn zone(host: &Host) -> String {
    format!(
        "$ORIGIN example.test.
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A {address}
www IN A {ANSWER}
big IN TXT {big}
",
        big = vec![format!("\"{}\"", "x".repeat(BIG_STRING)); BIG_STRINGS].join(" "),
        address = host.address
    )
}
