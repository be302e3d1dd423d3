//! ICMP errors about packets of a connection: translated back to the sender of the packet, so that
//! path-MTU discovery and traceroute work through the gateway (RFC 5508 section 4).

use super::evidence::refuses;
use super::forward::send;
use super::known::way_of;
use super::{Engine, Moment, Tracked};
use crate::flow::Direction;
use crate::io::PacketIo;
use crate::verdict::{DropReason, Verdict};
use crate::wire::complaint::translate;
use crate::wire::parse::Complaint;

impl Engine {
    /// `hash` is that of a packet that would answer the quoted one.
    pub(super) fn complaint<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        complaint: &Complaint<A>,
        hash: u64,
        moment: Moment<'_>,
    ) -> Verdict {
        if complaint.place.hop_limit <= 1 {
            return Verdict::Drop(DropReason::Ttl);
        }
        if !complaint.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        let answer = complaint.about.invert();
        let Some((id, direction)) = A::lane(self).table.lookup(hash, &answer) else {
            return unknown(complaint, moment);
        };
        if complaint.destination != complaint.about.source.address {
            // Only the sender of a packet is told of it: an error to anybody else is forged.
            return Verdict::Drop(DropReason::QuoteUnknown);
        }
        // The error goes the way of an answer; the packet was sent the other way.
        let connection = A::lane(self).table.get(id);
        let sent = connection.translated(direction).invert();
        // Whoever it was sent to complains by the name that the sender knows; a router on the way
        // by its own, or traceroute would show nothing.
        let by_destination = complaint.source == complaint.about.destination.address;
        let source = match by_destination {
            true => sent.destination.address,
            false => complaint.source,
        };
        let to = (source, sent.source.address);
        let way = match moment.way(way_of(&connection, direction)) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
        if complaint.place.len() > way.link.mtu as usize {
            return Verdict::Drop(DropReason::FrameTooLong);
        }
        let refuses =
            direction == Direction::Reply && refuses(complaint, &connection, io.bytes(frame));
        if !translate(io.bytes_mut(frame), complaint, to, &sent) {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.count(|counters| counters.complaints_translated.add(1));
        if refuses {
            self.refused(id, &connection, moment);
        }
        send(io, frame, way.hop.interface, way.link, way.ethernet, moment)
    }
}

/// An error about a packet that is not ours to know: the host's, or one that only crosses.
fn unknown<A: Tracked>(complaint: &Complaint<A>, moment: Moment<'_>) -> Verdict {
    let to = complaint.destination.into();
    let services = moment.services;
    if services.vips().get(to).is_some() || services.is_service_address(to) {
        return Verdict::Drop(DropReason::QuoteUnknown);
    }
    Verdict::Kernel {
        network: complaint.place.network,
        otherwise: DropReason::QuoteUnknown,
    }
}
