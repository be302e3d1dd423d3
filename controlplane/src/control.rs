//! Answers sluicectl on a Unix socket.
//!
//! Guarantees: only root and the user of this process are answered; garbage ends the connection
//! that it came on and nothing else; connections, message sizes and waiting times are bounded. What
//! can be changed through it: which endpoints are taken out of use, and whether a past table is in
//! force. Objects come from their sources alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::codec::{CodecError, MAX_BODY};
use sluice_conf::message::controlplane::environment::Variable;
use sluice_conf::message::controlplane::history::Force;
use sluice_conf::message::controlplane::plan::{Draft, Plan};
use sluice_conf::message::controlplane::{DataplaneLink, KubernetesLink, Reply, Request, Status};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::dns::explain::Explainer;
use crate::engine::{Events, Questions, Stopping, View};
use crate::env::Workload;
use crate::framing::{self, FrameError};
use crate::history::{History, HistoryError};
use crate::listener::OwnedListener;
use crate::object::{Kind, NamespacedName, ObjectId};
use crate::plan;
use crate::readiness::drains::Target;
use crate::source::kubernetes::Link;
use crate::status::election::Leading;
use crate::tables::Tables;
use crate::view;
use crate::words;

/// Largest first request, in bytes; later ones may hold manifests.
const MAX_FIRST_REQUEST: usize = 64 << 10;
/// Most connections at a time.
const MAX_CONNECTIONS: usize = 32;
/// How long a message may take from its first byte to its last.
const MESSAGE_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may be silent between messages.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Pause after accepting failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Objects and problems.
    pub questions: Questions,
    /// What happened lately.
    pub events: Events,
    /// The newest table.
    pub tables: Arc<Tables>,
    /// Past tables.
    pub history: History,
    /// Whose turn it is to plan: each plan needs memory for a copy of all objects.
    pub planning: Arc<Mutex<()>>,
    /// State of the link to the dataplane.
    pub link: watch::Receiver<DataplaneLink>,
    /// Where objects come from.
    pub source: String,
    /// Answers of the DNS server, where there is one.
    pub dns: Option<Explainer>,
    /// State of the link to the Kubernetes API, where one is read.
    pub kubernetes: Option<ApiState>,
    /// Ages and uptime.
    pub clock: Clock,
}

/// How a Kubernetes API is doing.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// State of the link.
    pub link: watch::Receiver<Link>,
    /// Whether this gateway leads.
    pub leading: watch::Receiver<Leading>,
}

impl ApiState {
    fn tell(&self, now: Duration) -> KubernetesLink {
        let link = self.link.borrow().clone();
        KubernetesLink {
            server: link.server,
            connected: link.connected,
            synced: link.synced,
            seconds: now.saturating_sub(link.since).as_secs(),
            reason: link.reason,
            leads: self.leading.borrow().is_some(),
        }
    }
}

/// Serves `listener`; goes on for ever.
pub async fn serve(listener: Arc<OwnedListener>, answers: Answers) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let mut stream = match listener.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                let why = words::plain(&error);
                warn!("cannot accept a connection on the control socket: {why}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let refusal = match slots.clone().try_acquire_owned() {
            Ok(slot) => match may_ask(&stream) {
                Ok(()) => {
                    let answers = answers.clone();
                    tokio::spawn(async move {
                        converse(stream, &answers).await;
                        drop(slot);
                    });
                    continue;
                }
                Err(reason) => reason,
            },
            Err(_) => format!("{MAX_CONNECTIONS} connections are open already; try again"),
        };
        debug!("refused a connection on the control socket: {refusal}");
        // The buffer of a new socket holds so short a message: this does not wait.
        let refused = Reply::Refused(refusal);
        let _ = timeout(ACCEPT_PAUSE, framing::write(&mut stream, &refused)).await;
    }
}

fn may_ask(stream: &UnixStream) -> Result<(), String> {
    let peer = stream
        .peer_cred()
        .map_err(|error| format!("cannot tell who asks: {}", words::plain(&error)))?;
    let own = rustix::process::geteuid().as_raw();
    match peer.uid() {
        0 => Ok(()),
        uid if uid == own => Ok(()),
        uid if own == 0 => Err(format!("user {uid} may not ask; only root may")),
        uid => Err(format!(
            "user {uid} may not ask; only root and user {own} may"
        )),
    }
}

