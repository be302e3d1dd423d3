//! The control plane's DNS server beside others of the same zone, and while the zone changes.
//!
//! ```text
//!   folder: 11,000 Services --> sluice-controlplane --.
//!   zone file: the same names --> nsd, Knot, BIND ----+--> dnsperf, in turns; each server has CPU 0, dnsperf CPU 1
//!
//!   one change at a time ----> sluice-controlplane --> asked until it is answered
//!   1,000 changes a second --> sluice-controlplane --> 10,000 questions a second, every answer judged
//! ```
//!
//! Everything lives in one network namespace and talks over its loopback interface, so what is
//! compared is the servers, not a wire.

mod churn;
mod cluster;
mod dnsperf;
mod freshness;
mod peer;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::alone::Alone;
use sluice_tests::names::{self, LIMIT, Reply, dig};
use sluice_tests::{clock, process};
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::report::Report;
use crate::statistics::median;
use dnsperf::Load;
use peer::PEERS;

/// Where Sluice listens.
const SLUICE: SocketAddr = at(5300);
/// Questions a second at which latency is compared.
const HALF: u32 = 10_000;

/// A port of the loopback interface.
const fn at(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Turns of each server.
    pub rounds: usize,
    /// How long a turn takes.
    pub turn: Duration,
    /// Changes one at a time.
    pub changes: u16,
    /// How long the zone changes without a pause.
    pub churn: Duration,
}

/// A server in the comparison.
struct Server {
    name: &'static str,
    at: SocketAddr,
}

/// Measures all of it.
///
/// # Errors
/// A server does not start, answers otherwise than the others, or loses most questions.
pub fn run(options: Options, report: &mut Report) -> Result<()> {
    let dir = TempDir::new()?;
    let mut alone = Alone::start(&names::listening(&[SLUICE]), |folder| {
        cluster::write(folder)?;
        freshness::write_first(folder)?;
        churn::write_first(folder)
    })?;
    let measured = measure(options, dir.path(), &mut alone, report);
    if measured.is_err() {
        eprintln!("{}", alone.process.tail());
    }
    measured
}

fn measure(options: Options, dir: &Path, alone: &mut Alone, report: &mut Report) -> Result<()> {
    let (zone, questions) = (dir.join("zone"), dir.join("questions"));
    fs::write(&zone, cluster::zone()).context("the zone file")?;
    fs::write(&questions, cluster::questions()).context("the questions")?;
    wait_until_known(alone)?;
    {
        let mut peers = Vec::new();
        for peer in &PEERS {
            peers.push(peer.start(&alone.namespace, dir)?);
        }
        compare_answers(alone)?;
        pin(alone.process.pid(), "0")?;
        compare(options, &questions, alone, report)?;
    }
    pin(alone.process.pid(), "0-1")?;
    freshness::run(options.changes, alone, report)?;
    churn::run(options.churn, alone, report)
}

/// A client's socket to Sluice. Reading gives up soon, so that whoever reads can look whether to go on.
fn client(alone: &Alone) -> Result<UdpSocket> {
    let socket = Namespace::named(alone.namespace.name()).within(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(SLUICE)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    Ok(socket)
}

/// Waits until the last name is there.
fn wait_until_known(alone: &mut Alone) -> Result<()> {
    let (name, _) = cluster::samples().into_iter().last().context("no names")?;
    clock::wait_until_ok("the last name", Duration::from_secs(60), || {
        alone.process.still_running()?;
        let reply = dig(Some(&alone.namespace), SLUICE, &[&name, "A"])?;
        ensure!(reply.status == "NOERROR", "{reply:?}");
        Ok(())
    })
}

/// That all servers say the same of some names of each kind.
fn compare_answers(alone: &Alone) -> Result<()> {
    for (name, kind) in cluster::samples() {
        let ask = |at| -> Result<Reply> {
            let mut reply = dig(Some(&alone.namespace), at, &[&name, kind])?;
            reply.records.sort_unstable();
            reply.flags.clear();
            Ok(reply)
        };
        let ours = ask(SLUICE)?;
        for peer in &PEERS {
            let theirs = ask(peer.at)?;
            ensure!(
                ours == theirs,
                "{}: {theirs:?}, Sluice: {ours:?}",
                peer.name
            );
        }
    }
    Ok(())
}

/// Has a process with all its threads run on these CPUs only.
fn pin(pid: u32, cpus: &str) -> Result<()> {
    let mut command = std::process::Command::new("taskset");
    command.args(["-acp", cpus, &pid.to_string()]);
    process::run(&mut command, "", LIMIT)?.success().map(drop)
}

/// Each server in turn, round after round.
fn compare(
    options: Options,
    questions: &Path,
    alone: &mut Alone,
    report: &mut Report,
) -> Result<()> {
    let sluice = Server {
        name: "Sluice",
        at: SLUICE,
    };
    let others = PEERS.iter().map(|peer| Server {
        name: peer.name,
        at: peer.at,
    });
    let servers: Vec<Server> = std::iter::once(sluice).chain(others).collect();
    let mut rates = vec![Vec::new(); servers.len()];
    let mut latencies = vec![Vec::new(); servers.len()];
    let mut lost = Vec::new();
    for _ in 0..options.rounds {
        for (place, server) in servers.iter().enumerate() {
            alone.process.still_running()?;
            let load = |rate| Load {
                to: server.at,
                questions,
                length: options.turn,
                rate,
            };
            let full = load(None).run(&alone.namespace)?;
            let half = load(Some(HALF)).run(&alone.namespace)?;
            rates[place].push(full.rate);
            latencies[place].push(half.latency_us);
            if place == 0 {
                lost.push(half.lost_percent);
            }
        }
    }
    report.section("Questions a second on one core, same zone, in turns");
    for (server, rates) in servers.iter().zip(&rates) {
        report.add(format!("{}: questions a second", server.name), "1/s", rates);
    }
    let ratio = against_best(&rates, f64::max);
    report.add("Sluice over the fastest other server", "times", &ratio);
    report.section("Latency at 10,000 questions a second, mean of each turn");
    for (server, latencies) in servers.iter().zip(&latencies) {
        report.add(format!("{}: latency", server.name), "µs", latencies);
    }
    let ratio = against_best(&latencies, f64::min);
    report.add("latency over the quickest other server's", "times", &ratio);
    report.add("Sluice: lost", "%", &lost);
    Ok(())
}

/// Of each round, the first server's reading over that of the best other one: the one whose median is
/// the best, for the best reading of each round would be that of whoever was lucky.
fn against_best(readings: &[Vec<f64>], better: fn(f64, f64) -> f64) -> Vec<f64> {
    let Some((ours, others)) = readings.split_first() else {
        return Vec::new();
    };
    let medians = others.iter().map(|readings| (median(readings), readings));
    let best = medians.reduce(|a, b| if better(a.0, b.0) == a.0 { a } else { b });
    let theirs = best.map(|(_, readings)| readings.as_slice());
    let rounds = ours.iter().zip(theirs.unwrap_or_default());
    rounds.map(|(own, theirs)| own / theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_is_compared_with_the_other_whose_median_is_the_best() {
        let readings = [
            vec![10.0, 30.0, 20.0],
            vec![20.0, 10.0, 40.0],
            vec![5.0, 15.0, 50.0],
        ];
        assert_eq!(against_best(&readings, f64::max), [0.5, 3.0, 0.5]);
        assert_eq!(against_best(&readings, f64::min), [2.0, 2.0, 0.4]);
        assert!(against_best(&readings[..1], f64::max).is_empty());
    }
}
