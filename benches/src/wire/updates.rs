//! Changes of endpoints under load: what the load loses by them, how much later it arrives, whether
//! connections of endpoints that stay are broken, and how long a change takes to be seen.
//!
//! All connections are set up before an endpoint comes and goes again and again, so none of them is
//! of that endpoint. The control plane, `nft` and this program's own threads have the generator's
//! CPU, never the peer's; the generator then leaves some frames out, which is no loss of the peer.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::change::Changer;
use super::established::{self, Load, broken};
use super::known::Known;
use super::measure::Options;
use super::peer::{Peer, Running};
use super::pushing::Pushing;
use super::readings::Readings;
use super::rig::{GENERATOR_CPU, Rig};
use super::updater::{self, Changes};
use crate::cpu;
use crate::generator::plan::Script;
use crate::rate::Rate;
use crate::statistics::{quantile, sorted};
use crate::trial::Outcome;

const SECTION: &str = "Changes of endpoints under load";
/// Share of the peer's highest rate.
const LOAD: f64 = 0.5;
/// Changes a second.
const RATES: [f64; 3] = [1.0, 10.0, 100.0];
/// New connections a second, of which each shows what the peer goes by.
const PROBES: Rate = Rate(40e3);
/// Trials that the load lasts as long as with and without changes, at least.
const TRIALS: u32 = 3;
/// The same for changes that are made one after the other.
const SERIES: u32 = 10;
/// What a series is longer for each Service that changes at once: the slowest peer shall come to one
/// change at least.
const PUSH: Duration = Duration::from_micros(1200);
/// Least changes of a load.
const CHANGES: f64 = 2.0;
/// Between the start of the load and the first change.
const START: Duration = Duration::from_millis(200);

/// Measures one peer with one Service: endpoints that come and go.
///
/// # Errors
/// The peer cannot be started, or changes frames as it should not.
pub fn round(
    rig: &mut Rig,
    peer: Peer,
    known: &mut Known,
    options: &Options,
    readings: &mut Readings,
) -> Result<()> {
    established::with_peer(rig, peer, 1, options, |rig, running| {
        let mut bench = Bench::new(rig, peer, running, known, options, readings)?;
        for rate in RATES {
            bench.flaps(rate)?;
        }
        bench.series(1, "change to first packet")?;
        bench.pushes()
    })
}

/// Measures one peer with many Services, all of which change at once.
///
/// # Errors
/// The peer cannot be started, or changes frames as it should not.
pub fn full_push(
    rig: &mut Rig,
    peer: Peer,
    services: u32,
    known: &mut Known,
    options: &Options,
    readings: &mut Readings,
) -> Result<()> {
    established::with_peer(rig, peer, services, options, |rig, running| {
        let mut bench = Bench::new(rig, peer, running, known, options, readings)?;
        bench.series(
            services,
            &format!("push of {services} Services to first packet"),
        )
    })
}

struct Bench<'a> {
    rig: &'a mut Rig,
    peer: Peer,
    running: &'a Running,
    changer: Changer<'a>,
    options: &'a Options,
    readings: &'a mut Readings,
    data: Rate,
}

impl<'a> Bench<'a> {
    fn new(
        rig: &'a mut Rig,
        peer: Peer,
        running: &'a Running,
        known: &mut Known,
        options: &'a Options,
        readings: &'a mut Readings,
    ) -> Result<Self> {
        let changer = Changer::of(peer, running, rig).context("its endpoints cannot be changed")?;
        let most = known.rate(rig, peer, Script::Data, options)?;
        established::prepare(rig, options.flows, options.size);
        Ok(Self {
            rig,
            peer,
            running,
            changer,
            options,
            readings,
            data: most.times(LOAD),
        })
    }

    fn add(&mut self, what: &str, unit: &'static str, value: f64) {
        let name = format!("{what}: {}", self.peer.name());
        self.readings.add(SECTION, name, unit, value);
    }

