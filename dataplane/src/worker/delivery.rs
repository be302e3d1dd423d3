//! What becomes of a worker's frames once they are decided, and those that wait.

use std::sync::Arc;

use sluice_conf::message::dataplane::Traffic;
use sluice_conf::settings::dataplane::Fragments;

use super::Noted;
use crate::assembling::Assembling;
use crate::clock::Time;
use crate::handover::Handover;
use crate::io::{InterfaceId, PacketIo};
use crate::kernel::ToKernel;
use crate::lobby::Lobby;
use crate::neighbour::Network;
use crate::netlink::Resolve;
use crate::pipeline::Sent;
use crate::stats::{PerWorker, WorkerCounters};
use crate::tap::Tapping;
use crate::verdict::{DropReason, PacketKey, Verdict};
use crate::waiting::Waiting;

/// All that a decided frame can be given to.
#[derive(Debug)]
pub(super) struct Delivery<Io: PacketIo> {
    worker: u16,
    counters: Arc<PerWorker<WorkerCounters>>,
    pub(super) io: Io,
    pub(super) handover: Handover<Noted<Io::Frame>>,
    pub(super) tapping: Tapping,
    kernel: Box<dyn ToKernel>,
    resolve: Resolve,
    waiting: Waiting<Noted<Io::Frame>>,
    assembling: Assembling<Io::Frame>,
    lobby: Lobby<Io::Frame>,
    /// Put on transmit rings and not counted yet.
    transmitted: Traffic,
}

/// What a [`Delivery`] is made of.
pub(super) struct Around<Frame> {
    pub(super) counters: Arc<PerWorker<WorkerCounters>>,
    pub(super) handover: Handover<Noted<Frame>>,
    pub(super) tapping: Tapping,
    pub(super) kernel: Box<dyn ToKernel>,
    pub(super) resolve: Resolve,
}

impl<Io: PacketIo> Delivery<Io> {
    pub(super) fn new(
        worker: u16,
        fragments: &Fragments,
        io: Io,
        around: Around<Io::Frame>,
    ) -> Self {
        let Around {
            counters,
            handover,
            tapping,
            kernel,
            resolve,
        } = around;
        Self {
            worker,
            counters,
            io,
            handover,
            tapping,
            kernel,
            resolve,
            waiting: Waiting::default(),
            assembling: Assembling::new(fragments),
            lobby: Lobby::default(),
            transmitted: Traffic::default(),
        }
    }

    /// Shows frames that have come, before they are decided, to who looks at packets.
    pub(super) fn note_arrivals(&mut self, frames: &[Io::Frame]) {
        if !self.tapping.is_on() {
            return;
        }
        for (place, frame) in frames.iter().enumerate() {
            let (interface, bytes) = (self.io.interface(frame), self.io.bytes(frame));
            self.tapping.came(place, interface, bytes);
        }
    }

    /// Carries out one verdict each.
    pub(super) fn deliver<'a>(
        &mut self,
        decided: impl Iterator<Item = (Io::Frame, &'a Verdict)>,
        now: Time,
    ) {
        if self.tapping.is_on() {
            return self.deliver_tapped(decided, now);
        }
        for (frame, verdict) in decided {
            self.carry_out(frame, *verdict, now);
        }
    }

    fn deliver_tapped<'a>(
        &mut self,
        decided: impl Iterator<Item = (Io::Frame, &'a Verdict)>,
        now: Time,
    ) {
        for (place, (frame, verdict)) in decided.enumerate() {
            self.tapping.decided(place, *verdict, self.io.bytes(&frame));
            self.carry_out(frame, *verdict, now);
            self.tapping.done();
        }
    }

    fn carry_out(&mut self, frame: Io::Frame, verdict: Verdict, now: Time) {
        match verdict {
            Verdict::Forward(interface) | Verdict::Reply(interface) => {
                self.transmit(frame, interface);
            }
            Verdict::Drop(reason) => self.drop(frame, reason),
            Verdict::HandOver { worker, ports } => {
                match self.handover.give(worker, (frame, ports)) {
                    Ok(()) => self.count(|counters| counters.handed_over.add(1)),
                    Err((frame, _)) => self.drop(frame, DropReason::HandoverFull),
                }
            }
            Verdict::Hold { hop, ports } => match self.waiting.hold((frame, ports), hop, now) {
                Ok(()) => {
                    // Lost when the queue is full; the next frame asks again.
                    self.resolve.ask(hop);
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
        if !self.kernel.is_there() {
            return self.drop(frame, otherwise);
        }
        let packet = self.io.bytes(&frame).get(usize::from(network)..);
        if packet.is_some_and(|packet| self.kernel.give(packet)) {
            self.count(|counters| counters.to_kernel.add(1));
            self.io.recycle(frame);
        } else {
            self.drop(frame, DropReason::KernelFull);
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

    /// Sends frames that the engine has made of nothing.
    pub(super) fn send(&mut self, outbox: &mut Vec<Sent<Io::Frame>>) {
        self.count(|counters| counters.own_frames.add(outbox.len() as u64));
        for (frame, interface) in outbox.drain(..) {
            if self.tapping.is_on() {
                self.tapping.sent(interface, self.io.bytes(&frame));
            }
            self.transmit(frame, interface);
        }
        self.send_off();
    }

    /// Ends a burst: what was handed over or transmitted is on its way.
    pub(super) fn send_off(&mut self) {
        self.handover.ring();
        self.io.flush();
        if self.transmitted.frames > 0 {
            let traffic = std::mem::take(&mut self.transmitted);
            self.count(|counters| counters.transmitted.add_all(traffic));
        }
    }

    /// Whether first packets wait.
    pub(super) fn is_lobby_taken(&self) -> bool {
        !self.lobby.is_empty()
    }

    /// Up to `most` of the first packets that have waited longest.
    pub(super) fn leave_lobby(&mut self, most: usize) -> impl Iterator<Item = Io::Frame> + '_ {
        self.lobby.leave(most)
    }

    /// The fragments of a packet whose first one has come.
    pub(super) fn assembled(&mut self, packet: PacketKey) -> impl Iterator<Item = Io::Frame> {
        self.assembling.release(packet)
    }

    /// The frames whose next hop is known in this network.
    pub(super) fn resolved<'a>(
        &'a mut self,
        network: &'a Network,
    ) -> impl Iterator<Item = Noted<Io::Frame>> + 'a {
        self.waiting.resolved(network)
    }

    /// Drops what has waited too long. True when there was something.
    pub(super) fn give_up(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some((frame, _)) = self.waiting.overdue(now) {
            self.drop(frame, DropReason::NeighbourUnresolved);
            any = true;
        }
        while let Some(frame) = self.assembling.overdue(now) {
            self.drop(frame, DropReason::FragmentTimeout);
            any = true;
        }
        any
    }

    /// Counts who waits now.
    pub(super) fn count_waiting(&self) {
        self.count(|counters| {
            counters.waiting.set(self.waiting.len() as u64);
            counters.fragments_waiting.set(self.assembling.len() as u64);
            counters.openings_waiting.set(self.lobby.len() as u64);
        });
    }

    /// Changes the worker's counters.
    #[inline]
    pub(super) fn count(&self, change: impl FnOnce(&WorkerCounters)) {
        if let Some(counters) = self.counters() {
            change(counters);
        }
    }

    /// The worker's counters.
    #[inline]
    pub(super) fn counters(&self) -> Option<&WorkerCounters> {
        self.counters.of(self.worker)
    }
}
