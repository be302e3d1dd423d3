//! A real nginx in each backend's namespace, with a prefix, a configuration and a process id file of
//! its own. It answers its name at `/`, the address of its client at `/client` and a large file at
//! `/big`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock;
use crate::netns::Netns;
use crate::process::Process;
use crate::topology::Host;

/// Port that every nginx listens on.
pub const PORT: u16 = 8080;
/// How long nginx may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _process: Process,
    access_log: PathBuf,
}

impl Nginx {
    /// Starts nginx at a backend; `big` is the file served at `/big`.
    ///
    /// # Errors
    /// It cannot be started or does not listen.
    pub fn start(host: &Host, dir: &Path, big: &Path) -> Result<Self> {
        Self::start_in(&host.namespace, &host.name, dir, big)
    }

    /// Starts nginx as `name` in a namespace.
    ///
    /// # Errors
    /// It cannot be started or does not listen.
    pub fn start_in(namespace: &Netns, name: &str, dir: &Path, big: &Path) -> Result<Self> {
        let prefix = dir.join(format!("nginx-{name}"));
        fs::create_dir_all(&prefix).context("nginx's folder")?;
        let configuration = prefix.join("nginx.conf");
        fs::write(&configuration, text(name, &prefix, big))?;
        let (folder, file) = (prefix.to_string_lossy(), configuration.to_string_lossy());
        let words = ["nginx", "-p", &folder, "-c", &file, "-e", "stderr"];
        let mut process = namespace.start("nginx", &words, &prefix.join("nginx.log"))?;
        let port = format!(":{PORT}");
        clock::wait_for("nginx listening", LIMIT, || {
            process.still_running()?;
            let listening = namespace.run(&["ss", "-Hltn"], LIMIT)?;
            Ok(listening.contains(&port).then_some(()))
        })?;
        Ok(Self {
            _process: process,
            access_log: prefix.join("access.log"),
        })
    }

    /// The addresses of the clients that it has answered so far, in order.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn clients(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.access_log).context("nginx's access log")?;
        Ok(log.lines().map(str::to_owned).collect())
    }
}

fn text(name: &str, prefix: &Path, big: &Path) -> String {
    let prefix = prefix.display();
    let big = big.display();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {prefix}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    log_format client '$remote_addr';
    access_log {prefix}/access.log client;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    sendfile on;
    keepalive_requests 1000000;
    default_type text/plain;
    server {{
        listen {PORT} reuseport backlog=4096;
        listen [::]:{PORT} reuseport backlog=4096;
        location = / {{ return 200 \"{name}\\n\"; }}
        location = /client {{ return 200 \"$remote_addr\\n\"; }}
        location = /big {{ alias {big}; }}
    }}
}}
"
    )
}

/// Starts nginx at every backend, each serving `big` at `/big`.
///
/// # Errors
/// One of them cannot be started.
pub fn start_all(hosts: &[Host], dir: &Path, big: &Path) -> Result<Vec<Nginx>> {
    hosts
        .iter()
        .map(|host| Nginx::start(host, dir, big))
        .collect()
}
