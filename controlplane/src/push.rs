//! The link to the dataplane: sends every new table, and the newest one after every reconnect.
//!
//! ```text
//!   connect -> Hello -> raise the generation above the dataplane's -> Push -> wait for
//!      ^                                                               ^        |
//!      |  back-off                                                     '--------+ a new table
//!      '-------------------------------------- anything broken <----------------'
//! ```
//!
//! What the log tells: the dataplane is gone, it is back, it has its first table since, and whatever
//! went wrong with a table; that every later table was applied is only a matter of debugging.
//!
//! The first table of a connection travels whole, then what has changed since the last one that was
//! applied, or the whole again if the dataplane has another.
//!
//! Guarantees: a table that was rejected is not sent again until it changes or
//! the dataplane is another; a dataplane that is away is tried again at least once a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sluice_conf::message::Hello;
use sluice_conf::message::controlplane::DataplaneLink;
use sluice_conf::message::dataplane::{Reply, Request, SentRequest};
use sluice_conf::{Generation, ServiceTable};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::framing::{self, FrameError};
use crate::metrics;
use crate::tables::{State, Tables};
use crate::words;

/// First pause before connecting again; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long the dataplane may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// How long the dataplane may take to apply a table.
const PUSH_LIMIT: Duration = Duration::from_secs(30);
/// How long a dataplane that was never there is waited for before it is a warning: both are
/// started at the same time, and it takes a moment.
const PATIENCE: Duration = Duration::from_secs(5);
/// A table that takes longer than this is worth a line.
const SLOW: Duration = Duration::from_secs(1);
/// Largest answer to a hello or a push, in bytes.
const MAX_REPLY: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{}", words::plain(.0))]
    Connect(std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("unexpected answer to {0}")]
    Unexpected(&'static str),
    #[error("the dataplane refused: {0}")]
    Refused(String),
    #[error("it sent something unasked")]
    Unasked,
}

impl LinkError {
    /// Whether it is what happens while a dataplane ends, is away or starts.
    fn is_absence(&self) -> bool {
        match self {
            LinkError::Connect(error) => error.kind() != std::io::ErrorKind::PermissionDenied,
            LinkError::Frame(FrameError::Io(_) | FrameError::Closed) => true,
            _ => false,
        }
    }
}

/// What the log was told of the link last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// Nothing.
    Nothing,
    /// It is waited for since then.
    Waiting(Duration),
    /// It is not there.
    Absent,
    /// It is there, and something is wrong.
    Wrong(String),
    /// All is well.
    Connected,
}

/// Keeps the dataplane up to date.
pub struct Pusher {
    socket: PathBuf,
    tables: Arc<Tables>,
    link: watch::Sender<DataplaneLink>,
    clock: Clock,
}

impl Pusher {
    /// A pusher for the dataplane that listens on `socket`.
    pub fn new(socket: PathBuf, tables: Arc<Tables>, clock: Clock) -> Self {
        let link = DataplaneLink::Disconnected {
            socket: socket.display().to_string(),
            reason: "not tried yet".to_owned(),
        };
        Self {
            socket,
            tables,
            link: watch::Sender::new(link),
            clock,
        }
    }

    /// State of the link, as it changes.
    pub fn link(&self) -> watch::Receiver<DataplaneLink> {
        self.link.subscribe()
    }

