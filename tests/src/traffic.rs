//! The helper binary `traffic`, run inside a namespace, and what it reports.
//!
//! A process cannot change its network namespace without unsafe code, so clients and echo servers
//! that need more than curl and dig give are a binary of this crate, started by `ip netns exec`.

mod held;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::daemon;
use crate::netns::{CONFIGURE, Netns};
use crate::process::Process;

pub use held::{Held, Step};

/// What happened to many requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Requests answered.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// How often each body came as an answer.
    pub by_body: BTreeMap<String, u64>,
    /// How often each error happened.
    pub errors: BTreeMap<String, u64>,
    /// The longest that an answered request took, in milliseconds.
    pub slowest_ms: u64,
}

impl Report {
    /// Adds another report to this one.
    pub fn add(&mut self, other: Report) {
        self.ok += other.ok;
        self.failed += other.failed;
        for (body, count) in other.by_body {
            *self.by_body.entry(body).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
    }
}

/// Which backend answered each source port; missing ports were not answered.
pub type Picks = BTreeMap<u16, String>;

/// Runs the helper inside `namespace` to its end and returns what it printed.
///
/// # Errors
/// The helper is missing, fails, or does not end within `limit`.
pub fn run(namespace: &Netns, words: &[&str], limit: Duration) -> Result<String> {
    let binary = daemon::binary("traffic")?;
    let binary = binary.to_string_lossy();
    let mut line = vec![binary.as_ref()];
    line.extend(words);
    namespace.run(&line, limit)
}

/// `count` HTTP requests, each on a connection of its own, `concurrency` at a time, from source
/// ports 40000 and up, as a host's own connections have: the same five-tuples each time, so that what a hash makes of them is the
/// same each time.
///
/// # Errors
/// The helper does not run; failed requests are in the report.
pub fn http(namespace: &Netns, url: &str, count: u16, concurrency: u16) -> Result<Report> {
    let (count, concurrency) = (count.to_string(), concurrency.to_string());
    let words = [
        "http",
        "--url",
        url,
        "--count",
        &count,
        "--concurrency",
        &concurrency,
        "--first-port",
        "40000",
    ];
    Ok(serde_json::from_str(&run(
        namespace,
        &words,
        Duration::from_secs(120),
    )?)?)
}

/// One HTTP request that must be answered within `timeout`; returns the body.
///
/// # Errors
/// It was not answered.
pub fn get(namespace: &Netns, url: &str, timeout: Duration) -> Result<String> {
    let millis = timeout.as_millis().to_string();
    let words = [
        "http",
        "--url",
        url,
        "--count",
        "1",
        "--timeout-ms",
        &millis,
    ];
    let report: Report = serde_json::from_str(&run(namespace, &words, CONFIGURE + timeout)?)?;
    match report.by_body.into_iter().next() {
        Some((body, _)) => Ok(body),
        None => bail!("GET {url}: {:?}", report.errors),
    }
}

/// One datagram to an echo server from each of `count` source ports, `first` and up.
///
/// # Errors
/// The helper does not run, or an answer came from a wrong address or with a wrong content.
pub fn udp(namespace: &Netns, to: impl Into<SocketAddr>, first: u16, count: u16) -> Result<Picks> {
    large_udp(namespace, to, first, count, 0)
}

/// The same with datagrams of at least `size` bytes, which the answers echo.
///
/// # Errors
/// As [`udp`].
pub fn large_udp(
    namespace: &Netns,
    to: impl Into<SocketAddr>,
    first: u16,
    count: u16,
    size: u16,
) -> Result<Picks> {
    let (to, first, count) = (to.into().to_string(), first.to_string(), count.to_string());
    let size = size.to_string();
    let words = [
        "udp",
        "--to",
        &to,
        "--first-port",
        &first,
        "--count",
        &count,
        "--size",
        &size,
    ];
    Ok(serde_json::from_str(&run(
        namespace,
        &words,
        Duration::from_secs(120),
    )?)?)
}

/// What a connected UDP socket is told after it has sent a datagram to `to`: the name of the error,
/// or `answered`.
///
/// # Errors
/// The helper does not run.
pub fn udp_error(namespace: &Netns, to: SocketAddr) -> Result<String> {
    let words = ["told", "--to", &to.to_string()];
    Ok(run(namespace, &words, CONFIGURE)?.trim().to_owned())
}

/// Sends `frames` as they are through `interface` of `namespace`, all of them `rounds` times.
///
/// # Errors
/// The helper does not run or the kernel refuses a frame for good.
pub fn frames(
    namespace: &Netns,
    interface: &str,
    frames: &[Vec<u8>],
    rounds: u32,
    dir: &Path,
) -> Result<()> {
    let file = dir.join(format!("frames-{}", namespace.name()));
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend(u16::try_from(frame.len())?.to_be_bytes());
        bytes.extend(frame);
    }
    std::fs::write(&file, bytes)?;
    let file = file.to_string_lossy();
    let rounds = rounds.to_string();
    let words = [
        "frames",
        "--interface",
        interface,
        "--file",
        &file,
        "--rounds",
        &rounds,
    ];
    run(namespace, &words, Duration::from_secs(60)).map(drop)
}

