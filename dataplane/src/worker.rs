//! One core's loop: pull, decide, carry out, and between two bursts look at the rest of the world.

mod rest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::Receiver;
use sluice_conf::message::dataplane::Traffic;
use sluice_conf::settings::dataplane::{Fragments, Polling};

use crate::assembling::Assembling;
use crate::clock::{Clock, Time};
use crate::handover::Handover;
use crate::io::{Census, InterfaceId, PacketIo};
use crate::kernel::ToKernel;
use crate::listing::{Listing, Query};
use crate::lobby::Lobby;
use crate::netlink::Resolve;
use crate::pipeline::{Engine, MAX_BURST, Sent};
use crate::snapshot::Observer;
use crate::stats::{PerWorker, WorkerCounters};
use crate::tap::{Tap, Tapping};
use crate::verdict::{DropReason, Ports, Verdict};
use crate::waiting::Waiting;

use rest::Rest;

/// How long a worker sleeps at most: timers, questions and the end wait no longer than this. Frames
/// and new tables wake it.
const NAP: Duration = Duration::from_millis(20);

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
    id: u16,
    burst: usize,
    io: Io,
    engine: Engine,
    links: Connections<Io::Frame>,
    waiting: Waiting<Noted<Io::Frame>>,
    assembling: Assembling<Io::Frame>,
    lobby: Lobby<Io::Frame>,
    listing: Option<Listing>,
    tapping: Tapping,
    frames: Vec<Io::Frame>,
    /// Of each frame, what another worker has found out.
    ports: Vec<Option<Ports>>,
    verdicts: Vec<Verdict>,
    outbox: Vec<Sent<Io::Frame>>,
    /// Put on transmit rings and not counted yet.
    transmitted: Traffic,
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
        Self {
            id,
            burst: burst.clamp(2, MAX_BURST),
            io,
            engine,
            tapping: Tapping::new(Arc::clone(&links.tap), id),
            links,
            waiting: Waiting::default(),
            assembling: Assembling::new(fragments),
            lobby: Lobby::default(),
            listing: None,
            frames: Vec::with_capacity(MAX_BURST),
            ports: Vec::with_capacity(MAX_BURST),
            outbox: Vec::new(),
            verdicts: Vec::with_capacity(MAX_BURST),
            transmitted: Traffic::default(),
            next_reading: Time(0),
        }
    }

    /// Turns until `stop` is set, then gives back the I/O so that its sockets close in order.
    pub fn run(mut self, polling: Polling, clock: &Clock, stop: &AtomicBool) -> Io {
        let mut rest = Rest::new(polling, clock.now());
        while !stop.load(Ordering::Relaxed) {
            let now = clock.now();
            let busy = self.turn(now);
            if rest.is_due(busy, now) {
                self.nap();
            } else if !busy {
                std::hint::spin_loop();
            }
        }
        self.io
    }

    /// One turn. True when there was something to do.
    pub fn turn(&mut self, now: Time) -> bool {
        self.tapping.begin(now);
        // Once a turn: whoever looked twice would see a change between the two and miss it.
        if self.links.observer.observe() {
            self.retry_waiting(now);
        }
        self.fill_burst();
        let mut busy = !self.frames.is_empty() || self.listing.is_some();
        self.work(now);
        self.release(now);
        // Before anything else: no frame of the burst waits for what is not about it.
        self.send_off();
        busy |= self.tidy(now);
        self.give_up_waiting(now);
        self.answer_queries(now);
        self.read_rings(now);
        self.count(|counters| {
            let turns = if busy {
                &counters.busy_turns
            } else {
                &counters.idle_turns
            };
            turns.add(1);
        });
        busy
    }

    /// The I/O, to look at its counters.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// The engine, to look at its connections.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What has waited goes first, then handed-over frames, for they have waited longer than the own
    /// queue's; but never so many that that gets no turn. A full burst is a sign that more comes than
    /// the worker keeps up with.
    fn fill_burst(&mut self) {
        let share = self.burst / OPENINGS_SHARE;
        self.frames.extend(self.lobby.leave(share));
        self.ports.resize(self.frames.len(), None);
        self.take_over(self.burst / 2);
        let taken_over = self.frames.len();
        self.io.receive(&mut self.frames, self.burst - taken_over);
        self.ports.resize(self.frames.len(), None);
        let received = &self.frames[taken_over..];
        if !received.is_empty() {
            let traffic = Traffic {
                frames: received.len() as u64,
                bytes: received.iter().map(|f| self.io.len(f) as u64).sum(),
            };
            self.count(|counters| counters.received.add_all(traffic));
        }
        self.take_over(self.burst);
        let is_behind = self.frames.len() >= self.burst;
        let openings = if is_behind { share } else { self.burst };
        self.engine.limit_openings(openings);
    }

    /// Takes handed-over frames until the burst has `most`.
    fn take_over(&mut self, most: usize) {
        let before = self.frames.len();
        while self.frames.len() < most
            && let Some((frame, ports)) = self.links.handover.take()
        {
            self.frames.push(frame);
            self.ports.push(ports);
        }
        let taken = (self.frames.len() - before) as u64;
        if taken > 0 {
            self.count(|counters| counters.taken_over.add(taken));
        }
    }

    fn work(&mut self, now: Time) {
        if self.frames.is_empty() {
            return;
        }
        let is_tapped = self.tapping.is_on();
        if is_tapped {
            for (place, frame) in self.frames.iter().enumerate() {
                let (interface, bytes) = (self.io.interface(frame), self.io.bytes(frame));
                self.tapping.came(place, interface, bytes);
            }
        }
        self.verdicts.clear();
        self.engine.process(
            &mut self.io,
            &mut self.frames,
            &self.ports,
            self.links.observer.current(),
            now,
            &mut self.verdicts,
        );
        let mut frames = std::mem::take(&mut self.frames);
        let mut ports = std::mem::take(&mut self.ports);
        let verdicts = std::mem::take(&mut self.verdicts);
        for (place, (frame, verdict)) in frames.drain(..).zip(&verdicts).enumerate() {
            if is_tapped {
                self.tapping.decided(place, *verdict, self.io.bytes(&frame));
            }
            self.carry_out(frame, *verdict, now);
            if is_tapped {
                self.tapping.done();
            }
        }
        ports.clear();
        (self.frames, self.ports, self.verdicts) = (frames, ports, verdicts);
    }

    fn carry_out(&mut self, frame: Io::Frame, verdict: Verdict, now: Time) {
        match verdict {
            Verdict::Forward(interface) | Verdict::Reply(interface) => {
                self.transmit(frame, interface);
            }
            Verdict::Drop(reason) => self.drop(frame, reason),
            Verdict::HandOver { worker, ports } => {
                match self.links.handover.give(worker, (frame, ports)) {
                    Ok(()) => self.count(|counters| counters.handed_over.add(1)),
                    Err((frame, _)) => self.drop(frame, DropReason::HandoverFull),
                }
            }
            Verdict::Hold { hop, ports } => match self.waiting.hold((frame, ports), hop, now) {
                Ok(()) => {
                    // Lost when the queue is full; the next frame asks again.
                    self.links.resolve.ask(hop);
                    self.count(|counters| counters.held.add(1));
                }
                Err((frame, _)) => self.drop(frame, DropReason::NeighbourUnresolved),
            },
            Verdict::Wait(packet) => {
                if let Err(frame) = self.assembling.hold(frame, packet, now) {
                    self.drop(frame, DropReason::FragmentLimit);
                }
            }
            Verdict::Later => {
                if let Err(frame) = self.lobby.enter(frame) {
                    self.drop(frame, DropReason::OpeningsLimit);
                }
            }
            Verdict::Kernel { network, otherwise } => self.hand_back(frame, network, otherwise),
        }
    }

    fn hand_back(&mut self, frame: Io::Frame, network: u16, otherwise: DropReason) {
        if !self.links.kernel.is_there() {
            return self.drop(frame, otherwise);
        }
        let packet = self.io.bytes(&frame).get(usize::from(network)..);
        if packet.is_some_and(|packet| self.links.kernel.give(packet)) {
            self.count(|counters| counters.to_kernel.add(1));
            self.io.recycle(frame);
        } else {
            self.drop(frame, DropReason::KernelFull);
        }
    }

    /// Fragments whose packet's first fragment has come go through again.
    fn release(&mut self, now: Time) {
        for (packet, ports) in self.engine.released() {
            self.frames.extend(self.assembling.release(packet));
            self.ports.resize(self.frames.len(), Some(ports));
        }
        self.work(now);
    }

    /// Lets the engine look at its connections, and sends what it has to say. True when there is
    /// more to do.
    fn tidy(&mut self, now: Time) -> bool {
        let snapshot = self.links.observer.current();
        let has_more = self
            .engine
            .tidy(&mut self.io, snapshot, now, &mut self.outbox);
        if self.outbox.is_empty() {
            return has_more;
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        self.count(|counters| counters.own_frames.add(outbox.len() as u64));
        for (frame, interface) in outbox.drain(..) {
            if self.tapping.is_on() {
                self.tapping.sent(interface, self.io.bytes(&frame));
            }
            self.transmit(frame, interface);
        }
        self.outbox = outbox;
        self.send_off();
        has_more
    }

    /// Ends a burst: what was handed over or transmitted is on its way.
    fn send_off(&mut self) {
        self.links.handover.ring();
        self.io.flush();
        if self.transmitted.frames > 0 {
            let traffic = std::mem::take(&mut self.transmitted);
            self.count(|counters| counters.transmitted.add_all(traffic));
        }
    }

    fn transmit(&mut self, frame: Io::Frame, interface: InterfaceId) {
        let bytes = self.io.len(&frame) as u64;
        match self.io.transmit(frame, interface) {
            Ok(()) => {
                self.transmitted.frames += 1;
                self.transmitted.bytes += bytes;
            }
            Err(frame) => self.drop(frame, DropReason::TransmitRingFull),
        }
    }

    fn drop(&mut self, frame: Io::Frame, reason: DropReason) {
        self.count(|counters| counters.drop(reason));
        if self.tapping.is_on() {
            let (interface, bytes) = (self.io.interface(&frame), self.io.bytes(&frame));
            self.tapping.dropped(reason, interface, bytes);
        }
        self.io.recycle(frame);
    }

    fn count(&self, change: impl FnOnce(&WorkerCounters)) {
        if let Some(counters) = self.links.counters.of(self.id) {
            change(counters);
        }
    }

    /// After a change of the network, frames whose next hop is known now go through again.
    fn retry_waiting(&mut self, now: Time) {
        let network = &self.links.observer.current().network;
        for (frame, ports) in self.waiting.resolved(network) {
            self.frames.push(frame);
            self.ports.push(ports);
        }
        self.work(now);
    }

    fn give_up_waiting(&mut self, now: Time) {
        if !self.waiting.is_empty() {
            let overdue: Vec<Noted<Io::Frame>> = self.waiting.overdue(now).collect();
            for (frame, _) in overdue {
                self.drop(frame, DropReason::NeighbourUnresolved);
            }
        }
        while let Some(frame) = self.assembling.overdue(now) {
            self.drop(frame, DropReason::FragmentTimeout);
        }
        let (neighbours, fragments) = (self.waiting.len() as u64, self.assembling.len() as u64);
        let openings = self.lobby.len() as u64;
        self.count(|counters| {
            counters.waiting.set(neighbours);
            counters.fragments_waiting.set(fragments);
            counters.openings_waiting.set(openings);
        });
    }

    fn answer_queries(&mut self, now: Time) {
        let snapshot = self.links.observer.current();
        if self.listing.is_none()
            && let Ok(query) = self.links.queries.try_recv()
        {
            match query {
                Query::List(wanted) => self.listing = Some(Listing::new(wanted)),
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
    fn read_rings(&mut self, now: Time) {
        if now < self.next_reading {
            return;
        }
        self.next_reading = now.after(READING_PERIOD);
        let Some(counters) = self.links.counters.of(self.id) else {
            return;
        };
        for (interface, ring) in (0..).map(InterfaceId).zip(counters.rings()) {
            ring.set(self.io.ring_stats(interface));
        }
        let Census {
            receiving,
            transmitting,
            free,
        } = self.io.census();
        counters.slots_receiving.set(receiving as u64);
        counters.slots_transmitting.set(transmitting as u64);
        counters.slots_free.set(free as u64);
        counters.inbox.set(self.links.handover.len() as u64);
    }

    fn nap(&mut self) {
        let Self { io, links, .. } = self;
        if let Some(wake) = links.handover.wake() {
            let has_news = || !links.handover.is_empty() || links.observer.is_behind();
            wake.sleep(has_news, |event| io.wait(event, NAP));
        }
    }
}
