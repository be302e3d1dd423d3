//! What would become of a packet, and why, without sending it: the same decisions as for packets,
//! taken by the same functions, and told step by step.
//!
//! What only a real packet can show is not foretold: its checksums, its size and time to live, the
//! limit of answers, and whether a full table or exhausted source ports make room.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sluice_conf::message::dataplane::Connection as Listed;
use sluice_conf::message::dataplane::explain::{
    Affinity, Explanation, Known, Outcome, Question, Row, Rule, Sender, Source, Translation, Way,
};
use sluice_conf::{Pool, Protocol, Refusal, ServiceName};

use super::answer::{Told, may_be_told};
use super::known::{rebind, starts_anew, way_of};
use super::opening::opened;
use super::transit::crosses;
use super::unknown::{Addressee, Chosen, Unserved, first_state};
use super::{Engine, Moment, Tracked};
use crate::clock::Time;
use crate::conntrack::sctp::INIT;
use crate::conntrack::{Binding, ConnId, Connection, Handling};
use crate::flow::{Address, Direction, End, FiveTuple};
use crate::io::InterfaceId;
use crate::service::{Choice, Served, ServiceMap, Target};
use crate::snapshot::Snapshot;
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Segment, Signal, TcpFlags};

impl Engine {
    /// Explains the packet when this worker owns its flow; `None` when another does, or when its
    /// two ends are not of one family.
    pub fn answer(
        &self,
        question: &Question,
        snapshot: &Snapshot,
        now: Time,
    ) -> Option<Explanation> {
        let ends = (question.source, question.destination);
        let explanation = match (ends.0.ip(), ends.1.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                self.explain::<Ipv4Addr>(tuple(question, from, to), snapshot, now)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                self.explain::<Ipv6Addr>(tuple(question, from, to), snapshot, now)
            }
            _ => return None,
        };
        (explanation.worker == u32::from(self.worker)).then_some(explanation)
    }

    /// What would become of the packet. Tables are this worker's: the connection and the source
    /// ports are right only if it owns the flow.
    pub fn explain<A: Tracked>(
        &self,
        tuple: FiveTuple<A>,
        snapshot: &Snapshot,
        now: Time,
    ) -> Explanation {
        let moment = Moment::new(snapshot, now);
        let mut said = Explanation {
            packet: Question {
                protocol: tuple.protocol,
                source: tuple.source.into(),
                destination: tuple.destination.into(),
            },
            steered: None,
            generation: moment.services.generation(),
            worker: self.owner(&tuple, moment).into(),
            known: None,
            rule: None,
            affinity: None,
            row: None,
            translation: None,
            way: None,
            outcome: Outcome::Kernel,
        };
        said.outcome = match self.explain_known(&tuple, moment, &mut said) {
            Some(outcome) => outcome,
            None => self.explain_unknown(&tuple, moment, &mut said),
        };
        said
    }

    /// What a listing tells about a connection.
    pub fn describe<A: Tracked>(&self, id: ConnId, services: &ServiceMap, now: Time) -> Listed {
        let table = self.table::<A>();
        let connection = table.get(id);
        let frontend = connection.original.destination;
        let protocol = connection.original.protocol;
        let target = Target::from_end(frontend, protocol);
        let served = services.frontend(&target);
        Listed {
            service: served.map(|served| served.service.entry.name.clone()),
            protocol,
            client: connection.original.source.into(),
            frontend: frontend.into(),
            source: connection.reply.destination.into(),
            backend: connection.backend().into(),
            state: connection.state.name().to_owned(),
            idle_seconds: now.seconds().0.saturating_sub(connection.last_seen.0),
            expires_seconds: table.expires_in(id, now.seconds()),
            worker: self.worker.into(),
        }
    }

    /// Service port, frontend and backend of a connection; `None` when it has ended, or its frontend
    /// is gone.
    pub fn ends<'a, A: Tracked>(
        &self,
        id: ConnId,
        services: &'a ServiceMap,
    ) -> Option<(&'a ServiceName, SocketAddr, SocketAddr)> {
        let connection = self.table::<A>().get(id);
        if connection.state.has_ended() {
            return None;
        }
        let frontend = connection.original.destination;
        let target = Target::from_end(frontend, connection.original.protocol);
        let served = services.frontend(&target)?;
        let name = &served.service.entry.name;
        Some((name, frontend.into(), connection.backend().into()))
    }

    /// `None` when there is no connection, or when the packet opens a new one in its place.
    fn explain_known<A: Tracked>(
        &self,
        tuple: &FiveTuple<A>,
        moment: Moment<'_>,
        said: &mut Explanation,
    ) -> Option<Outcome> {
        let table = self.table::<A>();
        let (id, direction) = table.lookup(table.hash(tuple), tuple)?;
        let connection = table.get(id);
        let is_bound = connection.binding.version == moment.services.version()
            || rebind(&connection, moment.services, moment.seconds).is_some();
        let lives = is_bound && !connection.is_overdue(moment.seconds);
        let anew = starts_anew(&connection, direction, &opening(tuple.protocol));
        said.known = Some(Known {
            connection: self.describe::<A>(id, moment.services, moment.now),
            sender: match direction {
                Direction::Original => Sender::Client,
                Direction::Reply => Sender::Backend,
            },
            goes_on: lives && !anew,
        });
        if anew {
            return None;
        }
        if !lives {
            return orphan(tuple, direction, moment);
        }
        let target = Target::from_end(connection.original.destination, tuple.protocol);
        if let Some(served) = moment.services.frontend(&target) {
            said.rule = Some(rule(served, connection.original.source.address, moment));
        }
        let to = connection.translated(direction);
        said.translation = Some(Translation {
            source: Source::End(to.source.into()),
            destination: to.destination.into(),
        });
        let next = way_of(&connection, direction);
        said.way = self.describe_way(next, moment);
        Some(outcome(moment.way(next)))
    }

    fn explain_unknown<A: Tracked>(
        &self,
        tuple: &FiveTuple<A>,
        moment: Moment<'_>,
        said: &mut Explanation,
    ) -> Outcome {
        let target = Target::from_end(tuple.destination, tuple.protocol);
        match Addressee::of(&target, moment.services) {
            Addressee::Frontend(served) => self.explain_open(tuple, served, moment, said),
            Addressee::Vip => refusal(Refusal::Icmp, tuple, moment),
            Addressee::Unallocated => dropped(DropReason::Unallocated),
            Addressee::Nobody if crosses(tuple, moment).is_none() => Outcome::Kernel,
            Addressee::Nobody => {
                said.way = self.describe_way(tuple.destination.address, moment);
                match moment.way(tuple.destination.address) {
                    // The kernel may know a way that is not served.
                    Err(Verdict::Drop(_)) => Outcome::Kernel,
                    way => outcome(way),
                }
            }
        }
    }

    /// A client's first packet to a frontend.
    fn explain_open<A: Tracked>(
        &self,
        tuple: &FiveTuple<A>,
        served: Served<'_>,
        moment: Moment<'_>,
        said: &mut Explanation,
    ) -> Outcome {
        let client = tuple.source.address;
        let rule = rule(served, client, moment);
        let access = rule.access;
        said.rule = Some(rule);
        if let Err(reason) = self.admit(client, served, moment) {
            return dropped(reason);
        }
        let choice = self.choose(tuple, served, access.pool, moment);
        said.affinity = self.affinity_of(client, served, choice, moment);
        said.row = row(choice, served, access.pool, tuple);
        let entry = &served.service.entry;
        let chosen = match Chosen::of(choice, tuple.destination.port) {
            Ok(chosen) => chosen,
            Err(Unserved::NotByPolicy) => return dropped(DropReason::NoLocalBackend),
            Err(Unserved::Nobody) => return refusal(entry.refusal, tuple, moment),
        };
        said.way = self.describe_way(chosen.end.address, moment);
        let signal = opening(tuple.protocol);
        let Some(state) = first_state(&signal, entry.forwarding, access.source_nat) else {
            return dropped(DropReason::NoAnswer);
        };
        let binding = Binding::default();
        let forwarding = entry.forwarding;
        let connection = opened(*tuple, state, chosen.end, binding, forwarding, moment);
        said.translation = self.translation(
            &connection,
            self.keeps_source(&connection, access, moment),
            moment,
        );
        outcome(moment.way_to_backend(chosen.end.address, forwarding))
    }

    /// How the first packet of a connection would leave.
    fn translation<A: Tracked>(
        &self,
        connection: &Connection<A>,
        keeps: bool,
        moment: Moment<'_>,
    ) -> Option<Translation> {
        let table = self.table::<A>();
        // A reply that another connection gets already needs another source.
        let is_free = || {
            let reply = &connection.reply;
            table.lookup(table.hash(reply), reply).is_none()
        };
        let to = connection.translated(Direction::Original);
        let source = if keeps && (connection.handling != Handling::Translated || is_free()) {
            Source::End(to.source.into())
        } else {
            let hop = moment.network.next_hop(to.destination.address)?;
            let block = self.ports.block(self.worker);
            Source::Masquerade {
                address: A::lane(self).source.unwrap_or(hop.source).into(),
                first: block.first,
                last: block.last,
            }
        };
        Some(Translation {
            source,
            destination: to.destination.into(),
        })
    }

    fn affinity_of<A: Tracked>(
        &self,
        client: A,
        served: Served<'_>,
        choice: Choice<'_>,
        moment: Moment<'_>,
    ) -> Option<Affinity> {
        let service = served.service;
        let seconds = service.entry.affinity_seconds?;
        let now = moment.seconds.0;
        let seen = self.affinity.look(service.key, client.bits(), now, seconds);
        let backend = match choice {
            Choice::Affinity(_, backend) => backend.end::<A>(served.frontend.port),
            _ => None,
        };
        Some(Affinity {
            seconds,
            backend: backend.map(Into::into),
            left: seen.map(|(_, left)| left),
        })
    }

    fn describe_way<A: Tracked>(&self, destination: A, moment: Moment<'_>) -> Option<Way> {
        let hop = moment.network.next_hop(destination)?;
        let mac = moment.network.mac(hop.interface, hop.address);
        Some(Way {
            interface: self.interface_name(hop.interface),
            address: hop.address.into(),
            mac: mac.map(|mac| mac.to_string()),
            mtu: moment.network.link(hop.interface)?.mtu,
        })
    }

    fn interface_name(&self, interface: InterfaceId) -> String {
        let counters = self.counters.of(self.worker);
        counters.map_or_else(String::new, |counters| counters.interface_name(interface))
    }
}

