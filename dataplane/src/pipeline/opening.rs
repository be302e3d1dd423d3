//! New connections.
//!
//! What a first packet leads to is found out for all of a burst before the first of them has its
//! turn, so that the memory that its connection needs is on the way to the cache: the bucket of the
//! answers, of which only the chosen backend and source port tell, and the next free records.

use sluice_conf::Forwarding;

use super::burst::Ready;
use super::forward::Way;
use super::insert::Source;
use super::unknown::{Chosen, Unserved, first_state};
use super::{Engine, Found, Moment, Tracked};
use crate::conntrack::{Binding, Connection, Handling, State};
use crate::flow::{Address, Direction, End, FiveTuple};
use crate::io::PacketIo;
use crate::neighbour::NextHop;
use crate::service::{CompiledBackend, CompiledService, Served, Target};
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::Packet;
use crate::wire::rewrite::EthernetPair;

/// What the first packet of a connection leads to, under the Services and the network of one burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prospect<A> {
    /// The connection, with the source that its backend gets to see unless others have that.
    connection: Connection<A>,
    /// Of the tuples of both directions.
    pub(super) hashes: [u64; 2],
    source: Source<A>,
    hop: NextHop<A>,
    ethernet: EthernetPair,
}

/// Why a first packet makes no connection.
pub(super) enum Unopened {
    /// It is from the middle of a connection that is not known here any more.
    NoAnswer,
    /// Nobody can serve it.
    Nobody,
    /// Whatever else.
    Verdict(Verdict),
}

impl From<DropReason> for Unopened {
    fn from(reason: DropReason) -> Self {
        Self::Verdict(Verdict::Drop(reason))
    }
}

impl Engine {
    /// Finds out what a packet leads to if it is of no connection, and has the memory fetched that
    /// it will need. What is not simply opened is left for its turn. `opened` are the connections
    /// that will be made before it.
    pub(super) fn look_ahead<A: Tracked>(
        &mut self,
        frame: &[u8],
        ready: &mut Ready<A>,
        moment: Moment<'_>,
        opened: &mut usize,
    ) {
        if let Ready::Packet(packet, hash, _) = ready
            && A::lane(self).table.lookup(*hash, &packet.tuple).is_none()
        {
            self.look_ahead_of_stranger(frame, ready, moment, opened);
        }
    }

    /// The same of a packet that is known to be of no connection.
    pub(super) fn look_ahead_of_stranger<A: Tracked>(
        &mut self,
        frame: &[u8],
        ready: &mut Ready<A>,
        moment: Moment<'_>,
        opened: &mut usize,
    ) {
        let Ready::Packet(packet, hash, place) = ready else {
            return;
        };
        if packet.place.piece.is_some() || packet.place.hop_limit <= 1 {
            return;
        }
        if *opened >= self.openings {
            *ready = Ready::Done(Verdict::Later);
            return;
        }
        let target = Target::from_end(packet.tuple.destination, packet.tuple.protocol);
        let Some(served) = moment.services.frontend(&target) else {
            return;
        };
        if let Ok(prospect) = self.prospect(frame, packet, *hash, served, moment) {
            let lane = A::lane_mut(self);
            lane.table.prefetch_bucket(prospect.hashes[1]);
            lane.table.prefetch_free(*opened);
            *place = Some(lane.prospects.len() as u32);
            lane.prospects.push(prospect);
            *opened += 1;
        }
    }

