//! One engine with the frames of a batch: what a worker is without its loop.
//!
//! The engine is the real one. All frames of a batch lie in [`crate::slots`]. Time goes on by half
//! a microsecond a packet, so that packets of many connections find records of an earlier second,
//! as on a wire.

mod turning;

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use sluice_dataplane::clock::Time;
use sluice_dataplane::flow::FiveTuple;
use sluice_dataplane::neighbour::Tags;
use sluice_dataplane::pipeline::{Engine, MAX_BURST};
use sluice_dataplane::snapshot::Snapshot;
use sluice_dataplane::verdict::Verdict;
use sluice_dataplane::wire::parse::{Datagram, Parsed, TcpFlags, parse};

use crate::gateway::{Gateway, Plan};
use crate::harness::{BATCH, Stopwatch};
use crate::slots::{Slot, SlotIo};
use crate::traffic::{Numbered, connection, shuffle, tcp};

pub use turning::Turning;

/// Time between two packets: two million packets a second on one core.
const PACE: Duration = Duration::from_nanos(500);

/// Longer than the timeout of an opening connection, shorter than that of an established one.
const LONG: Duration = Duration::from_secs(200);

/// Longer than every timeout.
const LONGEST: Duration = Duration::from_secs(6 * 24 * 3600);

/// One worker's engine with frames and verdicts.
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
    /// Number of the next connection that nobody has opened here.
    next: u32,
    astray: usize,
}

impl Lane {
    /// A worker with this engine.
    pub fn with(engine: Engine, snapshot: Snapshot, now: Time) -> Self {
        let (io, frames) = SlotIo::new(BATCH);
        Self {
            engine,
            io,
            frames,
            filled: 0,
            verdicts: Vec::with_capacity(BATCH),
            snapshot,
            now,
            next: 0,
            astray: 0,
        }
    }

    /// The only worker of a gateway.
    ///
    /// # Errors
    /// When the Services cannot be compiled.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        Ok(Gateway::new(plan)?.lane(0))
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
    pub fn fill<'a, A: Numbered>(
        &mut self,
        tuples: impl IntoIterator<Item = &'a FiveTuple<A>>,
        flags: u8,
    ) {
        self.look();
        self.filled = 0;
        for (slot, tuple) in self.frames.iter_mut().zip(tuples) {
            self.io.write(slot, &tcp(tuple, flags));
            self.filled += 1;
        }
        self.now = self.now.after(PACE * self.filled as u32);
    }

    /// Writes the first packets of connections that are new here.
    pub fn fill_new<A: Numbered>(&mut self) {
        let first = self.next;
        self.next = first.wrapping_add(BATCH as u32);
        let tuples: Vec<FiveTuple<A>> = (first..).take(BATCH).map(connection).collect();
        self.fill(&tuples, TcpFlags::SYN);
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

    /// Establishes so many connections by three-way handshakes. Returns the tuples that packets
    /// arrive with, of both directions, shuffled. Flows of other workers are left out.
    ///
    /// # Errors
    /// When one is not established.
    pub fn establish<A: Numbered>(&mut self, count: u32) -> anyhow::Result<Arc<[FiveTuple<A>]>> {
        let wanted = count as usize;
        let mut originals: Vec<FiveTuple<A>> = Vec::with_capacity(2 * wanted);
        let mut replies = Vec::with_capacity(wanted);
        while originals.len() < wanted {
            self.fill_new::<A>();
            self.process();
            let first = self.next.wrapping_sub(BATCH as u32);
            for (number, place) in (first..).zip(0..BATCH).take(wanted - originals.len()) {
                if !matches!(self.verdicts[place], Verdict::HandOver { .. }) {
                    originals.push(connection(number));
                    replies.push(self.answer(place)?);
                }
            }
            self.verdicts
                .retain(|verdict| !matches!(verdict, Verdict::HandOver { .. }));
        }
        self.send(&replies, TcpFlags::SYN | TcpFlags::ACK);
        self.send(&originals, TcpFlags::ACK);
        self.check()?;
        let mut both = originals;
        both.append(&mut replies);
        shuffle(&mut both);
        Ok(both.into())
    }

    /// The tuple of the answer to the frame at this place of the batch, which has been translated.
    fn answer<A: Numbered>(&self, place: usize) -> anyhow::Result<FiveTuple<A>> {
        let frame = self.io.frame(&self.frames[place]);
        let tuple = match parse(frame, Tags::default()) {
            Ok(Parsed::V4(Datagram::Packet(packet))) => moved(&packet.tuple),
            Ok(Parsed::V6(Datagram::Packet(packet))) => moved(&packet.tuple),
            _ => None,
        };
        tuple
            .map(FiveTuple::invert)
            .ok_or_else(|| anyhow::anyhow!("frame {place} is no packet any more"))
    }

    fn send<A: Numbered>(&mut self, tuples: &[FiveTuple<A>], flags: u8) {
        for batch in tuples.chunks(BATCH) {
            self.fill(batch, flags);
            self.process();
        }
    }

    /// Lets time pass until no connection that was only opened is left.
    pub fn forget_opened(&mut self) {
        self.now = self.now.after(LONG);
        // Each call looks at several; those that are not due yet cost next to nothing.
        for _ in 0..=self.engine.connections() {
            self.tidy();
        }
    }

    /// Lets time pass until every connection is due, and has the engine forget them all. Returns
    /// the nanoseconds of each call.
    ///
    /// # Errors
    /// When the engine does not get on.
    pub fn forget_all(&mut self, watch: Stopwatch) -> anyhow::Result<Vec<f64>> {
        self.look();
        self.now = self.now.after(LONGEST);
        let most = self.engine.connections() + 1;
        let mut calls = Vec::with_capacity(most / MAX_BURST + 1);
        while self.engine.connections() > 0 {
            calls.push(watch.time(|| self.tidy()).0);
            ensure!(calls.len() <= most, "connections do not expire");
        }
        Ok(calls)
    }

    fn tidy(&mut self) {
        let (io, now) = (&mut self.io, self.now);
        self.engine.tidy(io, &self.snapshot, now, &mut Vec::new());
    }

    /// Whether every packet so far was forwarded; otherwise the figures are of something else.
    ///
    /// # Errors
    /// How many were not.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.look();
        let astray = self.astray;
        ensure!(astray == 0, "{astray} packets were not forwarded");
        Ok(())
    }
}

