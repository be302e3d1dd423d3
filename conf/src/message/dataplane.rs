//! Requests to the dataplane and its replies.

pub mod explain;
pub mod tap;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use self::explain::{Explanation, Question};
use self::tap::{TapBatch, TapSettings};
use super::Hello;
use crate::change::TableChange;
use crate::service::{Protocol, ServiceName};
use crate::table::{Generation, ServiceTable};

/// What a client may ask of the dataplane.
pub type Request = AnyRequest<ServiceTable>;

/// The same bytes as [`Request`]; its table stays the sender's.
pub type SentRequest<'a> = AnyRequest<&'a ServiceTable>;

/// What a client may ask of the dataplane, with a table of type `T`. The first request of a
/// connection is `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnyRequest<T> {
    /// Introduces the client. Answered by [`Reply::Hello`].
    Hello(Hello),
    /// Replaces the service table. Answered by [`Reply::Applied`] when every worker uses it, or
    /// by [`Reply::Rejected`] when the old one stays.
    Push(T),
    /// Changes the table that this connection has put in force. Answered as [`AnyRequest::Push`], or
    /// by [`Reply::NeedsWhole`].
    Change(TableChange),
    /// Answered by [`Reply::Status`].
    Status,
    /// Answered by [`Reply::Stats`].
    Stats,
    /// What backends have made of the connections opened to them. Answered by [`Reply::Evidence`].
    Evidence {
        /// The mark of the last answer; the default one for everything since the start.
        since: Mark,
    },
    /// Answered by [`Reply::Connections`].
    Connections(ConnectionFilter),
    /// Answered by [`Reply::Explained`].
    Explain(Question),
    /// Answered by [`Reply::Tapped`] again and again, until the client closes the connection; the
    /// first one comes at once. The last request of its connection.
    Tap(TapSettings),
    /// How many open connections these Service ports have. Answered by [`Reply::Counts`].
    Count(Vec<ServiceName>),
}

/// The dataplane's answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to a hello.
    Hello {
        /// Release of the dataplane.
        release: String,
        /// Generation in use; `None` before the first table.
        generation: Option<Generation>,
    },
    /// Every worker uses this generation.
    Applied(Generation),
    /// The table was refused whole; the old one stays.
    Rejected {
        /// Generation that was refused.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// This generation builds on a table that is not in use, or that somebody else has pushed. The
    /// old one stays, and the whole table is asked for.
    NeedsWhole(Generation),
    /// How the dataplane is.
    Status(Status),
    /// What it has counted.
    Stats(Stats),
    /// What backends have made of the connections opened to them.
    Evidence(Evidence),
    /// The connections that matched.
    Connections(Connections),
    /// What would become of the packet.
    Explained(Box<Explanation>),
    /// What was seen since the last batch.
    Tapped(TapBatch),
    /// The request could not be served.
    Refused(String),
    /// How many connections there are.
    Counts(Counts),
}

/// How the dataplane is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Release.
    pub release: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Generation in use; `None` before the first table.
    pub generation: Option<Generation>,
    /// Services in the table.
    pub services: usize,
    /// Frontends in the table.
    pub frontends: usize,
    /// Backends in the table.
    pub backends: usize,
    /// Why the last refused table was refused, if one was.
    pub last_rejection: Option<String>,
    /// Interfaces served.
    pub interfaces: Vec<Interface>,
    /// Workers.
    pub workers: Vec<Worker>,
}

/// An interface as the dataplane uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Receive queues served.
    pub queues: u32,
    /// How the XDP program is attached: `native` or `generic`.
    pub xdp: String,
    /// How frames are passed: `zero-copy` or `copy`.
    pub frames: String,
}

/// One worker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Number of the worker, which is its queue.
    pub id: u32,
    /// Core it is pinned to.
    pub core: Option<u32>,
    /// Connections now.
    pub connections: u64,
    /// Most connections it can hold.
    pub connections_capacity: u64,
    /// Frames received since the start.
    pub received: u64,
    /// Frames dropped since the start.
    pub dropped: u64,
}

