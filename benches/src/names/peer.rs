//! Servers of Debian that serve the same zone, each with one thread on CPU 0.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sluice_tests::names::{LIMIT, ZONE, dig};
use sluice_tests::netns::Netns;
use sluice_tests::process::Process;
use sluice_tests::{clock, dns};

use super::at;

/// A server.
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Where it listens.
    pub at: SocketAddr,
    /// How it is started, before the name of its configuration.
    words: &'static [&'static str],
    configuration: fn(&Place<'_>) -> String,
}

/// What a configuration names.
struct Place<'a> {
    folder: &'a Path,
    zone: &'a Path,
    port: u16,
}

/// The servers.
pub static PEERS: [Peer; 3] = [
    Peer {
        name: "nsd",
        at: at(5301),
        words: &["nsd", "-d", "-c"],
        configuration: nsd,
    },
    Peer {
        name: "Knot",
        at: at(5302),
        words: &["knotd", "-c"],
        configuration: knot,
    },
    Peer {
        name: "BIND",
        at: at(5303),
        words: &["named", "-g", "-n", "1", "-u", "root", "-c"],
        configuration: bind,
    },
];

impl Peer {
    /// Starts it with the zone of `dir`, in a folder of its own there.
    ///
    /// # Errors
    /// It is missing, or does not answer.
    pub fn start(&self, namespace: &Netns, dir: &Path) -> Result<Process> {
        let folder: PathBuf = dir.join(self.name);
        fs::create_dir_all(&folder).context("the folder of a server")?;
        let place = Place {
            folder: &folder,
            zone: &dir.join("zone"),
            port: self.at.port(),
        };
        let file = folder.join("configuration");
        fs::write(&file, (self.configuration)(&place)).context("the configuration of a server")?;
        let file = file.to_string_lossy();
        let mut words = vec!["taskset", "-c", "0"];
        words.extend(self.words);
        words.push(&file);
        let mut process = namespace.start(self.name, &words, &folder.join("log"))?;
        let what = format!("{} answering", self.name);
        clock::wait_until_ok(&what, LIMIT, || {
            process.still_running()?;
            let reply = dig(Some(namespace), self.at, &[ZONE, "SOA"])?;
            ensure!(reply.status == "NOERROR", "{reply:?}");
            Ok(())
        })
        .with_context(|| process.tail())?;
        Ok(process)
    }
}

fn nsd(place: &Place<'_>) -> String {
    let own = format!(
        "  ip-address: 127.0.0.1
  port: {}
  minimal-responses: yes
  rrl-ratelimit: 0
",
        place.port
    );
    dns::configuration(&own, place.folder, ZONE, place.zone)
}

fn knot(place: &Place<'_>) -> String {
    let Place { folder, zone, port } = place;
    let (folder, zone) = (folder.display(), zone.display());
    format!(
        "server:
    rundir: \"{folder}\"
    user: root:root
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: \"{folder}\"
zone:
  - domain: {ZONE}
    storage: \"{folder}\"
    file: \"{zone}\"
"
    )
}

fn bind(place: &Place<'_>) -> String {
    let Place { folder, zone, port } = place;
    let (folder, zone) = (folder.display(), zone.display());
    format!(
        "options {{
  directory \"{folder}\";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  recursion no;
  minimal-responses yes;
  dnssec-validation no;
  pid-file none;
  session-keyfile none;
}};
controls {{ }};
zone \"{ZONE}\" {{ type primary; file \"{zone}\"; }};
"
    )
}