/// The same tuple when the families are the same.
fn moved<A: Numbered, B: Numbered>(tuple: &FiveTuple<A>) -> Option<FiveTuple<B>> {
    use sluice_dataplane::flow::End;
    let end = |end: End<A>| Some(End::new(B::of(end.address.into())?, end.port));
    Some(FiveTuple {
        source: end(tuple.source)?,
        destination: end(tuple.destination)?,
        protocol: tuple.protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Walk;
    use sluice_conf::SourceNat;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn stay_forwarded<A: Numbered>(source_nat: SourceNat) {
        let mut lane = Lane::new(Plan::new(source_nat)).unwrap();
        let mut walk = Walk::evenly(lane.establish::<A>(1000).unwrap());
        for _ in 0..20 {
            lane.fill(walk.step(), TcpFlags::ACK);
            lane.process();
        }
        lane.check().unwrap();
        lane.forget_opened();
        assert_eq!(lane.engine().table::<A>().len(), 1000);
    }

    #[test]
    fn established_connections_are_forwarded_from_both_sides_for_ever() {
        for source_nat in [SourceNat::Masquerade, SourceNat::Preserve] {
            stay_forwarded::<Ipv4Addr>(source_nat);
            stay_forwarded::<Ipv6Addr>(source_nat);
        }
    }

    #[test]
    fn opened_connections_are_forgotten_and_then_all() {
        let mut lane = Lane::new(Plan::new(SourceNat::Masquerade)).unwrap();
        lane.establish::<Ipv4Addr>(100).unwrap();
        lane.fill_new::<Ipv4Addr>();
        lane.process();
        assert!(lane.engine().connections() >= BATCH);
        lane.forget_opened();
        assert_eq!(lane.engine().connections(), 100);
        let calls = lane.forget_all(Stopwatch::default()).unwrap();
        assert!(!calls.is_empty() && lane.engine().connections() == 0);
    }

    #[test]
    fn a_packet_that_is_not_forwarded_is_found() {
        let mut lane = Lane::new(Plan::new(SourceNat::Masquerade)).unwrap();
        lane.fill(&[connection::<Ipv4Addr>(0)], TcpFlags::ACK);
        lane.process();
        assert!(lane.check().is_err());
    }

    #[test]
    fn workers_establish_only_what_they_own() {
        let plan = Plan {
            workers: 3,
            ..Plan::new(SourceNat::Masquerade)
        };
        let gateway = Gateway::new(plan).unwrap();
        for worker in 0..3 {
            let mut lane = gateway.lane(worker);
            let mut walk = Walk::evenly(lane.establish::<Ipv4Addr>(300).unwrap());
            lane.fill(walk.step(), TcpFlags::ACK);
            lane.process();
            lane.check().unwrap();
            assert_eq!(walk.len(), 600);
        }
    }
}
