//! `bench-wire`: Sluice and its peers on one rig, in turns.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use sluice_benches::generator::plan::Script;
use sluice_benches::rate::Rate;
use sluice_benches::trial::Kind;
use sluice_benches::wire::first;
use sluice_benches::wire::known::Known;
use sluice_benches::wire::measure::{self, Case, MOST_CONNECTIONS, Options, Round};
use sluice_benches::wire::part;
use sluice_benches::wire::peer::Peer;
use sluice_benches::wire::readings::Readings;
use sluice_benches::wire::report::Run;
use sluice_benches::wire::rig::Rig;
use sluice_benches::wire::sockets;
use sluice_benches::wire::{flood, idle, scale, updates};
use sluice_tests::clock;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Highest rates, latency below them, new connections, of all peers but proxies.
    Throughput,
    /// First packets of connections, by the number of Services.
    First,
    /// Connections and bytes of real sockets, of all peers that lead to backends.
    Sockets,
    /// What established connections lose beside a SYN flood.
    Flood,
    /// Changes of endpoints under load.
    Updates,
    /// Highest rates with many live connections.
    Scale,
    /// CPU time with little traffic, latency after a pause.
    Idle,
}

/// Measures Sluice, AF_XDP forwarders, the kernel and proxies on one rig of namespaces, in turns, and
/// writes report-wire.json, report-wire.md, charts, and the report of all parts. Needs root, two CPUs
/// and release builds of Sluice's daemons beside this program. Peers whose programs are not installed
/// are left out.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// What is measured.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "throughput,first,sockets,flood,updates,scale,idle"
    )]
    parts: Vec<Part>,
    /// Peers, in the order of a round.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "bare,testpmd,sluice,nftables,nftables-threaded,iptables-threaded,haproxy,nginx"
    )]
    peers: Vec<Peer>,
    /// Rounds of the throughput.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Rounds of flood, updates and idle; of the scale and of changes of many Services at once there
    /// is one.
    #[arg(long, default_value_t = 2)]
    scenario_rounds: u32,
    /// Flows.
    #[arg(long, default_value_t = 10_000)]
    flows: u32,
    /// What flows consist of: datagrams of UDP that go on and on, short connections of TCP, which the
    /// sink answers, or the SYNs of such alone, which it does not answer.
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
    /// Services that all change at once in the updates; 0: none do.
    #[arg(long, default_value_t = 10_000)]
    pushed_services: u32,
    /// Live connections of the scale.
    #[arg(long, value_delimiter = ',', default_values_t = scale::CONNECTIONS)]
    connections: Vec<u32>,
    /// Highest rate of data, and of short connections' packets, that flood and updates go by, packets
    /// a second; without it they go by what the throughput found, or find it themselves.
    #[arg(long)]
    data_rate: Option<Rate>,
    #[arg(long)]
    connection_rate: Option<Rate>,
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

/// Peers whose established connections and endpoints are watched.
const TRACKING: [Peer; 3] = [Peer::Sluice, Peer::Nftables, Peer::NftablesThreaded];
/// Peers that are measured with many connections; the first one knows of none.
const SCALED: [Peer; 4] = [
    Peer::Bare,
    Peer::Sluice,
    Peer::Nftables,
    Peer::NftablesThreaded,
];

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
    let most = cli.connections.iter().copied().max().unwrap_or(0);
    let rig = Rig::build(cli.flows.max(MOST_CONNECTIONS as u32).max(most))?;
    let mut bench = Bench::new(cli, rig);
    bench.throughput();
    bench.first();
    bench.scenarios();
    // Last: they make the clients' addresses the near namespace's own.
    bench.sockets();
    let failed = bench.failed;
    bench.report()?;
    ensure!(failed == 0, "{failed} rounds failed");
    Ok(())
}

/// The run, as far as it is.
struct Bench<'a> {
    cli: &'a Cli,
    rig: Rig,
    /// Those that are installed.
    peers: Vec<Peer>,
    options: Options,
    cases: Vec<Case>,
    rounds: Vec<Round>,
    parts: Vec<part::Part>,
    readings: Readings,
    failed: u32,
}

impl<'a> Bench<'a> {
    fn new(cli: &'a Cli, rig: Rig) -> Self {
        let mut readings = Readings::default();
        Self {
            cli,
            rig,
            peers: present(&cli.peers, &mut readings),
            options: Options {
                kind: cli.kind,
                flows: cli.flows,
                size: cli.size,
                trial: Duration::from_millis(cli.trial),
                repeats: cli.repeats | 1,
                loss: cli.loss / 100.0,
                precision: 0.03,
            },
            cases: cases(cli),
            rounds: Vec::new(),
            parts: Vec::new(),
            readings,
            failed: 0,
        }
    }

    /// A peer that cannot do its part shall not cost the figures of the others.
    fn note(&mut self, what: &str, done: Result<()>) {
        if let Err(error) = done {
            eprintln!("{what}: {error:#}");
            self.failed += 1;
        }
    }

    fn throughput(&mut self) {
        for number in 0..self.cli.rounds {
            for case in self.cases.clone() {
                for peer in self.forwarding() {
                    if clock::stopped() {
                        return;
                    }
                    let done = self.throughput_of(peer, case, number);
                    self.note(&format!("round {number}: {}", case.name()), done);
                }
            }
        }
    }

