//! What becomes of a frame. Every frame gets exactly one [`Verdict`]; every drop has a reason.

use crate::io::InterfaceId;
use crate::neighbour::Neighbour;

/// What the engine decided for one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Translated and addressed; transmit it on this interface.
    Forward(InterfaceId),
    /// Turned into an answer to its sender; transmit it on this interface.
    Reply(InterfaceId),
    /// Another worker is to decide; nothing was changed.
    HandOver {
        /// That worker.
        worker: u16,
        /// Source and destination port of the packet that the frame is a fragment of; it owns the
        /// flow then.
        ports: Option<Ports>,
    },
    /// The next hop is not resolved yet; nothing was changed. To be processed again when the
    /// network changes.
    Hold {
        /// That next hop.
        hop: Neighbour,
        /// Source and destination port of the packet that the frame is a fragment of; it has been
        /// seen, and would count as a repetition when it is seen once more.
        ports: Option<Ports>,
    },
    /// A fragment whose packet's first fragment has not come yet; nothing was changed. To be
    /// processed again when the engine releases this packet.
    Wait(PacketKey),
    /// It is no Service's: the kernel routes it on.
    Kernel {
        /// Where its IP header starts.
        network: u16,
        /// Why it is dropped where there is no way to the kernel.
        otherwise: DropReason,
    },
    /// Recycle the slot and count the reason.
    Drop(DropReason),
}

/// Source and destination port.
pub type Ports = (u16, u16);

/// Names a packet whose fragments are on their way, among those that one worker follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketKey(pub u64);

macro_rules! drop_reasons {
    ($($variant:ident, $name:literal, $sentence:literal;)*) => {
        /// Why a frame was dropped. Closed: there is no drop without one of these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in metrics and in `sluicectl drops`.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// What it means, for the operator.
            pub const fn sentence(self) -> &'static str {
                match self { $(DropReason::$variant => $sentence,)* }
            }
        }
    };
}

drop_reasons! {
    Truncated, "truncated",
        "The frame ends before its headers do, or before the length that they announce.";
    NotIp, "not_ip",
        "The frame is neither IPv4, IPv6 nor ARP.";
    OtherVlan, "other_vlan",
        "The frame carries other VLAN tags than interfaces.vlan of its interface says.";
    BadHeader, "bad_header",
        "A header contradicts itself, for example a TCP header shorter than 20 bytes.";
    BadIpChecksum, "bad_ip_checksum",
        "The IPv4 header checksum is wrong: the header was damaged on the way.";
    BadTransportChecksum, "bad_transport_checksum",
        "A packet that would make or change a connection has a wrong TCP, UDP or ICMP checksum; a sender with checksum offload on a virtual link looks like this.";
    OtherHost, "other_host",
        "The frame is addressed to another Ethernet address; a switch that floods, or a promiscuous link, shows such frames.";
    Martian, "martian",
        "The packet claims to come from an address that nobody can send from: a Vip, the gateway's own, loopback, multicast or broadcast.";
    Fragment, "fragment",
        "A fragment that cannot be served: of an ICMP message, of an SCTP packet whose port changes, or of a packet whose first fragment made no connection.";
    FragmentTiny, "fragment_tiny",
        "The first fragment is too short for its transport header, or a later one begins within it; only an attacker cuts packets up like that.";
    FragmentOverlap, "fragment_overlap",
        "The fragment overlaps another one of its packet, or repeats it; the whole packet is given up unless it is a repetition.";
    FragmentLimit, "fragment_limit",
        "Too many fragments: of one packet, or waiting for the first one of theirs (fragments.waiting).";
    FragmentTimeout, "fragment_timeout",
        "The first fragment of the packet did not come within fragments.timeout.";
    Protocol, "protocol",
        "The packet is neither TCP, UDP, SCTP nor an ICMP message that a Service needs.";
    BadQuote, "bad_quote",
        "An ICMP error that does not quote enough of a packet to tell which one it is about.";
    QuoteUnknown, "quote_unknown",
        "An ICMP error about a packet of no known connection; forged errors look like this.";
    Ttl, "ttl",
        "The packet's time to live or hop limit ran out at this hop; its sender is told, within answers.per_second.";
    ArpNotOurs, "arp_not_ours",
        "An ARP packet that asks for no address of ours.";
    SolicitationNotOurs, "solicitation_not_ours",
        "An IPv6 neighbour solicitation for no address of ours, or one that breaks RFC 4861.";
    EchoRefused, "echo_refused",
        "A ping of a Vip whose policy is not to answer, most likely because no backend can serve.";
    SourceNotAllowed, "source_not_allowed",
        "The client is not in loadBalancerSourceRanges of the Service.";
    NoLocalBackend, "no_local_backend",
        "The Service has endpoints, but none that its traffic policy Local allows for this client.";
    Unallocated, "unallocated",
        "The packet is for an address of the Service network that no Service has.";
    Refused, "refused",
        "Nothing can serve the packet, and the Service's refusal policy is to say nothing.";
    NoConnection, "no_connection",
        "A packet from a backend or to the masquerade ports that belongs to no known connection; passing it on would show a client an address that it never used.";
    ResetForged, "reset_forged",
        "A TCP reset outside the window of its connection: nobody on its path could have sent it.";
    BackendGone, "backend_gone",
        "A packet of a connection whose backend has left the Service; the connection was ended.";
    AnswerLimit, "answer_limit",
        "A packet that would have been refused with an ICMP error or a reset, but the limit answers.per_second was reached.";
    NoAnswer, "no_answer",
        "A packet that cannot be served and must not be answered, for example a reset.";
    NoRoute, "no_route",
        "The kernel has no route to the destination by an interface that Sluice serves.";
    NeighbourUnresolved, "neighbour_unresolved",
        "The next hop did not answer ARP in time, or too many frames were waiting for one.";
    FrameTooLong, "frame_too_long",
        "The packet does not fit the MTU of the interface it must leave by; its sender is told, within answers.per_second.";
    ConnectionTableFull, "connection_table_full",
        "The worker tracks as many connections as connections.capacity allows, and all it looked at are established.";
    SourcePortsExhausted, "source_ports_exhausted",
        "No source port of the worker's share of source_nat.ports was free towards this backend.";
    KernelFull, "kernel_full",
        "The packet is no Service's, and the kernel did not take it back through the TUN device.";
    HandoverFull, "handover_full",
        "The ring to the worker that owns the flow was full.";
    TransmitRingFull, "transmit_ring_full",
        "The transmit ring of the interface was full.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_fit_a_metric_label() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        assert!(names.iter().all(|n| {
            n.bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
        }));
    }

    #[test]
    fn the_place_in_all_is_the_number_of_the_reason() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn every_sentence_is_one() {
        assert!(DropReason::ALL.iter().all(|r| r.sentence().ends_with('.')));
    }
}
