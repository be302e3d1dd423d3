//! HTTP probes.

use std::ops::RangeInclusive;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ProbePort, Question, bounded, port, port_schema, text};
use crate::object::Report;

/// An HTTP probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HttpSpec {
    /// Number or name of the port; without: the port that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "port_schema")]
    pub port: Option<IntOrString>,
    /// Path and query.
    #[serde(default = "slash")]
    pub path: String,
    /// Host header, and server name of TLS; without: the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub host: Option<String>,
    /// Further headers.
    #[serde(default)]
    pub headers: Vec<Header>,
    /// Status codes that are a success: 204 or 200-399.
    #[serde(default = "successes")]
    pub statuses: Vec<String>,
}

/// A header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

fn slash() -> String {
    "/".to_owned()
}

/// What the kubelet takes for a success (kubernetes/kubernetes pkg/probe/http).
fn successes() -> Vec<String> {
    vec!["200-399".to_owned()]
}

pub(super) fn check(
    report: &mut Report,
    field: &str,
    raw: &HttpSpec,
    tls: bool,
) -> (Question, ProbePort) {
    let field = |name: &str| format!("{field}.{name}");
    let path = text(report, &field("path"), &raw.path).to_owned();
    if !path.starts_with('/') || path.contains(' ') {
        let message = format!("{path:?} is not a path; it begins with / and holds no spaces");
        report.refuse(field("path"), message);
    }
    let host = raw.host.as_deref();
    let host = host.map(|host| text(report, &field("host"), host).to_owned());
    if host
        .as_ref()
        .is_some_and(|h| h.is_empty() || h.contains([' ', '/']))
    {
        report.refuse(field("host"), "is not the name of a host");
    }
    let question = Question::Http {
        tls,
        path,
        host,
        headers: headers(report, &field("headers"), &raw.headers),
        statuses: statuses(report, &field("statuses"), &raw.statuses),
    };
    let port = port(report, &field("port"), raw.port.as_ref());
    (question, port)
}

fn headers(report: &mut Report, field: &str, raw: &[Header]) -> Vec<Header> {
    bounded(report, field, raw.len());
    for (index, header) in raw.iter().take(super::super::MAX_ENTRIES).enumerate() {
        let name = &header.name;
        let field = |part: &str| format!("{field}[{index}].{part}");
        // RFC 9110, section 5.6.2: the characters of a token.
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            report.refuse(
                field("name"),
                format!("{name:?} is not the name of a header"),
            );
        }
        if name.eq_ignore_ascii_case("host") {
            report.refuse(field("name"), "is written as host of the probe");
        }
        text(report, &field("value"), &header.value);
    }
    raw.to_vec()
}

fn statuses(report: &mut Report, field: &str, raw: &[String]) -> Vec<RangeInclusive<u16>> {
    bounded(report, field, raw.len());
    if raw.is_empty() {
        report.refuse(
            field,
            "is empty; write the codes that are a success, as 200-399",
        );
    }
    let mut ranges = Vec::new();
    for (index, text) in raw.iter().take(super::super::MAX_ENTRIES).enumerate() {
        match status(text) {
            Some(range) => ranges.push(range),
            None => {
                let message =
                    format!("{text:?} is not a range of status codes; write 204 or 200-399");
                report.refuse(format!("{field}[{index}]"), message);
            }
        }
    }
    ranges
}

fn status(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse().ok().filter(|c| (100..=599).contains(c));
    let range = code(first)?..=code(last)?;
    (!range.is_empty()).then_some(range)
}