async fn converse(mut stream: UnixStream, answers: &Answers) {
    let mut greeted = false;
    loop {
        let limit = if greeted { IDLE_LIMIT } else { MESSAGE_LIMIT };
        let most = if greeted { MAX_BODY } else { MAX_FIRST_REQUEST };
        let request = match next(&mut stream, limit, most).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                debug!("closing a connection of the control socket: {error}");
                if let FrameError::Codec(error @ CodecError::Version(_)) = error {
                    let refused = Reply::Refused(error.to_string());
                    let _ = timeout(MESSAGE_LIMIT, framing::write(&mut stream, &refused)).await;
                }
                return;
            }
        };
        let hello = matches!(request, Request::Hello(_));
        let reply = match greeted || hello {
            true => answers.answer(request).await,
            false => Reply::Refused("the first request must be Hello".to_owned()),
        };
        let end = matches!(reply, Reply::Refused(_));
        greeted |= hello;
        match timeout(MESSAGE_LIMIT, send(&mut stream, &reply)).await {
            Ok(Ok(())) if !end => {}
            _ => return,
        }
    }
}

/// The next request; `None` when the client is done or silent for too long.
async fn next(
    stream: &mut UnixStream,
    limit: Duration,
    most: usize,
) -> Result<Option<Request>, FrameError> {
    match timeout(limit, stream.readable()).await {
        Ok(ready) => ready?,
        Err(_) => return Ok(None),
    }
    match timeout(MESSAGE_LIMIT, framing::read(stream, most)).await {
        Ok(Ok(request)) => Ok(Some(request)),
        Ok(Err(FrameError::Closed)) | Err(_) => Ok(None),
        Ok(Err(error)) => Err(error),
    }
}

async fn send(stream: &mut UnixStream, reply: &Reply) -> Result<(), FrameError> {
    match framing::write(stream, reply).await {
        Err(FrameError::Codec(error)) => {
            let refused = Reply::Refused(format!("the answer cannot be sent: {error}"));
            framing::write(stream, &refused).await
        }
        result => result,
    }
}

impl Answers {
    async fn answer(&self, request: Request) -> Reply {
        let reply = self.reply(request).await;
        reply.unwrap_or_else(|stopping| Reply::Refused(stopping.to_string()))
    }

    async fn reply(&self, request: Request) -> Result<Reply, Stopping> {
        let now = self.clock.now();
        Ok(match request {
            Request::Hello(hello) => {
                debug!("{} {} is connected", hello.program, hello.release);
                Reply::Hello {
                    release: env!("CARGO_PKG_VERSION").to_owned(),
                }
            }
            Request::Status => Reply::Status(self.status(&self.questions.view().await?, now)),
            Request::Services { namespace } => {
                let view = self.questions.view().await?;
                let table = self.tables.newest().table;
                let namespace = namespace.as_deref();
                Reply::Services(view::services(&view, table.as_deref(), namespace, now))
            }
            Request::Endpoints { namespace } => {
                let standings = self.questions.standings(namespace).await?;
                Reply::Endpoints(view::endpoints(&standings))
            }
            Request::Service { namespace, name } => {
                self.service(NamespacedName::new(namespace, name)).await?
            }
            Request::Pools => Reply::Pools(view::pools(&self.questions.inventory().await?)),
            Request::Policies { namespace } => {
                let inventory = self.questions.inventory().await?;
                Reply::Policies(view::policies(&inventory, namespace.as_deref()))
            }
            Request::Nodes => Reply::Nodes(view::nodes(&self.questions.inventory().await?)),
            Request::Pods { namespace } => {
                let inventory = self.questions.inventory().await?;
                Reply::Pods(view::pods(&inventory, namespace.as_deref()))
            }
            Request::Events { namespace } => {
                Reply::Events(self.events.rows(namespace.as_deref(), now))
            }
            Request::Drains => Reply::Drains(self.questions.drains().await?),
            Request::Drain {
                target,
                timeout_seconds,
            } => self.drain(&target, timeout_seconds).await?,
            Request::Undrain { target } => self.undrain(&target).await?,
            Request::Plan(draft) => match self.plan(draft).await? {
                Some(plan) => Reply::Plan(plan),
                None => Reply::Refused("not all objects are read yet; ask again".to_owned()),
            },
            Request::History => match self.history.rows().await {
                Ok(rows) => Reply::History(rows),
                Err(error) => Reply::Refused(error.to_string()),
            },
            Request::Rollback(generation) => forced(self.history.roll_back(generation).await),
            Request::Release => forced(self.history.release().await),
            Request::Dns {
                name,
                record_type,
                namespace,
            } => self.dns(&name, &record_type, &namespace),
            Request::Environment {
                namespace,
                service_links,
                own,
            } => self.environment(&namespace, service_links, &own).await?,
        })
    }

