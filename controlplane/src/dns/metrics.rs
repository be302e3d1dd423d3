//! What is counted of questions and answers.

use std::sync::OnceLock;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::zone::Zone;

const QUERIES: &str = "sluice_dns_queries_total";
const DROPPED: &str = "sluice_dns_dropped_total";
const SERVICES: &str = "sluice_dns_services";
const ADDRESSES: &str = "sluice_dns_addresses";
const FORWARD_ERRORS: &str = "sluice_dns_forward_errors_total";
const CONNECTIONS: &str = "sluice_dns_tcp_connections";
const CLOSED: &str = "sluice_dns_tcp_closed_total";
/// Name of the histogram.
pub(crate) const SECONDS: &str = "sluice_dns_query_duration_seconds";
/// Its bounds, in seconds; an answer from the zone takes some microseconds.
pub(crate) const BUCKETS: [f64; 10] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.5, 2.5,
];

/// Types that are told apart; the last stands for all others.
const TYPES: [&str; 11] = [
    "A", "AAAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "TXT", "other",
];
/// Response codes that are told apart; the last stands for all others.
const CODES: [&str; 8] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS", "other",
];

/// Tells what they mean.
pub(crate) fn describe() {
    describe_counter!(QUERIES, "DNS questions answered, by type and response code");
    describe_counter!(DROPPED, "DNS messages that got no answer, by reason");
    describe_gauge!(SERVICES, "Services in the DNS zone");
    describe_gauge!(
        ADDRESSES,
        "Addresses in the DNS zone, those of endpoints included"
    );
    describe_counter!(
        FORWARD_ERRORS,
        "DNS questions that no upstream answered, by reason"
    );
    describe_gauge!(CONNECTIONS, "TCP connections to the DNS server");
    describe_counter!(
        CLOSED,
        "TCP connections that the DNS server closed, by reason"
    );
    describe_histogram!(SECONDS, "Seconds from a DNS question to its answer");
}

/// Why a message got no answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unanswered {
    /// It is no question.
    Malformed,
    /// The client's network had its share.
    Limited,
    /// It could not be sent.
    Unsent,
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Closed {
    /// It was silent, or slow.
    Idle,
    /// Another one needed its place.
    Crowded,
    /// It sent no question.
    Malformed,
}

/// The counters, looked up once each.
#[derive(Default)]
pub(super) struct Metrics {
    queries: [[OnceLock<Counter>; CODES.len()]; TYPES.len()],
    seconds: OnceLock<Histogram>,
}

impl Metrics {
    pub(super) fn answered(&self, kind: Option<RecordType>, code: ResponseCode, took: Duration) {
        let (kind, code) = (kind.map_or("other", type_name), code_name(code));
        let row = TYPES.iter().position(|name| *name == kind);
        let column = CODES.iter().position(|name| *name == code);
        let row = row.and_then(|row| self.queries.get(row));
        let Some(cell) = row.zip(column).and_then(|(row, column)| row.get(column)) else {
            return;
        };
        let queries = || counter!(QUERIES, "type" => kind, "rcode" => code);
        cell.get_or_init(queries).increment(1);
        let seconds = || histogram!(SECONDS);
        self.seconds.get_or_init(seconds).record(took.as_secs_f64());
    }
}

const fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::CNAME => "CNAME",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::PTR => "PTR",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

/// A response code as it is written everywhere.
pub(super) const fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}

pub(super) fn dropped(why: Unanswered) {
    let reason = match why {
        Unanswered::Malformed => "malformed",
        Unanswered::Limited => "rate_limit",
        Unanswered::Unsent => "unsent",
    };
    counter!(DROPPED, "reason" => reason).increment(1);
}

pub(super) fn forward_error(reason: &'static str) {
    counter!(FORWARD_ERRORS, "reason" => reason).increment(1);
}

pub(super) fn connections(count: usize) {
    gauge!(CONNECTIONS).set(count as f64);
}

pub(super) fn closed(why: Closed) {
    let reason = match why {
        Closed::Idle => "idle",
        Closed::Crowded => "crowded",
        Closed::Malformed => "malformed",
    };
    counter!(CLOSED, "reason" => reason).increment(1);
}

/// The size of the zone.
pub(crate) fn size(zone: &Zone) {
    let (services, addresses) = zone.size();
    gauge!(SERVICES).set(services as f64);
    gauge!(ADDRESSES).set(addresses as f64);
}
