//! The parts that speak with a live Kubernetes API, as its settings ask for them.

use std::sync::Arc;

use sluice_conf::settings::controlplane::{self as settings, Kubernetes};
use tokio::sync::{mpsc, oneshot, watch};

use super::StartError;
use crate::admission::Classes;
use crate::clock::Clock;
use crate::control::ApiState;
use crate::metrics;
use crate::source::Event;
use crate::source::kubernetes::client::{Api, Credentials};
use crate::source::kubernetes::resource::{Filter, RESOURCES};
use crate::source::kubernetes::{self as source, Watcher};
use crate::status::election::Election;
use crate::status::{self, StatusWriter, Wishes};

/// A source and a writer that wait to be run.
pub(super) struct Live {
    watcher: Watcher,
    writer: StatusWriter,
    wishes: watch::Sender<Arc<Wishes>>,
    server: String,
}

impl Live {
    /// Reads the credentials; asks the server nothing yet.
    ///
    /// # Errors
    /// There are no credentials, or nothing to call this gateway in the election.
    pub(super) async fn new(
        settings: &Kubernetes,
        classes: Classes,
        events: mpsc::Sender<Event>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let credentials = match &settings.kubeconfig {
            Some(path) => Credentials::Kubeconfig {
                path: path.clone(),
                context: settings.context.clone(),
            },
            None => Credentials::Default,
        };
        let api = Api::new(&credentials).await?;
        let reading = source::Settings {
            namespaces: settings.namespaces.clone(),
            filter: Filter {
                proxy_name: settings.proxy_name.clone(),
                ..Filter::default()
            },
            ..source::Settings::default()
        };
        let election = settings.election.as_ref();
        let election = election.map(|election| elect(election, &api)).transpose()?;
        let identity = election.as_ref().map(|election| election.identity.clone());
        let writing = status::Settings {
            classes,
            instance: identity
                .or_else(host)
                .unwrap_or_else(|| "sluice".to_owned()),
            election,
            ..status::Settings::default()
        };
        let (wishes, receiver) = watch::channel(Arc::default());
        Ok(Self {
            server: api.name().to_owned(),
            watcher: Watcher::new(api.clone(), &RESOURCES, &reading, events, clock),
            writer: StatusWriter::new(api, writing, receiver, clock),
            wishes,
        })
    }

    /// Context of the kubeconfig, or host of the server.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Where to tell what the status of Services should say.
    pub(super) fn wishes(&self) -> watch::Sender<Arc<Wishes>> {
        self.wishes.clone()
    }

    /// How the API is doing.
    pub(super) fn state(&self) -> ApiState {
        ApiState {
            link: self.watcher.link(),
            leading: self.writer.leading(),
        }
    }
}

/// Reads and writes until `end` comes or is dropped, then gives the Lease up. Without an API there
/// is nothing to do but to wait for that.
pub(super) async fn run(live: Option<Live>, end: oneshot::Receiver<()>) {
    let end = async {
        // A sender that is gone is the end, too.
        let _ = end.await;
    };
    let Some(live) = live else {
        return end.await;
    };
    let state = live.state();
    tokio::select! {
        () = live.writer.run(end) => {}
        () = live.watcher.run() => {}
        () = measure(state) => {}
    }
}

/// Keeps the metrics up to date, for ever.
async fn measure(state: ApiState) {
    let ApiState {
        mut link,
        mut leading,
    } = state;
    loop {
        let connected = link.borrow_and_update().connected;
        let leads = leading.borrow_and_update().is_some();
        metrics::kubernetes(connected, leads);
        let changed = tokio::select! {
            changed = link.changed() => changed,
            changed = leading.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}

fn elect(settings: &settings::Election, api: &Api) -> Result<Election, StartError> {
    let namespace = settings.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| api.namespace().to_owned());
    let identity = settings.identity.clone().or_else(host);
    let identity = identity.ok_or(StartError::Nameless)?;
    Ok(Election::new(namespace, settings.name.clone(), identity))
}

/// Name of this host.
fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
