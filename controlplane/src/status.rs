//! Writes to a live Kubernetes API what Sluice decided: the addresses of LoadBalancer Services into
//! their status, and Events about them.
//!
//! ```text
//!   wishes (addresses by Service) --.                      .--> status.loadBalancer.ingress
//!                                    >-- while it leads --<
//!   notices ------------------------'        ^             '--> events.k8s.io
//!                                   Lease ---'
//! ```
//!
//! Guarantees: of several gateways one writes at a time; a status is written only where it differs
//! from what is wanted, and only to the version that it was compared with; what fails is tried again
//! with growing pauses, never faster than the pace. Nothing is read here but what is compared.

pub mod election;
pub mod ingress;
pub mod notice;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::LoadBalancerIngress;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::election::{Election, Leading};
use self::notice::{Notice, Notices, Written};
use crate::admission::Classes;
use crate::clock::Clock;
use crate::object::NamespacedName;
use crate::source::kubernetes::backoff::Backoff;
use crate::source::kubernetes::client::Api;

/// Notices that may wait.
const NOTICES: usize = 1024;

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

/// What the status of a Service should say.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The addresses, in their order; none takes the entries away.
    pub addresses: Vec<IpAddr>,
    /// The entries as the source saw them last; see [`ingress::told`].
    pub told: Vec<LoadBalancerIngress>,
}

/// What is wanted, for every LoadBalancer Service that is this gateway's.
pub type Wishes = BTreeMap<NamespacedName, Wanted>;

/// Writes status and events to one API server.
pub struct StatusWriter {
    api: Api,
    settings: Settings,
    wishes: watch::Receiver<Arc<Wishes>>,
    notices: mpsc::Receiver<Notice>,
    leading: watch::Sender<Leading>,
    clock: Clock,
}

impl StatusWriter {
    /// A writer of `wishes`, and where to tell it notices.
    pub fn new(
        api: Api,
        settings: Settings,
        wishes: watch::Receiver<Arc<Wishes>>,
        clock: Clock,
    ) -> (Self, Notices) {
        let (sender, notices) = mpsc::channel(NOTICES);
        let leading = settings.election.is_none().then_some(Duration::MAX);
        let writer = Self {
            api,
            settings,
            wishes,
            notices,
            leading: watch::Sender::new(leading),
            clock,
        };
        (writer, Notices(sender))
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
            notices,
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
        let writing = async {
            tokio::join!(
                election,
                work.write_status(wishes, lead.clone()),
                work.write_events(notices, lead.clone()),
            )
        };
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
    async fn write_status(&self, mut wishes: watch::Receiver<Arc<Wishes>>, mut lead: Lead) {
        let Settings {
            first_pause,
            longest_pause,
            ..
        } = *self.settings;
        let mut backoff = Backoff::new(first_pause, longest_pause);
        let mut done = Wishes::new();
        let mut failing = None;
        loop {
            let wanted = Arc::clone(&wishes.borrow_and_update());
            let ours = lead.is_ours();
            if !ours {
                // Whoever leads meanwhile may write something else.
                done.clear();
            }
            let failure = self.pass(&wanted, &mut done, &wishes, &lead).await;
            let pause = match &failure {
                Some(_) => backoff.pause(),
                None => Duration::MAX,
            };
            match &failure {
                None => backoff.reset(),
                Some(reason) if failing.as_ref() != Some(reason) => {
                    warn!("status not written, trying again: {reason}");
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
        done: &mut Wishes,
        newer: &watch::Receiver<Arc<Wishes>>,
        lead: &Lead,
    ) -> Option<String> {
        let Settings {
            classes,
            request,
            pace,
            ..
        } = self.settings;
        done.retain(|name, _| wanted.contains_key(name));
        let mut failure = None;
        for (name, wish) in wanted {
            if ingress::says(&wish.told, &wish.addresses) || done.get(name) == Some(wish) {
                continue;
            }
            if newer.has_changed().unwrap_or(true) || !lead.is_ours() {
                break;
            }
            match ingress::write(self.api, *classes, name, &wish.addresses, *request).await {
                Ok(written) => {
                    if written {
                        info!("status of Service {name}: {}", list(&wish.addresses));
                    }
                    done.insert(name.clone(), wish.clone());
                }
                Err(error) => {
                    let refused = error.code().is_some();
                    failure.get_or_insert_with(|| format!("Service {name}: {error}"));
                    // Nor will the next one be written while the server does not answer.
                    if !refused {
                        break;
                    }
                }
            }
            sleep(*pace).await;
        }
        failure
    }

    /// Writes notices while this gateway leads; others leave them out.
    async fn write_events(&self, mut notices: mpsc::Receiver<Notice>, lead: Lead) {
        let mut written = Written::default();
        while let Some(notice) = notices.recv().await {
            if !lead.is_ours() || !written.is_due(&notice, lead.clock.now()) {
                continue;
            }
            let Settings {
                instance, request, ..
            } = self.settings;
            if let Err(error) = notice::write(self.api, &notice, instance, *request).await {
                debug!("event for Service {}: {error}", notice.service);
                written.forget(&notice);
            }
            sleep(self.settings.pace).await;
        }
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
