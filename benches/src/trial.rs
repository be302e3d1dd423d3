//! One trial: a plan is sent, the sinks count, and what came of it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::cpu::{Counters, Work};
use crate::generator::live::{Live, Seat};
use crate::generator::plan::{Plan, Share};
use crate::generator::sockets::{Sockets, monotonic};
use crate::generator::state::Progress;
use crate::rate::Rate;
use crate::sink::{Expectation, Sink, Tally};

/// Between two looks at generators and sinks.
const LOOK: Duration = Duration::from_millis(20);
/// How long frames may still arrive after the last one was sent.
const DRAIN: Duration = Duration::from_millis(60);
/// A generator that has not finished so long after its time never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// A trial in which the generator left out more than this share was not what was asked for.
const MOST_LEFT_OUT: f64 = 0.1;

/// Which kind of generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// In the kernel, by BPF_PROG_RUN with live frames.
    Live,
    /// In this process, by AF_XDP.
    Socket,
}

enum Generator {
    Live(Live),
    Sockets(Sockets),
}

impl Generator {
    fn start(kind: Kind, plan: &Plan, share: Share, seat: &Seat) -> Result<Self> {
        Ok(match kind {
            Kind::Live => Generator::Live(Live::start(plan, share, seat)?),
            Kind::Socket => Generator::Sockets(Sockets::start(plan, share, seat)?),
        })
    }

    fn progress(&mut self) -> Result<Progress> {
        match self {
            Generator::Live(live) => live.progress(),
            Generator::Sockets(sockets) => sockets.progress(),
        }
    }

    fn stop(&mut self) -> Result<()> {
        match self {
            Generator::Live(live) => live.stop(),
            Generator::Sockets(sockets) => sockets.stop(),
        }
    }
}

/// A sink and what it is to expect.
pub struct Post<'a> {
    /// The sink.
    pub sink: &'a mut Sink,
    /// What it expects; the run is filled in.
    pub expectation: Expectation,
}

/// Percentiles of a latency, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Average.
    pub average: u64,
    /// Half of the frames were at most so late.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// All.
    pub max: u64,
}

