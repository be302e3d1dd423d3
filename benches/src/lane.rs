//! One engine with the frames of a batch: what a worker is without its loop.
//!
//! The engine is the real one with the settings that the daemon ships, one worker, and all frames
//! of a batch in [`crate::slots`].

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use sluice_conf::SourceNat;
use sluice_conf::settings::dataplane;
use sluice_dataplane::affinity::AffinityTable;
use sluice_dataplane::clock::Time;
use sluice_dataplane::pipeline::{Engine, EngineSettings, MAX_BURST};
use sluice_dataplane::service::ServiceMap;
use sluice_dataplane::snapshot::Snapshot;
use sluice_dataplane::stats::PerWorker;
use sluice_dataplane::verdict::Verdict;
use sluice_dataplane::wire::parse::TcpFlags;

use crate::harness::BATCH;
use crate::slots::{Slot, SlotIo};
use crate::topology::{SERVICES, compiled, network, services};
use crate::traffic::{Tuple, connection, shuffle, tcp};

/// Longer than the timeout of an opening connection, shorter than that of an established one.
const LONG: Duration = Duration::from_secs(200);

/// Engine, frames and verdicts.
#[derive(Debug)]
pub struct Lane {
    engine: Engine,
    io: SlotIo,
    frames: Vec<Slot>,
    /// Frames of the batch; the first ones.
    filled: usize,
    verdicts: Vec<Verdict>,
    snapshot: Snapshot,
    now: Time,
    astray: usize,
}

impl Lane {
    /// An engine without connections, for Services with this policy.
    ///
    /// # Errors
    /// When the Services cannot be compiled.
    pub fn new(source_nat: SourceNat) -> anyhow::Result<Self> {
        let services = compiled(services(SERVICES, source_nat), &ServiceMap::default())?;
        let snapshot = Snapshot::new(Arc::new(services), Arc::new(network()));
        let settings = EngineSettings {
            worker: 0,
            workers: 1,
            connections: dataplane::Connections::default(),
            timeouts: dataplane::Timeouts::default(),
            source_nat: dataplane::SourceNat::default(),
            fragments: dataplane::Fragments::default(),
            answers: dataplane::Answers::default(),
            seed: 0x5eed,
        };
        let now = Time(1_000_000_000);
        let affinity = Arc::new(AffinityTable::new(1024, 0x5eed));
        let (io, frames) = SlotIo::new(BATCH);
        Ok(Self {
            engine: Engine::new(&settings, PerWorker::new(1), affinity, now),
            io,
            frames,
            filled: 0,
            verdicts: Vec::with_capacity(BATCH),
            snapshot,
            now,
            astray: 0,
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Services and network.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// I/O and frames of the batch, to work on them without the engine.
    pub fn frames(&mut self) -> (&mut SlotIo, &mut [Slot]) {
        (&mut self.io, &mut self.frames[..self.filled])
    }

    /// The verdicts of the batch so far.
    pub fn verdicts(&mut self) -> &mut Vec<Verdict> {
        &mut self.verdicts
    }

    /// Writes the frames of the next batch: packets with these tuples, at most [`BATCH`]. Looks
    /// whether all of the last batch were forwarded.
    pub fn fill<'a>(&mut self, tuples: impl IntoIterator<Item = &'a Tuple>, flags: u8) {
        self.look();
        self.filled = 0;
        for (slot, tuple) in self.frames.iter_mut().zip(tuples) {
            self.io.write(slot, &tcp(tuple, flags));
            self.filled += 1;
        }
    }

    /// Has the engine decide about the batch, burst by burst.
    pub fn process(&mut self) {
        for burst in self.frames[..self.filled].chunks_mut(MAX_BURST) {
            self.engine.process(
                &mut self.io,
                burst,
                &[None; MAX_BURST],
                &self.snapshot,
                self.now,
                &mut self.verdicts,
            );
        }
    }

    fn look(&mut self) {
        let is_astray = |verdict: &&Verdict| !matches!(verdict, Verdict::Forward(_));
        self.astray += self.verdicts.iter().filter(is_astray).count();
        self.verdicts.clear();
    }

    /// Establishes connections 0 to `count - 1` by three-way handshakes. Returns the tuples that
    /// packets arrive with, of both directions, shuffled.
    ///
    /// # Errors
    /// When one is not established.
    pub fn establish(&mut self, count: u32) -> anyhow::Result<Vec<Tuple>> {
        let originals: Vec<Tuple> = (0..count).map(connection).collect();
        self.send(&originals, TcpFlags::SYN);
        let table = self.engine.table::<Ipv4Addr>();
        let (ids, _) = table.page(0, table.capacity() as u32);
        let replies: Vec<Tuple> = ids.map(|id| table.get(id).reply).collect();
        self.send(&replies, TcpFlags::SYN | TcpFlags::ACK);
        self.send(&originals, TcpFlags::ACK);
        self.check()?;
        ensure!(replies.len() == originals.len(), "connections were lost");
        let mut both = [originals, replies].concat();
        shuffle(&mut both);
        Ok(both)
    }

    fn send(&mut self, tuples: &[Tuple], flags: u8) {
        for batch in tuples.chunks(BATCH) {
            self.fill(batch, flags);
            self.process();
        }
    }

    /// Lets time pass until no connection that was only opened is left.
    pub fn forget_opened(&mut self) {
        self.now = self.now.after(LONG);
        // Each call looks at several; those that are not due yet cost next to nothing.
        for _ in 0..self.engine.table::<Ipv4Addr>().len() {
            self.engine
                .tidy(&mut self.io, &self.snapshot, self.now, &mut Vec::new());
        }
    }

    /// Whether every packet so far was forwarded; otherwise the figures are of something else.
    ///
    /// # Errors
    /// How many were not.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.look();
        ensure!(
            self.astray == 0,
            "{} packets were not forwarded",
            self.astray
        );
        Ok(())
    }
}

/// Tuples to walk through for ever, a batch at a time.
#[derive(Debug)]
pub struct Walk {
    tuples: Vec<Tuple>,
    place: usize,
}

impl Walk {
    /// A walk through `tuples`.
    pub fn new(tuples: Vec<Tuple>) -> Self {
        Self { tuples, place: 0 }
    }

