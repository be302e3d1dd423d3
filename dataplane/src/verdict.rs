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
    /// Another worker owns the flow; nothing was changed.
    HandOver(u16),
    /// The next hop is not resolved yet; nothing was changed. To be processed again when the
    /// network changes.
    Hold(Neighbour),
    /// Recycle the slot and count the reason.
    Drop(DropReason),
}

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
    NotIpv4, "not_ipv4",
        "The frame is neither IPv4 nor ARP; this release forwards nothing else.";
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
        "The packet is an IP fragment; this release does not reassemble or follow fragments.";
    Protocol, "protocol",
        "The packet is neither TCP, UDP nor an ICMP echo request; ICMP errors about connections are among them, this release does not translate them.";
    Ttl, "ttl",
        "The packet's time to live ran out at this hop.";
    ArpNotOurs, "arp_not_ours",
        "An ARP packet that asks for no address of ours.";
    EchoRefused, "echo_refused",
        "A ping of a Vip that has no backend able to serve.";
    NoConnection, "no_connection",
        "A packet from a backend or to the masquerade ports that belongs to no known connection; passing it on would show a client an address that it never used.";
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
        "The packet does not fit the MTU of the interface it must leave by.";
    ConnectionTableFull, "connection_table_full",
        "The worker tracks as many connections as connections.capacity allows.";
    SourcePortsExhausted, "source_ports_exhausted",
        "No source port of the worker's share of source_nat.ports was free towards this backend.";
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