/// Counters since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Frames and bytes pulled from receive rings.
    pub received: Traffic,
    /// Frames and bytes put on transmit rings.
    pub transmitted: Traffic,
    /// Packets handed back to the kernel because they are no Service's.
    pub to_kernel: u64,
    /// Frames that nobody had sent: resets of connections whose backend is gone. They are in
    /// `transmitted` or `drops` too, so that
    /// `received + own = transmitted + drops + to_kernel` once nothing waits.
    pub own: u64,
    /// Drops by reason; every reason is listed, those that never happened with 0. Reasons that
    /// start with `kernel_` are frames that never reached a worker and so are not in `received`.
    pub drops: Vec<Drop>,
    /// Per Service, sorted by name.
    pub services: Vec<ServiceStats>,
}

/// Frames and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes, Ethernet header included, frame check sequence not.
    pub bytes: u64,
}

/// How often one reason made the dataplane drop a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// Name of the reason, as in the metrics.
    pub reason: String,
    /// One sentence for the operator.
    pub description: String,
    /// What to do about it.
    pub remedy: String,
    /// Frames.
    pub frames: u64,
}

/// Counters of one Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Which Service.
    pub name: ServiceName,
    /// Per backend of the table in use, sorted by address and port.
    pub backends: Vec<BackendStats>,
}

/// Counters of one backend of one Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStats {
    /// Which backend.
    pub address: SocketAddr,
    /// Connections made since the backend was first listed.
    pub connections: u64,
    /// From clients to the backend.
    pub original: Traffic,
    /// From the backend to clients.
    pub reply: Traffic,
    /// What it has made of those connections.
    pub attempts: Attempts,
}

/// What a backend has made of the connections opened to it, since it was first listed. An attempt
/// counts when it fails and when it is answered: one that the backend took only when the client
/// repeated it counts as silent and as answered, and only one that it goes on to refuse counts as
/// failed twice. What is still open, what the client gave up and what a full table forgot counts as
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempts {
    /// It answered: a SYN with SYN-ACK, an INIT with INIT-ACK, a datagram with a datagram.
    pub answered: u64,
    /// It refused: TCP with a reset, SCTP with an ABORT, or the first packet came back as an ICMP
    /// error, destination unreachable (RFC 792, RFC 4443 section 3.1). With UDP and SCTP each such
    /// error counts.
    pub refused: u64,
    /// It said nothing to a SYN: the client repeated it in a later second, or the connection expired.
    /// Never with UDP, which need not be answered, nor with SCTP and direct return, where a first
    /// answer is not noticed.
    pub silent: u64,
}

/// How far a client has been told of evidence. Means something only to the process that made it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark(pub Vec<u64>);

/// Counts of the backends that have changed since the mark of a question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// For the next question.
    pub mark: Mark,
    /// Per Service, sorted by name; only those with a backend that has changed, and no more
    /// backends than the table has.
    pub services: Vec<ServiceEvidence>,
}

/// Counts of those backends of one Service that have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvidence {
    /// Which Service.
    pub name: ServiceName,
    /// Per backend, sorted by address and port.
    pub backends: Vec<(SocketAddr, Attempts)>,
}

/// Which connections to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionFilter {
    /// Only of Services of this namespace.
    pub namespace: Option<String>,
    /// Only of Services of this name.
    pub service: Option<String>,
    /// Only of this client address.
    pub client: Option<IpAddr>,
    /// At most so many; the dataplane has a limit of its own.
    pub limit: u32,
}

/// The connections that matched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Connections {
    /// Those listed.
    pub connections: Vec<Connection>,
    /// True when more matched than were listed.
    pub truncated: bool,
}

/// How many connections Service ports have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// By Service port, frontend and backend, sorted by them.
    pub counts: Vec<Count>,
    /// True when there are more frontends and backends with connections than are listed.
    pub truncated: bool,
}

/// How many connections lead from one frontend to one backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Count {
    /// Service port that owns the frontend.
    pub service: ServiceName,
    /// The frontend that clients use.
    pub frontend: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// Connections that are open, or are opening or closing.
    pub connections: u64,
}

/// One tracked connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Service that it was made for; `None` when that Service is gone.
    pub service: Option<ServiceName>,
    /// Protocol.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// The frontend that the client uses.
    pub frontend: SocketAddr,
    /// Source that the backend sees: the client, or the gateway when masqueraded.
    pub source: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// State in netfilter's words, for example `ESTABLISHED`; for UDP `NEW` or `STREAM`.
    pub state: String,
    /// Seconds since the last packet.
    pub idle_seconds: u32,
    /// Seconds until it expires if nothing more comes.
    pub expires_seconds: u32,
    /// Worker that owns it.
    pub worker: u32,
}
