//! Between two bursts: connections that have been idle for too long, and those that a new table
//! has left without a backend.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::evidence::{Witness, is_asked_in_vain};
use super::known::{rebind, wants_reset};
use super::lane::Ended;
use super::{Engine, Lane, MAX_BURST, Moment, Tracked};
use crate::clock::Time;
use crate::conntrack::{ConnId, Connection, SctpState, Seconds, State, TcpState};
use crate::flow::Direction;
use crate::io::{InterfaceId, PacketIo};
use crate::snapshot::Snapshot;
use crate::stats::Outcome;
use crate::wire::parse::ETHERNET_LEN;
use crate::wire::reset::{self, Reset};
use crate::wire::rewrite::write_ethernet;
use crate::wire::tags::write_tags;

/// Connections that are looked at for expiry after a turn without frames, of each family. Each frame
/// of a burst adds one: it may have made a connection, and so expiry keeps up with any traffic while
/// no frame waits long for it.
const EXPIRY_BUDGET: usize = 16;

/// Places for packets in pieces that are looked at for expiry after a turn, of each family.
const FRAGMENT_BUDGET: usize = 4;

/// Records that are looked at after a burst as long as a new table is being followed, of each
/// family: a table of 262,144 connections is through after 2,048 bursts.
const REVIEW_BUDGET: u32 = 128;

/// How far the looks at connections are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Review {
    /// The version of the table that the walk over all connections is for.
    version: u32,
    /// The record to go on from; `None` when the walk has ended.
    next: Option<u32>,
    /// The second of which all that were due have been looked at: a deadline is a whole second, so
    /// there are no more before the next one.
    done: Option<Seconds>,
}

impl Review {
    /// Whether there is a new table, or one that not all connections have been looked at for.
    #[inline]
    fn is_under_way(&self, moment: Moment<'_>) -> bool {
        self.next.is_some() || self.version != moment.services.version()
    }
}

/// A frame that the engine sends of its own accord.
pub type Sent<Frame> = (Frame, InterfaceId);

