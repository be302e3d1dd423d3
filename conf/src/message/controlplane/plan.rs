//! What manifests would change that are not in use yet.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::service::{FrontendKind, ServiceName};
use crate::table::Generation;

/// Manifests that are not in use yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Draft {
    /// The files. An object in them takes the place of the one in the manifest folder.
    pub files: Vec<DraftFile>,
    /// Whether they are all there is to be: what the manifest folder has beside them goes.
    pub delete: bool,
}

/// One manifest file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftFile {
    /// How problems name it.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Objects that would be others than now, sorted by kind and name.
    pub objects: Vec<ObjectChange>,
    /// Service ports that would be others than now, sorted by name.
    pub services: Vec<ServiceChange>,
    /// What Services would be given and would give back, sorted by Service.
    pub allocations: Vec<Allocation>,
    /// What the files hold that is not read, on purpose.
    pub skipped: Vec<String>,
    /// Why objects, or parts of files, would be refused; what was good before them stays in use.
    pub refused: Vec<Problem>,
    /// What else would be wrong that is not wrong now.
    pub warnings: Vec<Problem>,
    /// The generation that is pinned: before its release nothing of the plan can happen.
    pub pinned: Option<Generation>,
}

impl Plan {
    /// Whether all would stay as it is.
    pub fn changes_nothing(&self) -> bool {
        self.objects.is_empty() && self.services.is_empty() && self.allocations.is_empty()
    }
}

/// What happens to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It comes.
    Added,
    /// It goes.
    Removed,
    /// It stays, and is another than before.
    Altered,
}

/// What happens to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectChange {
    /// Kind, namespace and name, for example `Service default/web`.
    pub object: String,
    /// What happens to it.
    pub change: Change,
}

/// What happens to the open connections of something that gets no new ones any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// They go on until they end by themselves.
    Stay,
    /// They go on for a time, then they are reset.
    Drain {
        /// How long, in seconds.
        seconds: u32,
    },
    /// They end: both ends of TCP get a reset, all else is forgotten.
    End,
}

/// How a Service port would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Which Service port.
    pub name: ServiceName,
    /// What happens to it.
    pub change: Change,
    /// Its frontends that change, sorted by address and port.
    pub frontends: Vec<FrontendChange>,
    /// Its backends that change, sorted by address and port.
    pub backends: Vec<BackendChange>,
    /// Its policies that change.
    pub policies: Vec<Alteration>,
}

/// How a frontend would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendChange {
    /// Its address.
    pub address: IpAddr,
    /// Its port; the first of a range.
    pub port: u16,
    /// Last port of the range.
    pub last_port: u16,
    /// What kind of address it is.
    pub kind: FrontendKind,
    /// What happens to it.
    pub change: Change,
    /// What is other than before.
    pub altered: Vec<Alteration>,
    /// The Service port that has it instead.
    pub heir: Option<ServiceName>,
    /// Backends of the heir with which its connections go on as if nothing had happened; port 0
    /// stands for all ports.
    pub inherited: Vec<SocketAddr>,
    /// What happens to its other connections; `None` when nothing does.
    pub fate: Option<Fate>,
    /// How many connections that concerns now; `None` when they were not counted.
    pub connections: Option<u64>,
}

/// How a backend would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendChange {
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0: the port that the client used.
    pub port: u16,
    /// What happens to it.
    pub change: Change,
    /// What is other than before.
    pub altered: Vec<Alteration>,
    /// What happens to its connections; `None` when nothing does.
    pub fate: Option<Fate>,
    /// How many connections that concerns now; `None` when they were not counted.
    pub connections: Option<u64>,
}

/// One thing that is other than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alteration {
    /// What.
    pub what: String,
    /// As it is.
    pub before: String,
    /// As it would be.
    pub after: String,
}

/// Something of which there is only one of each, and which a Service would take or give back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Allocation {
    /// Namespace and name of the Service.
    pub service: String,
    /// Field that holds it.
    pub field: String,
    /// The address or port.
    pub value: String,
    /// Whether the Service takes it; else it gives it back.
    pub taken: bool,
}
