//! The link to the dataplane: sends every new table, and the newest one after every reconnect.
//!
//! ```text
//!   connect -> Hello -> raise the generation above the dataplane's -> Push -> wait for
//!      ^                                                               ^        |
//!      |  back-off                                                     '--------+ a new table
//!      '-------------------------------------- anything broken <----------------'
//! ```
//!
//! Guarantees: a table travels whole; one that was rejected is not sent again until it changes or
//! the dataplane is another; a dataplane that is away is tried again at least once a second.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::message::Hello;
use sluice_conf::message::controlplane::DataplaneLink;
use sluice_conf::message::dataplane::{Reply, Request};
use sluice_conf::{Generation, ServiceTable};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::framing::{self, FrameError};
use crate::metrics;
use crate::tables::{State, Tables};

/// First pause before connecting again; doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long the dataplane may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// How long the dataplane may take to apply a table.
const PUSH_LIMIT: Duration = Duration::from_secs(30);
/// Largest answer to a hello or a push, in bytes.
const MAX_REPLY: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
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
        loop {
            let Err(error) = self.session(&mut pause).await;
            self.disconnected(&error.to_string());
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn disconnected(&self, reason: &str) {
        let state = DataplaneLink::Disconnected {
            socket: self.socket.display().to_string(),
            reason: reason.to_owned(),
        };
        let changed = self.link.send_if_modified(|link| {
            let changed = *link != state;
            *link = state;
            changed
        });
        if changed {
            let socket = self.socket.display();
            warn!("no link to the dataplane at {socket}, trying again: {reason}");
        }
        metrics::connected(false);
    }

    /// One connection, from start to end. It only ever ends by an error.
    async fn session(&self, pause: &mut Duration) -> Result<std::convert::Infallible, LinkError> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(LinkError::Connect)?;
        let generation = self.hello(&mut stream).await?;
        self.tables.raise_above(generation.unwrap_or_default());
        metrics::generation(self.tables.newest().generation);
        let mut newest = self.tables.subscribe();
        self.link.send_replace(DataplaneLink::Connected {
            applied: generation,
            rejected: None,
        });
        metrics::connected(true);
        let mut sent = None;
        loop {
            let State { table, .. } = newest.borrow_and_update().clone();
            if let Some(table) = table.filter(|table| Some(table.generation) != sent) {
                sent = Some(table.generation);
                self.push(&mut stream, &table).await?;
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

    async fn hello(&self, stream: &mut UnixStream) -> Result<Option<Generation>, LinkError> {
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
                Ok(generation)
            }
            Reply::Refused(reason) => Err(LinkError::Refused(reason)),
            _ => Err(LinkError::Unexpected("Hello")),
        }
    }

    async fn push(&self, stream: &mut UnixStream, table: &ServiceTable) -> Result<(), LinkError> {
        let start = self.clock.now();
        let answer = ask(stream, &Request::Push(table.clone()), PUSH_LIMIT).await;
        let took = self.clock.now().saturating_sub(start);
        let pushed = table.generation;
        match answer {
            Ok(Reply::Applied(generation)) if generation == pushed => {
                metrics::pushed("applied", took);
                info!(
                    "generation {generation} is applied after {} ms",
                    took.as_millis()
                );
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

async fn ask(
    stream: &mut UnixStream,
    request: &Request,
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
