//! What becomes of a frame. Every frame gets exactly one [`Verdict`]; every drop has a reason.

use sluice_conf::message::dataplane::explain::Reason;

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
        /// Whom the frame waits for.
        hop: Neighbour,
        /// Source and destination port of the packet that the frame is a fragment of: it has been
        /// seen, and must not count as a repetition when it comes again.
        ports: Option<Ports>,
    },
    /// A fragment whose packet's first fragment has not come yet; nothing was changed. To be
    /// processed again when the engine releases this packet.
    Wait(PacketKey),
    /// It may open a connection, and this burst has opened enough; nothing was changed. To be
    /// processed again soon.
    Later,
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
    ($(#[$about:meta])* $enum:ident: $($variant:ident, $name:literal, $sentence:literal, $remedy:literal;)*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $enum {
            $(#[doc = $sentence] $variant,)*
        }

        impl $enum {
            /// Every reason, in the order of the counters.
            pub const ALL: &[$enum] = &[$($enum::$variant,)*];

            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in metrics and in `sluicectl drops`.
            pub const fn name(self) -> &'static str {
                match self { $($enum::$variant => $name,)* }
            }

            /// What it means, for the operator.
            pub const fn sentence(self) -> &'static str {
                match self { $($enum::$variant => $sentence,)* }
            }

            /// What the operator can do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $($enum::$variant => $remedy,)* }
            }
        }
    };
}

