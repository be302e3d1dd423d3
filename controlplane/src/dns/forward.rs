//! Asks others what is not in the zones.
//!
//! Guarantees: so many questions wait for others at most, each no longer than the time-out; answers
//! are kept as long as they hold, so many at most. A question of its own that comes back tells that
//! the upstreams ask this server in turn; then nobody is asked until that has ended.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use hickory_proto::op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::DnsRequestSender;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{error, info};

use super::metrics;
use super::respond::Known;

/// How often it is looked whether upstreams ask this server.
const PROBE: Duration = Duration::from_secs(30);
/// How long an answer is kept at most.
const LONGEST: Duration = Duration::from_secs(3600);

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Servers, asked as their answers come fastest.
    pub(super) upstreams: Vec<SocketAddr>,
    /// Answers that are kept.
    pub(super) cache: u32,
    /// How long a question may take.
    pub(super) timeout: Duration,
    /// Questions that wait at a time.
    pub(super) pending: usize,
}

/// Asks others.
pub(super) struct Forwarder {
    settings: Settings,
    resolver: TokioResolver,
    slots: Arc<Semaphore>,
    /// The question that should not come back.
    probe: RwLock<Name>,
    heard: AtomicBool,
    circles: AtomicBool,
    probes: AtomicU64,
}

/// Why nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Too many questions wait.
    Busy,
    /// Nobody answered in time.
    Timeout,
    /// The upstreams ask this server.
    Circle,
    /// They could not be reached, or made no sense.
    Broken,
}

impl Failure {
    const fn as_str(self) -> &'static str {
        match self {
            Failure::Busy => "busy",
            Failure::Timeout => "timeout",
            Failure::Circle => "loop",
            Failure::Broken => "failed",
        }
    }
}

impl Forwarder {
    /// # Errors
    /// The resolver cannot be made.
    pub(super) fn new(settings: Settings) -> Result<Self, NetError> {
        let servers = settings.upstreams.iter().map(|upstream| {
            let at = |mut connection: ConnectionConfig| {
                connection.port = upstream.port();
                connection
            };
            let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
            NameServerConfig::new(upstream.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        adjust(builder.options_mut(), &settings);
        Ok(Self {
            resolver: builder.build()?,
            slots: Arc::new(Semaphore::new(settings.pending)),
            settings,
            probe: RwLock::default(),
            heard: AtomicBool::new(false),
            circles: AtomicBool::new(false),
            probes: AtomicU64::new(0),
        })
    }

    /// A place for one more question.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        if slot.is_none() {
            metrics::forward_error(Failure::Busy.as_str());
        }
        slot
    }

    /// What others know.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<Known, Failure> {
        let known = self.ask_uncounted(name, kind).await;
        known.inspect_err(|failure| metrics::forward_error(failure.as_str()))
    }

    async fn ask_uncounted(&self, name: &Name, kind: RecordType) -> Result<Known, Failure> {
        if self.is_probe(name) {
            self.heard.store(true, Ordering::Relaxed);
            return Err(Failure::Circle);
        }
        if self.circles.load(Ordering::Relaxed) {
            return Err(Failure::Circle);
        }
        match timeout(self.settings.timeout, self.look_up(name, kind)).await {
            Ok(known) => known,
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn look_up(&self, name: &Name, kind: RecordType) -> Result<Known, Failure> {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Ok(Known {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
                ..Known::default()
            }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(nothing(none)),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Ok(Known {
                code,
                ..Known::default()
            }),
            Err(NetError::Timeout) => Err(Failure::Timeout),
            Err(NetError::Busy) => Err(Failure::Busy),
            // Not even by TCP: what there is is handed on.
            Err(NetError::Truncated) => self.ask_by_datagram(name, kind).await,
            Err(_) => Err(Failure::Broken),
        }
    }

    async fn ask_by_datagram(&self, name: &Name, kind: RecordType) -> Result<Known, Failure> {
        for upstream in &self.settings.upstreams {
            let mut message = Message::query();
            message.add_query(Query::query(name.clone(), kind));
            message.metadata.recursion_desired = true;
            let request = DnsRequest::new(message, DnsRequestOptions::default());
            let provider = TokioRuntimeProvider::default();
            let mut stream = UdpClientStream::builder(*upstream, provider).build();
            if let Some(Ok(response)) = stream.send_message(request).next().await {
                return Ok(Known {
                    code: response.response_code,
                    answers: response.answers.clone(),
                    truncated: response.truncation,
                    ..Known::default()
                });
            }
        }
        Err(Failure::Broken)
    }

    fn is_probe(&self, name: &Name) -> bool {
        let probe = self.probe.read().unwrap_or_else(PoisonError::into_inner);
        !probe.is_root() && *probe == *name
    }

    /// Looks for ever, now and then, whether the upstreams ask this server.
    pub(super) async fn look_for_circles(self: Arc<Self>) {
        loop {
            let probe = self.next_probe();
            *self.probe.write().unwrap_or_else(PoisonError::into_inner) = probe.clone();
            self.heard.store(false, Ordering::Relaxed);
            let asked = self.resolver.lookup(probe, RecordType::HINFO);
            // The answer tells nothing, only whether the question comes back.
            drop(timeout(self.settings.timeout, asked).await);
            let heard = self.heard.load(Ordering::Relaxed);
            let before = self.circles.swap(heard, Ordering::Relaxed);
            match (before, heard) {
                (false, true) => error!(
                    "dns.forward.upstreams: a question came back, so the upstreams ask this server; nothing is forwarded until that ends"
                ),
                (true, false) => info!("dns.forward.upstreams: no question comes back any more"),
                _ => {}
            }
            tokio::time::sleep(PROBE).await;
        }
    }

    /// A name that nobody else asks for.
    fn next_probe(&self) -> Name {
        let count = self.probes.fetch_add(1, Ordering::Relaxed);
        let random = RandomState::new();
        let labels = [count, !count].map(|half| format!("{:016x}", random.hash_one(half)));
        Name::from_labels(labels.iter().map(|label| label.as_bytes())).unwrap_or_default()
    }
}

fn adjust(options: &mut ResolverOpts, settings: &Settings) {
    options.timeout = settings.timeout;
    options.attempts = 1;
    options.cache_size = settings.cache.into();
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(LONGEST);
    options.negative_max_ttl = Some(LONGEST);
    options.max_active_requests = settings.pending;
}

/// An answer that there is nothing.
fn nothing(none: NoRecords) -> Known {
    let soa = none.soa.map(|soa| Record::into_record_of_rdata(*soa));
    Known {
        code: none.response_code,
        authorities: soa.into_iter().collect(),
        ..Known::default()
    }
}
