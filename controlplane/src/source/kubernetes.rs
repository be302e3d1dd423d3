//! Reads a live Kubernetes API and reports every change as events.
//!
//! ```text
//!   one reflector a kind (and namespace) --updates--> Watcher --events--> the engine
//!      list, watch, back off                             '--> Link: does the API server answer?
//! ```
//!
//! Guarantees: nothing is `Synced` before every kind was listed in full; after that nothing is
//! deleted but what an event or a complete list says is gone, whatever happens to the API server or
//! to the way to it; changes that come together are one `Synced`. Answers of a server are bounded.
//! It writes nothing; see [`crate::status`].

pub(crate) mod backoff;
pub mod client;
mod discovery;
mod ledger;
mod reflector;
pub mod resource;

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use self::client::Api;
use self::reflector::{Reflector, Update};
use self::resource::{Filter, Resource, Scope};
use super::Event;
use crate::clock::Clock;

/// Updates that may wait.
const UPDATES: usize = 1024;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The namespaces; all when there is none.
    pub namespaces: Vec<String>,
    /// Which Services and EndpointSlices.
    pub filter: Filter,
    /// How long things take.
    pub timing: Timing,
}

/// How long things take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Pause after the first failure; doubles with the next ones, and varies by half.
    pub first_pause: Duration,
    /// Longest such pause.
    pub longest_pause: Duration,
    /// Longest pause that a server may ask for by `Retry-After`.
    pub longest_asked: Duration,
    /// An answer that went on for so long makes the next pause the first again.
    pub steady: Duration,
    /// How long an answer may take to begin, and a streamed list to go on.
    pub answer: Duration,
    /// How long a page of a list may take.
    pub page: Duration,
    /// How long one watch lasts, in whole seconds; twice an API server's time between bookmarks.
    pub watch: Duration,
    /// When a kind that the server does not know is looked for again.
    pub absent: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            longest_asked: Duration::from_secs(60),
            steady: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            page: Duration::from_secs(60),
            watch: Duration::from_secs(120),
            absent: Duration::from_secs(30),
        }
    }
}

/// State of the link to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Context of the kubeconfig, or host of the server.
    pub server: String,
    /// Whether every kind is being watched.
    pub connected: bool,
    /// Whether everything was listed once; until then nothing is served from this source.
    pub synced: bool,
    /// Time of the clock since when `connected` is what it is.
    pub since: Duration,
    /// Why it is not connected, when that is known.
    pub reason: Option<String>,
}

/// Reads one API server.
pub struct Watcher {
    api: Api,
    file: String,
    clock: Clock,
    events: mpsc::Sender<Event>,
    link: watch::Sender<Link>,
    sources: Vec<Source>,
}

/// How one reflector fares.
struct Source {
    resource: Resource,
    namespace: Option<String>,
    settings: Settings,
    listed: bool,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting,
    Up,
    Down(String),
}

impl Watcher {
    /// A watcher of `resources` that tells `events`.
    pub fn new(
        api: Api,
        resources: &[Resource],
        settings: &Settings,
        events: mpsc::Sender<Event>,
        clock: Clock,
    ) -> Self {
        let link = Link {
            server: api.name().to_owned(),
            connected: false,
            synced: false,
            since: clock.now(),
            reason: None,
        };
        let source = |resource: &Resource, namespace: Option<&String>| Source {
            resource: *resource,
            namespace: namespace.cloned(),
            settings: settings.clone(),
            listed: false,
            state: State::Waiting,
        };
        let mut sources = Vec::new();
        for resource in resources {
            match settings.namespaces.as_slice() {
                [] => sources.push(source(resource, None)),
                _ if resource.scope == Scope::Cluster => sources.push(source(resource, None)),
                names => sources.extend(names.iter().map(|name| source(resource, Some(name)))),
            }
        }
        Self {
            file: format!("kubernetes {}", api.name()),
            api,
            clock,
            events,
            link: watch::Sender::new(link),
            sources,
        }
    }

    /// State of the link, as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Goes on until the receiver of the events is gone. Needs a tokio runtime.
    pub async fn run(mut self) {
        let (sender, mut updates) = mpsc::channel(UPDATES);
        // Dropped with this future, and the reflectors with it.
        let mut reflectors = JoinSet::new();
        for (number, source) in self.sources.iter().enumerate() {
            reflectors.spawn(reflector::run(self.reflector(number, source, &sender)));
        }
        drop(sender);
        let mut batch = Vec::new();
        while updates.recv_many(&mut batch, UPDATES).await > 0 {
            let mut news = false;
            for (number, update) in batch.drain(..) {
                news |= matches!(update, Update::Event(_) | Update::Listed);
                if self.take(number, update).await.is_err() {
                    return;
                }
            }
            let synced = self.sources.iter().all(|source| source.listed);
            if news
                && synced
                && self
                    .events
                    .send(Event::Synced {
                        source: super::Source::Kubernetes,
                    })
                    .await
                    .is_err()
            {
                return;
            }
            self.publish(synced);
        }
    }

    fn reflector(
        &self,
        number: usize,
        source: &Source,
        updates: &mpsc::Sender<(usize, Update)>,
    ) -> Reflector {
        Reflector {
            number,
            api: self.api.clone(),
            file: self.file.clone(),
            resource: source.resource,
            namespace: source.namespace.clone(),
            filter: source.settings.filter.clone(),
            timing: source.settings.timing.clone(),
            clock: self.clock,
            updates: updates.clone(),
        }
    }

    /// Takes in what a reflector tells.
    async fn take(
        &mut self,
        number: usize,
        update: Update,
    ) -> Result<(), mpsc::error::SendError<Event>> {
        let Some(source) = self.sources.get_mut(number) else {
            return Ok(());
        };
        match update {
            Update::Event(event) => return self.events.send(event).await,
            Update::Listed => {
                source.listed = true;
                source.state = State::Up;
            }
            Update::Up => source.state = State::Up,
            Update::Down(reason) => source.state = State::Down(reason),
        }
        Ok(())
    }

    /// Makes the state of the link known.
    fn publish(&self, synced: bool) {
        let states = || self.sources.iter().map(|source| &source.state);
        let connected = states().all(|state| *state == State::Up);
        let reason = states().find_map(|state| match state {
            State::Down(reason) => Some(reason.clone()),
            _ => None,
        });
        let before = self.link.borrow().clone();
        let since = match before.connected == connected {
            true => before.since,
            false => self.clock.now(),
        };
        let link = Link {
            server: before.server.clone(),
            connected,
            synced,
            since,
            reason,
        };
        if link != before {
            self.log(&before, &link);
            self.link.send_replace(link);
        }
    }

    fn log(&self, before: &Link, link: &Link) {
        let file = &self.file;
        match (&before.reason, &link.reason) {
            (None, Some(reason)) if before.synced => {
                warn!("lost the API of {file}, what it said last goes on serving: {reason}");
            }
            (None, Some(reason)) => warn!("no API of {file}, trying again: {reason}"),
            _ if link.connected && !before.connected => info!("connected to the API of {file}"),
            _ => {}
        }
    }
}