fn tuple<A: Address>(question: &Question, from: A, to: A) -> FiveTuple<A> {
    FiveTuple {
        source: End::new(from, question.source.port()),
        destination: End::new(to, question.destination.port()),
        protocol: question.protocol,
    }
}

/// What the first packet of a client says.
fn opening(protocol: Protocol) -> Signal {
    match protocol {
        Protocol::Tcp => Signal::Tcp(Segment {
            flags: TcpFlags(TcpFlags::SYN),
            ..Segment::default()
        }),
        Protocol::Sctp => Signal::Sctp(INIT),
        Protocol::Udp => Signal::Plain,
    }
}

fn rule<A: Tracked>(served: Served<'_>, client: A, moment: Moment<'_>) -> Rule {
    let (frontend, client) = (*served.frontend, client.into());
    let admits = || served.service.admits(client);
    Rule {
        service: served.service.entry.name.clone(),
        frontend,
        class: moment.services.class(client),
        access: moment.services.access(&frontend, client),
        admitted: frontend.guarded.then(admits),
    }
}

fn row<A: Tracked>(
    choice: Choice<'_>,
    served: Served<'_>,
    pool: Pool,
    tuple: &FiveTuple<A>,
) -> Option<Row> {
    let Choice::Row(_, _, row) = choice else {
        return None;
    };
    let to = tuple.destination.address.into();
    let rows = served.service.table(pool, to)?.rows().len();
    Some(Row {
        row: row as u32,
        rows: rows as u32,
    })
}

