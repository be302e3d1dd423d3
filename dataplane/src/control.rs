//! The control socket: the control plane pushes tables, `sluicectl` asks questions.
//!
//! Guarantees: only root and the daemon's own user are served; a client that sends garbage, stops
//! in the middle of a message or does not read loses its connection and nothing else; memory grows
//! only with bytes that really arrived, up to the codec's limit for each of a bounded number of
//! connections.

mod answers;
mod evidence;
mod socket;

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluice_conf::codec::{self, CodecError, HEADER_LEN, MAX_BODY};
use sluice_conf::message::dataplane::tap::TapSettings;
use sluice_conf::message::dataplane::{Reply, Request};

use crate::gateway::Base;

pub use answers::{About, Answers};
pub use socket::{Listener, SocketError};

/// Clients that are served at once.
const MAX_CLIENTS: usize = 32;

/// How long a client may take to send the rest of a message, or to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the tap is looked at while there is nothing to tell.
const TAP_PERIOD: Duration = Duration::from_millis(20);

/// How often a client of the tap hears something at the least, so that it can tell silence from a
/// dead daemon.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Why a client was sent away.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the first message must be a hello")]
    NoHello,
}

/// Serves clients for ever; each has a thread of its own.
pub fn serve(listener: &UnixListener, answers: &Arc<Answers>) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                // Out of descriptors, most likely: looking again at once would burn a core.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        if let Err(reason) = socket::check_peer(&stream) {
            tracing::warn!(reason, "a control connection was refused");
            continue;
        }
        let slot = Slot::take(&clients);
        let Some(slot) = slot else {
            tracing::warn!(
                limit = MAX_CLIENTS,
                "too many control connections; one was refused"
            );
            continue;
        };
        let answers = Arc::clone(answers);
        let spawned = std::thread::Builder::new()
            .name("control-client".into())
            .spawn(move || {
                let _slot = slot;
                match converse(&stream, &answers) {
                    Ok(()) => {}
                    Err(error) => tracing::debug!(%error, "a control connection was closed"),
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a control connection");
        }
    }
}

/// One of the places for clients; free again when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(clients: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |n: usize| (n < MAX_CLIENTS).then_some(n + 1);
        clients
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(Arc::clone(clients)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(stream: &UnixStream, answers: &Answers) -> Result<(), ClientError> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut body = Vec::new();
    let Some(Request::Hello(hello)) = receive(stream, &mut body)? else {
        let refusal = Reply::Refused(ClientError::NoHello.to_string());
        send(stream, &refusal)?;
        return Err(ClientError::NoHello);
    };
    tracing::debug!(
        program = hello.program,
        release = hello.release,
        "control connection"
    );
    send(stream, &answers.hello())?;
    let mut base = Base::default();
    while let Some(request) = receive(stream, &mut body)? {
        match request {
            Request::Tap(settings) => return pour(stream, answers, &settings),
            request => send(stream, &answers.answer(request, &mut base))?,
        }
    }
    Ok(())
}

/// Tells the client what the tap sees, until it has gone. One that does not read loses packets and,
/// after a while, the connection; the workers never wait for it.
fn pour(stream: &UnixStream, answers: &Answers, settings: &TapSettings) -> Result<(), ClientError> {
    let session = match answers.tap(settings) {
        Ok(session) => session,
        Err(reason) => return send(stream, &Reply::Refused(reason)),
    };
    stream.set_read_timeout(Some(TAP_PERIOD))?;
    let mut idle = HEARTBEAT;
    loop {
        let batch = answers.tapped(&session);
        let more = !batch.packets.is_empty();
        if more || idle >= HEARTBEAT {
            send(stream, &Reply::Tapped(batch))?;
            idle = Duration::ZERO;
        }
        if !more {
            if has_gone(stream)? {
                return Ok(());
            }
            idle += TAP_PERIOD;
        }
    }
}

/// Waits a moment for the client to close its end; what it says is of no interest any more.
fn has_gone(mut stream: &UnixStream) -> Result<bool, ClientError> {
    match stream.read(&mut [0; 64]) {
        Ok(read) => Ok(read == 0),
        Err(error) if is_timeout(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// The next request, read by way of `body`; `None` when the client has closed between two messages.
fn receive(mut stream: &UnixStream, body: &mut Vec<u8>) -> Result<Option<Request>, ClientError> {
    let mut header = [0; HEADER_LEN];
    stream.set_read_timeout(None)?;
    // Waiting for a message to begin may take for ever, the rest of it may not.
    if stream.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut header[1..])?;
    let length = codec::body_len(&header, MAX_BODY)?;
    body.clear();
    stream.take(length as u64).read_to_end(body)?;
    if body.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(codec::decode(body)?))
}

fn send(mut stream: &UnixStream, reply: &Reply) -> Result<(), ClientError> {
    stream.write_all(&codec::encode(reply)?)?;
    Ok(())
}

#[cfg(test)]
mod tests;
