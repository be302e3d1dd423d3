//! The whole control plane as one future: starts the parts in order, ends with the signal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_conf::settings::Controlplane;
use tokio::sync::mpsc;
use tracing::info;

use crate::admission::{self, Admission};
use crate::clock::Clock;
use crate::control::{self, Answers};
use crate::engine::Engine;
use crate::listener::{ListenError, OwnedListener};
use crate::metrics::{self, MetricsError};
use crate::push::Pusher;
use crate::rules::Rules;
use crate::source::Source;
use crate::source::folder::{self, FolderError};
use crate::store::{Store, StoreError};
use crate::tables::Tables;
use crate::words;

/// Events that may wait for the engine.
const EVENTS: usize = 1024;

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
    let store = open_store(&settings.store.path)?;
    let admission = Admission::new(admission::Settings::from(settings), Some(store))?;
    let sources = [Source::Folder];
    let engine = Engine::new(
        Rules::from(settings),
        admission,
        &sources,
        Arc::clone(&tables),
    );
    let pusher = Pusher::new(
        settings.dataplane.socket.clone(),
        Arc::clone(&tables),
        clock,
    );
    let folder = &settings.manifests.folder;
    let answers = Answers {
        questions: engine.questions(),
        tables,
        link: pusher.link(),
        source: format!("folder {}", folder.display()),
        clock,
    };
    let (sender, events) = mpsc::channel(EVENTS);
    folder::watch(folder.clone(), sender, clock)?;
    info!(
        "sluice-controlplane {} serves manifests of {}, control socket {}",
        env!("CARGO_PKG_VERSION"),
        folder.display(),
        settings.control.socket.display()
    );
    tokio::select! {
        () = stop => info!("stopping"),
        () = engine.run(events, clock) => {}
        () = pusher.run() => {}
        () = control::serve(Arc::clone(&listener), answers) => {}
    }
    Ok(())
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
