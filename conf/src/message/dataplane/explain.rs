//! What would become of a packet, and why: the answer to `sluicectl explain`.
//!
//! Without a connection the packet is the one that opens one: a TCP SYN, an SCTP INIT, a UDP
//! datagram, with right checksums and time to live left. With a connection it is the next of it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Connection;
use crate::service::{Access, Frontend, Protocol, ServiceName};
use crate::table::Generation;

/// A packet to explain; both ends are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Protocol.
    pub protocol: Protocol,
    /// Who sends it.
    pub source: SocketAddr,
    /// Whom it is for.
    pub destination: SocketAddr,
}

/// What would become of the packet. What is `None` was not reached, or is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet.
    pub packet: Question,
    /// Whether the program in the kernel gives the packet to the workers; `None` when not known.
    pub steered: Option<bool>,
    /// Generation of the table that decides; `None` before the first table.
    pub generation: Option<Generation>,
    /// Worker that owns the flow.
    pub worker: u32,
    /// The connection that the packet belongs to.
    pub known: Option<Known>,
    /// The frontend that it is for.
    pub rule: Option<Rule>,
    /// What session affinity remembers of the client.
    pub affinity: Option<Affinity>,
    /// The row of the Maglev table; `None` when affinity decides.
    pub row: Option<Row>,
    /// Where it is translated to.
    pub translation: Option<Translation>,
    /// Where it goes next.
    pub way: Option<Way>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// A connection that is in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The connection.
    pub connection: Connection,
    /// Who sends the packet.
    pub sender: Sender,
    /// Whether it goes on; if not, the packet opens a new one or is refused.
    pub goes_on: bool,
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sender {
    /// Who opened it.
    Client,
    /// Who serves it.
    Backend,
}

/// What the table says about this client at this frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The Service.
    pub service: ServiceName,
    /// The frontend.
    pub frontend: Frontend,
    /// What the client counts as.
    pub class: Class,
    /// What follows from that.
    pub access: Access,
    /// Whether the source ranges of the Service let the client in; `None` when they do not guard
    /// this frontend.
    pub admitted: Option<bool>,
}

/// What a client counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// A pod of the cluster.
    Pod,
    /// A node of the cluster.
    Node,
    /// Everybody else.
    Other,
}

/// Session affinity of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// For how long a client is remembered, in seconds.
    pub seconds: u32,
    /// The backend that is remembered and still serves; `None` when a new one is chosen.
    pub backend: Option<SocketAddr>,
    /// Seconds until the client is forgotten; `None` when it is not remembered.
    pub left: Option<u32>,
}

/// A row of a Maglev table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row, from 0.
    pub row: u32,
    /// How many there are.
    pub rows: u32,
}

/// How the packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// Its source.
    pub source: Source,
    /// Its destination.
    pub destination: SocketAddr,
}

/// The source that the receiver sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// This one.
    End(SocketAddr),
    /// The gateway, with a free port of the worker's block.
    Masquerade {
        /// Address of the gateway.
        address: IpAddr,
        /// First port of the block.
        first: u16,
        /// Last port of the block.
        last: u16,
    },
}

/// The next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Interface to leave by.
    pub interface: String,
    /// Who is next on the link.
    pub address: IpAddr,
    /// Its Ethernet address; `None` when the kernel has not resolved it.
    pub mac: Option<String>,
    /// Largest packet of the interface, in bytes.
    pub mtu: u32,
}

/// What becomes of the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It goes on.
    Forward,
    /// It waits until the kernel has resolved the next hop, then it goes on.
    Hold,
    /// It is no Service's: the kernel routes it on.
    Kernel,
    /// The sender gets ICMP port unreachable.
    PortUnreachable,
    /// The sender gets a TCP reset.
    Reset,
    /// It is dropped.
    Drop(Reason),
}

/// Why a packet is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Name, as in the metrics.
    pub name: String,
    /// What it means.
    pub sentence: String,
    /// What to do about it.
    pub remedy: String,
}