    fn dns(&self, name: &str, record_type: &str, namespace: &str) -> Reply {
        let Some(explainer) = &self.dns else {
            return Reply::Refused("there is no DNS server: dns.listen is empty".to_owned());
        };
        match explainer.explain(name, record_type, namespace) {
            Ok(answer) => Reply::Dns(Box::new(answer)),
            Err(error) => Reply::Refused(error.to_string()),
        }
    }

    async fn service(&self, name: NamespacedName) -> Result<Reply, Stopping> {
        let Some(detail) = self.questions.detail(name.clone()).await? else {
            return Ok(Reply::Service(None));
        };
        let events = self
            .events
            .of(&ObjectId::of(Kind::Service, &name), self.clock.now());
        Ok(Reply::Service(Some(Box::new(view::detail(detail, events)))))
    }

    async fn environment(
        &self,
        namespace: &str,
        service_links: bool,
        own: &[Variable],
    ) -> Result<Reply, Stopping> {
        let wanted = BTreeSet::from([namespace.to_owned()]);
        let known = self.questions.announced(Some(wanted)).await?;
        let workload = Workload {
            namespace,
            service_links,
            waits: true,
        };
        Ok(match view::environment(&workload, own, known.as_ref()) {
            Ok(environment) => Reply::Environment(environment),
            Err(not_yet) => Reply::Refused(not_yet.to_string()),
        })
    }

    async fn drain(&self, target: &str, timeout_seconds: Option<u32>) -> Result<Reply, Stopping> {
        let target: Target = match target.parse() {
            Ok(target) => target,
            Err(reason) => return Ok(Reply::Refused(reason)),
        };
        let drained = self.questions.drain(target, timeout_seconds).await?;
        Ok(match drained {
            Ok(drain) => Reply::Draining(drain),
            Err(reason) => Reply::Refused(reason),
        })
    }

    async fn undrain(&self, target: &str) -> Result<Reply, Stopping> {
        let target: Target = match target.parse() {
            Ok(target) => target,
            Err(reason) => return Ok(Reply::Refused(reason)),
        };
        let written = target.to_string();
        Ok(match self.questions.undrain(target).await? {
            Ok(was_drained) => Reply::Undrained {
                target: written,
                was_drained,
            },
            Err(reason) => Reply::Refused(reason),
        })
    }

    /// What a draft would change; `None` before all objects are read.
    async fn plan(&self, draft: Draft) -> Result<Option<Plan>, Stopping> {
        let _turn = self.planning.lock().await;
        let Some(rehearsal) = self.questions.rehearsal().await? else {
            return Ok(None);
        };
        let made = tokio::task::spawn_blocking(move || plan::make(*rehearsal, &draft));
        let plan = made.await.map_err(|_| Stopping)?;
        let pinned = self.tables.newest().pinned;
        Ok(Some(Plan { pinned, ..plan }))
    }

    fn status(&self, view: &View, now: Duration) -> Status {
        let newest = self.tables.newest();
        Status {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.as_secs(),
            generation: newest.generation,
            pinned: newest.pinned,
            services: view.services.len(),
            endpoint_slices: view.slices,
            source: self.source.clone(),
            kubernetes: self.kubernetes.as_ref().map(|state| state.tell(now)),
            dataplane: self.link.borrow().clone(),
            problems: view.problems.clone(),
        }
    }
}

fn forced(result: Result<Force, HistoryError>) -> Reply {
    match result {
        Ok(force) => Reply::Force(force),
        Err(error) => Reply::Refused(error.to_string()),
    }
}
