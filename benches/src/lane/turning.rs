//! One worker with its loop: what a turn costs beside the engine.

use std::time::Duration;

use anyhow::{Context, ensure};
use crossbeam::channel::{Sender, bounded};
use sluice_conf::settings::dataplane::Fragments;
use sluice_dataplane::clock::Time;
use sluice_dataplane::flow::FiveTuple;
use sluice_dataplane::handover::Handover;
use sluice_dataplane::kernel::NoWay;
use sluice_dataplane::listing::Query;
use sluice_dataplane::netlink::{Unresolved, unresolved};
use sluice_dataplane::pipeline::MAX_BURST;
use sluice_dataplane::snapshot::Publisher;
use sluice_dataplane::stats::{PerWorker, WorkerCounters};
use sluice_dataplane::wire::parse::TcpFlags;
use sluice_dataplane::worker::{Connections, Worker};

use super::Lane;
use crate::slots::{Slot, SlotIo};
use crate::traffic::{Numbered, tcp};

/// A worker whose frames a benchmark brings and takes away.
#[derive(Debug)]
pub struct Turning {
    worker: Worker<SlotIo>,
    frames: Vec<Slot>,
    now: Time,
    /// The other ends of what the worker is connected to.
    _others: (Publisher, Sender<Query>, Unresolved),
}

impl Lane {
    /// The worker whose engine this is, without frames.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn into_turning(self) -> anyhow::Result<Turning> {
        let Self {
            engine,
            io,
            frames,
            snapshot,
            now,
            ..
        } = self;
        let (publisher, mut observers) = Publisher::new(snapshot, 1);
        let (asking, queries) = bounded(1);
        let (resolve, unresolved) = unresolved(1)?;
        let counters: std::sync::Arc<PerWorker<WorkerCounters>> = PerWorker::new(1);
        let links = Connections {
            handover: Handover::new(1, 1)?.pop().context("no ring")?,
            kernel: Box::new(NoWay),
            observer: observers.pop().context("no observer")?,
            resolve,
            queries,
            counters,
            tap: std::sync::Arc::default(),
        };
        Ok(Turning {
            worker: Worker::new(0, MAX_BURST, &Fragments::default(), io, engine, links),
            frames,
            now,
            _others: (publisher, asking, unresolved),
        })
    }
}

impl Turning {
    /// Lets time pass.
    pub fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// Packets with these tuples arrive.
    pub fn arrive<'a, A: Numbered>(&mut self, tuples: impl IntoIterator<Item = &'a FiveTuple<A>>) {
        for tuple in tuples {
            if let Some(mut slot) = self.frames.pop() {
                let io = self.worker.io();
                io.write(&mut slot, &tcp(tuple, TcpFlags::ACK));
                io.arrive(slot);
            }
        }
    }

    /// One turn.
    pub fn turn(&mut self) {
        self.worker.turn(self.now);
    }

    /// Takes back the frames that have left.
    ///
    /// # Errors
    /// When they are not so many.
    pub fn take(&mut self, frames: usize) -> anyhow::Result<()> {
        let left = self.worker.io().take_left();
        ensure!(left.len() == frames, "{} of {frames} left", left.len());
        self.frames.extend(left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Plan;
    use crate::order::Walk;
    use sluice_conf::SourceNat;
    use std::net::Ipv4Addr;

    #[test]
    fn what_arrives_at_a_worker_leaves_in_the_same_turn() {
        let mut lane = Lane::new(Plan::new(SourceNat::Masquerade)).unwrap();
        let mut walk = Walk::evenly(lane.establish::<Ipv4Addr>(100).unwrap());
        let mut turning = lane.into_turning().unwrap();
        for frames in [0, 1, MAX_BURST] {
            turning.pass(Duration::from_micros(1));
            turning.arrive(walk.step().take(frames));
            turning.turn();
            turning.take(frames).unwrap();
        }
    }
}