drop_reasons! {
    /// Why a frame was dropped. Closed: there is no drop without one of these.
    DropReason:
    Truncated, "truncated",
        "The frame ends before its headers do, or before the length that they announce.",
        "Compare the sender's MTU with that of the links on the way; a capture shows which sender it is.";
    NotIp, "not_ip",
        "The frame is neither IPv4, IPv6 nor ARP.",
        "Nothing, unless something that you need speaks another protocol on this network: Sluice serves IP only.";
    OtherVlan, "other_vlan",
        "The frame carries other VLAN tags than interfaces.vlan of its interface says.",
        "Compare interfaces.vlan of the settings with the tags on the switch port; a trunk should carry no other VLANs to the gateway.";
    BadHeader, "bad_header",
        "A header contradicts itself, for example a TCP header shorter than 20 bytes.",
        "Look for the sender with sluicectl capture; it is broken or an attacker.";
    BadIpChecksum, "bad_ip_checksum",
        "The IPv4 header checksum is wrong: the header was damaged on the way.",
        "Check cables, transceivers and the error counters of switch and card (ethtool -S).";
    BadTransportChecksum, "bad_transport_checksum",
        "A packet that would make or change a connection has a wrong TCP, UDP or ICMP checksum; a sender with checksum offload on a virtual link looks like this.",
        "On virtual links turn off transmit checksum offload at the sender (ethtool -K IFACE tx off); else check the hardware on the way.";
    OtherHost, "other_host",
        "The frame is addressed to another Ethernet address; a switch that floods, or a promiscuous link, shows such frames.",
        "Nothing when it is little; much of it is a switch that floods because its table of addresses is full or has aged out.";
    Martian, "martian",
        "The packet claims to come from an address that nobody can send from: a Vip, the gateway's own, loopback, multicast or broadcast.",
        "Find the sender by its Ethernet address with sluicectl capture; if a real client has this address, it is also a Vip or the gateway's own and one of the two must move.";
    Fragment, "fragment",
        "A fragment that cannot be served: of an ICMP message, of an SCTP packet whose port changes, or of a packet whose first fragment made no connection.",
        "Lower the MTU or the segment size at the sender so that packets need not be cut up; for SCTP use preserve or equal ports.";
    FragmentTiny, "fragment_tiny",
        "The first fragment is too short for its transport header, or a later one begins within it; only an attacker cuts packets up like that.",
        "Block the sender; nothing sends such fragments by mistake.";
    FragmentOverlap, "fragment_overlap",
        "The fragment overlaps another one of its packet, or repeats it; the whole packet is given up unless it is a repetition.",
        "Look for a network that duplicates frames, for example a bridge loop; otherwise block the sender.";
    FragmentLimit, "fragment_limit",
        "Too many fragments: of one packet, or waiting for the first one of theirs (fragments.waiting).",
        "Raise fragments.waiting if the traffic is legitimate; better, make senders discover the path MTU.";
    FragmentTimeout, "fragment_timeout",
        "The first fragment of the packet did not come within fragments.timeout.",
        "Look for loss on the way to the gateway; raise fragments.timeout only for very slow links.";
    Protocol, "protocol",
        "The packet is neither TCP, UDP, SCTP nor an ICMP message that a Service needs.",
        "Nothing, unless a Service needs it: Kubernetes Services speak TCP, UDP and SCTP only.";
    BadQuote, "bad_quote",
        "An ICMP error that does not quote enough of a packet to tell which one it is about.",
        "Nothing when it is little; the router that sends them quotes less than RFC 1812 section 4.3.2.3 asks.";
    QuoteUnknown, "quote_unknown",
        "An ICMP error about a packet of no known connection; forged errors look like this.",
        "Nothing when it is little: late errors about connections that have ended look alike. Much of it is an attack.";
    Ttl, "ttl",
        "The packet's time to live or hop limit ran out at this hop; its sender is told, within answers.per_second.",
        "Look for a routing loop between gateway and network (ip route get, traceroute); traceroute itself causes a few.";
    ArpNotOurs, "arp_not_ours",
        "An ARP packet that asks for no address of ours.",
        "Nothing: the steering program should keep them away, and the asker is answered by whoever has the address.";
    SolicitationNotOurs, "solicitation_not_ours",
        "An IPv6 neighbour solicitation for no address of ours, or one that breaks RFC 4861.",
        "Nothing: whoever has the address answers.";
    EchoRefused, "echo_refused",
        "A ping of a Vip whose policy is not to answer, most likely because no backend can serve.",
        "Look with sluicectl get endpoints whether a backend is ready; the annotation sluice.dev/ping decides who is answered.";
    SourceNotAllowed, "source_not_allowed",
        "The client is not in loadBalancerSourceRanges of the Service.",
        "Add the client's network to loadBalancerSourceRanges of the Service if it should get in.";
    NoLocalBackend, "no_local_backend",
        "The Service has endpoints, but none that its traffic policy Local allows for this client.",
        "Give the Service a ready endpoint on a node behind this gateway, or set its traffic policy to Cluster.";
    Unallocated, "unallocated",
        "The packet is for an address of the Service network that no Service has.",
        "Find out who uses the address (sluicectl capture): most likely a Service was deleted and a client still remembers it.";
    Refused, "refused",
        "Nothing can serve the packet, and the Service's refusal policy is to say nothing.",
        "Look with sluicectl get endpoints why no backend is ready; the annotation sluice.dev/refusal decides what clients are told.";
    NoConnection, "no_connection",
        "A packet from a backend or to the masquerade ports that belongs to no known connection; passing it on would show a client an address that it never used.",
        "After a restart of the gateway this passes. If it stays, check that both directions of the traffic cross the same gateway.";
    TcpInvalid, "tcp_invalid",
        "A TCP segment that nobody sends who keeps to the protocol: flags that contradict each other, or none; a SYN from a backend; a SYN-ACK from a client.",
        "Nothing: port scanners send these, and the connection goes on. Look with sluicectl capture who it is when it is much.";
    ResetForged, "reset_forged",
        "A TCP reset outside the window of its connection: nobody on its path could have sent it.",
        "Nothing: the connection goes on. Much of it is an attack on connections.";
    BackendGone, "backend_gone",
        "A packet of a connection whose backend has left the Service; the connection was ended.",
        "Nothing: it happens when endpoints leave. To let connections end by themselves set the annotation sluice.dev/backend-gone to keep or drain.";
    AnswerLimit, "answer_limit",
        "A packet that would have been refused with an ICMP error or a reset, but the limit answers.per_second was reached.",
        "Look for a scan or for clients of a Service without backends; raise answers.per_second if they are legitimate.";
    NoAnswer, "no_answer",
        "A packet that cannot be served and must not be answered, for example a reset.",
        "Nothing: the sender has given up already, or the connection ended before the gateway knew it.";
    NoRoute, "no_route",
        "The kernel has no route to the destination by an interface that Sluice serves.",
        "Compare ip route get of the destination with the interfaces of the settings; direct return needs the backend on a link of the gateway.";
    NeighbourUnresolved, "neighbour_unresolved",
        "The next hop did not answer ARP in time, or too many frames were waiting for one.",
        "Check that the next hop is up and answers ARP or neighbour solicitations on that link (ip neigh).";
    FrameTooLong, "frame_too_long",
        "The packet does not fit the MTU of the interface it must leave by; its sender is told, within answers.per_second.",
        "Make the MTU of all links equal, or clamp the segment size with the annotation sluice.dev/mss-clamp; ICMP must not be filtered on the way.";
    ConnectionTableFull, "connection_table_full",
        "The worker tracks as many connections as connections.capacity allows, and all it looked at are established.",
        "Raise connections.capacity or add workers; sluicectl connections shows who holds them.";
    OpeningsLimit, "openings_limit",
        "More connections were opened than the worker can make beside its established ones, and the queue of first packets was full.",
        "Look for a flood of SYNs (sluicectl capture); else add workers or gateways.";
    SourcePortsExhausted, "source_ports_exhausted",
        "No source port of the worker's share of source_nat.ports was free towards this backend.",
        "Widen source_nat.ports, add backends, or keep the client's address with source_nat preserve.";
    KernelFull, "kernel_full",
        "The packet is no Service's, and the kernel did not take it back through the TUN device.",
        "Look at the load of the host; if much traffic that is no Service's crosses the gateway, give it another way.";
    HandoverFull, "handover_full",
        "The ring to the worker that owns the flow was full.",
        "Raise workers.handover, or have the card spread flows more evenly over its queues (ethtool -X).";
    TransmitRingFull, "transmit_ring_full",
        "The transmit ring of the interface was full.",
        "The link or the receiver is slower than what is sent: look at its load, and raise frames.ring for bursts.";
}

