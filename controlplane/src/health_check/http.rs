//! One port over HTTP/1: listeners, and connections with bounds.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::words;

/// Connections that a listener holds; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a connection may last; a prober opens the next one.
const LIFE: Duration = Duration::from_secs(60);
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Bytes of the head of a request; also what a connection keeps in memory.
const MAX_HEAD: usize = 16 << 10;
/// Pause when no connection can be taken; the usual reason, too many open files, passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where ports are opened, and how long is waited for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of the host that are listened at; none: all of them.
    pub addresses: Vec<IpAddr>,
    /// How long a client may take to write the head of a request.
    pub head_time: Duration,
    /// Time between attempts at ports that could not be had.
    pub retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            head_time: Duration::from_secs(5),
            retry: Duration::from_secs(5),
        }
    }
}

/// Why a port cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen at {listen}: {reason}")]
pub struct PortError {
    listen: SocketAddr,
    reason: String,
}

/// An open port; on drop it is closed with all its connections, a moment later.
#[derive(Debug)]
pub struct Listening {
    addresses: Vec<SocketAddr>,
    listeners: JoinSet<()>,
}

impl Listening {
    /// Opens a port at all addresses of the settings or at none of them. What is asked for is a
    /// path, and any method is good. Needs a tokio runtime.
    ///
    /// # Errors
    /// Somebody else has the port, or the host does not have the address.
    pub fn open<A>(settings: &Settings, port: u16, answer: A) -> Result<Self, PortError>
    where
        A: Fn(&str) -> Response<String> + Clone + Send + Sync + 'static,
    {
        let bound = match settings.addresses.as_slice() {
            [] => vec![bind_everywhere(port)?],
            some => {
                let bound = some.iter().map(|ip| bind(SocketAddr::new(*ip, port)));
                bound.collect::<Result<_, _>>()?
            }
        };
        let mut listening = Self {
            addresses: Vec::with_capacity(bound.len()),
            listeners: JoinSet::new(),
        };
        for (listener, address) in bound {
            listening.addresses.push(address);
            listening
                .listeners
                .spawn(accept(listener, settings.head_time, answer.clone()));
        }
        Ok(listening)
    }

    /// Closes it; after that the port is free.
    pub async fn close(mut self) {
        self.listeners.shutdown().await;
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Linux gives IPv4 to a listener on every IPv6 address (ipv6(7), IPV6_V6ONLY); a host without IPv6
/// has no such address.
fn bind_everywhere(port: u16) -> Result<(TcpListener, SocketAddr), PortError> {
    let any6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let any4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    match StdListener::bind(any6) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(any4),
        result => listen(any6, result),
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), PortError> {
    listen(address, StdListener::bind(address))
}

fn listen(
    listen: SocketAddr,
    bound: io::Result<StdListener>,
) -> Result<(TcpListener, SocketAddr), PortError> {
    let take = |listener: StdListener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    };
    bound.and_then(take).map_err(|error| PortError {
        listen,
        reason: words::plain(&error),
    })
}

async fn accept<A>(listener: TcpListener, head_time: Duration, answer: A)
where
    A: Fn(&str) -> Response<String> + Clone + Send + Sync + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, head_time, answer.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse<A>(stream: TcpStream, head_time: Duration, answer: A)
where
    A: Fn(&str) -> Response<String> + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.uri().path());
        async move { Ok::<_, Infallible>(answer.map(|body| Full::new(Bytes::from(body)))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever a client does wrong ends its own connection and nothing else.
    let _ = timeout(LIFE, connection).await;
}
