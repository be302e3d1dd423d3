//! A round of one peer: its highest rate with hardly any loss, and latency below it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::peer::Peer;
use super::report::Spread;
use super::rig::Rig;
use crate::generator::frame::run_number;
use crate::generator::plan::Script;
use crate::generator::sockets::monotonic;
use crate::rate::Rate;
use crate::search::{Limits, Search};
use crate::sink::{Action, Expectation, Tally};
use crate::trial::{self, Kind, Outcome, Post};

/// Shares of its highest rate at which a peer's latency is measured.
pub const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// Every flow is sent once at this rate before anything is measured.
const WARM_UP: Rate = Rate(100e3);
/// Between two trials, so that queues run empty.
const PAUSE: Duration = Duration::from_millis(50);
/// The search begins here, or at half of what the peer did in the last round.
const FIRST_RATE: Rate = Rate(200e3);

/// How rounds are measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Kind of generator.
    pub kind: Kind,
    /// Services, of which each flow uses the first one.
    pub services: u32,
    /// How long a trial takes.
    pub trial: Duration,
    /// Trials of one rate, of which most must pass; odd.
    pub repeats: u32,
    /// Share of frames that may be lost.
    pub loss: f64,
    /// How exact the highest rate is known, as a share of itself.
    pub precision: f64,
}

/// What came of a peer's round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The peer.
    pub peer: String,
    /// Which round.
    pub round: u32,
    /// Services that it had.
    pub services: u32,
    /// Highest rate with hardly any loss; none when it loses at every rate.
    pub throughput: Option<Rate>,
    /// All trials of the search.
    pub search: Vec<Outcome>,
    /// Trials at [`LOADS`] of `throughput`.
    pub latency: Vec<Outcome>,
}

/// Measures a peer once; `last` is its rate of the round before.
///
/// # Errors
/// The peer cannot be started, or changes frames as it should not.
pub fn round(
    rig: &mut Rig,
    peer: Peer,
    number: u32,
    last: Option<Rate>,
    options: &Options,
) -> Result<Round> {
    let running = peer
        .start(rig, options.services)
        .with_context(|| peer.name())?;
    let measured = measure(rig, peer, last, options);
    // While it runs: some settings belong to NAPI, which goes with it.
    peer.clean(rig)?;
    drop(running);
    let (throughput, search, latency) = measured.with_context(|| peer.name())?;
    Ok(Round {
        peer: peer.name().to_owned(),
        round: number,
        services: options.services,
        throughput,
        search,
        latency,
    })
}

fn measure(
    rig: &mut Rig,
    peer: Peer,
    last: Option<Rate>,
    options: &Options,
) -> Result<(Option<Rate>, Vec<Outcome>, Vec<Outcome>)> {
    // Connections that are to be new must not be known.
    let known = match rig.plan.script {
        Script::Connection => 0,
        _ => rig.plan.flows,
    };
    let warm_up = Duration::from_secs_f64(known as f64 / WARM_UP.0 + 0.1);
    try_rate(rig, peer, WARM_UP, warm_up, options.kind)?;
    let mut search = Search::new(Limits {
        from: last.map_or(FIRST_RATE, |last| last.times(0.5)),
        to: Rate(20e6),
        loss: options.loss,
        precision: options.precision,
        repeats: options.repeats,
    });
    let mut trials = Vec::new();
    while let Some(rate) = search.next_rate() {
        let outcome = try_rate(rig, peer, rate, options.trial, options.kind)?;
        search.record(outcome.judged());
        trials.push(outcome);
    }
    let Some(best) = search.best() else {
        return Ok((None, trials, Vec::new()));
    };
    let throughput = offered(&trials, best, options.loss);
    let mut latency = Vec::new();
    for load in LOADS {
        let rate = best.times(load);
        latency.push(try_rate(rig, peer, rate, options.trial * 2, options.kind)?);
    }
    Ok((Some(throughput), trials, latency))
}

/// What was really sent in the trials of a rate that passed: on a busy machine the generator leaves
/// some frames out.
fn offered(trials: &[Outcome], rate: Rate, loss: f64) -> Rate {
    let passed = trials
        .iter()
        .filter(|trial| trial.asked == rate && trial.judged() <= loss);
    let sent = passed.map(|trial| trial.offered).collect();
    Spread::of(sent).map_or(rate, |spread| Rate(spread.median))
}

fn try_rate(rig: &mut Rig, peer: Peer, rate: Rate, time: Duration, kind: Kind) -> Result<Outcome> {
    thread::sleep(PAUSE);
    rig.plan.rate = rate;
    rig.plan.duration = time;
    rig.plan.run = run_number(monotonic());
    let (source, destination, port) = peer.expectation();
    let expectation = Expectation {
        flows: u32::try_from(rig.plan.flows).unwrap_or(0),
        check_one_in: 64,
        action: match rig.plan.script {
            Script::Connection => Action::Reply,
            _ => Action::Drop,
        },
        source,
        destination,
        port,
        ..Expectation::of_run(rig.plan.run)
    };
    let returns = Expectation {
        check_one_in: 64,
        ..Expectation::of_run(rig.plan.run)
    };
    let mut posts = [
        Post {
            sink: &mut rig.sink,
            expectation,
        },
        Post {
            sink: &mut rig.returns,
            expectation: returns,
        },
    ];
    let seats = std::slice::from_ref(&rig.seat);
    let outcome = trial::run(kind, &rig.plan, seats, &mut posts, |_| true)?;
    eprintln!("  {}", outcome.line());
    let wrong: u64 = outcome.tallies.iter().map(Tally::wrong).sum();
    ensure!(
        wrong == 0,
        "{wrong} frames arrived with wrong sums, addresses or ports: {:?}",
        outcome.tallies
    );
    Ok(outcome)
}
