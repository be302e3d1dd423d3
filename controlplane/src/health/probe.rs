//! What a probe asks, and asking it once.
//!
//! As the kubelet's probes (k8s.io/kubernetes pkg/probe): each is a connection of its own, the
//! timeout covers everything from the first SYN to the last byte read, certificates are not
//! verified, and of an answer at most [`MAX_BODY`] bytes are read. Unlike the kubelet's, a
//! connection that is still open at the end is reset: two thousand probes a second would leave more
//! than a hundred thousand sockets in TIME_WAIT here.

mod dial;
mod grpc;
mod http;
mod redirect;
mod tls;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::timeout;

use super::failure::{Failure, Outcome};

/// Bytes of a body that are read (pkg/probe/http, `maxRespBodyLength`); what follows is not
/// waited for.
pub const MAX_BODY: usize = 10 << 10;

/// What is asked, and how often.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// What is asked.
    pub action: Action,
    /// How often, and what the answers weigh.
    pub timing: Timing,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A TCP connection is opened; nothing is sent on it.
    Connect,
    /// An HTTP/1.1 GET.
    Http(Http),
    /// `grpc.health.v1.Health/Check` without TLS.
    Grpc {
        /// Service that is asked for; empty for the server as a whole.
        service: String,
    },
}

impl Action {
    /// Name of the kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect => "tcp",
            Self::Http(Http { tls: false, .. }) => "http",
            Self::Http(Http { tls: true, .. }) => "https",
            Self::Grpc { .. } => "grpc",
        }
    }
}

/// An HTTP GET.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Http {
    /// Whether HTTPS is spoken; the certificate is not verified.
    pub tls: bool,
    /// Path and query; a leading `/` may be missing.
    pub path: String,
    /// `Host` header, and with HTTPS the name that is asked for (SNI); absent: the address.
    pub host: Option<String>,
    /// Further headers, name and value. `User-Agent` and `Accept` replace those that are sent
    /// otherwise; with an empty value they are left out.
    pub headers: Vec<(String, String)>,
    /// Which answers pass.
    pub accept: Accept,
}

impl Http {
    /// Whether such a request can be written.
    ///
    /// # Errors
    /// Which part is not possible in HTTP.
    pub fn check(&self) -> Result<(), String> {
        let somewhere = SocketAddr::from(([0, 0, 0, 0], 80));
        http::request(self, &http::Place::of(somewhere, self)).map(drop)
    }
}

/// Which HTTP answers pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accept {
    /// As the kubelet: 200-399. Redirects within the probed address are followed, ten at most;
    /// those to elsewhere are not, and pass.
    #[default]
    Kubelet,
    /// Statuses in one of these ranges. No redirect is followed.
    Statuses(Vec<StatusRange>),
}

/// Statuses from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Accept {
    fn passes(&self, status: u16) -> bool {
        const KUBELET: RangeInclusive<u16> = 200..=399;
        match self {
            Self::Kubelet => KUBELET.contains(&status),
            Self::Statuses(ranges) => ranges
                .iter()
                .any(|range| (range.first..=range.last).contains(&status)),
        }
    }
}

/// How often a probe is sent, and what its answers weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// From the start of one probe to the start of the next, before jitter.
    pub period: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Probes in a row that must pass before an unhealthy target is healthy; 0 is taken as 1.
    pub success: u32,
    /// Probes in a row that must fail before a healthy target is unhealthy; 0 is taken as 1.
    pub failure: u32,
    /// How far a period may be off, in percent of it; `None`: as the settings say.
    pub jitter_percent: Option<u8>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            success: 1,
            failure: 3,
            jitter_percent: None,
        }
    }
}

impl Probe {
    /// Sends the probe once. Takes no longer than the timeout; dropped, it leaves nothing behind.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn send(&self, address: SocketAddr) -> Outcome {
        let limit = self.timing.timeout;
        let asked = async {
            match &self.action {
                Action::Connect => dial::dial(address).await.map(drop),
                Action::Http(http) => Box::pin(http::get(address, http)).await,
                Action::Grpc { service } => Box::pin(grpc::check(address, service)).await,
            }
        };
        let answer = timeout(limit, asked).await;
        answer.unwrap_or(Err(Failure::Timeout(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_pass_as_the_kubelet_takes_them_or_as_the_ranges_say() {
        let kubelet = Accept::Kubelet;
        let passing = (0..1000).filter(|status| kubelet.passes(*status));
        assert!(passing.eq(200..400));
        let some = Accept::Statuses(vec![
            StatusRange {
                first: 204,
                last: 204,
            },
            StatusRange {
                first: 400,
                last: 404,
            },
        ]);
        let passing: Vec<u16> = (0..1000).filter(|status| some.passes(*status)).collect();
        assert_eq!(passing, [204, 400, 401, 402, 403, 404]);
    }

    #[test]
    fn what_http_cannot_say_is_found_before_it_is_asked() {
        let with = |headers: &[(&str, &str)], path: &str, host: Option<&str>| {
            let http = Http {
                path: path.into(),
                host: host.map(str::to_owned),
                headers: headers
                    .iter()
                    .map(|(name, value)| ((*name).into(), (*value).into()))
                    .collect(),
                ..Http::default()
            };
            http.check()
        };
        assert_eq!(
            with(&[("X-Probe", "1"), ("User-Agent", "")], "health?full", None),
            Ok(())
        );
        assert_eq!(with(&[], "", Some("app.example")), Ok(()));
        let told = [
            with(&[("a b", "1")], "/", None).unwrap_err(),
            with(&[("a", "x\ny")], "/", None).unwrap_err(),
            with(&[], "/a b", None).unwrap_err(),
            with(&[], "/", Some("x\r\ny")).unwrap_err(),
        ];
        assert_eq!(
            told,
            [
                "header \"a b\": invalid HTTP header name",
                "header \"a\": failed to parse header value",
                "path \"/a b\": invalid uri character",
                "host \"x\\r\\ny\": failed to parse header value",
            ]
        );
    }
}
