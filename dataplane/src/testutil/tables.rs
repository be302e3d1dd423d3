//! Service tables from one line a Service.

use std::net::SocketAddr;
use std::sync::Arc;

use sluice_conf::{
    Access, Backend, BackendGone, BackendState, Forwarding, Frontend, FrontendKind, Generation,
    Ping, Pool, Protocol, Refusal, Service, ServiceName, ServiceTable, SourceNat,
};

/// A table of one Service a line, sorted, of generation 1. A line names the Service, its protocol,
/// its frontends (`node:` before node ports, `10.0.0.1:5000-5009` for a range) and, behind `->`, its
/// backends with weight and state:
/// `web tcp 203.0.113.10:80 node:10.0.1.1:30080 -> 10.0.2.11:8080*3 10.0.2.12:8080/draining`.
/// `/local` lets a backend serve the Local pool too, `/only-local` that one alone.
///
/// Words behind `;` set policies: `preserve`, `keep`, `drain=60`, `affinity=10800`,
/// `from=10.0.0.0/8`, `refuse=reset`, `refuse=drop`, `ping=always`, `ping=never`, `mss=1200`,
/// `direct`, and `local` for external clients that get local backends only.
#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
pub fn table(lines: &[&str]) -> ServiceTable {
    ServiceTable {
        generation: Generation(1),
        services: lines.iter().map(|line| Arc::new(service(line))).collect(),
        ..ServiceTable::default()
    }
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
fn service(line: &str) -> Service {
    let (line, policies) = line.split_once(';').unwrap_or((line, ""));
    let (front, back) = line.split_once("->").unwrap();
    let mut words = front.split_whitespace();
    let name = words.next().unwrap().to_owned();
    let protocol = match words.next().unwrap() {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let mut service = Service::new(ServiceName {
        namespace: "default".into(),
        name,
        port: String::new(),
        protocol,
    });
    service.frontends = words.map(frontend).collect();
    service.backends = back.split_whitespace().map(backend).collect();
    for policy in policies.split_whitespace() {
        set(&mut service, policy);
    }
    service
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
fn frontend(word: &str) -> Frontend {
    let (kind, end) = match word.strip_prefix("node:") {
        Some(end) => (FrontendKind::NodePort, end),
        None => (FrontendKind::LoadBalancer, word),
    };
    let (end, last) = match end.rsplit_once('-') {
        Some((end, last)) => (end, Some(last.parse().unwrap())),
        None => (end, None),
    };
    let end: SocketAddr = end.parse().unwrap();
    let frontend = Frontend::new(end.ip(), end.port(), kind, Access::default());
    Frontend {
        last_port: last.unwrap_or(end.port()),
        ..frontend
    }
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
fn backend(word: &str) -> Backend {
    let (word, state, local) = match word.split_once('/') {
        Some((word, "draining")) => (word, BackendState::Draining, false),
        Some((word, "only-local")) => (word, BackendState::Draining, true),
        Some((word, _)) => (word, BackendState::Active, true),
        None => (word, BackendState::Active, false),
    };
    let (end, weight) = word.split_once('*').unwrap_or((word, "1"));
    let end: SocketAddr = end.parse().unwrap();
    Backend {
        address: end.ip(),
        port: end.port(),
        weight: weight.parse().unwrap(),
        state,
        local,
    }
}

#[allow(
    clippy::unwrap_used,
    reason = "test support: a wrong literal must stop the test"
)]
fn set(service: &mut Service, policy: &str) {
    let (word, value) = policy.split_once('=').unwrap_or((policy, ""));
    match (word, value) {
        ("preserve", _) => {
            for frontend in &mut service.frontends {
                for access in [
                    &mut frontend.pods,
                    &mut frontend.nodes,
                    &mut frontend.others,
                ] {
                    access.source_nat = SourceNat::Preserve;
                }
            }
        }
        ("local", _) => {
            for frontend in &mut service.frontends {
                frontend.others.pool = Pool::Local;
            }
        }
        ("keep", _) => service.backend_gone = BackendGone::Keep,
        ("drain", seconds) => {
            service.backend_gone = BackendGone::Drain {
                seconds: seconds.parse().unwrap(),
            };
        }
        ("affinity", seconds) => service.affinity_seconds = Some(seconds.parse().unwrap()),
        ("from", range) => {
            service.source_ranges.push(range.parse().unwrap());
            for frontend in &mut service.frontends {
                frontend.guarded = true;
            }
        }
        ("refuse", "reset") => service.refusal = Refusal::TcpReset,
        ("refuse", "drop") => service.refusal = Refusal::Drop,
        ("ping", "always") => service.ping = Ping::Always,
        ("ping", "never") => service.ping = Ping::Never,
        ("mss", bytes) => service.mss_clamp = Some(bytes.parse().unwrap()),
        ("direct", _) => service.forwarding = Forwarding::DirectReturn,
        unknown => unreachable!("{unknown:?} is not a policy"),
    }
}
