//! The whole control plane as one future: starts the parts in order, ends with the signal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::message::controlplane::DataplaneLink;
use sluice_conf::settings::Controlplane;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admission::{self, Admission};
use crate::clock::Clock;
use crate::control::{self, Answers};
use crate::dns;
use crate::dns::explain::Explainer;
use crate::engine::{Engine, Feeds};
use crate::env::concerned::Concerned;
use crate::env_files;
use crate::evidence;
use crate::health::{self, Health};
use crate::health_check::{self, HealthCheckServer, PortError, ProxyHealth};
use crate::history::History;
use crate::listener::{ListenError, OwnedListener};
use crate::metrics::{self, MetricsError};
use crate::push::Pusher;
use crate::readiness::Readiness;
use crate::readiness::drains::Drains;
use crate::rules::Rules;
use crate::source::Source;
use crate::source::folder::{self, FolderError};
use crate::source::kubernetes::client::CredentialsError;
use crate::store::{SharedStore, Store, StoreError};
use crate::tables::Tables;
use crate::words;

mod kubernetes;

use kubernetes::Live;

/// Events that may wait for the engine.
const EVENTS: usize = 1024;

/// How long a table may be on its way before the gateway counts as unhealthy (twice kube-proxy's
/// `syncPeriod`).
const OVERDUE: Duration = Duration::from_secs(60);
/// How long giving the Lease up may take at the end.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why the control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The manifest folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The control socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The address of the gateway's own health.
    #[error("health_checks.listen: {0}")]
    Health(#[from] PortError),
    /// The credentials for the Kubernetes API.
    #[error(transparent)]
    Kubernetes(#[from] CredentialsError),
    /// This gateway has no name.
    #[error("kubernetes.election.identity: this host has no name; write one")]
    Nameless,
    /// The thread that sends probes.
    #[error("cannot start the thread of probes: {}", words::plain(_0))]
    Probes(std::io::Error),
    /// The DNS server.
    #[error(transparent)]
    Dns(#[from] dns::StartError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of the store.
    #[error("store.path: cannot make the folder {}: {}", folder.display(), words::plain(source))]
    StoreFolder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs until `stop` is done; needs a tokio runtime.
///
/// # Errors
/// Something that the settings ask for cannot be had. Nothing is running then.
pub async fn run(
    settings: &Controlplane,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let clock = Clock::start();
    let listener = Arc::new(OwnedListener::bind(&settings.control.socket)?);
    if let Some(listen) = settings.metrics.listen {
        metrics::serve(listen)?;
        info!("serving metrics at http://{listen}/metrics");
    }
    let tables = Arc::new(Tables::default());
    let store = SharedStore::from(open_store(&settings.store.path)?);
    let past = settings.store.path.with_extension("history.redb");
    let past = SharedStore::from(open_store(&past)?);
    let keep = settings.history.keep;
    let history = History::open(past, Arc::clone(&tables), keep, clock)?;
    let health = Health::new(health::Settings::from(&settings.health), clock);
    let notice = Duration::from_secs(settings.draining.notice_seconds.into());
    let readiness = Readiness::new(health.clone(), stored_drains(&store, notice)?)
        .with_fail_open(settings.health.fail_open_percent);
    let admission = Admission::new(admission::Settings::from(settings), Some(store.clone()))?;
    let (proxy_health, watched) = watch::channel(ProxyHealth::new(OVERDUE));
    let checks = HealthCheckServer::start(checks_of(settings), watched.clone(), clock);
    let _own = match settings.health_checks.listen {
        Some(listen) => Some(health_check::serve_own(listen, watched, clock)?),
        None => None,
    };
    let rules = Rules::from(settings);
    let zone = dns::Shared::default();
    let names = dns::server::Settings::from(&settings.dns);
    let options = Arc::clone(&names.options);
    let serves_names = !names.listen.is_empty();
    let _names = dns::Server::start_aside(names, zone.clone(), clock).await?;
    let (sender, events) = mpsc::channel(EVENTS);
    let live = match &settings.kubernetes {
        Some(kubernetes) => {
            let classes = admission::Settings::from(settings).classes;
            Some(Live::new(kubernetes, classes, sender.clone(), clock).await?)
        }
        None => None,
    };
    let mut engine = Engine::new(
        rules,
        admission,
        readiness,
        &sources_of(settings),
        Arc::clone(&tables),
    )
    .with_store(store)
    .with_health_checks(checks)
    .with_own_health(proxy_health.clone());
    if serves_names {
        let zonal = settings.dns.zonal_answers;
        engine = engine.with_names(zone.clone(), &options, zonal);
    }
    let concerned = Concerned::default();
    if settings.environment.folder.is_some() {
        engine = engine.with_environment(concerned.clone());
    }
    if let Some(live) = &live {
        engine = engine.with_status(live.wishes(), live.state().leading);
    }
    let pusher = Pusher::new(
        settings.dataplane.socket.clone(),
        Arc::clone(&tables),
        clock,
    );
    let answers = Answers {
        questions: engine.questions(),
        events: engine.events(),
        tables: Arc::clone(&tables),
        history: history.clone(),
        planning: Arc::default(),
        link: pusher.link(),
        dns: serves_names.then(|| Explainer::new(zone, options)),
        source: source_text(settings, live.as_ref()),
        kubernetes: live.as_ref().map(Live::state),
        clock,
    };
    let happened = engine.events();
    let environment = settings.environment.clone();
    let environment = env_files::keep(environment, engine.questions(), concerned);
    if let Some(manifests) = &settings.manifests {
        folder::watch(manifests.folder.clone(), sender, clock)?;
    }
    let (seen, evidence) = mpsc::channel(1);
    let _probing = health.start().map_err(StartError::Probes)?;
    let feeds = Feeds {
        events,
        health,
        evidence,
    };
    let seeing = evidence::watch(
        evidence::Settings {
            socket: settings.dataplane.socket.clone(),
            ..evidence::Settings::default()
        },
        seen,
    );
    info!(
        "sluice-controlplane {} serves {}, control socket {}",
        env!("CARGO_PKG_VERSION"),
        answers.source,
        settings.control.socket.display()
    );
    let (end, ended) = oneshot::channel();
    let mut live = pin!(kubernetes::run(live, ended));
    tokio::select! {
        () = stop => info!("stopping"),
        () = &mut live => return Ok(()),
        () = engine.run(feeds, clock) => {}
        () = seeing => {}
        () = history.run() => {}
        () = follow_tables(tables, pusher.link(), proxy_health, clock) => {}
        () = happened.follow(pusher.link(), clock) => {}
        () = pusher.run() => {}
        () = environment => {}
        () = control::serve(Arc::clone(&listener), answers) => {}
    }
    drop(end);
    if timeout(GOODBYE, live).await.is_err() {
        warn!("the Kubernetes API did not take the Lease back in time");
    }
    Ok(())
}

/// Sources that are waited for before anything is compiled.
fn sources_of(settings: &Controlplane) -> Vec<Source> {
    let folder = settings.manifests.as_ref().map(|_| Source::Folder);
    let kubernetes = settings.kubernetes.as_ref().map(|_| Source::Kubernetes);
    folder.into_iter().chain(kubernetes).collect()
}

fn source_text(settings: &Controlplane, live: Option<&Live>) -> String {
    let folder = settings.manifests.as_ref();
    let folder = folder.map(|manifests| format!("folder {}", manifests.folder.display()));
    let server = live.map(|live| format!("kubernetes {}", live.server()));
    let both: Vec<String> = folder.into_iter().chain(server).collect();
    both.join(", ")
}

/// Opens the store, in a folder that is made when missing.
fn open_store(path: &Path) -> Result<Store, StartError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir_all(folder).map_err(|source| StartError::StoreFolder {
            folder: folder.to_owned(),
            source,
        })?;
    }
    Ok(Store::open(path)?)
}

/// Drains that an earlier process was told of. One that cannot be read is forgotten.
fn stored_drains(store: &SharedStore, notice: Duration) -> Result<Drains, StartError> {
    let mut drains = BTreeMap::new();
    for (target, bytes) in store.lock().drains()? {
        match (target.parse(), serde_json::from_slice(&bytes)) {
            (Ok(target), Ok(drain)) => drop(drains.insert(target, drain)),
            _ => warn!("forgot a drain of {target}: it is stored malformed"),
        }
    }
    Ok(Drains::new(drains, notice))
}

fn checks_of(settings: &Controlplane) -> health_check::Settings {
    health_check::Settings {
        addresses: settings.health_checks.addresses.clone(),
        ..health_check::Settings::default()
    }
}

/// Tells whether tables reach the dataplane in time.
async fn follow_tables(
    tables: Arc<Tables>,
    mut link: watch::Receiver<DataplaneLink>,
    health: watch::Sender<ProxyHealth>,
    clock: Clock,
) {
    let mut newest = tables.subscribe();
    loop {
        // The senders of both live as long as this does.
        tokio::select! {
            _ = newest.changed() => {
                newest.mark_unchanged();
                health.send_modify(|health| health.queued(clock.now()));
            }
            _ = link.changed() => {}
        }
        let applied = match &*link.borrow_and_update() {
            DataplaneLink::Connected { applied, .. } => *applied,
            DataplaneLink::Disconnected { .. } => None,
        };
        if applied.is_some_and(|applied| applied >= tables.newest().generation) {
            health.send_modify(|health| health.applied(clock.now()));
        }
    }
}
