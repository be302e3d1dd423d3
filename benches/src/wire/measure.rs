//! A round of one peer: its highest rate with hardly any loss, and latency below it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::peer::{FORGET_SECONDS, Peer};
use super::rig::{GENERATOR_CPU, Rig};
use crate::cpu;
use crate::generator::flow;
use crate::generator::frame::run_number;
use crate::generator::plan::{Protocol, Script};
use crate::generator::sockets::monotonic;
use crate::rate::Rate;
use crate::search::{Limits, Search};
use crate::sink::{Action, Expectation, Tally};
use crate::statistics::Summary;
use crate::trial::{self, Kind, Outcome, Post};

/// Shares of its highest rate at which a peer's latency is measured.
pub const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// Every flow is sent once at this rate before anything is measured.
const WARM_UP: Rate = Rate(100e3);
/// Between two trials, so that queues run empty.
const PAUSE: Duration = Duration::from_millis(50);
/// The search begins here, or at half of what the peer did in the last round.
const FIRST_RATE: Rate = Rate(200e3);

/// What is measured in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Datagrams of UDP that go on and on, short connections of TCP, or their first packets alone.
    pub script: Script,
    /// Services, over which flows are spread.
    pub services: u32,
}

impl Case {
    /// As it stands in reports.
    pub fn name(self) -> String {
        let what = match self.script {
            Script::Data => "datagrams",
            Script::Syn => "SYN",
            Script::Connection => "connections",
        };
        let Self { services, .. } = self;
        format!("{what}, {services} Services")
    }

    pub(super) fn prepare(self, rig: &mut Rig, flows: u64) {
        rig.plan.script = self.script;
        rig.plan.flood = 0;
        rig.aim(self.services);
        rig.kept = FORGET_SECONDS;
        (rig.plan.protocol, rig.plan.flows) = match self.script {
            Script::Data => (Protocol::Udp, flows),
            Script::Syn | Script::Connection => (Protocol::Tcp, MOST_CONNECTIONS),
        };
        rig.plan.fit();
    }
}

/// Connections that are made before the first one is made again.
pub const MOST_CONNECTIONS: u64 = 1 << 20;

/// How rounds are measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Kind of generator.
    pub kind: Kind,
    /// Flows of datagrams.
    pub flows: u32,
    /// Bytes of a frame.
    pub size: u16,
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
    /// What was measured.
    pub case: Case,
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
    case: Case,
    number: u32,
    last: Option<Rate>,
    options: &Options,
) -> Result<Round> {
    rig.plan.sizes.fill(options.size);
    case.prepare(rig, u64::from(options.flows));
    let running = peer
        .start(rig, case.services)
        .with_context(|| peer.name())?;
    let measured = with_latency(rig, peer, last, options);
    peer.stop(rig, running)?;
    let (throughput, search, latency) = measured.with_context(|| peer.name())?;
    Ok(Round {
        peer: peer.name().to_owned(),
        round: number,
        case,
        throughput,
        search,
        latency,
    })
}

fn with_latency(
    rig: &mut Rig,
    peer: Peer,
    last: Option<Rate>,
    options: &Options,
) -> Result<(Option<Rate>, Vec<Outcome>, Vec<Outcome>)> {
    let (throughput, trials) = highest(rig, peer, last, options)?;
    let mut latency = Vec::new();
    // What only opens connections is over before its latency says anything.
    let loads = throughput.filter(|_| rig.plan.script != Script::Syn);
    for rate in loads
        .iter()
        .flat_map(|rate| LOADS.map(|load| rate.times(load)))
    {
        latency.push(try_rate(rig, peer, rate, options.trial * 2, options.kind)?);
    }
    Ok((throughput, trials, latency))
}

