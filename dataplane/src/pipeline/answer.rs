//! Frames that the gateway answers itself. Every answer is built in the frame that asked and goes
//! back the way it came. Refusals and resets are limited together, echo replies by themselves.

use std::net::Ipv4Addr;

use sluice_conf::Protocol;

use super::{Engine, Moment};
use crate::io::PacketIo;
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Arp, Echo, Packet, TcpFlags};
use crate::wire::{arp, icmp, reset};

impl Engine {
    /// ARP for a Vip is answered with the interface's own Ethernet address.
    pub(super) fn arp<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        arp: &Arp,
        moment: Moment<'_>,
    ) -> Verdict {
        let interface = io.interface(frame);
        let ours = moment.services.vip(arp.wanted).is_some()
            || (self.source_address == Some(arp.wanted) && !moment.network.is_own(arp.wanted));
        let asks = arp.is_request && arp.sender != arp.wanted;
        let Some(link) = moment.network.link(interface).filter(|_| ours && asks) else {
            return Verdict::Drop(DropReason::ArpNotOurs);
        };
        if !arp::answer(io.bytes_mut(frame), arp, link.mac) {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.count(|counters| counters.arp_replies.add(1));
        Verdict::Reply(interface)
    }

    /// A ping of a Vip is answered while some backend behind it is ready.
    pub(super) fn echo<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        echo: &Echo,
        moment: Moment<'_>,
    ) -> Verdict {
        match moment.services.vip(echo.destination) {
            None => return Verdict::Drop(DropReason::NoConnection),
            Some(false) => return Verdict::Drop(DropReason::EchoRefused),
            Some(true) => {}
        }
        if !echo.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        if !may_be_answered(echo.source) {
            return Verdict::Drop(DropReason::NoAnswer);
        }
        if !self.echoes.take(moment.now) {
            return Verdict::Drop(DropReason::AnswerLimit);
        }
        if !icmp::echo_reply(io.bytes_mut(frame), echo) {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.count(|counters| counters.echo_replies.add(1));
        Verdict::Reply(io.interface(frame))
    }

    /// Refuses a packet that nothing can serve: ICMP port unreachable, for TCP and UDP alike
    /// (kube-proxy's REJECT in nftables mode, KEP-3866).
    pub(super) fn refuse<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        moment: Moment<'_>,
    ) -> Verdict {
        let (source, destination) = (
            packet.tuple.source.address,
            packet.tuple.destination.address,
        );
        if packet.flags.any(TcpFlags::RST) || !may_be_answered(source) {
            return Verdict::Drop(DropReason::NoAnswer);
        }
        if !self.answers.take(moment.now) {
            return Verdict::Drop(DropReason::AnswerLimit);
        }
        if !io.resize(frame, icmp::error_len(packet.end))
            || !icmp::port_unreachable(io.bytes_mut(frame), destination, source)
        {
            return Verdict::Drop(DropReason::NoAnswer);
        }
        self.count(|counters| counters.unreachables.add(1));
        Verdict::Reply(io.interface(frame))
    }

    /// Answers a segment of a connection that cannot go on with a reset. `otherwise` counts what
    /// gets none.
    pub(super) fn reset<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet,
        otherwise: DropReason,
        moment: Moment<'_>,
    ) -> Verdict {
        let is_tcp = packet.tuple.protocol == Protocol::Tcp;
        if !is_tcp
            || packet.flags.any(TcpFlags::RST)
            || !may_be_answered(packet.tuple.source.address)
        {
            return Verdict::Drop(otherwise);
        }
        let Some(reset) = reset::Reset::to(io.bytes(frame), packet) else {
            return Verdict::Drop(otherwise);
        };
        if !self.answers.take(moment.now) {
            return Verdict::Drop(DropReason::AnswerLimit);
        }
        if !io.resize(frame, reset::RESET_LEN)
            || !reset::answer(io.bytes_mut(frame), &packet.tuple, reset)
        {
            return Verdict::Drop(otherwise);
        }
        self.count(|counters| counters.resets.add(1));
        Verdict::Reply(io.interface(frame))
    }
}

/// Whether an answer could reach anybody, and only somebody (RFC 1122 section 3.2.2).
pub(super) fn may_be_answered(source: Ipv4Addr) -> bool {
    !(source.octets()[0] == 0
        || source.is_loopback()
        || source.is_multicast()
        || source.is_broadcast())
}