/// The next packet of a connection whose backend is gone; `None` when it opens a new one.
fn orphan<A: Tracked>(
    tuple: &FiveTuple<A>,
    direction: Direction,
    moment: Moment<'_>,
) -> Option<Outcome> {
    match (tuple.protocol, direction) {
        (Protocol::Udp, Direction::Original) => None,
        (Protocol::Tcp, _) if may_be_told(tuple.source.address, moment) => Some(Outcome::Reset),
        _ => Some(dropped(DropReason::BackendGone)),
    }
}

fn refusal<A: Tracked>(refusal: Refusal, tuple: &FiveTuple<A>, moment: Moment<'_>) -> Outcome {
    let told = Told::of(refusal, tuple.protocol);
    match told {
        Told::Nothing => dropped(DropReason::Refused),
        _ if !may_be_told(tuple.source.address, moment) => dropped(DropReason::NoAnswer),
        Told::Reset => Outcome::Reset,
        Told::PortUnreachable => Outcome::PortUnreachable,
    }
}

fn outcome<W>(way: Result<W, Verdict>) -> Outcome {
    match way {
        Err(Verdict::Drop(reason)) => dropped(reason),
        Err(_) => Outcome::Hold,
        Ok(_) => Outcome::Forward,
    }
}

fn dropped(reason: DropReason) -> Outcome {
    Outcome::Drop(reason.into())
}