/// The highest rate of a peer that runs, for the plan as it stands, and all trials on the way there;
/// none when it loses at every rate.
///
/// # Errors
/// As [`try_rate`].
pub fn highest(
    rig: &mut Rig,
    peer: Peer,
    last: Option<Rate>,
    options: &Options,
) -> Result<(Option<Rate>, Vec<Outcome>)> {
    // Connections that are to be new must not be known.
    let known = match rig.plan.script {
        Script::Data => rig.plan.flows,
        Script::Syn | Script::Connection => 0,
    };
    let warm_up = Duration::from_secs_f64(known as f64 / WARM_UP.0 + 0.1);
    try_rate(rig, peer, WARM_UP, warm_up, options.kind)?;
    search(last, options, |rate| {
        try_rate(rig, peer, rate, options.trial, options.kind)
    })
}

/// The highest rate at which trials by `attempt` lose hardly anything, and all of them.
///
/// # Errors
/// Those of `attempt`.
pub fn search(
    last: Option<Rate>,
    options: &Options,
    mut attempt: impl FnMut(Rate) -> Result<Outcome>,
) -> Result<(Option<Rate>, Vec<Outcome>)> {
    let mut search = Search::new(Limits {
        from: last.map_or(FIRST_RATE, |last| last.times(0.5)),
        to: Rate(20e6),
        loss: options.loss,
        precision: options.precision,
        repeats: options.repeats,
    });
    let mut trials = Vec::new();
    while let Some(rate) = search.next_rate() {
        let outcome = attempt(rate)?;
        search.record(outcome.judged());
        trials.push(outcome);
    }
    let best = search.best();
    Ok((
        best.map(|best| offered(&trials, best, options.loss)),
        trials,
    ))
}

/// What was really sent in the trials of a rate that passed: on a busy machine the generator leaves
/// some frames out.
fn offered(trials: &[Outcome], rate: Rate, loss: f64) -> Rate {
    let passed = trials
        .iter()
        .filter(|trial| trial.asked == rate && trial.judged() <= loss);
    let sent: Vec<f64> = passed.map(|trial| trial.offered).collect();
    Summary::of(&sent).map_or(rate, |sent| Rate(sent.median))
}

/// One trial of a peer that runs.
///
/// # Errors
/// A frame arrived with wrong sums, addresses or ports, or generator or sink do not work.
pub fn try_rate(
    rig: &mut Rig,
    peer: Peer,
    rate: Rate,
    time: Duration,
    kind: Kind,
) -> Result<Outcome> {
    rig.plan.rate = rate;
    rig.plan.duration = time;
    if rig.plan.script != Script::Data {
        // Connections of the last trial may still be remembered: these are others.
        rig.plan.key = flow::key(monotonic());
    }
    let action = match rig.plan.script {
        Script::Connection => Action::Reply,
        Script::Data | Script::Syn => Action::Drop,
    };
    send(rig, peer, action, kind)
}

/// Sends the plan as it stands.
///
/// # Errors
/// As [`try_rate`].
pub fn send(rig: &mut Rig, peer: Peer, action: Action, kind: Kind) -> Result<Outcome> {
    thread::sleep(PAUSE);
    rig.plan.run = run_number(monotonic());
    let (source, destination, port) = peer.expectation();
    let expectation = Expectation {
        flows: u32::try_from(rig.plan.flows).unwrap_or(0),
        check_one_in: 64,
        action,
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
    let (plan, seats) = (&rig.plan, std::slice::from_ref(&rig.seat));
    // Whoever looks at the counters meanwhile must not take the peer's CPU while it sleeps.
    let watching = || {
        cpu::claim(GENERATOR_CPU)?;
        trial::run(kind, plan, seats, &mut posts, |_| true)
    };
    let outcome = thread::scope(|scope| scope.spawn(watching).join());
    let outcome = outcome.map_err(|_| anyhow!("a thread that watched a trial died"))??;
    eprintln!("  {}", outcome.line());
    let wrong: u64 = outcome.tallies.iter().map(Tally::wrong).sum();
    ensure!(
        wrong == 0,
        "{wrong} frames arrived with wrong sums, addresses or ports: {:?}",
        outcome.tallies
    );
    Ok(outcome)
}
