//! A stand-in for a Kubernetes API server: what it says on the wire is what a real one says.
//!
//! It lists (page by page, or as a stream), watches (with bookmarks), reads, creates, replaces,
//! patches and deletes; versions expire, writes conflict, and everything can go wrong on demand. It
//! validates nothing, defaults nothing, and knows no selectors but `metadata.name=`.

pub mod answer;
pub mod cluster;
pub mod faults;
pub mod follower;
pub mod gateway;
pub mod kinds;
mod serve;
pub mod store;
mod tls;
mod watching;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, watch};

use self::faults::{End, Fault, Faults, Habits, Verb};
use self::store::Store;
use self::tls::Identity;

/// How long the end of a server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
}

/// What the requests share.
pub(crate) struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    habits: Mutex<Habits>,
    own: Mutex<bool>,
    seen: Mutex<Vec<Seen>>,
    token: Option<String>,
    version: watch::Sender<u64>,
    ends: broadcast::Sender<(&'static str, End)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    fn habits(&self) -> Habits {
        *lock(&self.habits)
    }

    fn own(&self) -> bool {
        *lock(&self.own)
    }

    fn saw(&self, seen: Seen) {
        lock(&self.seen).push(seen);
    }

    fn changed(&self, version: u64) {
        self.version.send_replace(version);
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    identity: Option<Identity>,
    folder: TempDir,
    runtime: Option<Runtime>,
}

impl Server {
    /// A server that talks plainly to everybody.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn start() -> Result<Self> {
        Self::with(None, None)
    }

    /// A server behind TLS that wants `token`.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn start_guarded(token: &str) -> Result<Self> {
        Self::with(Some(token.to_owned()), Some(Identity::new()?))
    }

    fn with(token: Option<String>, identity: Option<Identity>) -> Result<Self> {
        let shared = Shared {
            store: Mutex::default(),
            faults: Mutex::default(),
            habits: Mutex::default(),
            own: Mutex::default(),
            seen: Mutex::default(),
            token,
            version: watch::Sender::new(0),
            ends: broadcast::Sender::new(16),
        };
        let mut server = Self {
            shared: Arc::new(shared),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            identity,
            folder: TempDir::new()?,
            runtime: None,
        };
        server.resume()?;
        Ok(server)
    }

    /// Goes on at the same address after [`Server::stop`].
    ///
    /// # Errors
    /// The address is taken.
    pub fn resume(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address).context("the stand-in's address")?;
        listener.set_nonblocking(true)?;
        self.address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let router = Router::new()
            .fallback(serve::serve)
            .with_state(Arc::clone(&self.shared));
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        match &self.identity {
            Some(identity) => {
                let listener = identity.over(listener);
                runtime.spawn(async move { axum::serve(listener, router).await });
            }
            None => {
                runtime.spawn(async move { axum::serve(listener, router).await });
            }
        }
        drop(guard);
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Goes away, with every connection; what is stored stays.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The address is free, and every connection broken, when this returns.
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// Writes a kubeconfig for it, with this token if it wants one; context `stand-in`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig(&self, token: Option<&str>) -> Result<PathBuf> {
        let file = |name: &str| self.folder.path().join(name);
        let mut cluster = json!({ "server": format!("http://{}", self.address) });
        if let Some(identity) = &self.identity {
            let authority = file("ca.pem");
            std::fs::write(&authority, &identity.pem)?;
            cluster["server"] = json!(format!("https://{}", self.address));
            cluster["certificate-authority"] = json!(authority);
        }
        let user = token.map_or(json!({}), |token| json!({ "token": token }));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "clusters": [{ "name": "stand-in", "cluster": cluster }],
            "users": [{ "name": "tests", "user": user }],
            "contexts": [{
                "name": "stand-in", "context": { "cluster": "stand-in", "user": "tests" }
            }]
        });
        let path = file("kubeconfig");
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Folder that lives as long as the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The next such request goes wrong.
    pub fn fail(&self, verb: Verb, plural: &'static str, fault: Fault) {
        self.shared.faults().add(verb, plural, fault);
    }

    /// Faults that still wait for their request.
    pub fn faults_left(&self) -> usize {
        self.shared.faults().left()
    }

    /// From now on.
    pub fn habits(&self, habits: Habits) {
        *lock(&self.shared.habits) = habits;
        self.shared.version.send_modify(|_| {});
    }

    /// Ends the watches of a kind that stand.
    pub fn end_watches(&self, plural: &'static str, end: End) {
        // Nobody watching is no mistake.
        let _ = self.shared.ends.send((plural, end));
    }

    /// Forgets what changed until now, as etcd does by compaction.
    pub fn compact(&self) {
        let mut store = self.shared.store();
        store.compact();
        self.shared.changed(store.version());
    }

    /// Whether the kinds of `sluice.dev` are there.
    pub fn own_kinds(&self, there: bool) {
        *lock(&self.shared.own) = there;
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
