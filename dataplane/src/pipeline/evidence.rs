//! What backends make of the connections opened to them, counted as evidence of their health.
//!
//! Only what changes the state of a connection is looked at, and what expires: packets of
//! established connections have nothing to do with it. It decides nothing about backends.

use super::express;
use super::known::{is_bare_syn, rebind};
use super::{Engine, Moment, Tracked};
use crate::conntrack::{ConnId, Connection, Handling, SctpState, Seconds, State, TcpState};
use crate::flow::Direction;
use crate::stats::{AttemptCounters, Outcome, PerWorker, WorkerCounters};
use crate::wire::parse::{Complaint, Packet};

/// Counts evidence for one worker.
pub(super) struct Witness<'a> {
    own: Option<&'a WorkerCounters>,
    worker: u16,
    pub(super) moment: Moment<'a>,
}

impl<'a> Witness<'a> {
    /// `counters` are those of all workers.
    pub(super) fn new(
        counters: &'a PerWorker<WorkerCounters>,
        worker: u16,
        moment: Moment<'a>,
    ) -> Self {
        Self {
            own: counters.of(worker),
            worker,
            moment,
        }
    }

    /// Counts what became of a connection, if its backend is still listed.
    pub(super) fn testify_of<A: Tracked>(&self, connection: &Connection<A>, outcome: Outcome) {
        let Moment {
            services, seconds, ..
        } = self.moment;
        let binding = rebind(connection, services, seconds);
        let counters = binding.and_then(|binding| express::counters(binding, self.moment));
        if let Some(own) = self.own
            && let Some(backend) = counters.and_then(|all| all.of(self.worker))
        {
            testify(own, &backend.attempts, outcome);
        }
    }
}

/// What is counted becomes visible before the number that tells of it.
fn testify(own: &WorkerCounters, backend: &AttemptCounters, outcome: Outcome) {
    let number = own.evidence.get().wrapping_add(1);
    backend.add(outcome, number);
    own.evidence.lead(number);
}

impl Engine {
    /// Counts what a backend made of a connection, if it is anything.
    #[inline(never)]
    pub(super) fn testify(&self, backend: &AttemptCounters, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome {
            self.count(|own| testify(own, backend, outcome));
        }
    }

    /// Counts an error that came back about a client's packet.
    #[cold]
    pub(super) fn refused<A: Tracked>(
        &mut self,
        id: ConnId,
        connection: &Connection<A>,
        moment: Moment<'_>,
    ) {
        match connection.state {
            State::Tcp(_) => {
                self.fail(id, connection, Outcome::Refused, moment);
            }
            State::Sctp(_) | State::UdpNew | State::UdpAnswered | State::UdpStream => {
                let witness = Witness::new(&self.counters, self.worker, moment);
                witness.testify_of(connection, Outcome::Refused);
            }
        }
    }

    /// Counts why a SYN was not answered, and that once. Returns the state that follows.
    #[cold]
    pub(super) fn fail<A: Tracked>(
        &mut self,
        id: ConnId,
        connection: &Connection<A>,
        outcome: Outcome,
        moment: Moment<'_>,
    ) -> State {
        let failed = State::Tcp(TcpState::SynFailed);
        let table = &mut A::lane_mut(self).table;
        table.touch(id, failed, connection.last_seen);
        let witness = Witness::new(&self.counters, self.worker, moment);
        witness.testify_of(connection, outcome);
        failed
    }
}

/// What a backend made of a connection that a packet in `direction` has led from one state to
/// another.
pub(super) fn outcome(before: State, after: State, direction: Direction) -> Option<Outcome> {
    let has_ended = matches!(
        after,
        State::Tcp(TcpState::Close) | State::Sctp(SctpState::Closed)
    );
    match (before.awaits_answer(), has_ended, direction) {
        (false, _, _) | (true, true, Direction::Original) => None,
        (true, true, Direction::Reply) => Some(Outcome::Refused),
        (true, false, _) => Some(Outcome::Answered),
    }
}

/// Whether a client has sent SYN and no answer was seen, nor anything noted about that. With direct
/// return answers are never seen.
pub(super) fn is_asked_in_vain<A: Tracked>(connection: &Connection<A>) -> bool {
    connection.state == State::Tcp(TcpState::SynSent) && connection.handling == Handling::Translated
}

/// Whether a client asks again because it got no answer: in a later second, as RFC 6298 section 2
/// has it. Earlier it is a copy that the network has made.
pub(super) fn is_repeated<A: Tracked>(
    connection: &Connection<A>,
    direction: Direction,
    packet: &Packet<A>,
    now: Seconds,
) -> bool {
    is_asked_in_vain(connection)
        && direction == Direction::Original
        && is_bare_syn(packet.flags())
        && connection.last_seen < now
}

/// Whether an error says that the backend cannot be reached for what its client sent. `frame` is the
/// error as it came. About a SYN it must quote the sequence number, which nobody can guess who has
/// not seen it (RFC 5927 section 4.1).
pub(super) fn refuses<A: Tracked>(
    complaint: &Complaint<A>,
    connection: &Connection<A>,
    frame: &[u8],
) -> bool {
    complaint.is_unreachable(frame)
        && match connection.state {
            State::Tcp(TcpState::SynSent) => {
                let end = connection
                    .progress
                    .expected(Direction::Reply)
                    .err()
                    .flatten();
                let quoted = complaint.quoted_sequence(frame);
                end.is_some() && end == quoted.map(|sequence| sequence.wrapping_add(1))
            }
            State::Tcp(_) => false,
            State::Sctp(state) => state == SctpState::CookieWait,
            State::UdpNew | State::UdpAnswered | State::UdpStream => true,
        }
}
