//! Writes to a live Kubernetes API what Sluice decided: the addresses of LoadBalancer Services into
//! their status, and Events about them.
//!
//! ```text
//!   wishes (addresses by Service) --.                      .--> status.loadBalancer.ingress
//!                                    >-- while it leads --<
//!   why an address is missing ------'        ^             '--> events.k8s.io
//!                                   Lease ---'
//! ```
//!
//! Guarantees: of several gateways one writes at a time; a status is written only where it differs
//! from what is wanted, and only to the version that it was compared with; what fails is tried again
//! with growing pauses, never faster than the pace. Nothing is read here but what is compared.

pub mod election;
mod ingress;
mod notice;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::election::{Election, Leading};
use self::notice::{Notice, Written};
use crate::admission::{Classes, Wanted};
use crate::clock::Clock;
use crate::metrics;
use crate::object::NamespacedName;
use crate::source::kubernetes::backoff::Backoff;
use crate::source::kubernetes::client::{Api, ApiError};

/// How and by whom status is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which Services.
    pub classes: Classes,
    /// The election, when there may be several gateways; without it this one always writes.
    pub election: Option<Election>,
    /// This gateway, as events name it.
    pub instance: String,
    /// Pause between two writes.
    pub pace: Duration,
    /// How long one request may take; no longer than a Lease lasts after the last renewal counts.
    pub request: Duration,
    /// First pause after a failure.
    pub first_pause: Duration,
    /// Longest pause after failures.
    pub longest_pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            classes: Classes::default(),
            election: None,
            instance: "sluice".to_owned(),
            pace: Duration::from_millis(50),
            request: Duration::from_secs(2),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What is wanted, for every LoadBalancer Service that is this gateway's.
pub type Wishes = BTreeMap<NamespacedName, Wanted>;

/// Writes status and events to one API server.
pub struct StatusWriter {
    api: Api,
    settings: Settings,
    wishes: watch::Receiver<Arc<Wishes>>,
    leading: watch::Sender<Leading>,
    clock: Clock,
}

impl StatusWriter {
    /// A writer of `wishes`.
    pub fn new(
        api: Api,
        settings: Settings,
        wishes: watch::Receiver<Arc<Wishes>>,
        clock: Clock,
    ) -> Self {
        let leading = settings.election.is_none().then_some(Duration::MAX);
        Self {
            api,
            settings,
            wishes,
            leading: watch::Sender::new(leading),
            clock,
        }
    }

    /// Until when this gateway leads, as it changes.
    pub fn leading(&self) -> watch::Receiver<Leading> {
        self.leading.subscribe()
    }

    /// Goes on until `stop` is done, then gives the Lease up. Needs a tokio runtime.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            api,
            settings,
            wishes,
            leading,
            clock,
        } = self;
        let lead = Lead {
            leading: leading.subscribe(),
            clock,
        };
        let work = Work {
            api: &api,
            settings: &settings,
        };
        let election = async {
            match &settings.election {
                Some(election) => election.run(&api, &leading, clock).await,
                None => std::future::pending().await,
            }
        };
        let writing = async { tokio::join!(election, work.write(wishes, lead.clone()),) };
        tokio::select! {
            () = stop => {}
            _ = writing => {}
        }
        if let Some(election) = settings.election.as_ref().filter(|_| lead.is_ours())
            && let Err(error) = election.release(&api).await
        {
            debug!("Lease not given up: {error}");
        }
    }
}

/// Whether this gateway leads.
#[derive(Clone)]
struct Lead {
    leading: watch::Receiver<Leading>,
    clock: Clock,
}

impl Lead {
    fn is_ours(&self) -> bool {
        let until = *self.leading.borrow();
        until.is_some_and(|until| self.clock.now() < until)
    }

    /// Waits until that is no more as it was.
    async fn changes(&mut self, ours: bool) {
        while self.is_ours() == ours {
            if self.leading.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }
}

struct Work<'a> {
    api: &'a Api,
    settings: &'a Settings,
}

