//! Questions in datagrams.
//!
//! Guarantees: a datagram that the zone answers is answered by the thread that reads it, without a task
//! of its own; one that others have to be asked about waits in a task, and of those there is a bounded
//! number. Nobody waits until the kernel has room for an answer: it is dropped and counted.
//!
//! A thread that sleeps in the kernel until a datagram comes is woken with one call less than a loop of
//! I/O, and a flood leaves that loop to connections and upstreams.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{
    MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, recvfrom,
    sendmmsg, sendto, shutdown, sockopt,
};
use tokio::runtime::Handle;

use super::kept::Kept;
use super::metrics::{self, Unanswered};
use super::server::{Serving, Taken};

/// Datagrams that are read before their answers are sent.
const BURST: usize = 64;
/// Longest question that is read; those with more options than usual are some hundred bytes.
const LONGEST: usize = 4096;
/// Bytes of questions that wait while the reader is kept from its CPU: some thousand.
const WAITING: usize = 1 << 21;
/// Pause when the kernel cannot give what there is, most likely for want of memory.
const PAUSE: Duration = Duration::from_millis(10);

/// Answers the datagrams of a socket until it is dropped.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Datagrams {
    /// Starts. Needs a tokio runtime, which asks others.
    ///
    /// # Errors
    /// The socket takes no settings, or the thread cannot be started.
    pub(super) fn start(socket: UdpSocket, serving: Arc<Serving>) -> io::Result<Self> {
        // Beyond what the machine allows everybody if that may be had.
        if sockopt::set_socket_recv_buffer_size_force(&socket, WAITING).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, WAITING)?;
        }
        let socket = Arc::new(socket);
        let ended = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            socket: Arc::clone(&socket),
            ended: Arc::clone(&ended),
            serving,
            runtime: Handle::current(),
        };
        let thread = thread::Builder::new().name("dns-udp".to_owned());
        Ok(Self {
            socket,
            ended,
            thread: Some(thread.spawn(move || reader.run())?),
        })
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It fails, for there is nobody at the other end, and wakes the reader all the same.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // Whether it panicked is told on standard error already.
            let _ = thread.join();
        }
    }
}

struct Reader {
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    serving: Arc<Serving>,
    runtime: Handle,
}

impl Reader {
    fn run(self) {
        let mut buffer = vec![0; LONGEST];
        let mut kept = Kept::new();
        let mut answers = Vec::with_capacity(BURST);
        while !self.ended.load(Ordering::Relaxed) {
            if self.read(&mut buffer, &mut kept, &mut answers).is_err() {
                thread::sleep(PAUSE);
            }
            send_all(&self.socket, &answers);
            answers.clear();
        }
    }

    /// Waits for a datagram, and takes what else is there then.
    fn read(
        &self,
        buffer: &mut [u8],
        kept: &mut Kept,
        answers: &mut Vec<(Vec<u8>, SocketAddrAny)>,
    ) -> rustix::io::Result<()> {
        let mut wait = RecvFlags::empty();
        for _ in 0..BURST {
            let (length, client) = match recvfrom(&self.socket, &mut *buffer, wait) {
                Ok((length, _, Some(client))) => (length, client),
                // The end, a signal, or there is nothing more.
                Ok(_) | Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(error) if wait.is_empty() => return Err(error),
                Err(_) => return Ok(()),
            };
            wait = RecvFlags::DONTWAIT;
            let question = buffer.get(..length).unwrap_or_default();
            self.take(question, client, kept, answers);
        }
        Ok(())
    }

    fn take(
        &self,
        question: &[u8],
        client: SocketAddrAny,
        kept: &mut Kept,
        answers: &mut Vec<(Vec<u8>, SocketAddrAny)>,
    ) {
        let Ok(address) = SocketAddr::try_from(client.clone()) else {
            return;
        };
        match self.serving.datagram(question, address.ip(), kept) {
            Taken::Answer(bytes) => answers.push((bytes, client)),
            Taken::Nothing => {}
            Taken::Waits(waiting) => {
                let (socket, serving) = (Arc::clone(&self.socket), Arc::clone(&self.serving));
                self.runtime.spawn(async move {
                    let bytes = serving.wait(waiting).await;
                    send(&socket, &bytes, &client);
                });
            }
        }
    }
}

/// Sends an answer, or drops it when the kernel has no room: the client will ask again.
fn send(socket: &UdpSocket, bytes: &[u8], client: &SocketAddrAny) {
    if sendto(socket, bytes, SendFlags::DONTWAIT, client).is_err() {
        metrics::dropped(Unanswered::Unsent);
    }
}

/// Sends answers one after the other: whoever waits for several is woken once.
fn send_all(socket: &UdpSocket, answers: &[(Vec<u8>, SocketAddrAny)]) {
    if let [(bytes, client)] = answers {
        return send(socket, bytes, client);
    }
    let parts = answers.iter().map(|(bytes, _)| [IoSlice::new(bytes)]);
    let parts: Vec<[IoSlice<'_>; 1]> = parts.collect();
    let mut nothing: Vec<SendAncillaryBuffer<'_, '_, '_>> = Vec::new();
    nothing.resize_with(answers.len(), SendAncillaryBuffer::default);
    let messages = answers.iter().zip(&parts).zip(&mut nothing);
    let messages = messages
        .map(|(((_, client), parts), nothing)| MMsgHdr::new_with_addr(client, parts, nothing));
    let mut messages: Vec<MMsgHdr<'_>> = messages.collect();
    let mut rest = messages.as_mut_slice();
    while !rest.is_empty() {
        let sent = sendmmsg(socket, rest, SendFlags::DONTWAIT).unwrap_or_else(|_| {
            metrics::dropped(Unanswered::Unsent);
            // It is about the first one.
            1
        });
        rest = rest.get_mut(sent..).unwrap_or_default();
    }
}