    /// Goes on for ever.
    pub async fn run(self) {
        let mut pause = MIN_PAUSE;
        let mut told = Told::Nothing;
        loop {
            let Err(error) = self.session(&mut pause, &mut told).await;
            told = self.disconnected(&error, told);
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Takes note of a connection that ended or was not made; returns what the log knows now.
    fn disconnected(&self, error: &LinkError, told: Told) -> Told {
        let reason = error.to_string();
        self.link.send_replace(DataplaneLink::Disconnected {
            socket: self.socket.display().to_string(),
            reason: reason.clone(),
        });
        metrics::connected(false);
        let (socket, now) = (self.socket.display(), self.clock.now());
        if !error.is_absence() {
            if told != Told::Wrong(reason.clone()) {
                warn!("no link to the dataplane at {socket}, trying again: {reason}");
            }
            return Told::Wrong(reason);
        }
        match told {
            Told::Nothing => {
                info!("waiting for the dataplane at {socket}: {reason}");
                Told::Waiting(now)
            }
            Told::Waiting(since) if now.saturating_sub(since) >= PATIENCE => {
                warn!("still no dataplane at {socket}, trying again: {reason}");
                Told::Absent
            }
            Told::Connected => {
                warn!("lost the dataplane at {socket}, trying again: {reason}");
                Told::Absent
            }
            told => told,
        }
    }

    /// One connection, from start to end. It only ever ends by an error.
    async fn session(
        &self,
        pause: &mut Duration,
        told: &mut Told,
    ) -> Result<std::convert::Infallible, LinkError> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(LinkError::Connect)?;
        let generation = self.hello(&mut stream, told).await?;
        self.tables.raise_above(generation.unwrap_or_default());
        metrics::generation(self.tables.newest().generation);
        let mut newest = self.tables.subscribe();
        self.link.send_replace(DataplaneLink::Connected {
            applied: generation,
            rejected: None,
        });
        metrics::connected(true);
        let mut sent = None;
        let mut applied = None;
        loop {
            let State { table, .. } = newest.borrow_and_update().clone();
            if let Some(table) = table.filter(|table| Some(table.generation) != sent) {
                let first = sent.replace(table.generation).is_none();
                self.push(&mut stream, &mut applied, &table, first).await?;
                // Only a dataplane that answers in full earns a quick retry.
                *pause = MIN_PAUSE;
            }
            let mut byte = [0];
            tokio::select! {
                // The sender lives in `self.tables`: this never fails.
                _ = newest.changed() => {}
                read = stream.read(&mut byte) => return Err(match read {
                    Ok(0) => FrameError::Closed.into(),
                    Ok(_) => LinkError::Unasked,
                    Err(error) => FrameError::from(error).into(),
                }),
            }
        }
    }

    async fn hello(
        &self,
        stream: &mut UnixStream,
        told: &mut Told,
    ) -> Result<Option<Generation>, LinkError> {
        let hello = Request::Hello(Hello {
            program: env!("CARGO_PKG_NAME").to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        });
        match ask(stream, &hello, HELLO_LIMIT).await? {
            Reply::Hello {
                release,
                generation,
            } => {
                let uses = match generation {
                    Some(generation) => format!("uses generation {generation}"),
                    None => "has no table yet".to_owned(),
                };
                let socket = self.socket.display();
                info!("connected to dataplane {release} at {socket}, which {uses}");
                *told = Told::Connected;
                Ok(generation)
            }
            Reply::Refused(reason) => Err(LinkError::Refused(reason)),
            _ => Err(LinkError::Unexpected("Hello")),
        }
    }

    async fn push(
        &self,
        stream: &mut UnixStream,
        applied: &mut Option<Arc<ServiceTable>>,
        table: &Arc<ServiceTable>,
        first: bool,
    ) -> Result<(), LinkError> {
        let start = self.clock.now();
        let answer = send(stream, applied.as_deref(), table).await;
        let took = self.clock.now().saturating_sub(start);
        let pushed = table.generation;
        match answer {
            Ok(Reply::Applied(generation)) if generation == pushed => {
                metrics::pushed("applied", took);
                *applied = Some(Arc::clone(table));
                let took_ms = took.as_millis();
                match first || took > SLOW {
                    true => info!("the dataplane uses generation {generation} after {took_ms} ms"),
                    false => {
                        debug!("the dataplane uses generation {generation} after {took_ms} ms")
                    }
                }
                self.link.send_replace(DataplaneLink::Connected {
                    applied: Some(generation),
                    rejected: None,
                });
                Ok(())
            }
            Ok(Reply::Rejected { generation, reason }) if generation == pushed => {
                metrics::pushed("rejected", took);
                warn!("the dataplane rejected generation {generation}: {reason}");
                self.rejected(format!("generation {generation}: {reason}"));
                Ok(())
            }
            Ok(reply) => {
                metrics::pushed("failed", took);
                Err(match reply {
                    Reply::Refused(reason) => LinkError::Refused(reason),
                    _ => LinkError::Unexpected("Push"),
                })
            }
            Err(error) => {
                metrics::pushed("failed", took);
                Err(error)
            }
        }
    }

    fn rejected(&self, reason: String) {
        self.link.send_modify(|link| {
            let applied = match link {
                DataplaneLink::Connected { applied, .. } => *applied,
                DataplaneLink::Disconnected { .. } => None,
            };
            *link = DataplaneLink::Connected {
                applied,
                rejected: Some(reason),
            };
        });
    }
}

/// Sends a table, as a change of the one that was applied before if there is one.
async fn send(
    stream: &mut UnixStream,
    applied: Option<&ServiceTable>,
    table: &ServiceTable,
) -> Result<Reply, LinkError> {
    if let Some(base) = applied {
        let change = SentRequest::Change(table.since(base));
        match ask(stream, &change, PUSH_LIMIT).await? {
            Reply::NeedsWhole(generation) if generation == table.generation => {
                debug!(
                    "the dataplane has another table than generation {}",
                    base.generation
                );
            }
            answer => return Ok(answer),
        }
    }
    ask(stream, &SentRequest::Push(table), PUSH_LIMIT).await
}

async fn ask(
    stream: &mut UnixStream,
    request: &impl Serialize,
    limit: Duration,
) -> Result<Reply, LinkError> {
    let exchange = async {
        framing::write(stream, request).await?;
        Ok(framing::read(stream, MAX_REPLY).await?)
    };
    timeout(limit, exchange)
        .await
        .unwrap_or(Err(LinkError::Late(limit)))
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    fn pusher() -> Pusher {
        Pusher::new("/x/dp.sock".into(), Arc::default(), Clock::start())
    }

    fn away(kind: ErrorKind) -> LinkError {
        LinkError::Connect(Error::from(kind))
    }

    #[test]
    fn a_dataplane_that_starts_later_is_waited_for_without_a_warning() {
        let pusher = pusher();
        let told = pusher.disconnected(&away(ErrorKind::NotFound), Told::Nothing);
        assert!(matches!(told, Told::Waiting(_)), "{told:?}");
        let told = pusher.disconnected(&away(ErrorKind::ConnectionRefused), told);
        assert!(matches!(told, Told::Waiting(_)), "{told:?}");
        let told = pusher.disconnected(&away(ErrorKind::NotFound), Told::Waiting(Duration::ZERO));
        assert!(matches!(told, Told::Waiting(_)), "{told:?}");
    }

    #[test]
    fn the_end_of_a_dataplane_is_told_once_however_it_shows() {
        let pusher = pusher();
        let closed = LinkError::Frame(FrameError::Closed);
        let reset = LinkError::Frame(FrameError::Io(ErrorKind::ConnectionReset.into()));
        let mut told = pusher.disconnected(&closed, Told::Connected);
        for error in [
            reset,
            away(ErrorKind::ConnectionRefused),
            away(ErrorKind::NotFound),
        ] {
            assert_eq!(told, Told::Absent);
            told = pusher.disconnected(&error, told);
        }
        let link = pusher.link().borrow().clone();
        assert!(
            matches!(&link, DataplaneLink::Disconnected { reason, .. } if reason == "entity not found"),
            "{link:?}"
        );
    }

    #[test]
    fn what_waiting_does_not_mend_is_told_at_once() {
        let told = pusher().disconnected(&away(ErrorKind::PermissionDenied), Told::Nothing);
        assert!(matches!(told, Told::Wrong(_)), "{told:?}");
        let refused = LinkError::Refused("user 7 may not ask".into());
        let told = pusher().disconnected(&refused, Told::Connected);
        assert_eq!(told, Told::Wrong(refused.to_string()));
    }
}
