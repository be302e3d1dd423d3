//! The readiness probe of a container, boiled down to what a gateway can carry out.
//!
//! Guarantees: numbers are within the API's bounds, absent ones have its defaults (core/v1 Probe).

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How the kubelet asks a container whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Readiness {
    /// What is asked.
    pub check: Check,
    /// Seconds between two questions.
    pub period: u32,
    /// Seconds until an answer is too late.
    pub timeout: u32,
    /// Successes in a row that make it ready.
    pub successes: u32,
    /// Failures in a row that make it unready.
    pub failures: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Check {
    /// A connection can be opened.
    Tcp {
        /// Port.
        port: u16,
    },
    /// A GET is answered with 200 to 399.
    Http {
        /// Port.
        port: u16,
        /// Over TLS, whose certificate is not verified.
        tls: bool,
        /// Where to connect instead of the Pod's address.
        host: Option<Arc<str>>,
        /// Path and query.
        path: Arc<str>,
        /// Further headers, in order.
        headers: Box<[(String, String)]>,
    },
    /// grpc.health.v1.Health answers SERVING.
    Grpc {
        /// Port.
        port: u16,
        /// Name of the service; empty for the server as a whole.
        service: Arc<str>,
    },
}

impl Readiness {
    /// The probe of a container whose TCP ports `named` resolves; none for a command inside the
    /// container, and for a port that it does not have.
    pub fn of(probe: &api::Probe, named: impl Fn(&str) -> Option<u16>) -> Option<Self> {
        let at_least_one = |value: Option<i32>, default| {
            let value = value.and_then(|value| u32::try_from(value).ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        Some(Self {
            check: check(probe, named)?,
            period: at_least_one(probe.period_seconds, 10),
            timeout: at_least_one(probe.timeout_seconds, 1),
            successes: at_least_one(probe.success_threshold, 1),
            failures: at_least_one(probe.failure_threshold, 3),
        })
    }
}

fn check(probe: &api::Probe, named: impl Fn(&str) -> Option<u16>) -> Option<Check> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let port = |port: &IntOrString| match port {
        IntOrString::Int(port) => number(*port),
        IntOrString::String(name) => named(name),
    };
    if let Some(tcp) = &probe.tcp_socket {
        return Some(Check::Tcp {
            port: port(&tcp.port)?,
        });
    }
    if let Some(grpc) = &probe.grpc {
        return Some(Check::Grpc {
            port: number(grpc.port)?,
            service: grpc.service.as_deref().unwrap_or_default().into(),
        });
    }
    let http = probe.http_get.as_ref()?;
    let headers = http.http_headers.iter().flatten();
    let path = http.path.as_deref().filter(|path| !path.is_empty());
    Some(Check::Http {
        port: port(&http.port)?,
        tls: http.scheme.as_deref() == Some("HTTPS"),
        host: http.host.as_deref().map(Arc::from),
        path: path.unwrap_or("/").into(),
        headers: headers
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    })
}
