//! One core's loop: pull, decide, carry out, and between two bursts look at the rest of the world.
//!
//! A turn without frames costs next to nothing, because the time that it takes is what the next
//! frame waits: each chore tells by a comparison or two that there is nothing to do.

mod delivery;
mod rest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::Receiver;
use sluice_conf::message::dataplane::Traffic;
use sluice_conf::settings::dataplane::{Fragments, Polling};

use crate::clock::{Clock, Time};
use crate::handover::Handover;
use crate::io::{Census, InterfaceId, PacketIo};
use crate::kernel::ToKernel;
use crate::listing::{Listing, Query};
use crate::netlink::Resolve;
use crate::pipeline::{Engine, MAX_BURST, Sent};
use crate::snapshot::Observer;
use crate::stats::{PerWorker, WorkerCounters};
use crate::tap::{Tap, Tapping};
use crate::verdict::{Ports, Verdict};

use delivery::{Around, Delivery};
use rest::Rest;

/// How long a worker sleeps at most: timers, questions and the end wait no longer than this. Frames
/// and new tables wake it.
const NAP: Duration = Duration::from_millis(20);

/// Turns between two readings of the clock, which costs more than a turn without frames: the time
/// that a burst is given is this many turns old at most. Timeouts are seconds.
const TURNS_PER_READING: u32 = 4;

/// The part of a full burst that may open connections: of a TCP connection with no more than a
/// question and an answer it is one packet of six.
const OPENINGS_SHARE: usize = 4;

/// How often the counters of rings and kernel are read.
const READING_PERIOD: Duration = Duration::from_millis(500);

/// A frame, and the ports of the packet that it is a fragment of, once they are known.
pub type Noted<Frame> = (Frame, Option<Ports>);

/// What a worker is connected to.
#[derive(Debug)]
pub struct Connections<Frame> {
    /// Rings from and to the other workers.
    pub handover: Handover<Noted<Frame>>,
    /// Where packets go that are no Service's.
    pub kernel: Box<dyn ToKernel>,
    /// Services and network.
    pub observer: Observer,
    /// Next hops to resolve.
    pub resolve: Resolve,
    /// Questions of the control thread.
    pub queries: Receiver<Query>,
    /// The counters of all workers.
    pub counters: Arc<PerWorker<WorkerCounters>>,
    /// The operator's look at packets.
    pub tap: Arc<Tap>,
}

/// A worker.
#[derive(Debug)]
pub struct Worker<Io: PacketIo> {
    burst: usize,
    engine: Engine,
    delivery: Delivery<Io>,
    observer: Observer,
    queries: Receiver<Query>,
    listing: Option<Listing>,
    frames: Vec<Io::Frame>,
    /// Of each frame, what another worker has found out.
    ports: Vec<Option<Ports>>,
    verdicts: Vec<Verdict>,
    outbox: Vec<Sent<Io::Frame>>,
    next_reading: Time,
}

impl<Io: PacketIo> Worker<Io> {
    /// Worker `id`, which takes at most `burst` frames at once.
    pub fn new(
        id: u16,
        burst: usize,
        fragments: &Fragments,
        io: Io,
        engine: Engine,
        links: Connections<Io::Frame>,
    ) -> Self {
        let around = Around {
            counters: links.counters,
            handover: links.handover,
            tapping: Tapping::new(links.tap, id),
            kernel: links.kernel,
            resolve: links.resolve,
        };
        Self {
            burst: burst.clamp(2, MAX_BURST),
            engine,
            delivery: Delivery::new(id, fragments, io, around),
            observer: links.observer,
            queries: links.queries,
            listing: None,
            frames: Vec::with_capacity(MAX_BURST),
            ports: Vec::with_capacity(MAX_BURST),
            outbox: Vec::new(),
            verdicts: Vec::with_capacity(MAX_BURST),
            next_reading: Time(0),
        }
    }

    /// Turns until `stop` is set, then gives back the I/O so that its sockets close in order.
    pub fn run(mut self, polling: Polling, clock: &Clock, stop: &AtomicBool) -> Io {
        let mut now = clock.now();
        let mut rest = Rest::new(polling, now);
        let mut turns = 0;
        while !stop.load(Ordering::Relaxed) {
            let busy = self.turn(now);
            let naps = rest.is_due(busy, now);
            if naps {
                self.nap();
            } else if !busy {
                std::hint::spin_loop();
            }
            turns += 1;
            if naps || turns >= TURNS_PER_READING {
                (turns, now) = (0, clock.now());
            }
        }
        self.delivery.io
    }

    /// One turn. True when there was something to do.
    pub fn turn(&mut self, now: Time) -> bool {
        self.delivery.tapping.begin(now);
        // Once a turn: whoever looked twice would see a change between the two and miss it.
        let is_new = self.observer.observe();
        let has_retried = is_new && self.retry_waiting(now);
        self.fill_burst();
        let mut busy = has_retried || !self.frames.is_empty();
        let has_worked = busy || is_new;
        if has_worked {
            self.work(now);
            self.release(now);
        }
        // Before anything else: no frame of the burst waits for what is not about it.
        self.delivery.send_off();
        busy |= self.tidy(now) | self.listing.is_some();
        if self.delivery.give_up(now) || has_worked {
            self.delivery.count_waiting();
        }
        if self.listing.is_some() || !self.queries.is_empty() {
            self.answer_queries(now);
        }
        if now >= self.next_reading {
            self.read_rings(now);
        }
        self.delivery.count(|counters| {
            let turns = [&counters.idle_turns, &counters.busy_turns];
            turns[usize::from(busy)].add(1);
        });
        busy
    }

