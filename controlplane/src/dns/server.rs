//! The server: its sockets, and what becomes of a message that one of them brings.
//!
//! Guarantees: messages by UDP and by TCP are answered by the same zone, rules and counters. Bounds are
//! those of `udp` and `tcp`.
//!
//! A socket that listens at an unspecified address answers from the address that the kernel chooses.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_conf::settings::controlplane as settings;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::info;

use super::forward::{self, Forwarder};
use super::kept::Kept;
use super::limit::{Limit, Verdict};
use super::message::Transport;
use super::metrics::{self, Metrics, Unanswered};
use super::options::Options;
use super::respond::{self, Open, Ready, Response};
use super::tcp;
use super::udp::Datagrams;
use super::zone::{Shared, Zone};
use crate::aside::{self, Aside};
use crate::clock::Clock;
use crate::words;

/// Attempts to find a port that is free for both protocols, when any will do.
const ATTEMPTS: usize = 16;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened at.
    #[error(
        "dns.listen {listen}: cannot listen by {protocol}: {reason}; another DNS server may be running: name another address or port, or none at all"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// Why.
        reason: String,
    },
    /// Upstreams cannot be asked.
    #[error("dns.forward.upstreams: {0}")]
    Forward(String),
    /// The thread of the server.
    #[error("cannot start the thread of the DNS server: {}", words::plain(_0))]
    Thread(io::Error),
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where.
    pub listen: Vec<SocketAddr>,
    /// What.
    pub options: Arc<Options>,
    /// Streams.
    pub tcp: tcp::Settings,
    /// Answers that a network gets in a second by UDP.
    pub per_second: Option<u32>,
    /// Whom to ask about the rest.
    forward: Option<forward::Settings>,
}

impl From<&settings::Dns> for Settings {
    fn from(settings: &settings::Dns) -> Self {
        let forward = &settings.forward;
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        Self {
            listen: settings.listen.clone(),
            options: Arc::new(Options::from(settings)),
            tcp: tcp::Settings {
                connections: settings.tcp.connections.into(),
                idle: seconds(settings.tcp.idle_seconds),
            },
            per_second: settings.responses_per_second,
            forward: (!forward.upstreams.is_empty()).then(|| forward::Settings {
                upstreams: forward.upstreams.clone(),
                cache: forward.cache,
                timeout: seconds(forward.timeout_seconds),
                pending: forward.pending.into(),
            }),
        }
    }
}

impl Settings {
    /// Serves `options` at `listen`, and asks nobody.
    pub fn new(listen: Vec<SocketAddr>, options: Options) -> Self {
        Self {
            listen,
            options: Arc::new(options),
            ..Self::from(&settings::Dns::default())
        }
    }

    /// Asks these servers about the rest.
    #[must_use]
    pub fn with_upstreams(mut self, upstreams: Vec<SocketAddr>) -> Self {
        let settings = settings::Dns {
            forward: settings::Forward {
                upstreams,
                ..settings::Forward::default()
            },
            ..settings::Dns::default()
        };
        self.forward = Self::from(&settings).forward;
        self
    }
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    _datagrams: Vec<Datagrams>,
    _tasks: JoinSet<()>,
}

/// What all sockets share.
pub(super) struct Serving {
    zone: Shared,
    options: Arc<Options>,
    forwarder: Option<Arc<Forwarder>>,
    limit: Option<Mutex<Limit>>,
    turn: AtomicU32,
    metrics: Metrics,
    clock: Clock,
}

impl Server {
    /// Starts. Needs a tokio runtime.
    ///
    /// # Errors
    /// An address cannot be listened at.
    pub async fn start(settings: Settings, zone: Shared, clock: Clock) -> Result<Self, StartError> {
        let (mut addresses, mut sockets) = (Vec::new(), Vec::new());
        let mut tasks = JoinSet::new();
        let forwarder = settings.forward.map(Forwarder::new).transpose();
        let forwarder = forwarder.map_err(|error| StartError::Forward(words::plain(&error)))?;
        let forwarder = forwarder.map(Arc::new);
        if let Some(forwarder) = &forwarder {
            tasks.spawn(Arc::clone(forwarder).look_for_circles());
        }
        let serving = Arc::new(Serving {
            zone,
            options: settings.options,
            forwarder,
            limit: settings
                .per_second
                .map(|limit| Mutex::new(Limit::new(limit))),
            turn: AtomicU32::new(0),
            metrics: Metrics::default(),
            clock,
        });
        let streams = tcp::Connections::new(settings.tcp);
        for listen in settings.listen {
            let (socket, listener, address) = bind(listen).await?;
            info!("answering DNS at {address}");
            addresses.push(address);
            let datagrams = Datagrams::start(socket, Arc::clone(&serving));
            sockets.push(datagrams.map_err(StartError::Thread)?);
            let streams = Arc::clone(&streams);
            tasks.spawn(streams.accept(listener, Arc::clone(&serving)));
        }
        Ok(Self {
            addresses,
            _datagrams: sockets,
            _tasks: tasks,
        })
    }

