//! Whether backends are fit to be used: probes, verdicts, and what follows from them.
//!
//! ```text
//!   set(service, targets), evidence          readiness: a Pod's readinessProbe as a probe
//!            v
//!   board: who is probed when, verdicts <--> prober: the one thread that sends probes
//!            v
//!   changes, verdicts of a Service --> floor: who is used; slow_start: with how much weight
//! ```
//!
//! Guarantees: a reader that is slow never holds up probing, it finds the latest verdict of each
//! target that changed; what is remembered is bounded by the number of targets. What says nothing
//! about a target, such as a lack of files here, changes no verdict. It does not decide who is
//! used: that is [`floor::effective`], for the group that the caller knows.

pub mod failure;
pub mod probe;

pub mod verdict;

pub mod passive;

pub mod floor;

pub mod slow_start;

pub mod readiness;

pub mod metrics;

mod board;
mod pace;
mod prober;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_conf::settings::controlplane as settings;
use tokio::sync::Notify;

use self::board::Board;
use self::passive::{Evidence, Passive};
use self::probe::Probe;
use self::verdict::{Initial, Verdict};
use crate::clock::Clock;
use crate::object::NamespacedName;

/// How probing goes about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Probes in flight at most; others wait. 0 is taken as 1.
    pub max_in_flight: usize,
    /// How far a period may be off, in percent of it, so that probes do not fall into step.
    pub jitter_percent: u8,
    /// What is thought of a target before the first verdict.
    pub initial: Initial,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            jitter_percent: 10,
            initial: Initial::default(),
        }
    }
}

impl From<&settings::Health> for Settings {
    fn from(settings: &settings::Health) -> Self {
        Self {
            max_in_flight: settings.max_in_flight.into(),
            jitter_percent: settings.jitter_percent,
            initial: match settings.initial {
                settings::Initial::Healthy => Initial::Trusted,
                settings::Initial::Unhealthy => Initial::Pending,
            },
        }
    }
}

/// What is judged: an address, and by what. The same address judged by the same is the same target,
/// whichever Services want it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Address and port that are probed; without a probe, the backend's.
    pub address: SocketAddr,
    /// By what it is judged.
    pub by: By,
}

/// By what a target is judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// By a probe that is sent to it.
    Probe(Arc<Probe>),
    /// By the connections that the dataplane sees alone; they take it out of use in this way.
    Connections(Passive),
}

impl Target {
    /// What is sent to it, if it is probed.
    pub fn probe(&self) -> Option<&Arc<Probe>> {
        match &self.by {
            By::Probe(probe) => Some(probe),
            By::Connections(_) => None,
        }
    }
}

/// A target and the verdict on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The target.
    pub target: Arc<Target>,
    /// The verdict on it.
    pub verdict: Verdict,
}

/// Everything that is known of the health of backends. Clones are the same.
#[derive(Debug, Clone)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    board: Mutex<Board>,
    clock: Clock,
    /// Something is due earlier than it was.
    work: Notify,
    /// A verdict has changed.
    news: Notify,
}

impl Health {
    /// Knows nothing yet, and probes nothing until [`Health::start`].
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let seed = RandomState::new().hash_one(0);
        let board = Mutex::new(Board::new(settings, seed, clock.now()));
        Self(Arc::new(Shared {
            board,
            clock,
            work: Notify::new(),
            news: Notify::new(),
        }))
    }

    /// Makes `targets` all that `service` wants; with none, it is forgotten. What is known of
    /// targets that stay is kept; a target whose probe was altered keeps its verdict until the new
    /// probe says otherwise.
    pub fn set(&self, service: &NamespacedName, targets: Vec<Target>) {
        let now = self.0.clock.now();
        self.board().set(service, targets, now);
        self.0.work.notify_one();
    }

    /// What the dataplane saw of connections to a target. Failures of one that is probed bring its
    /// next probe forward; one that is not probed is taken out of use for a time when they are
    /// many in a row.
    pub fn evidence(&self, target: &Target, evidence: Evidence) {
        let now = self.0.clock.now();
        self.board().evidence(target, evidence, now);
        self.0.work.notify_one();
    }

    /// The verdict on a target that some Service wants.
    pub fn verdict(&self, target: &Target) -> Option<Verdict> {
        self.board().verdict(target)
    }

    /// The verdicts on what `service` wants, sorted by target.
    pub fn of_service(&self, service: &NamespacedName) -> Vec<Judged> {
        self.board().of_service(service)
    }

    /// All verdicts, sorted by target.
    pub fn all(&self) -> Vec<Judged> {
        self.board().all()
    }

    /// Waits until a target becomes healthy or unhealthy; then all that did since the last call,
    /// as they are now. For one reader.
    pub async fn changes(&self) -> Vec<Judged> {
        loop {
            let changes = self.board().take_changes();
            if !changes.is_empty() {
                return changes;
            }
            self.0.news.notified().await;
        }
    }

    /// What a panic left of the board is still better than none.
    fn board(&self) -> MutexGuard<'_, Board> {
        let board = self.0.board.lock();
        board.unwrap_or_else(PoisonError::into_inner)
    }
}