    /// The I/O, to look at its counters.
    pub fn io(&mut self) -> &mut Io {
        &mut self.delivery.io
    }

    /// The engine, to look at its connections.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What has waited goes first, then handed-over frames, for they have waited longer than the own
    /// queue's; but never so many that that gets no turn. A full burst is a sign that more comes than
    /// the worker keeps up with.
    #[inline]
    fn fill_burst(&mut self) {
        let share = self.burst / OPENINGS_SHARE;
        if self.delivery.is_lobby_taken() {
            self.frames.extend(self.delivery.leave_lobby(share));
            self.ports.resize(self.frames.len(), None);
        }
        // A look costs less than taking nothing, which would wait for all stores before it.
        let is_given = !self.delivery.handover.is_empty();
        if is_given {
            self.take_over(self.burst / 2);
        }
        self.receive();
        if is_given {
            self.take_over(self.burst);
        }
        let is_behind = self.frames.len() >= self.burst;
        let openings = if is_behind { share } else { self.burst };
        self.engine.limit_openings(openings);
    }

    /// Fills the burst with frames of the own queue.
    #[inline]
    fn receive(&mut self) {
        let (frames, io) = (&mut self.frames, &mut self.delivery.io);
        let before = frames.len();
        io.receive(frames, self.burst - before);
        let received = &frames[before..];
        if received.is_empty() {
            return;
        }
        let traffic = Traffic {
            frames: received.len() as u64,
            bytes: received.iter().map(|frame| io.len(frame) as u64).sum(),
        };
        self.ports.resize(frames.len(), None);
        self.delivery
            .count(|counters| counters.received.add_all(traffic));
    }

    /// Takes handed-over frames until the burst has `most`.
    fn take_over(&mut self, most: usize) {
        let before = self.frames.len();
        while self.frames.len() < most
            && let Some((frame, ports)) = self.delivery.handover.take()
        {
            self.frames.push(frame);
            self.ports.push(ports);
        }
        let taken = (self.frames.len() - before) as u64;
        self.delivery
            .count(|counters| counters.taken_over.add(taken));
    }

    fn work(&mut self, now: Time) {
        if self.frames.is_empty() {
            return;
        }
        let Self {
            engine,
            delivery,
            frames,
            ports,
            verdicts,
            ..
        } = self;
        delivery.note_arrivals(frames);
        verdicts.clear();
        let snapshot = self.observer.current();
        engine.process(&mut delivery.io, frames, ports, snapshot, now, verdicts);
        ports.clear();
        delivery.deliver(frames.drain(..).zip(&*verdicts), now);
    }

    /// Fragments whose packet's first fragment has come go through again.
    fn release(&mut self, now: Time) {
        for (packet, ports) in self.engine.released() {
            self.frames.extend(self.delivery.assembled(packet));
            self.ports.resize(self.frames.len(), Some(ports));
        }
        self.work(now);
    }

    /// After a change of the network, frames whose next hop is known now go through again. True when
    /// there were some.
    #[inline(never)]
    fn retry_waiting(&mut self, now: Time) -> bool {
        let network = &self.observer.current().network;
        for (frame, ports) in self.delivery.resolved(network) {
            self.frames.push(frame);
            self.ports.push(ports);
        }
        let any = !self.frames.is_empty();
        self.work(now);
        any
    }

    /// Lets the engine look at its connections, and sends what it has to say. True when there is
    /// more to do.
    fn tidy(&mut self, now: Time) -> bool {
        let (delivery, outbox) = (&mut self.delivery, &mut self.outbox);
        let snapshot = self.observer.current();
        let has_more = self.engine.tidy(&mut delivery.io, snapshot, now, outbox);
        if !outbox.is_empty() {
            delivery.send(outbox);
        }
        has_more
    }

    #[inline(never)]
    fn answer_queries(&mut self, now: Time) {
        let snapshot = self.observer.current();
        if self.listing.is_none()
            && let Ok(query) = self.queries.try_recv()
        {
            match query {
                Query::List(wanted) => self.listing = Some(Listing::new(wanted)),
                Query::Count(tally) => self.listing = Some(Listing::count(tally)),
                Query::Explain { question, answer } => {
                    if let Some(explanation) = self.engine.answer(&question, snapshot, now) {
                        // Nobody waits any more when the client has gone.
                        let _ = answer.send(explanation);
                    }
                }
            }
        }
        if let Some(listing) = self.listing.take() {
            self.listing = listing.go_on(&self.engine, &snapshot.services, now);
        }
    }

    /// Reading asks the kernel, so it is done seldom and never for a packet.
    #[inline(never)]
    fn read_rings(&mut self, now: Time) {
        self.next_reading = now.after(READING_PERIOD);
        let delivery = &self.delivery;
        let Some(counters) = delivery.counters() else {
            return;
        };
        for (interface, ring) in (0..).map(InterfaceId).zip(counters.rings()) {
            ring.set(delivery.io.ring_stats(interface));
        }
        let Census {
            receiving,
            transmitting,
            free,
        } = delivery.io.census();
        counters.slots_receiving.set(receiving as u64);
        counters.slots_transmitting.set(transmitting as u64);
        counters.slots_free.set(free as u64);
        counters.inbox.set(delivery.handover.len() as u64);
    }

    fn nap(&mut self) {
        let Delivery { io, handover, .. } = &mut self.delivery;
        if let Some(wake) = handover.wake() {
            let has_news = || !handover.is_empty() || self.observer.is_behind();
            wake.sleep(has_news, |event| io.wait(event, NAP));
        }
    }
}
