//! Questions on streams (RFC 7766).
//!
//! Guarantees: so many connections at most, each with one message in memory; for a new one beyond
//! that the one that has been silent the longest is closed. A connection that has sent no whole
//! message, or has not taken its answer, for the idle time is closed. Answers come in the order of
//! the questions.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::warn;

use super::message::Transport;
use super::metrics::{self, Closed};
use super::server::{Serving, Taken};
use crate::words;

/// Pause after accepting failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of streams.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Connections at a time, over all addresses.
    pub connections: usize,
    /// How long one may be silent.
    pub idle: Duration,
}

/// The connections that there are.
pub(super) struct Connections {
    settings: Settings,
    open: Mutex<Open>,
}

/// Connections in the order of their last message.
#[derive(Default)]
struct Open {
    next: u64,
    by_age: BTreeMap<u64, AbortHandle>,
}

impl Connections {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            open: Mutex::default(),
        })
    }

    /// Serves the connections of `listener` for ever.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener, serving: Arc<Serving>) {
        // They end with this task.
        let mut tasks = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
            };
            match stream {
                Ok((stream, _)) => self.admit(&mut tasks, stream, &serving),
                Err(error) => {
                    let why = words::plain(&error);
                    warn!("cannot accept a connection to the DNS server: {why}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, tasks: &mut JoinSet<()>, stream: TcpStream, serving: &Arc<Serving>) {
        let mut open = self.open();
        while open.by_age.len() >= self.settings.connections {
            let Some((_, oldest)) = open.by_age.pop_first() else {
                break;
            };
            oldest.abort();
            metrics::closed(Closed::Crowded);
        }
        let place = open.next();
        let (connections, serving) = (Arc::clone(self), Arc::clone(serving));
        let task = tasks.spawn(async move {
            let mut place = Place { connections, place };
            place.converse(stream, &serving).await;
        });
        open.by_age.insert(place, task);
        metrics::connections(open.by_age.len());
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The place of a connection; free when it is dropped.
struct Place {
    connections: Arc<Connections>,
    place: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.by_age.remove(&self.place);
        metrics::connections(open.by_age.len());
    }
}

impl Place {
    async fn converse(&mut self, mut stream: TcpStream, serving: &Serving) {
        let idle = self.connections.settings.idle;
        loop {
            let message = match timeout(idle, read(&mut stream)).await {
                Ok(Ok(message)) => message,
                // The client is done.
                Ok(Err(_)) => return,
                Err(_) => return metrics::closed(Closed::Idle),
            };
            self.renew();
            let answer = match serving.take(&message, Transport::Tcp) {
                Taken::Answer(bytes) => bytes,
                Taken::Waits(waiting) => serving.wait(waiting).await,
                Taken::Nothing => return metrics::closed(Closed::Malformed),
            };
            match timeout(idle, write(&mut stream, &answer)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return metrics::closed(Closed::Idle),
            }
        }
    }

    /// Was not silent.
    fn renew(&mut self) {
        let mut open = self.connections.open();
        if let Some(task) = open.by_age.remove(&self.place) {
            self.place = open.next();
            open.by_age.insert(self.place, task);
        }
    }
}

/// Reads a message behind its length (RFC 1035, section 4.2.2).
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    // Grows with what arrives, not with what is announced.
    let mut message = Vec::new();
    let mut rest = stream.take(length.into());
    while message.len() < usize::from(length) {
        if rest.read_buf(&mut message).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
