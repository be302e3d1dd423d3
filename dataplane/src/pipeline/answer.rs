//! Frames that the gateway answers itself. Every answer is built in the frame that asked and goes
//! back the way it came. Errors and resets are limited together, echo replies by themselves.

use sluice_conf::{Protocol, Refusal};

use super::{Engine, Moment, Tracked};
use crate::io::PacketIo;
use crate::verdict::{DropReason, Verdict};
use crate::wire::parse::{Arp, Echo, Packet, Question, Signal, TcpFlags};
use crate::wire::{IcmpKind, arp, icmp, ndp, reset};

/// What the sender of a refused packet gets.
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// A TCP reset.
    Reset,
    /// ICMP port unreachable.
    PortUnreachable,
}

impl Told {
    /// ICMP port unreachable, for TCP and UDP alike (kube-proxy's REJECT in nftables mode,
    /// KEP-3866), or as the Service wants it.
    pub(super) const fn of(refusal: Refusal, protocol: Protocol) -> Self {
        match (refusal, protocol) {
            (Refusal::Drop, _) => Told::Nothing,
            (Refusal::TcpReset, Protocol::Tcp) => Told::Reset,
            (Refusal::Icmp | Refusal::TcpReset, _) => Told::PortUnreachable,
        }
    }
}

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
        let asks =
            arp.is_request && arp.sender != arp.wanted && self.answers_for(arp.wanted, moment);
        let Some(link) = moment.network.link(interface).filter(|_| asks) else {
            return Verdict::Drop(DropReason::ArpNotOurs);
        };
        if !arp::answer(io.bytes_mut(frame), arp, link.mac) {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.count(|counters| counters.arp_replies.add(1));
        Verdict::Reply(interface)
    }

    /// A neighbour solicitation for a Vip is answered likewise (RFC 4861 section 7.2.4).
    pub(super) fn question<Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        question: &Question,
        moment: Moment<'_>,
    ) -> Verdict {
        let interface = io.interface(frame);
        let ours = self.answers_for(question.solicitation.target, moment);
        let Some(link) = moment.network.link(interface).filter(|_| ours) else {
            return Verdict::Drop(DropReason::SolicitationNotOurs);
        };
        let network = usize::from(question.network);
        // The answer may be longer: it always carries an option.
        if !io.resize(frame, network + ndp::ANSWER_LEN) {
            return Verdict::Drop(DropReason::NoAnswer);
        }
        let bytes = io.bytes_mut(frame);
        if ndp::answer(bytes, network, &question.solicitation, link.mac.0).is_none() {
            return Verdict::Drop(DropReason::Truncated);
        }
        self.count(|counters| counters.ndp_replies.add(1));
        Verdict::Reply(interface)
    }

    /// Whether the gateway has this address on the link: a Vip, or the masquerade address of the
    /// settings if the host does not have it.
    fn answers_for<A: Tracked>(&self, address: A, moment: Moment<'_>) -> bool {
        let is_source = A::lane(self).source == Some(address);
        moment.services.vips().get(address.into()).is_some()
            || (is_source && !moment.network.is_own(address))
    }

    /// A ping of a Vip is answered as its policy says.
    pub(super) fn echo<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        echo: &Echo<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        let to = echo.destination.into();
        match moment.services.vips().get(to) {
            Some(vip) if vip.answers_ping() => {}
            Some(_) => return Verdict::Drop(DropReason::EchoRefused),
            None if moment.services.is_service_address(to) => {
                return Verdict::Drop(DropReason::Unallocated);
            }
            None => {
                return Verdict::Kernel {
                    network: echo.place.network,
                    otherwise: DropReason::NoConnection,
                };
            }
        }
        if !echo.has_right_checksum(io.bytes(frame)) {
            return Verdict::Drop(DropReason::BadTransportChecksum);
        }
        if !echo.source.is_sender() {
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

    /// Refuses a packet that nothing can serve.
    pub(super) fn refuse<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        refusal: Refusal,
        moment: Moment<'_>,
    ) -> Verdict {
        match Told::of(refusal, packet.tuple.protocol) {
            Told::Nothing => Verdict::Drop(DropReason::Refused),
            Told::Reset => self.reset(io, frame, packet, DropReason::NoAnswer, moment),
            Told::PortUnreachable => {
                let source = packet.tuple.destination.address;
                let why = (A::PORT_UNREACHABLE, 0, DropReason::NoAnswer);
                self.complain(io, frame, packet, source, why, moment)
            }
        }
    }

    /// Tells the sender that the packet's hop limit ran out here.
    pub(super) fn time_exceeded<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        moment: Moment<'_>,
    ) -> Verdict {
        match self.own_name(io, frame, packet, moment) {
            Some(source) => {
                let why = (A::TIME_EXCEEDED, 0, DropReason::Ttl);
                self.complain(io, frame, packet, source, why, moment)
            }
            None => Verdict::Drop(DropReason::Ttl),
        }
    }

    /// Tells the sender which size would fit (RFC 1191 section 4, RFC 8201).
    pub(super) fn too_big<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        mtu: u32,
        moment: Moment<'_>,
    ) -> Verdict {
        match self.own_name(io, frame, packet, moment) {
            Some(source) => {
                let why = (A::TOO_BIG, mtu, DropReason::FrameTooLong);
                self.complain(io, frame, packet, source, why, moment)
            }
            None => Verdict::Drop(DropReason::FrameTooLong),
        }
    }

    /// What the gateway calls itself towards the sender: its address on the link, or the Vip.
    fn own_name<A: Tracked, Io: PacketIo>(
        &self,
        io: &Io,
        frame: &Io::Frame,
        packet: &Packet<A>,
        moment: Moment<'_>,
    ) -> Option<A> {
        let link = moment.network.link(io.interface(frame))?;
        let to = packet.tuple.destination.address;
        let vip = moment.services.vips().get(to.into()).map(|_| to);
        A::of_link(link).first().copied().or(vip)
    }

    /// Sends an ICMP error about the packet; `otherwise` counts what gets none. Nobody is told of
    /// a reset, or of a fragment that is not the first (RFC 1122 section 3.2.2).
    fn complain<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        source: A,
        (kind, more, otherwise): (IcmpKind, u32, DropReason),
        moment: Moment<'_>,
    ) -> Verdict {
        let to = packet.tuple.source.address;
        let is_silent = packet.flags().any(TcpFlags::RST) || !packet.place.has_transport();
        if is_silent || !may_be_told(to, moment) {
            return Verdict::Drop(otherwise);
        }
        if !self.answers.take(moment.now) {
            return Verdict::Drop(DropReason::AnswerLimit);
        }
        let len = icmp::error_len::<A>(&packet.place);
        if !io.resize(frame, len)
            || !icmp::error(io.bytes_mut(frame), &packet.place, kind, more, (source, to))
        {
            return Verdict::Drop(otherwise);
        }
        self.count(|counters| counters.icmp_errors.add(1));
        Verdict::Reply(io.interface(frame))
    }

    /// Answers a segment of a connection that cannot go on with a reset. `otherwise` counts what
    /// gets none.
    pub(super) fn reset<A: Tracked, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        packet: &Packet<A>,
        otherwise: DropReason,
        moment: Moment<'_>,
    ) -> Verdict {
        let Signal::Tcp(segment) = &packet.signal else {
            return Verdict::Drop(otherwise);
        };
        let to = packet.tuple.source.address;
        if segment.flags.any(TcpFlags::RST) || !may_be_told(to, moment) {
            return Verdict::Drop(otherwise);
        }
        if !self.answers.take(moment.now) {
            return Verdict::Drop(DropReason::AnswerLimit);
        }
        let answer = reset::Reset::to(segment);
        let len = reset::frame_len::<A>(usize::from(packet.place.network));
        if !io.resize(frame, len) || !reset::answer(io.bytes_mut(frame), packet, answer) {
            return Verdict::Drop(otherwise);
        }
        self.count(|counters| counters.resets.add(1));
        Verdict::Reply(io.interface(frame))
    }
}

/// Whether an answer could reach anybody, and only somebody else: two gateways must not complain
/// to each other in our name.
pub(super) fn may_be_told<A: Tracked>(source: A, moment: Moment<'_>) -> bool {
    source.is_sender() && moment.services.vips().get(source.into()).is_none()
}
