//! Probes of a ServicePolicy: how the gateway finds out whether an endpoint is healthy.
//!
//! Guarantees: what is sent to endpoints cannot be broken out of by what a policy says: paths,
//! hosts and headers hold no control characters. Does not probe.

use std::ops::RangeInclusive;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{bounded, within};
use crate::object::Report;

mod http;

pub use http::{Header, HttpSpec};

/// A probe: exactly one of tcp, http, https and grpc, and when it is repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeSpec {
    /// The endpoint accepts a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TcpSpec")]
    pub tcp: Option<TcpSpec>,
    /// The endpoint answers a GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpSpec")]
    pub http: Option<HttpSpec>,
    /// The endpoint answers a GET over TLS; its certificate is not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpSpec")]
    pub https: Option<HttpSpec>,
    /// The endpoint says SERVING (grpc.health.v1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GrpcSpec")]
    pub grpc: Option<GrpcSpec>,
    /// Seconds from one probe of an endpoint to the next.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: u32,
    /// Seconds for an answer; not longer than the period.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
    /// Successes in a row that make an endpoint healthy.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// By how much of the period each probe is shifted at random, in percent; without: as the
    /// settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 50))]
    pub jitter_percent: Option<u32>,
    /// What an endpoint is before its first verdict: healthy or unhealthy.
    #[serde(default = "healthy")]
    #[schemars(extend("enum" = ["healthy", "unhealthy"]))]
    pub initial_state: String,
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn ten() -> u32 {
    10
}

fn healthy() -> String {
    "healthy".to_owned()
}

/// A TCP probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TcpSpec {
    /// Number or name of the port; without: the port that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "port_schema")]
    pub port: Option<IntOrString>,
}

/// A gRPC probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GrpcSpec {
    /// Number or name of the port; without: the port that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "port_schema")]
    pub port: Option<IntOrString>,
    /// Service that is asked about; empty: the server as a whole.
    #[serde(default)]
    pub service: String,
}

fn port_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// A probe that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// Port that is asked.
    pub port: ProbePort,
    /// Seconds between two probes, 1 to 3600.
    pub period_seconds: u32,
    /// Seconds for an answer, 1 to the period.
    pub timeout_seconds: u32,
    /// Successes in a row that make an endpoint healthy, 1 to 100.
    pub success_threshold: u32,
    /// Failures in a row that make it unhealthy, 1 to 100.
    pub failure_threshold: u32,
    /// Random shift of each probe, 0 to 50 percent of the period; `None`: as the settings say.
    pub jitter_percent: Option<u32>,
    /// What an endpoint is before its first verdict.
    pub initially_healthy: bool,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether a connection is accepted.
    Tcp,
    /// Whether a GET is answered.
    Http {
        /// Whether over TLS.
        tls: bool,
        /// Path and query; begins with a slash.
        path: String,
        /// Host header and TLS server name; `None`: the endpoint's address.
        host: Option<String>,
        /// Further headers.
        headers: Vec<Header>,
        /// Status codes that are a success.
        statuses: Vec<RangeInclusive<u16>>,
    },
    /// Whether grpc.health.v1 says SERVING.
    Grpc {
        /// Service that is asked about; empty: the server as a whole.
        service: String,
    },
}

/// Which port is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbePort {
    /// The endpoint's port that is served.
    Served,
    /// This number.
    Number(u16),
    /// The endpoint's port of this name.
    Name(String),
}

pub(super) fn check(report: &mut Report, raw: Option<&ProbeSpec>) -> Option<Probe> {
    let raw = raw?;
    let (question, port) = question(report, raw)?;
    let field = |name: &str| format!("spec.probe.{name}");
    let period = within(report, field("periodSeconds"), raw.period_seconds, 1..=3600);
    let timeout = raw.timeout_seconds;
    let (success, failure) = (raw.success_threshold, raw.failure_threshold);
    let initially_healthy = match raw.initial_state.as_str() {
        "healthy" => true,
        "unhealthy" => false,
        other => {
            let message = format!("{other:?} is not possible; use healthy or unhealthy");
            report.refuse(field("initialState"), message);
            false
        }
    };
    Some(Probe {
        question,
        port,
        period_seconds: period,
        timeout_seconds: within(report, field("timeoutSeconds"), timeout, 1..=period),
        success_threshold: within(report, field("successThreshold"), success, 1..=100),
        failure_threshold: within(report, field("failureThreshold"), failure, 1..=100),
        jitter_percent: (raw.jitter_percent)
            .map(|percent| within(report, field("jitterPercent"), percent, 0..=50)),
        initially_healthy,
    })
}

fn question(report: &mut Report, raw: &ProbeSpec) -> Option<(Question, ProbePort)> {
    match (&raw.tcp, &raw.http, &raw.https, &raw.grpc) {
        (Some(tcp), None, None, None) => {
            let port = port(report, "spec.probe.tcp.port", tcp.port.as_ref());
            Some((Question::Tcp, port))
        }
        (None, Some(http), None, None) => Some(http::check(report, "spec.probe.http", http, false)),
        (None, None, Some(http), None) => Some(http::check(report, "spec.probe.https", http, true)),
        (None, None, None, Some(grpc)) => {
            let port = port(report, "spec.probe.grpc.port", grpc.port.as_ref());
            let field = "spec.probe.grpc.service";
            let service = text(report, field, &grpc.service).to_owned();
            Some((Question::Grpc { service }, port))
        }
        _ => {
            report.refuse("spec.probe", "needs exactly one of tcp, http, https, grpc");
            None
        }
    }
}

fn port(report: &mut Report, field: &str, raw: Option<&IntOrString>) -> ProbePort {
    let number = match raw {
        None => return ProbePort::Served,
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok().filter(|n| *n > 0),
        Some(IntOrString::String(name)) if is_port_name(name) => {
            return ProbePort::Name(name.clone());
        }
        Some(IntOrString::String(_)) => None,
    };
    number.map(ProbePort::Number).unwrap_or_else(|| {
        let message = "is not a port; use 1 to 65535 or the name of a port of the endpoints";
        report.refuse(field, message);
        ProbePort::Served
    })
}

/// Whether `text` names a port of an EndpointSlice (a DNS label that has a letter).
fn is_port_name(text: &str) -> bool {
    crate::object::is_label(text) && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Longest text that a probe sends, in bytes.
const MAX_TEXT: usize = 1024;

/// The text, refused if it could break out of a request.
fn text<'a>(report: &mut Report, field: &str, text: &'a str) -> &'a str {
    if text.len() > MAX_TEXT {
        report.refuse(field, format!("is longer than {MAX_TEXT} bytes"));
    } else if text.chars().any(|c| c.is_control() || !c.is_ascii()) {
        report.refuse(
            field,
            "holds characters that cannot be sent; use printable ASCII",
        );
    }
    text
}