    /// The load, for `time` and a little more, while `change` makes changes in a thread of its own.
    fn load(
        &mut self,
        new: Rate,
        time: Duration,
        change: impl FnOnce() -> Result<Changes> + Send,
    ) -> Result<(Outcome, Changes)> {
        let load = Load {
            data: self.data,
            new,
            time: time + START * 2,
        };
        let (begin, begun) = mpsc::channel();
        thread::scope(|scope| {
            let changes = scope.spawn(move || {
                cpu::claim(GENERATOR_CPU)?;
                // The sender is gone when the load failed: nothing is to be changed.
                if begun.recv().is_err() {
                    return Ok(Changes::default());
                }
                thread::sleep(START);
                change()
            });
            let begin = move || {
                // Without a receiver the changes have failed, which is told below.
                let _ = begin.send(());
            };
            let outcome = established::run(self.rig, self.peer, load, self.options.kind, begin);
            let changes = changes.join().map_err(|_| anyhow!("a thread died"))?;
            Ok((outcome?, changes.context("changing endpoints")?))
        })
    }

    fn calm(&mut self, new: Rate) -> Result<Outcome> {
        let time = self.options.trial * TRIALS;
        Ok(self.load(new, time, || Ok(Changes::default()))?.0)
    }

    /// One endpoint comes or goes `rate` times a second.
    fn flaps(&mut self, rate: f64) -> Result<()> {
        let calm = self.calm(Rate(0.0))?;
        let changer = Changer::of(self.peer, self.running, self.rig).context("its endpoints")?;
        let least = Duration::from_secs_f64(CHANGES / rate);
        let time = least.max(self.options.trial * TRIALS);
        let (busy, changes) = self.load(Rate(0.0), time, || updater::flap(&changer, rate, time))?;
        self.changer.settle(0, 1)?;
        let at = format!("at {rate:.0} changes a second");
        self.compare(&at, &calm, &busy);
        self.add(
            &format!("changes made {at}"),
            "a second",
            changes.made / time.as_secs_f64(),
        );
        Ok(())
    }

    fn compare(&mut self, at: &str, calm: &Outcome, busy: &Outcome) {
        let micros = |outcome: &Outcome| outcome.latency.p999 as f64 / 1e3;
        self.add(&format!("dip {at}"), "%", (busy.loss - calm.loss) * 100.0);
        self.add(&format!("p99.9 {at}"), "µs", micros(busy));
        self.add(&format!("p99.9 without changes, {at}"), "µs", micros(calm));
        let name = format!("flows broken by changes: {}", self.peer.name());
        let broken = broken(calm, busy) as f64;
        self.readings.add_worst(SECTION, name, "flows", broken);
    }

    /// Changes of so many Services one after the other, each when the one before has been seen.
    fn series(&mut self, services: u32, what: &str) -> Result<()> {
        let calm = self.calm(PROBES)?;
        let mut sighting = self.rig.sink.sighting()?;
        let time = self.options.trial * SERIES + PUSH * services;
        let changer = Changer::of(self.peer, self.running, self.rig).context("its endpoints")?;
        let (busy, changes) = self.load(PROBES, time, || {
            changer.enter()?;
            let set = |spares| changer.set(spares, services);
            updater::one_by_one(&mut sighting, time, services, set)
        })?;
        self.changer.settle(0, services)?;
        self.tell(what, &changes);
        self.compare(&format!("by changes of {services} Services"), &calm, &busy);
        Ok(())
    }

    fn tell(&mut self, what: &str, changes: &Changes) {
        for delay in &changes.delays {
            self.add(what, "ms", *delay);
        }
        if let Some(most) = quantile(&sorted(&changes.delays), 0.99) {
            let name = format!("{what}: {}, p99", self.peer.name());
            self.readings.add(SECTION, name, "ms", most);
        }
    }

    /// Tables pushed to Sluice's dataplane, without its control plane.
    fn pushes(&mut self) -> Result<()> {
        let Running::Sluice(sluice) = self.running else {
            return Ok(());
        };
        let (mut sighting, time) = (self.rig.sink.sighting()?, self.options.trial * SERIES);
        let mut pushing = Pushing::start(&sluice.paths.dataplane_socket())?;
        let (_, changes) = self.load(PROBES, time, || {
            updater::one_by_one(&mut sighting, time, 1, |spares| pushing.set(spares))
        })?;
        self.tell("push to first packet", &changes);
        Ok(())
    }
}