    /// The next [`BATCH`] tuples; the first follows on the last.
    pub fn step(&mut self) -> impl Iterator<Item = &Tuple> {
        let (before, after) = self.tuples.split_at(self.place);
        self.place = (self.place + BATCH) % self.tuples.len().max(1);
        after.iter().chain(before).take(BATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_connections_are_forwarded_from_both_sides_for_ever() {
        for source_nat in [SourceNat::Masquerade, SourceNat::Preserve] {
            let mut lane = Lane::new(source_nat).unwrap();
            let mut walk = Walk::new(lane.establish(1000).unwrap());
            for _ in 0..20 {
                lane.fill(walk.step(), TcpFlags::ACK);
                lane.process();
            }
            lane.check().unwrap();
            lane.forget_opened();
            assert_eq!(lane.engine().table::<Ipv4Addr>().len(), 1000);
        }
    }

    #[test]
    fn opened_connections_are_forgotten() {
        let mut lane = Lane::new(SourceNat::Masquerade).unwrap();
        let tuples: Vec<Tuple> = (0..BATCH as u32).map(connection).collect();
        lane.fill(&tuples, TcpFlags::SYN);
        lane.process();
        assert_eq!(lane.engine().table::<Ipv4Addr>().len(), BATCH);
        lane.forget_opened();
        assert!(lane.engine().table::<Ipv4Addr>().is_empty());
    }

    #[test]
    fn a_packet_that_is_not_forwarded_is_found() {
        let mut lane = Lane::new(SourceNat::Masquerade).unwrap();
        lane.fill(&[connection(0)], TcpFlags::ACK);
        lane.process();
        assert!(lane.check().is_err());
    }
}