    /// Starts on a thread of its own, and serves until what is returned is dropped.
    ///
    /// # Errors
    /// An address cannot be listened at, or the thread cannot be started.
    pub async fn start_aside(
        settings: Settings,
        zone: Shared,
        clock: Clock,
    ) -> Result<Aside, StartError> {
        let (sender, started) = oneshot::channel();
        let serving = async move {
            // It listens as long as the server is kept.
            let (result, _server) = match Self::start(settings, zone, clock).await {
                Ok(server) => (Ok(()), Some(server)),
                Err(error) => (Err(error), None),
            };
            if sender.send(result).is_ok() {
                std::future::pending().await
            }
        };
        let aside = aside::start("dns", serving).map_err(StartError::Thread)?;
        let ended = || StartError::Thread(io::ErrorKind::BrokenPipe.into());
        started.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(aside)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Listens by both protocols at one port; port 0 stands for one that is free.
async fn bind(listen: SocketAddr) -> Result<(UdpSocket, TcpListener, SocketAddr), StartError> {
    let failed = |protocol| {
        move |error: io::Error| StartError::Listen {
            listen,
            protocol,
            reason: words::plain(&error),
        }
    };
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let socket = UdpSocket::bind(listen).map_err(failed("UDP"))?;
        let address = socket.local_addr().map_err(failed("UDP"))?;
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok((socket, listener, address)),
            // The port was chosen by the kernel, which looks at one protocol alone.
            Err(_) if listen.port() == 0 && attempts.next().is_some() => {}
            Err(error) => return Err(failed("TCP")(error)),
        }
    }
}

/// What became of a message.
pub(super) enum Taken {
    Answer(Vec<u8>),
    Waits(Waiting),
    Nothing,
}

/// A question that others are asked about.
pub(super) struct Waiting {
    open: Box<Open>,
    forwarder: Arc<Forwarder>,
    since: Duration,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl Serving {
    /// Answers a datagram, or finds out that it must wait.
    pub(super) fn datagram(&self, bytes: &[u8], client: IpAddr, kept: &mut Kept) -> Taken {
        match self.verdict(client) {
            Verdict::Send => self.take_again(bytes, kept),
            Verdict::Drop => {
                metrics::dropped(Unanswered::Limited);
                Taken::Nothing
            }
            Verdict::Shorten => match respond::shorten(bytes) {
                Some(ready) => Taken::Answer(self.told(ready, self.clock.now())),
                None => Taken::Nothing,
            },
        }
    }

    fn verdict(&self, client: IpAddr) -> Verdict {
        let Some(limit) = &self.limit else {
            return Verdict::Send;
        };
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.judge(client, self.clock.now())
    }

    /// Answers a message, or finds out that it must wait.
    pub(super) fn take(&self, bytes: &[u8], transport: Transport) -> Taken {
        let since = self.clock.now();
        let response = self.respond(bytes, transport, &self.zone.read());
        self.carry_out(response, since)
    }

    /// The same for a datagram, with the answer that is kept if there is one.
    fn take_again(&self, bytes: &[u8], kept: &mut Kept) -> Taken {
        let since = self.clock.now();
        let response = {
            let zone = self.zone.read();
            let version = zone.version();
            match kept.find(bytes, version) {
                Some(ready) => Response::Ready(ready),
                None => {
                    let response = self.respond(bytes, Transport::Udp, &zone);
                    if let Response::Ready(ready) = &response {
                        kept.keep(bytes, version, ready);
                    }
                    response
                }
            }
        };
        self.carry_out(response, since)
    }

    fn respond(&self, bytes: &[u8], transport: Transport, zone: &Zone) -> Response {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        respond::respond(bytes, transport, zone, &self.options, turn)
    }

    fn carry_out(&self, response: Response, since: Duration) -> Taken {
        match response {
            Response::Ready(ready) => Taken::Answer(self.told(ready, since)),
            Response::Open(open) => self.open(open, since),
            Response::Nothing => {
                metrics::dropped(Unanswered::Malformed);
                Taken::Nothing
            }
        }
    }

    fn open(&self, open: Box<Open>, since: Duration) -> Taken {
        let forwarder = self.forwarder.as_ref().filter(|_| open.is_wanted());
        let Some(forwarder) = forwarder else {
            return Taken::Answer(self.told(open.refuse(), since));
        };
        match forwarder.slot() {
            Some(slot) => Taken::Waits(Waiting {
                open,
                forwarder: Arc::clone(forwarder),
                since,
                _slot: slot,
            }),
            None => Taken::Answer(self.told(open.fail(), since)),
        }
    }

    /// Asks others.
    pub(super) async fn wait(&self, waiting: Waiting) -> Vec<u8> {
        let Waiting { open, since, .. } = &waiting;
        let known = waiting.forwarder.ask(&open.name, open.kind()).await;
        let ready = match known {
            Ok(known) => open.complete(&known),
            Err(_) => open.fail(),
        };
        self.told(ready, *since)
    }

    /// Counts an answer.
    fn told(&self, ready: Ready, since: Duration) -> Vec<u8> {
        let took = self.clock.now().saturating_sub(since);
        self.metrics.answered(ready.kind, ready.code, took);
        ready.bytes
    }
}

#[cfg(test)]
mod tests;
