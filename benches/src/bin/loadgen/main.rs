//! `loadgen`: how much a gateway forwards, and how fast.
#![forbid(unsafe_code)]

mod arguments;
mod output;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use sluice_benches::generator::frame::run_number;
use sluice_benches::generator::live::Seat;
use sluice_benches::generator::plan::Plan;
use sluice_benches::generator::sockets::monotonic;
use sluice_benches::rate::Rate;
use sluice_benches::search::{Limits, Search};
use sluice_benches::sink::Sink;
use sluice_benches::trial::{self, Outcome, Post};

use arguments::{Cli, Command, RunArguments, SearchArguments, Traffic};
use output::{Output, Progress};

/// Between two trials, so that queues run empty.
const PAUSE: Duration = Duration::from_millis(200);
fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    match &cli.command {
        Command::Run(arguments) => run_rates(arguments, &stop),
        Command::Search(arguments) => search(arguments, &stop),
    }
}

fn run_rates(arguments: &RunArguments, stop: &AtomicBool) -> Result<()> {
    let mut bench = Bench::new(&arguments.traffic, stop)?;
    let mut output = Output::new(&arguments.traffic)?;
    for rate in &arguments.rate {
        let outcome = bench.trial(*rate, arguments.duration)?;
        output.add("run", &outcome)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    output.finish(None)
}

fn search(arguments: &SearchArguments, stop: &AtomicBool) -> Result<()> {
    if arguments.traffic.sink.is_none() {
        bail!("a search needs a sink: name the interface where frames arrive with --sink");
    }
    let mut bench = Bench::new(&arguments.traffic, stop)?;
    let mut output = Output::new(&arguments.traffic)?;
    let mut search = Search::new(Limits {
        from: arguments.from_rate,
        to: arguments.to_rate,
        loss: arguments.loss / 100.0,
        precision: arguments.precision / 100.0,
        repeats: arguments.repeats | 1,
    });
    let best = loop {
        while let Some(rate) = search.next_rate() {
            let outcome = bench.trial(rate, arguments.duration)?;
            if stop.load(Ordering::Relaxed) {
                return output.finish(None);
            }
            output.add("search", &outcome)?;
            search.record(outcome.judged());
        }
        let Some(best) = search.best() else {
            output.finish(None)?;
            bail!("even at the lowest rate more is lost than allowed");
        };
        let outcome = bench.trial(best, arguments.confirm)?;
        output.add("confirm", &outcome)?;
        if outcome.judged() <= arguments.loss / 100.0 || stop.load(Ordering::Relaxed) {
            break best;
        }
        search.refute();
    };
    for share in [0.1, 0.5, 0.9] {
        let outcome = bench.trial(best.times(share), arguments.confirm)?;
        output.add(&format!("latency at {:.0} %", share * 100.0), &outcome)?;
    }
    output.finish(Some(best))
}

/// Generators and sinks, ready.
struct Bench<'a> {
    traffic: &'a Traffic,
    plan: Plan,
    seats: Vec<Seat>,
    sinks: Vec<Sink>,
    stop: &'a AtomicBool,
}

impl<'a> Bench<'a> {
    fn new(traffic: &'a Traffic, stop: &'a AtomicBool) -> Result<Self> {
        let (plan, seats) = traffic.plan()?;
        plan.check()?;
        let mut sinks = Vec::new();
        let flows = u32::try_from(plan.flows)
            .unwrap_or(0)
            .min(traffic.track_flows);
        if let Some(interface) = &traffic.sink {
            sinks.push(Sink::attach(&traffic.sink_namespace(), interface, flows)?);
            if traffic.answer {
                let own = Sink::attach(&traffic.namespace(), &traffic.interface, flows)?;
                sinks.push(own);
            }
        } else if traffic.answer {
            bail!("--answer needs --sink");
        }
        // A link that just got an XDP program is away for a moment.
        thread::sleep(PAUSE);
        Ok(Self {
            traffic,
            plan,
            seats,
            sinks,
            stop,
        })
    }

    fn trial(&mut self, rate: Rate, duration: Duration) -> Result<Outcome> {
        self.plan.rate = rate;
        self.plan.duration = duration;
        self.plan.run = run_number(monotonic());
        let expectations = self.traffic.expectations(&self.plan);
        let mut posts: Vec<Post<'_>> = self
            .sinks
            .iter_mut()
            .zip(expectations)
            .map(|(sink, expectation)| Post { sink, expectation })
            .collect();
        let mut progress = Progress::new();
        let stop = self.stop;
        let outcome = trial::run(
            self.traffic.kind,
            &self.plan,
            &self.seats,
            &mut posts,
            |state| {
                progress.show(state);
                !stop.load(Ordering::Relaxed)
            },
        );
        progress.clear();
        thread::sleep(PAUSE);
        outcome.context("the trial failed")
    }
}