impl Latency {
    fn of(tally: &Tally) -> Self {
        let at = |share| {
            tally
                .latency
                .percentile(share)
                .unwrap_or(0)
                .min(tally.latency_max)
        };
        Self {
            average: tally.average(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: tally.latency_max,
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Rate that was asked for, packets a second; 0 is as fast as possible.
    pub asked: Rate,
    /// Seconds that frames were sent.
    pub seconds: f64,
    /// Rate that was sent, without the flood.
    pub offered: f64,
    /// Rate that arrived.
    pub delivered: f64,
    /// Bits a second that arrived, without checksums and gaps.
    pub bits: f64,
    /// Share of frames and replies that was sent and did not arrive.
    pub loss: f64,
    /// Share of frames that the generator left out because it was late itself.
    pub left_out: f64,
    /// Latency of what arrived.
    pub latency: Latency,
    /// What the generators did.
    pub sent: Progress,
    /// What the sinks saw, in their order.
    pub tallies: Vec<Tally>,
    /// What each CPU did meanwhile.
    pub cpus: Vec<Work>,
}

impl Outcome {
    /// A sink's view of the moment.
    fn at(plan: &Plan, seconds: f64, sent: Progress, tallies: Vec<Tally>, cpus: Vec<Work>) -> Self {
        let empty = Tally::default();
        let first = tallies.first().unwrap_or(&empty);
        let seconds = seconds.max(1e-9);
        // Replies that did not come back are lost as well.
        let returned = tallies.get(1).map_or(first.replied, |tally| tally.received);
        let expected = sent.sent + first.replied;
        let lost = expected.saturating_sub(first.received + returned);
        let due = sent.sent + sent.flooded + sent.left_out;
        Self {
            asked: plan.rate,
            seconds,
            offered: sent.sent as f64 / seconds,
            delivered: first.received as f64 / seconds,
            bits: first.bytes as f64 * 8.0 / seconds,
            loss: lost as f64 / expected.max(1) as f64,
            left_out: sent.left_out as f64 / due.max(1) as f64,
            latency: Latency::of(first),
            sent,
            cpus,
            tallies,
        }
    }

    /// The loss by which a search judges: a rate that the generator could not keep has not passed.
    pub fn judged(&self) -> f64 {
        if self.left_out > MOST_LEFT_OUT {
            1.0
        } else {
            self.loss
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let latency = &self.latency;
        let wrong: u64 = self.tallies.iter().map(Tally::wrong).sum();
        format!(
            "offered {:>8}  delivered {:>8} pps ({:6.3} Gbit/s)  loss {:7.4} %  \
             p50 {:.1}  p99 {:.1}  p99.9 {:.1} us  wrong {wrong}  left out {:.2} %",
            Rate(self.offered).to_string(),
            Rate(self.delivered).to_string(),
            self.bits / 1e9,
            self.loss * 100.0,
            micros(latency.p50),
            micros(latency.p99),
            micros(latency.p999),
            self.left_out * 100.0,
        )
    }
}

/// Sends `plan` from `seats` and counts at `posts`; the first one is where frames are to arrive.
/// `watch` is shown the state some fifty times a second and ends the trial by returning false.
///
/// # Errors
/// A generator or a sink does not work.
pub fn run(
    kind: Kind,
    plan: &Plan,
    seats: &[Seat],
    posts: &mut [Post<'_>],
    mut watch: impl FnMut(&Outcome) -> bool,
) -> Result<Outcome> {
    for post in posts.iter_mut() {
        post.expectation.run = plan.run;
        post.sink.expect(&post.expectation)?;
    }
    let before = Counters::read()?;
    let mut generators = Vec::new();
    for (index, seat) in (0..).zip(seats) {
        let share = Share {
            index,
            of: seats.len() as u32,
        };
        generators.push(Generator::start(kind, plan, share, seat)?);
    }
    let begun = monotonic();
    let look = |generators: &mut [Generator], posts: &[Post<'_>]| -> Result<_> {
        let mut all: Option<Progress> = None;
        for generator in generators {
            let progress = generator.progress()?;
            all = Some(all.map_or(progress, |others| others.with(progress)));
        }
        let tallies: Result<Vec<Tally>> = posts.iter().map(|post| post.sink.tally()).collect();
        Ok((all.unwrap_or_default(), tallies?))
    };
    let mut seconds = plan.duration.as_secs_f64();
    loop {
        thread::sleep(LOOK);
        let (sent, tallies) = look(&mut generators, posts)?;
        let now = monotonic();
        if sent.finished {
            break;
        }
        let passed = now.saturating_sub(sent.start.max(begun)) as f64 / 1e9;
        let state = Outcome::at(plan, passed, sent, tallies, Vec::new());
        if !watch(&state) {
            seconds = passed;
            break;
        }
        if now - begun > (plan.duration + PATIENCE).as_nanos() as u64 {
            bail!("the generator does not come to an end");
        }
    }
    let (_, tallies) = look(&mut generators, posts)?;
    let arrived = |tallies: &[Tally]| tallies.first().map_or(0, |tally| tally.received);
    let mut last = arrived(&tallies);
    loop {
        thread::sleep(DRAIN);
        let (sent, tallies) = look(&mut generators, posts)?;
        let now = arrived(&tallies);
        if now != last {
            last = now;
            continue;
        }
        let cpus = Counters::read()?.since(&before);
        for generator in &mut generators {
            generator.stop()?;
        }
        if sent.failed > 0 {
            bail!("the generator could not write {} frames", sent.failed);
        }
        return Ok(Outcome::at(plan, seconds, sent, tallies, cpus));
    }
}