    /// A client's packet to a frontend, of no connection.
    pub(super) fn open<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        served: Served<'_>,
        moment: Moment<'_>,
    ) -> Verdict {
        let hash = A::lane(self).table.hash(&packet.tuple);
        match self.prospect(io.bytes(frame), packet, hash, served, moment) {
            Ok(prospect) => self.establish(io, frame, packet, prospect, moment),
            Err(Unopened::NoAnswer) => self.reset(io, frame, packet, DropReason::NoAnswer, moment),
            Err(Unopened::Nobody) => {
                let refusal = served.service.entry.refusal;
                self.refuse(io, frame, packet, refusal, moment)
            }
            Err(Unopened::Verdict(verdict)) => verdict,
        }
    }

    fn prospect<A: Tracked>(
        &mut self,
        frame: &[u8],
        packet: &Packet<A>,
        hash: u64,
        served: Served<'_>,
        moment: Moment<'_>,
    ) -> Result<Prospect<A>, Unopened> {
        let entry = &served.service.entry;
        let client = packet.tuple.source.address;
        let access = moment.services.access(served.frontend, client.into());
        if !packet.is_sound() {
            return Err(DropReason::TcpInvalid.into());
        }
        let state = first_state(&packet.signal, entry.forwarding, access.source_nat)
            .ok_or(Unopened::NoAnswer)?;
        self.admit(client, served, moment)?;
        if !packet.has_right_checksum(frame) {
            return Err(DropReason::BadTransportChecksum.into());
        }
        let choice = self.choose(&packet.tuple, served, access.pool, moment);
        let chosen = Chosen::of(choice, packet.tuple.destination.port);
        let Chosen { place, end } = chosen.map_err(|unserved| match unserved {
            Unserved::NotByPolicy => DropReason::NoLocalBackend.into(),
            Unserved::Nobody => Unopened::Nobody,
        })?;
        let way = self.way_to_backend(end.address, entry.forwarding, moment);
        let way = way.map_err(Unopened::Verdict)?;
        let binding = Binding {
            version: moment.services.version(),
            service: served.place,
            backend: Some(place),
            until: None,
        };
        let mut connection = opened(packet.tuple, state, end, binding, entry.forwarding, moment);
        let source = Source {
            is_kept: self.keeps_source(&connection, access, moment),
            masquerade: A::lane(self).source.unwrap_or(way.hop.source),
            random: self.next_random(),
        };
        if !source.is_kept {
            let port = self.picker.first(source.random);
            connection.reply.destination = End::new(source.masquerade, port);
        }
        Ok(Prospect {
            hashes: [hash, A::lane(self).table.hash(&connection.reply)],
            connection,
            source,
            hop: way.hop,
            ethernet: way.ethernet,
        })
    }

    /// Makes the connection and forwards its first packet.
    pub(super) fn establish<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        prospect: Prospect<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let Prospect {
            mut connection,
            hashes,
            source,
            hop,
            ethernet,
        } = prospect;
        let Binding {
            service, backend, ..
        } = connection.binding;
        let service = moment.services.service(service);
        let chosen = service
            .and_then(|service| Some((service, service.backends.get(usize::from(backend?))?)));
        let (Some((service, backend)), Some(link)) = (chosen, moment.network.link(hop.interface))
        else {
            return Verdict::Drop(DropReason::NoRoute);
        };
        let id = match self.insert(&mut connection, hashes, &source) {
            Ok(id) => id,
            Err(reason) => return Verdict::Drop(reason),
        };
        self.remember(packet.tuple.source.address, service, backend, moment);
        self.count_new(backend);
        let found = Found {
            id,
            direction: Direction::Original,
        };
        let way = Way {
            hop,
            link,
            ethernet,
        };
        self.forward(io, frame, packet, found, &mut connection, way, moment)
    }

    /// Session affinity counts from the last new connection, as kube-proxy's does.
    fn remember<A: Address>(
        &self,
        client: A,
        service: &CompiledService,
        backend: &CompiledBackend,
        moment: Moment<'_>,
    ) {
        if service.entry.affinity_seconds.is_none() {
            return;
        }
        let (client, backend) = (client.bits(), backend.fingerprint());
        let evicted = self
            .affinity
            .put(service.key, client, backend, moment.seconds.0);
        if evicted {
            self.count(|counters| counters.affinity_evicted.add(1));
        }
    }

    fn count_new(&self, backend: &CompiledBackend) {
        self.count(|counters| counters.connections_opened.add(1));
        if let Some(counters) = backend.counters.of(self.worker) {
            counters.connections.add(1);
        }
    }
}

/// A connection at its first packet, as if the backend got to see the client's address.
pub(super) fn opened<A: Tracked>(
    original: FiveTuple<A>,
    state: State,
    backend: End<A>,
    binding: Binding,
    forwarding: Forwarding,
    moment: Moment<'_>,
) -> Connection<A> {
    Connection {
        original,
        reply: FiveTuple {
            source: backend,
            destination: original.source,
            protocol: original.protocol,
        },
        state,
        handling: match forwarding {
            Forwarding::Nat => Handling::Translated,
            Forwarding::DirectReturn => Handling::Direct,
        },
        created: moment.seconds,
        last_seen: moment.seconds,
        binding,
        ..Connection::UNUSED
    }
}
