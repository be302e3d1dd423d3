//! `bench-wire`: Sluice and its peers on one rig, in turns.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use sluice_benches::generator::plan::Script;
use sluice_benches::trial::Kind;
use sluice_benches::wire::first;
use sluice_benches::wire::measure::{self, Case, MOST_CONNECTIONS, Options, Round};
use sluice_benches::wire::peer::Peer;
use sluice_benches::wire::report::Report;
use sluice_benches::wire::rig::Rig;
use sluice_benches::wire::sockets;
use sluice_tests::clock;

/// Measures Sluice, AF_XDP forwarders, the kernel and proxies on one rig of namespaces, in turns, and
/// writes report-wire.json, report-wire.md and charts. Needs root, two CPUs, release builds of
/// Sluice's daemons beside this program, and the peers' packages.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Peers, in the order of a round.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "bare,testpmd,sluice,nftables,nftables-threaded,iptables-threaded,haproxy,nginx"
    )]
    peers: Vec<Peer>,
    /// Rounds.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Flows.
    #[arg(long, default_value_t = 10_000)]
    flows: u32,
    /// What flows consist of: datagrams of UDP that go on and on, or short connections of TCP, which
    /// the sink answers.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "data,connection"
    )]
    scripts: Vec<Script>,
    /// Services, with four endpoints each; several numbers are measured in turn.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    services: Vec<u32>,
    /// Bytes of a frame without its checksum.
    #[arg(long, default_value_t = 62)]
    size: u16,
    /// Kind of generator.
    #[arg(long, value_enum, default_value = "live")]
    kind: Kind,
    /// Milliseconds of a trial.
    #[arg(long, default_value_t = 300)]
    trial: u64,
    /// Trials of one rate, of which most must pass; odd.
    #[arg(long, default_value_t = 3)]
    repeats: u32,
    /// Percent of frames that may be lost.
    #[arg(long, default_value_t = 0.1)]
    loss: f64,
    #[command(flatten)]
    first: first::Arguments,
    #[command(flatten)]
    sockets: sockets::Arguments,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-wire: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    clock::stop_on(stop);
    ensure!(
        std::thread::available_parallelism()?.get() > 1,
        "two CPUs are needed: one for the generator, one for the peer"
    );
    let options = Options {
        kind: cli.kind,
        flows: cli.flows,
        size: cli.size,
        trial: Duration::from_millis(cli.trial),
        repeats: cli.repeats | 1,
        loss: cli.loss / 100.0,
        precision: 0.03,
    };
    let mut cases = Vec::new();
    for services in &cli.services {
        let services = *services;
        cases.extend(cli.scripts.iter().map(|&script| Case { script, services }));
    }
    let mut rig = Rig::build(cli.flows.max(MOST_CONNECTIONS as u32))?;
    let forwards = |peer: &Peer| !peer.is_proxy();
    let frame_peers: Vec<Peer> = cli.peers.iter().copied().filter(forwards).collect();
    // A peer that cannot do its part shall not cost the figures of the others.
    let (mut rounds, mut failed) = (Vec::<Round>::new(), 0);
    for number in 0..cli.rounds {
        for case in &cases {
            for peer in &frame_peers {
                let mut before = rounds.iter().rev();
                let before = before.find(|round| round.peer == peer.name() && round.case == *case);
                let last = before.and_then(|round| round.throughput);
                if clock::stopped() {
                    break;
                }
                match measure::round(&mut rig, *peer, *case, number, last, &options) {
                    Ok(round) => {
                        print(&round);
                        rounds.push(round);
                    }
                    Err(error) => {
                        eprintln!("round {number}: {}: {error:#}", case.name());
                        failed += 1;
                    }
                }
            }
        }
    }
    let traffic = format!(
        "{} bytes a frame at least, {} flows of datagrams, {} connections (four packets of the client, \
         two replies), Services of 4 endpoints, masqueraded, loss at most {} %, {} rounds",
        cli.size, cli.flows, MOST_CONNECTIONS, cli.loss, cli.rounds
    );
    let first = first::measure(&mut rig, &cli.peers, &cli.first, &options)?;
    let sockets = sockets::measure(&mut rig, &cli.peers, &cli.sockets)?;
    let mut report = Report::new(&rounds, &cases, &frame_peers, traffic);
    for part in first.into_iter().chain(sockets) {
        failed += part.failed;
        report.add(part);
    }
    report.write(&cli.out)?;
    println!("\n{}\nwritten to {}", report.table(), cli.out.display());
    ensure!(failed == 0, "{failed} rounds failed");
    Ok(())
}

fn print(round: &Round) {
    let rate = round
        .throughput
        .map_or("none".to_owned(), |rate| rate.to_string());
    let (number, case) = (round.round, round.case.name());
    println!(
        "round {number}  {case:<26} {:<42} {rate} packets a second",
        round.peer
    );
}