/// HTTP requests that go on until the guard is told to finish.
#[derive(Debug)]
pub struct Ongoing {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Ongoing {
    /// Starts `concurrency` loops of requests.
    ///
    /// # Errors
    /// The helper cannot be started.
    pub fn start(namespace: &Netns, url: &str, concurrency: u16) -> Result<Self> {
        let concurrency = concurrency.to_string();
        let words = [
            "http",
            "--url",
            url,
            "--concurrency",
            &concurrency,
            "--until-end-of-input",
        ];
        let mut child = spawn(namespace, &words)?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// Ends the loops and reports on all requests since the start.
    ///
    /// # Errors
    /// The helper failed or does not end.
    pub fn finish(mut self) -> Result<Report> {
        drop(self.stdin.take());
        let stdout = self.child.stdout.take().context("output of the helper")?;
        let mut text = String::new();
        BufReader::new(stdout).read_line(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(namespace: &Netns, words: &[&str]) -> Result<Child> {
    namespace
        .command(daemon::binary("traffic")?)
        .args(words)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the helper `traffic` cannot be started")
}

/// Starts an echo server (TCP and UDP) on `port` that says `name`.
///
/// # Errors
/// It cannot be started or does not listen.
pub fn echo(namespace: &Netns, name: &str, port: u16, dir: &Path) -> Result<Process> {
    let binary = daemon::binary("traffic")?;
    let binary = binary.to_string_lossy();
    let text = port.to_string();
    let words = [binary.as_ref(), "echo", "--port", &text, "--name", name];
    let log = dir.join(format!("echo-{}-{port}.log", namespace.name()));
    let mut process = namespace.start("echo server", &words, &log)?;
    clock::wait_for("echo server listening", CONFIGURE, || {
        process.still_running()?;
        Ok(process.log().contains("listening").then_some(()))
    })?;
    Ok(process)
}

/// Sends `count` raw frames, `garbage_per_cent` of them garbage, the others UDP to `to` from many
/// source ports, through `eth0` of `namespace` to the link-layer address `gateway`.
///
/// # Errors
/// The helper does not run or the kernel refuses a frame for good.
pub fn flood(
    namespace: &Netns,
    gateway: &str,
    from: Ipv4Addr,
    to: SocketAddrV4,
    count: u32,
    garbage_per_cent: u32,
) -> Result<()> {
    let words = [
        "flood",
        "--gateway",
        gateway,
        "--from",
        &from.to_string(),
        "--to",
        &to.to_string(),
        "--count",
        &count.to_string(),
        "--garbage-per-cent",
        &garbage_per_cent.to_string(),
    ];
    run(namespace, &words, Duration::from_secs(120)).map(drop)
}