impl Engine {
    /// Forgets connections that have been idle for too long, or that a new table has left without
    /// a backend; a bounded number a call. Resets to both sides of those that must end are put on
    /// `outbox`. True when there is more to do.
    pub fn tidy<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        snapshot: &Snapshot,
        now: Time,
        outbox: &mut Vec<Sent<Io::Frame>>,
    ) -> bool {
        let moment = Moment::new(snapshot, now);
        // Called in every turn, so each part is entered only where it has something to do.
        self.expire_fragments(moment.seconds);
        if self.review.done != Some(moment.seconds) {
            self.expire(moment);
        }
        self.processed = 0;
        if self.review.is_under_way(moment) {
            self.review(moment);
        }
        if !(self.v4.ended.is_empty() && self.v6.ended.is_empty()) {
            self.tell::<Ipv4Addr, Io>(io, moment, outbox);
            self.tell::<Ipv6Addr, Io>(io, moment, outbox);
        }
        self.count(|counters| counters.connections.set(self.connections() as u64));
        self.review.done != Some(moment.seconds) || self.review.next.is_some()
    }

    #[inline]
    fn expire_fragments(&mut self, now: Seconds) {
        if !self.v4.fragments.is_empty() {
            self.v4.fragments.expire(now.0, FRAGMENT_BUDGET);
        }
        if !self.v6.fragments.is_empty() {
            self.v6.fragments.expire(now.0, FRAGMENT_BUDGET);
        }
    }

    /// Looks at connections that may be due.
    fn expire(&mut self, moment: Moment<'_>) {
        let now = moment.seconds;
        let budget = EXPIRY_BUDGET + self.processed.min(MAX_BURST);
        let before = self.connections();
        let witness = Witness::new(&self.counters, self.worker, moment);
        let has_more =
            expire(&mut self.v4, budget, &witness) | expire(&mut self.v6, budget, &witness);
        self.review.done = (!has_more).then_some(now);
        let expired = (before - self.connections()) as u64;
        self.count(|counters| counters.connections_expired.add(expired));
    }

    /// After a new table, walks over all connections, some a call. Those that are silent would
    /// else keep a backend that is gone, and their record, for days.
    fn review(&mut self, moment: Moment<'_>) {
        let version = moment.services.version();
        if self.review.version != version {
            (self.review.version, self.review.next) = (version, Some(0));
        }
        let Some(from) = self.review.next else { return };
        let end = from.saturating_add(REVIEW_BUDGET);
        review(&mut self.v4, from..end, moment);
        review(&mut self.v6, from..end, moment);
        // A record that is used for the first time from now on is of this version.
        let reach = self.v4.table.reach().max(self.v6.table.reach());
        self.review.next = (end < reach).then_some(end);
    }

    /// Sends resets to the ends of connections that have ended.
    fn tell<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        moment: Moment<'_>,
        outbox: &mut Vec<Sent<Io::Frame>>,
    ) {
        let mut ended = std::mem::take(&mut A::lane_mut(self).ended);
        for Ended { connection, tell } in ended.drain(..) {
            for direction in tell {
                if let Some(sent) = self.reset_frame(io, &connection, *direction, moment) {
                    outbox.push(sent);
                }
            }
        }
        A::lane_mut(self).ended = ended;
    }

    /// A reset in `direction`, as if from the other end; `None` when that end cannot be told.
    fn reset_frame<A: Tracked, Io: PacketIo>(
        &self,
        io: &mut Io,
        connection: &Connection<A>,
        direction: Direction,
        moment: Moment<'_>,
    ) -> Option<Sent<Io::Frame>> {
        let reset = match connection.progress.expected(direction) {
            Ok(sequence) => Reset::at(sequence),
            Err(end) => Reset::acknowledging(end?),
        };
        let tuple = connection.translated(direction);
        let way = moment.way(tuple.destination.address).ok()?;
        let network = ETHERNET_LEN + way.link.tags.len();
        let mut frame = io.allocate(reset::frame_len::<A>(network))?;
        let bytes = io.bytes_mut(&mut frame);
        let is_written = write_tags(bytes, way.link.tags, A::ETHERTYPE)
            && write_ethernet(bytes, way.ethernet)
            && reset::write(bytes, network, &tuple, reset);
        if !is_written {
            io.recycle(frame);
            return None;
        }
        self.count(|counters| counters.resets.add(1));
        Some((frame, way.hop.interface))
    }
}

/// True when there may be more.
fn expire<A: Tracked>(lane: &mut Lane<A>, budget: usize, witness: &Witness<'_>) -> bool {
    let Lane { table, ended, .. } = lane;
    let now = witness.moment.seconds;
    table.expire(now, budget, |connection| {
        if connection.is_overdue(now) && wants_reset(&connection) {
            ended.push(Ended::both(connection));
        }
        if is_asked_in_vain(&connection) {
            witness.testify_of(&connection, Outcome::Silent);
        }
    })
}

fn review<A: Tracked>(lane: &mut Lane<A>, numbers: Range<u32>, moment: Moment<'_>) {
    for number in numbers.start..numbers.end.min(lane.table.reach()) {
        let Some(id) = lane.table.in_use(number) else {
            continue;
        };
        if lane.table.binding(id).version == moment.services.version() {
            continue;
        }
        let connection = lane.table.get(id);
        match rebind(&connection, moment.services, moment.seconds) {
            Some(binding) => lane.table.rebind(id, binding),
            None => end(lane, id, connection, moment.seconds),
        }
    }
}

/// Ends a connection whose backend is gone. UDP is forgotten at once; TCP and SCTP get the short
/// timeout of what is closed, so that a side that still sends is told again.
fn end<A: Tracked>(lane: &mut Lane<A>, id: ConnId, connection: Connection<A>, now: Seconds) {
    match connection.state {
        State::Tcp(TcpState::Close) | State::Sctp(SctpState::Closed) => {}
        State::Tcp(_) => {
            if wants_reset(&connection) {
                lane.ended.push(Ended::both(connection));
            }
            lane.table.touch(id, State::Tcp(TcpState::Close), now);
        }
        State::Sctp(_) => lane.table.touch(id, State::Sctp(SctpState::Closed), now),
        State::UdpNew | State::UdpAnswered | State::UdpStream => {
            lane.table.remove(id);
        }
    }
}
