//! Live packets with what became of them: `sluicectl trace` and `sluicectl capture`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::explain::Reason;
use crate::service::{Protocol, ServiceName};

/// Most bytes of a frame that are kept, longer than any Ethernet frame without jumbo size.
pub const MAX_SNAP_LEN: u16 = 2048;

/// Which packets to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSettings {
    /// Only these.
    pub filter: TapFilter,
    /// Of those that match, each worker shows one in so many; 0 counts as 1.
    pub sample: u32,
    /// Bytes of each frame to keep, at most [`MAX_SNAP_LEN`]; 0 for headers as values only.
    pub snap_len: u16,
}

/// Which packets match: those where one end is the client and the other the Service, in either
/// direction, before or after translation. What is `None` matches everything. Fragments have no
/// ports, so a filter with a port does not see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TapFilter {
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// Address of the other end: of the Service, or of a backend.
    pub service: Option<IpAddr>,
    /// Port of the other end.
    pub port: Option<u16>,
    /// Protocol.
    pub protocol: Option<Protocol>,
}

/// Packets that matched since the last batch; sent several times a second, even without packets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TapBatch {
    /// In the order of each worker.
    pub packets: Vec<TappedPacket>,
    /// Packets lost since the start, because they came faster than they could be told.
    pub lost: u64,
}

/// A packet and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TappedPacket {
    /// Nanoseconds since the start of 1970, UTC.
    pub nanoseconds: u64,
    /// The worker that decided.
    pub worker: u32,
    /// The Service that it belongs to, as far as the table of this moment tells.
    pub service: Option<ServiceName>,
    /// The backend that it came from or goes to.
    pub backend: Option<SocketAddr>,
    /// As it came in; `None` for what the gateway sent of its own accord.
    pub before: Option<Side>,
    /// As it left; `None` when it did not.
    pub after: Option<Side>,
    /// What became of it.
    pub fate: Fate,
}

/// A frame on one side of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The interface.
    pub interface: String,
    /// What its headers say; `None` when it is no IP packet.
    pub headers: Option<Headers>,
    /// Length of the frame.
    pub len: u32,
    /// Its first bytes, as many as were asked for.
    pub bytes: Vec<u8>,
}

/// What the headers of a packet say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// IP protocol number (IANA "Assigned Internet Protocol Numbers").
    pub protocol: u8,
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Source and destination port; `None` for fragments and protocols without ports.
    pub ports: Option<(u16, u16)>,
    /// TCP flags, as in the 14th byte of the header (RFC 9293 section 3.1).
    pub flags: Option<u8>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It went on.
    Forward,
    /// It was turned into an answer to its sender.
    Reply,
    /// The gateway sent it of its own accord.
    Sent,
    /// Another worker decides; it comes again.
    HandOver(u32),
    /// It waits for the next hop to be resolved, then it comes again.
    Hold,
    /// It waits for the first fragment of its packet, then it comes again.
    Wait,
    /// The kernel routes it on.
    Kernel,
    /// It was dropped.
    Drop(Reason),
}

impl Fate {
    /// Whether the packet will be shown again with what really became of it.
    pub const fn comes_again(&self) -> bool {
        matches!(self, Fate::HandOver(_) | Fate::Hold | Fate::Wait)
    }
}
