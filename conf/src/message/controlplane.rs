//! Requests to the control plane and its replies.

use serde::{Deserialize, Serialize};

use self::dns::DnsAnswer;
use self::environment::{Environment, Variable};
use self::history::{Force, GenerationRow};
use self::plan::{Draft, Plan};
use super::Hello;
use crate::table::Generation;

pub mod dns;
pub mod environment;
pub mod history;
pub mod plan;
mod rows;

pub use rows::*;

/// What a client may ask of the control plane. The first request of a connection is `Hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Introduces the client. Answered by [`Reply::Hello`].
    Hello(Hello),
    /// Answered by [`Reply::Status`].
    Status,
    /// Services of one namespace, or of all. Answered by [`Reply::Services`].
    Services {
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// Endpoints of the Services of one namespace, or of all. Answered by [`Reply::Endpoints`].
    Endpoints {
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// Everything about one Service. Answered by [`Reply::Service`].
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pools of load-balancer addresses. Answered by [`Reply::Pools`].
    Pools,
    /// Policies of one namespace, or of all. Answered by [`Reply::Policies`].
    Policies {
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// Answered by [`Reply::Nodes`].
    Nodes,
    /// Pods of one namespace, or of all. Answered by [`Reply::Pods`].
    Pods {
        /// Only of this namespace.
        namespace: Option<String>,
    },
    /// What happened lately. Answered by [`Reply::Events`].
    Events {
        /// Only of this namespace, and of what has none.
        namespace: Option<String>,
    },
    /// What is drained. Answered by [`Reply::Drains`].
    Drains,
    /// Takes endpoints out of use, or alters how long that may take. Answered by
    /// [`Reply::Draining`].
    Drain {
        /// `node/NAME`, `pod/NAMESPACE/NAME`, an address, or the name of a node.
        target: String,
        /// How long existing connections may go on after new ones stopped; without, until they end.
        timeout_seconds: Option<u32>,
    },
    /// Puts endpoints back in use. Answered by [`Reply::Undrained`].
    Undrain {
        /// As in [`Request::Drain`].
        target: String,
    },
    /// What manifests would change. Answered by [`Reply::Plan`].
    Plan(Draft),
    /// Past tables. Answered by [`Reply::History`].
    History,
    /// Puts the table of a past generation in force and keeps it there. Answered by
    /// [`Reply::Force`].
    Rollback(Generation),
    /// Lets the table follow the objects again. Answered by [`Reply::Force`].
    Release,
    /// What the DNS server answers, and why. Answered by [`Reply::Dns`].
    Dns {
        /// The name; without its last dot it is looked for as a Pod of the namespace would.
        name: String,
        /// The type of records, for example `SRV`.
        record_type: String,
        /// The namespace.
        namespace: String,
    },
    /// The environment variables of a workload. Answered by [`Reply::Environment`].
    Environment {
        /// Its namespace.
        namespace: String,
        /// Whether it wants those of the Services of its namespace (`enableServiceLinks`).
        service_links: bool,
        /// What it has itself: comes first and is never replaced.
        own: Vec<Variable>,
    },
}

/// The control plane's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to a hello.
    Hello {
        /// Release of the control plane.
        release: String,
    },
    /// How the control plane is.
    Status(Status),
    /// The Services, sorted by namespace and name.
    Services(Vec<ServiceRow>),
    /// The endpoints, sorted by namespace, Service and address.
    Endpoints(Vec<EndpointsRow>),
    /// Everything about one Service; `None` when there is none of that name.
    Service(Option<Box<ServiceDetail>>),
    /// The pools in the order of use, IPv4 first.
    Pools(Vec<PoolRow>),
    /// The policies, sorted by namespace and name.
    Policies(Vec<PolicyRow>),
    /// The Nodes, sorted by name.
    Nodes(Vec<NodeRow>),
    /// The Pods, sorted by namespace and name.
    Pods(Vec<PodRow>),
    /// What happened, oldest first.
    Events(Vec<EventRow>),
    /// The drains, sorted by target.
    Drains(Vec<DrainRow>),
    /// The drain goes on.
    Draining(DrainRow),
    /// Whether there was a drain, which is over now.
    Undrained {
        /// The target, with its kind.
        target: String,
        /// Whether it was drained.
        was_drained: bool,
    },
    /// The request could not be served.
    Refused(String),
    /// What would change.
    Plan(Plan),
    /// The past tables that are kept, oldest first.
    History(Vec<GenerationRow>),
    /// What is in force now.
    Force(Force),
    /// What is answered, and why.
    Dns(Box<DnsAnswer>),
    /// The environment variables.
    Environment(Environment),
}

/// How the control plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Release.
    pub release: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Generation given last.
    pub generation: Generation,
    /// The past generation that is pinned, if one is: nothing changes the table before its release.
    pub pinned: Option<Generation>,
    /// Services known.
    pub services: usize,
    /// EndpointSlices known.
    pub endpoint_slices: usize,
    /// Where objects come from, for example the manifest folder.
    pub source: String,
    /// How the Kubernetes API is doing, where one is read.
    pub kubernetes: Option<KubernetesLink>,
    /// How the dataplane is doing, as seen from here.
    pub dataplane: DataplaneLink,
    /// What is wrong with the objects, oldest first.
    pub problems: Vec<Problem>,
}

/// State of the link to a Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesLink {
    /// Context of the kubeconfig, or host of the API server.
    pub server: String,
    /// Whether every kind is being watched; while it is not, what was read last serves on.
    pub connected: bool,
    /// Whether everything was read once; before that nothing is compiled.
    pub synced: bool,
    /// Seconds since `connected` is what it is.
    pub seconds: u64,
    /// Why it is not connected, when that is known.
    pub reason: Option<String>,
    /// Whether this gateway is the one that gives addresses and writes status.
    pub leads: bool,
}

/// State of the link to the dataplane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataplaneLink {
    /// Not reachable; the control plane goes on trying.
    Disconnected {
        /// The socket tried.
        socket: String,
        /// Why, as of the last attempt.
        reason: String,
    },
    /// Connected.
    Connected {
        /// Generation that every worker uses.
        applied: Option<Generation>,
        /// Why the last table was refused, if it was.
        rejected: Option<String>,
    },
}

/// Something wrong with an object; what was good before it stays in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// File that holds the object.
    pub file: String,
    /// Line in the file, counted from 1, when known.
    pub line: Option<u32>,
    /// Kind, namespace and name of the object, when known, for example `Service default/web`.
    pub object: Option<String>,
    /// Path of the field, for example `spec.ports[0].port`, when known.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}
