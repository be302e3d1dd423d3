//! Fragments: the first one of a packet has the ports, and pins the rest to its flow.
//!
//! Every fragment goes first to the worker that follows its packet, which is computed from what
//! all of them carry. That one learns the ports, and gives the fragments on to the owner of the flow.

use super::{Engine, Moment, Tracked};
use crate::flow::{End, FiveTuple, mix, scale};
use crate::fragments::{Key, Piece, Seen};
use crate::verdict::{DropReason, PacketKey, Ports, Verdict};
use crate::wire::parse::{self, Datagram, Packet, Place, Signal};
use sluice_conf::Protocol;

impl Engine {
    /// The fragment as a packet with ports, once they are known.
    pub(super) fn follow<A: Tracked>(
        &mut self,
        datagram: Datagram<A>,
        ports: Option<Ports>,
        moment: Moment<'_>,
    ) -> Result<Packet<A>, Verdict> {
        let (packet, piece) = match datagram {
            Datagram::Packet(packet) => (packet, packet.place.piece),
            Datagram::Fragment(fragment) => (with_ports(&fragment, (0, 0)), Some(fragment.piece)),
            Datagram::Echo(_) | Datagram::Complaint(_) => {
                return Err(Verdict::Drop(DropReason::Fragment));
            }
        };
        let Some(piece) = piece else {
            return Ok(packet);
        };
        let known = match ports {
            Some(ports) => ports,
            None => self.find_ports(&packet, piece, moment)?,
        };
        Ok(Packet {
            tuple: with(packet.tuple, known),
            ..packet
        })
    }

    /// What the worker that follows the packet knows of its ports.
    fn find_ports<A: Tracked>(
        &mut self,
        packet: &Packet<A>,
        piece: parse::Piece,
        moment: Moment<'_>,
    ) -> Result<Ports, Verdict> {
        let key = Key {
            source: packet.tuple.source.address,
            destination: packet.tuple.destination.address,
            protocol: A::fragment_protocol(packet.tuple.protocol.number()),
            identification: piece.identification,
        };
        let name = packet_key(&key);
        let worker = scale(name.0, usize::from(self.workers)) as u16;
        if worker != self.worker {
            return Err(Verdict::HandOver {
                worker,
                ports: None,
            });
        }
        let has_ports = piece.offset == 0;
        let sighting = A::lane_mut(self).fragments.see(
            key,
            Piece {
                offset: piece.offset,
                len: piece.len,
                more: piece.more,
                ports: has_ports.then(|| packet.tuple.ports()),
            },
            moment.seconds.0,
        );
        if sighting.evicted {
            self.count(|counters| counters.fragments_evicted.add(1));
        }
        match sighting.seen {
            Seen::First => {
                let ports = packet.tuple.ports();
                self.released.push((name, ports));
                Ok(ports)
            }
            Seen::Known(ports) => Ok(ports),
            Seen::Unknown => Err(Verdict::Wait(name)),
            Seen::Duplicate | Seen::Overlap => Err(Verdict::Drop(DropReason::FragmentOverlap)),
            Seen::TooMany => Err(Verdict::Drop(DropReason::FragmentLimit)),
            Seen::TooLong | Seen::Malformed => Err(Verdict::Drop(DropReason::BadHeader)),
        }
    }
}

fn packet_key<A: Tracked>(key: &Key<A>) -> PacketKey {
    let addresses = mix(
        key.source.bits() ^ 0x5851_f42d_4c95_7f2d,
        key.destination.bits(),
    );
    let rest = u64::from(key.identification) << 8 | u64::from(key.protocol);
    PacketKey(mix(addresses ^ rest, 0x9e37_79b9_7f4a_7c15))
}

fn with_ports<A: Tracked>(fragment: &parse::Fragment<A>, ports: Ports) -> Packet<A> {
    let tuple = FiveTuple {
        source: End::new(fragment.source, ports.0),
        destination: End::new(fragment.destination, ports.1),
        protocol: fragment.protocol,
    };
    let place: Place = fragment.place;
    Packet {
        tuple,
        place,
        signal: Signal::Plain,
    }
}

fn with<A: Tracked>(tuple: FiveTuple<A>, ports: Ports) -> FiveTuple<A> {
    FiveTuple {
        source: End::new(tuple.source.address, ports.0),
        destination: End::new(tuple.destination.address, ports.1),
        protocol: tuple.protocol,
    }
}

/// Whether a fragment of this protocol can be translated to other ports: SCTP's checksum covers
/// the whole packet and would have to be made anew.
pub(super) const fn may_change_ports(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Sctp)
}