impl Work<'_> {
    /// Writes what is wanted, until nobody can want anything any more.
    async fn write(&self, mut wishes: watch::Receiver<Arc<Wishes>>, mut lead: Lead) {
        let Settings {
            first_pause,
            longest_pause,
            ..
        } = *self.settings;
        let mut backoff = Backoff::new(first_pause, longest_pause);
        let mut done = Done::default();
        let mut failing = None;
        loop {
            let wanted = Arc::clone(&wishes.borrow_and_update());
            let ours = lead.is_ours();
            if !ours {
                // Whoever leads meanwhile may write something else.
                done.statuses.clear();
            }
            let failure = self.pass(&wanted, &mut done, &wishes, &lead).await;
            let pause = match &failure {
                Some(_) => backoff.pause(),
                None => Duration::MAX,
            };
            match &failure {
                None => backoff.reset(),
                Some(reason) if failing.as_ref() != Some(reason) => {
                    warn!("status or event not written, trying again: {reason}");
                }
                Some(_) => {}
            }
            failing = failure;
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = lead.changes(ours) => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Writes what differs, up to the moment where something else is wanted; returns what failed
    /// first.
    async fn pass(
        &self,
        wanted: &Wishes,
        done: &mut Done,
        newer: &watch::Receiver<Arc<Wishes>>,
        lead: &Lead,
    ) -> Option<String> {
        done.retain(wanted);
        let mut failure = None;
        for (name, wish) in wanted {
            if newer.has_changed().unwrap_or(true) || !lead.is_ours() {
                break;
            }
            let now = lead.clock.now();
            let results = [
                self.write_addresses(name, wish, done, now).await,
                self.write_pending(name, wish, done, now).await,
            ];
            let asked = results.iter().any(|result| *result != Ok(false));
            for error in results.into_iter().filter_map(Result::err) {
                metrics::wrote("failed");
                let refused = error.code().is_some();
                failure.get_or_insert_with(|| format!("Service {name}: {error}"));
                // Nor will the next one be written while the server does not answer.
                if !refused {
                    return failure;
                }
            }
            if asked {
                sleep(self.settings.pace).await;
            }
        }
        failure
    }

    /// Makes the status say what is wanted; returns whether the server had to be asked.
    async fn write_addresses(
        &self,
        name: &NamespacedName,
        wish: &Wanted,
        done: &mut Done,
        now: Duration,
    ) -> Result<bool, ApiError> {
        let Settings {
            classes, request, ..
        } = self.settings;
        let due = |addresses: &&Vec<IpAddr>| !ingress::says(&wish.told, addresses);
        let addresses = wish.addresses.as_ref().filter(due);
        let Some(addresses) = addresses.filter(|_| done.statuses.get(name) != Some(wish)) else {
            return Ok(false);
        };
        let written = ingress::write(self.api, *classes, name, addresses, *request).await?;
        done.statuses.insert(name.clone(), wish.clone());
        if written {
            let list = list(addresses);
            info!("status of Service {name}: {list}");
            metrics::wrote("status");
            if !addresses.is_empty() {
                let message = format!("gave it {list}");
                let notice = notice(name, wish, false, "IPAllocated", message);
                self.write_event(&notice, done, now).await?;
            }
        }
        Ok(true)
    }

    /// Tells why the Service waits for an address; returns whether the server had to be asked.
    async fn write_pending(
        &self,
        name: &NamespacedName,
        wish: &Wanted,
        done: &mut Done,
        now: Duration,
    ) -> Result<bool, ApiError> {
        let Some(reason) = &wish.pending else {
            return Ok(false);
        };
        let notice = notice(name, wish, true, "AllocationFailed", reason.clone());
        self.write_event(&notice, done, now).await
    }

    async fn write_event(
        &self,
        notice: &Notice,
        done: &mut Done,
        now: Duration,
    ) -> Result<bool, ApiError> {
        if !done.notices.is_due(notice, now) {
            return Ok(false);
        }
        let Settings {
            instance, request, ..
        } = self.settings;
        if let Err(error) = notice::write(self.api, notice, instance, *request).await {
            done.notices.forget(notice);
            return Err(error);
        }
        metrics::wrote("event");
        Ok(true)
    }
}

/// What was written already.
#[derive(Debug, Default)]
struct Done {
    statuses: Wishes,
    notices: Written,
}

impl Done {
    /// Forgets Services of which nothing is wanted any more.
    fn retain(&mut self, wanted: &Wishes) {
        self.statuses.retain(|name, _| wanted.contains_key(name));
    }
}

fn notice(
    name: &NamespacedName,
    wish: &Wanted,
    warning: bool,
    reason: &'static str,
    message: String,
) -> Notice {
    Notice {
        service: name.clone(),
        uid: wish.uid.clone(),
        warning,
        reason,
        message,
    }
}

fn list(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => "no address".to_owned(),
        some => {
            let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
            texts.join(", ")
        }
    }
}
