//! New connections.
//!
//! What a first packet leads to is found out for all of a burst before the first of them has its
//! turn, so that the memory that its connection needs is on the way to the cache: the bucket of the
//! answers, of which only the chosen backend and source port tell, and the next free records.

use sluice_conf::{Access, Forwarding};

use super::burst::{Ready, Whole};
use super::forward::Way;
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
    /// The connection, as if the backend got to see the client's address.
    connection: Connection<A>,
    access: Access,
    hop: NextHop<A>,
    ethernet: EthernetPair,
    /// What its source port is drawn by.
    random: u64,
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
    /// Finds out what a packet of no connection leads to, and has the memory fetched that it will
    /// need. What is not simply opened is left for its turn. `opened` are the connections that will be
    /// made before it.
    pub(super) fn look_ahead(
        &mut self,
        frame: &[u8],
        whole: &mut Whole,
        moment: Moment<'_>,
        opened: &mut usize,
    ) {
        match whole {
            Whole::V4(ready) => self.look_ahead_of(frame, ready, moment, opened),
            Whole::V6(ready) => self.look_ahead_of(frame, ready, moment, opened),
            _ => {}
        }
    }

    fn look_ahead_of<A: Tracked>(
        &mut self,
        frame: &[u8],
        ready: &mut Ready<A>,
        moment: Moment<'_>,
        opened: &mut usize,
    ) {
        let Ready::Packet(packet, hash, prospect) = ready else {
            return;
        };
        let is_simple = packet.place.piece.is_none() && packet.place.hop_limit > 1;
        let tuple = &packet.tuple;
        if !is_simple || A::lane(self).table.lookup(*hash, tuple).is_some() {
            return;
        }
        if *opened >= self.openings {
            *ready = Ready::Done(Verdict::Later);
            return;
        }
        let target = Target::from_end(tuple.destination, tuple.protocol);
        let Some(served) = moment.services.frontend(&target) else {
            return;
        };
        *prospect = self.prospect(frame, packet, served, moment).ok();
        if let Some(prospect) = prospect {
            self.fetch_for(prospect, moment, *opened);
            *opened += 1;
        }
    }

    fn fetch_for<A: Tracked>(&self, prospect: &Prospect<A>, moment: Moment<'_>, ahead: usize) {
        let mut reply = prospect.connection.reply;
        if !self.keeps_source(&prospect.connection, prospect.access, moment)
            && let Some(port) = self.picker.candidates(prospect.random).next()
        {
            let address = A::lane(self).source.unwrap_or(prospect.hop.source);
            reply.destination = End::new(address, port);
        }
        let table = &A::lane(self).table;
        table.prefetch_bucket(table.hash(&reply));
        table.prefetch_free(ahead);
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
        match self.prospect(io.bytes(frame), packet, served, moment) {
            Ok(prospect) => self.establish(io, frame, packet, &prospect, moment),
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
        let way = moment.way_to_backend(end.address, entry.forwarding);
        let way = way.map_err(Unopened::Verdict)?;
        let binding = Binding {
            version: moment.services.version(),
            service: served.place,
            backend: Some(place),
            until: None,
        };
        let connection = opened(packet.tuple, state, end, binding, entry.forwarding, moment);
        Ok(Prospect {
            connection,
            access,
            hop: way.hop,
            ethernet: way.ethernet,
            random: self.next_random(),
        })
    }

    /// Makes the connection and forwards its first packet.
    pub(super) fn establish<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        prospect: &Prospect<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let Prospect {
            connection,
            access,
            hop,
            ethernet,
            random,
        } = *prospect;
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
        match self.insert(connection, access, hop.source, random, moment) {
            Ok(id) => {
                let client = packet.tuple.source.address;
                self.remember(client, service, backend, moment);
                self.count_new(backend);
                let direction = Direction::Original;
                let way = Way {
                    hop,
                    link,
                    ethernet,
                };
                self.forward(io, frame, packet, Found { id, direction }, way, moment)
            }
            Err(reason) => Verdict::Drop(reason),
        }
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
