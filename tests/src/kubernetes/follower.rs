//! Stands behind the source as the engine does, and remembers what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use sluice_controlplane::clock::Clock;
use sluice_controlplane::object::{Kind, Object, ObjectId};
use sluice_controlplane::source::Event;
use sluice_controlplane::source::kubernetes::resource::{RESOURCES, Resource};
use sluice_controlplane::source::kubernetes::{Link, Settings, Timing, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use crate::clock::wait_for;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What was told, but for the Namespaces, which every cluster has.
#[derive(Debug, Default)]
pub struct Told {
    /// The objects, as they were told last.
    pub objects: BTreeMap<ObjectId, Option<Object>>,
    /// The objects of each state that was told to be whole.
    pub states: Vec<BTreeSet<ObjectId>>,
    /// How often something was told to be there.
    pub applied: usize,
    /// What was told to be gone, in this order.
    pub deleted: Vec<ObjectId>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Apply { id, .. } | Event::Delete { id, .. } if id.kind == Kind::Namespace => {}
            Event::Apply { id, object, .. } => {
                self.applied += 1;
                self.objects.insert(id, object);
            }
            Event::Delete { id, .. } => {
                self.objects.remove(&id);
                self.deleted.push(id);
            }
            Event::Synced { .. } => {
                self.states.push(self.objects.keys().cloned().collect());
            }
            Event::Doubt { .. } | Event::Report { .. } => {}
        }
    }
}

/// Follows a cluster until it is dropped.
pub struct Follower {
    told: Arc<Mutex<Told>>,
    link: watch::Receiver<Link>,
    tasks: [JoinHandle<()>; 2],
}

/// Times that let a test see in seconds what takes minutes.
pub fn hasty() -> Timing {
    Timing {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(100),
        longest_asked: Duration::from_secs(2),
        steady: Duration::from_secs(1),
        absent: Duration::from_millis(50),
        ..Timing::default()
    }
}

impl Follower {
    /// Follows the namespace of `cluster`.
    ///
    /// # Errors
    /// The credentials do not serve.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let settings = Settings {
            namespaces: vec![cluster.namespace.clone()],
            timing: hasty(),
            ..Settings::default()
        };
        Self::with(cluster, &RESOURCES, &settings)
    }

    /// Follows just this.
    ///
    /// # Errors
    /// The credentials do not serve.
    pub fn with(cluster: &Cluster, resources: &[Resource], settings: &Settings) -> Result<Self> {
        let (sender, mut events) = mpsc::channel(64);
        let api = cluster.connect()?;
        let watcher = Watcher::new(api, resources, settings, sender, Clock::start());
        let link = watcher.link();
        let told = Arc::new(Mutex::new(Told::default()));
        let teller = Arc::clone(&told);
        let take = async move {
            while let Some(event) = events.recv().await {
                lock(&teller).take(event);
            }
        };
        let tasks = [
            cluster.runtime.spawn(watcher.run()),
            cluster.runtime.spawn(take),
        ];
        Ok(Self { told, link, tasks })
    }

    /// What was told so far.
    pub fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// State of the link.
    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Waits until the newest whole state satisfies `wanted`, and looks at all of it.
    ///
    /// # Errors
    /// It does not happen; with what is there instead.
    pub fn wait(&self, what: &str, mut wanted: impl FnMut(&Told) -> bool) -> Result<()> {
        wait_for(what, LIMIT, || {
            let told = self.told();
            Ok((!told.states.is_empty() && wanted(&told)).then_some(()))
        })
        .with_context(|| format!("{:?}, {:?}", self.told().states.last(), self.link()))
    }

    /// Waits until the link satisfies `wanted`.
    ///
    /// # Errors
    /// It does not happen.
    pub fn wait_link(&self, what: &str, mut wanted: impl FnMut(&Link) -> bool) -> Result<()> {
        wait_for(what, LIMIT, || Ok(wanted(&self.link()).then_some(())))
            .with_context(|| format!("{:?}", self.link()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