    /// Peers that the generator's frames get through.
    fn forwarding(&self) -> Vec<Peer> {
        let all = self.peers.iter().copied();
        all.filter(|peer| !peer.is_proxy()).collect()
    }

    fn throughput_of(&mut self, peer: Peer, case: Case, number: u32) -> Result<()> {
        let mut before = self.rounds.iter().rev();
        let before = before.find(|round| round.peer == peer.name() && round.case == case);
        let last = before.and_then(|round| round.throughput);
        let round = measure::round(&mut self.rig, peer, case, number, last, &self.options)?;
        print(&round);
        self.rounds.push(round);
        Ok(())
    }

    fn first(&mut self) {
        if self.cli.parts.contains(&Part::First) {
            let (rig, readings) = (&mut self.rig, &mut self.readings);
            let (arguments, options) = (&self.cli.first, &self.options);
            let part = first::measure(rig, &self.peers, arguments, options, readings);
            self.take(part);
        }
    }

    fn sockets(&mut self) {
        if self.cli.parts.contains(&Part::Sockets) {
            let (rig, readings) = (&mut self.rig, &mut self.readings);
            let part = sockets::measure(rig, &self.peers, &self.cli.sockets, readings);
            self.take(part);
        }
    }

    fn take(&mut self, part: Option<part::Part>) {
        if let Some(part) = part {
            self.failed += part.failed;
            self.parts.push(part);
        }
    }

    /// The scenarios in turns, each with its peers in turns.
    fn scenarios(&mut self) {
        let mut known = Known::of(&self.rounds, &self.peers);
        let given = [
            (Script::Data, self.cli.data_rate),
            (Script::Connection, self.cli.connection_rate),
        ];
        for (script, rate) in given {
            for (peer, rate) in TRACKING.iter().filter_map(|peer| Some((*peer, rate?))) {
                known = known.with(peer, script, rate);
            }
        }
        for number in 0..self.cli.scenario_rounds {
            for part in &self.cli.parts {
                let peers: &[Peer] = match part {
                    Part::Throughput | Part::First | Part::Sockets => &[],
                    Part::Flood | Part::Updates => &TRACKING,
                    Part::Scale if number > 0 => &[],
                    Part::Scale => &SCALED,
                    // One round is of both its peers.
                    Part::Idle => &[Peer::Sluice],
                };
                for peer in peers.iter() {
                    if !self.peers.contains(peer) {
                        continue;
                    }
                    if clock::stopped() {
                        return;
                    }
                    println!("round {number}  {part:?}, {}", peer.name());
                    let done = self.scenario(*part, *peer, number, &mut known);
                    self.note(&format!("round {number}: {part:?}"), done);
                }
            }
        }
    }

    fn scenario(&mut self, part: Part, peer: Peer, number: u32, known: &mut Known) -> Result<()> {
        let (rig, options, readings) = (&mut self.rig, &self.options, &mut self.readings);
        match part {
            Part::Throughput | Part::First | Part::Sockets => Ok(()),
            Part::Flood => flood::round(rig, peer, known, options, readings),
            Part::Updates => {
                updates::round(rig, peer, known, options, readings)?;
                let services = self.cli.pushed_services;
                // Who runs NAPI makes no difference to how long rules take.
                if number > 0 || services == 0 || peer == Peer::NftablesThreaded {
                    return Ok(());
                }
                updates::full_push(rig, peer, services, known, options, readings)
            }
            Part::Scale => scale::round(rig, peer, &self.cli.connections, options, readings),
            Part::Idle => idle::round(rig, options, readings),
        }
    }

    fn report(self) -> Result<()> {
        let cli = self.cli;
        let traffic = format!(
            "{} bytes a frame at least, {} flows of datagrams, {} connections (four packets of the client, \
             two replies), Services of 4 endpoints, masqueraded, loss at most {} %, {} rounds",
            cli.size, cli.flows, MOST_CONNECTIONS, cli.loss, cli.rounds
        );
        let run = Run {
            rounds: &self.rounds,
            cases: &self.cases,
            peers: &self.forwarding(),
            parts: &self.parts,
            readings: self.readings,
            traffic,
        };
        run.write(&cli.out)
    }
}

/// Cases of the throughput; none when it is not measured.
fn cases(cli: &Cli) -> Vec<Case> {
    let mut cases = Vec::new();
    for services in &cli.services {
        let services = *services;
        cases.extend(cli.scripts.iter().map(|&script| Case { script, services }));
    }
    cases.retain(|_| cli.parts.contains(&Part::Throughput));
    cases
}

/// The peers that are installed; the others are told and left out.
fn present(peers: &[Peer], readings: &mut Readings) -> Vec<Peer> {
    let mut present = Vec::new();
    for peer in peers {
        match peer.missing() {
            None => present.push(*peer),
            Some(missing) => {
                println!("{}: left out, {missing} is not installed", peer.name());
                readings.leave_out(
                    peer.name().to_owned(),
                    format!("{missing} is not installed"),
                );
            }
        }
    }
    present
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