impl From<DropReason> for Reason {
    fn from(reason: DropReason) -> Self {
        Self {
            name: reason.name().to_owned(),
            sentence: reason.sentence().to_owned(),
            remedy: reason.remedy().to_owned(),
        }
    }
}

drop_reasons! {
    /// Why the kernel dropped a frame that was ours: it never reached a worker.
    KernelDrop:
    RxRingFull, "kernel_rx_ring_full",
        "The kernel found the receive ring full: the worker was too slow or frames.ring is too small.",
        "Look at the load of the worker's core; give it a core of its own (workers.cores), more queues, or a larger frames.ring.";
    FillRingEmpty, "kernel_fill_ring_empty",
        "The kernel found no free slot: the worker was too slow or frames.ring is too small.",
        "As for kernel_rx_ring_full.";
    RxDropped, "kernel_rx_dropped",
        "The kernel dropped the frame for another reason, for example because it is longer than a slot.",
        "Compare the MTU of the interface with frames.size, and turn off receive offloads that join packets (ethtool -K IFACE gro off lro off).";
    NoSocket, "kernel_no_socket",
        "The frame came in by a queue that no worker serves; the number of queues has changed since the start.",
        "Restart the dataplane, or set the number of queues back (ethtool -L).";
}

#[cfg(test)]
mod page;

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
    fn every_sentence_and_every_remedy_ends() {
        let reasons = DropReason::ALL.iter();
        let texts = reasons.flat_map(|r| [r.sentence(), r.remedy()]);
        let kernel = KernelDrop::ALL.iter();
        let mut all = texts.chain(kernel.flat_map(|r| [r.sentence(), r.remedy()]));
        assert!(all.all(|text| text.ends_with('.')));
    }
}
