//! What the first packet of a connection costs a peer, by the number of Services.
//!
//! Every frame is a SYN that belongs to no connection yet, and more of them are sent than the peer can
//! take. What arrives behind it tells the cost: a peer that sends on 100 thousand a second needs
//! 10 µs for each. First packets go to all Services alike, so that a peer that looks at one Service
//! after the other looks at half of them on average; the last Service alone is measured beside it.

mod report;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use sluice_tests::clock;

use super::measure::{self, Case, MOST_CONNECTIONS, Options};
use super::part::Part;
use super::peer::{FORGET_SECONDS, Peer};
use super::readings::Readings;
use super::rig::Rig;
use crate::generator::plan::Script;
use crate::rate::Rate;
use crate::statistics::median;
use crate::trial::{Latency, Outcome};

/// Offered at first; twice as much follows until a peer cannot take it.
const FIRST_RATE: Rate = Rate(20e3);
/// A peer that sends on less than this share of the frames has had enough.
const ENOUGH: f64 = 0.8;
/// Trials with too many frames, of which the median counts.
const TRIALS: usize = 3;
/// After so many frames a peer is given time to forget: four backends have four times 64 thousand
/// source ports, and the kernel has room for as many connections.
const MANY: u64 = 25_000;
/// At this rate each first packet finds the peer without work.
const CALM: Rate = Rate(1e3);

/// How it is measured.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Arguments {
    /// Rounds of first packets; 0: none.
    #[arg(long, default_value_t = 1)]
    pub first_rounds: u32,
    /// Numbers of Services at which first packets are measured.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,10000")]
    pub first_services: Vec<u32>,
    /// Milliseconds of each of their trials.
    #[arg(long, default_value_t = 300)]
    pub first_trial: u64,
}

/// Which Services first packets go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aim {
    /// To each as often.
    All,
    /// To the last one.
    Last,
}

/// What a peer did in a round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Round {
    /// The peer.
    pub peer: String,
    /// Which round.
    pub number: u32,
    /// Services.
    pub services: u32,
    /// Where first packets went.
    pub aim: Aim,
    /// First packets a second that it sends on.
    pub rate: Rate,
    /// Latency of first packets that find it without work.
    pub calm: Latency,
    /// All trials with too many frames.
    pub trials: Vec<Outcome>,
}

impl Round {
    /// Microseconds of a first packet.
    pub fn cost(&self) -> f64 {
        1e6 / self.rate.0.max(1.0)
    }
}

/// Measures all of `peers` that translate frames on a CPU of their own, in turns; none when there is
/// nothing to measure. A round that fails is told at once and counted.
pub fn measure(
    rig: &mut Rig,
    peers: &[Peer],
    arguments: &Arguments,
    options: &Options,
    readings: &mut Readings,
) -> Option<Part> {
    // More frames than the generator's own CPU can forward would leave the generator no time.
    let able = |peer: &&Peer| {
        matches!(
            peer,
            Peer::Sluice | Peer::NftablesThreaded | Peer::IptablesThreaded
        )
    };
    let able: Vec<Peer> = peers.iter().filter(able).copied().collect();
    let options = Options {
        trial: Duration::from_millis(arguments.first_trial),
        ..*options
    };
    let (mut rounds, mut failed) = (Vec::new(), 0);
    for number in 0..arguments.first_rounds {
        for services in &arguments.first_services {
            for peer in &able {
                if clock::stopped() {
                    break;
                }
                match round(rig, *peer, *services, number, &options) {
                    Ok(new) => rounds.extend(new),
                    Err(error) => {
                        eprintln!("first packets, round {number}: {}: {error:#}", peer.name());
                        failed += 1;
                    }
                }
            }
        }
    }
    if rounds.is_empty() && failed == 0 {
        return None;
    }
    report::add(&rounds, readings);
    Some(report::part(&rounds, failed))
}

/// A peer's round with one number of Services. The last Service alone tells something only when
/// there are many.
fn round(
    rig: &mut Rig,
    peer: Peer,
    services: u32,
    number: u32,
    options: &Options,
) -> Result<Vec<Round>> {
    let script = Script::Syn;
    rig.plan.sizes.fill(options.size);
    Case { script, services }.prepare(rig, MOST_CONNECTIONS);
    let running = peer.start(rig, services).with_context(|| peer.name())?;
    let aims: &[Aim] = if services < 5000 {
        &[Aim::All]
    } else {
        &[Aim::All, Aim::Last]
    };
    let mut rounds = Vec::new();
    let mut measured = Ok(());
    for aim in aims {
        rig.aim(services);
        if *aim == Aim::Last {
            let last = rig.plan.targets.len().saturating_sub(1);
            rig.plan.targets.drain(..last);
        }
        match overload(rig, peer, options) {
            Ok((rate, calm, trials)) => {
                let round = Round {
                    peer: peer.name().to_owned(),
                    number,
                    services,
                    aim: *aim,
                    rate,
                    calm,
                    trials,
                };
                println!("first packets, round {number}  {}", line(&round));
                rounds.push(round);
            }
            Err(error) => measured = Err(error),
        }
    }
    peer.stop(rig, running)?;
    measured.with_context(|| peer.name()).map(|()| rounds)
}

/// What a peer sends on of more than it can take, and how late it is with little.
fn overload(rig: &mut Rig, peer: Peer, options: &Options) -> Result<(Rate, Latency, Vec<Outcome>)> {
    let calm = attempt(rig, peer, CALM, options)?.latency;
    // No two frames of a trial may belong to one connection.
    let most = 0.9 * MOST_CONNECTIONS as f64 / options.trial.as_secs_f64();
    let mut rate = FIRST_RATE;
    while rate.0 < most {
        let outcome = attempt(rig, peer, rate, options)?;
        if outcome.delivered < ENOUGH * outcome.offered {
            break;
        }
        rate = rate.times(2.0);
    }
    let mut trials = Vec::new();
    for _ in 0..TRIALS {
        trials.push(attempt(rig, peer, Rate(rate.0.min(most)), options)?);
    }
    let delivered: Vec<f64> = trials.iter().map(|trial| trial.delivered).collect();
    Ok((Rate(median(&delivered)), calm, trials))
}

/// One trial of connections that nobody knows.
fn attempt(rig: &mut Rig, peer: Peer, rate: Rate, options: &Options) -> Result<Outcome> {
    let outcome = measure::try_rate(rig, peer, rate, options.trial, options.kind)?;
    if outcome.sent.sent > MANY {
        thread::sleep(Duration::from_millis(1100) * FORGET_SECONDS);
    }
    Ok(outcome)
}

fn line(round: &Round) -> String {
    let rate = round.rate.to_string();
    format!(
        "{:<50} {:>6} Services, {:?}: {rate:>8} a second, alone {:.1} µs",
        round.peer,
        round.services,
        round.aim,
        round.calm.p50 as f64 / 1e3
    )
}
