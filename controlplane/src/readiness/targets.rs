//! What of the endpoints of a Service is to be judged, by its policy.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::is_tcp;
use crate::endpoints::Slice;
use crate::health::Target;
use crate::health::probe::{Accept, Action, Http, Probe, StatusRange, Timing};
use crate::kinds::policy::PolicySpec;
use crate::kinds::probe::{self, ProbePort, Question};

/// The targets, sorted, each once; only endpoints that are ready by their slices.
pub(super) fn of(policy: &PolicySpec, slices: &[&Slice]) -> Vec<Target> {
    let probe = policy.probe.as_ref();
    let sent = probe.map(|probe| Arc::new(sent(probe)));
    let passive = policy
        .passive
        .as_ref()
        .is_some_and(|passive| passive.enabled);
    if sent.is_none() && !passive {
        return Vec::new();
    }
    let port = probe.map_or(&ProbePort::Served, |probe| &probe.port);
    let mut targets = BTreeSet::new();
    for slice in slices {
        let ports = ports(port, slice);
        let ready = slice.endpoints.iter().filter(|e| e.conditions.ready);
        targets.extend(ready.flat_map(|endpoint| {
            ports.iter().map(|port| Target {
                address: SocketAddr::new(endpoint.address, *port),
                probe: sent.clone(),
            })
        }));
    }
    targets.into_iter().collect()
}

fn ports(port: &ProbePort, slice: &Slice) -> Vec<u16> {
    let tcp = slice.ports.iter().filter(|port| is_tcp(port.protocol));
    match port {
        ProbePort::Served => tcp.map(|port| port.port).collect(),
        ProbePort::Number(number) => vec![*number],
        ProbePort::Name(name) => tcp.filter(|p| p.name == *name).map(|p| p.port).collect(),
    }
}

fn sent(probe: &probe::Probe) -> Probe {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Probe {
        action: action(&probe.question),
        timing: Timing {
            period: seconds(probe.period_seconds),
            timeout: seconds(probe.timeout_seconds),
            success: probe.success_threshold,
            failure: probe.failure_threshold,
        },
    }
}

fn action(question: &Question) -> Action {
    match question {
        Question::Tcp => Action::Connect,
        Question::Grpc { service } => Action::Grpc {
            service: service.clone(),
        },
        Question::Http {
            tls,
            path,
            host,
            headers,
            statuses,
        } => Action::Http(Http {
            tls: *tls,
            path: path.clone(),
            host: host.clone(),
            headers: headers
                .iter()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
            accept: match statuses.is_empty() {
                true => Accept::Kubelet,
                false => Accept::Statuses(statuses.iter().map(range).collect()),
            },
        }),
    }
}

fn range(statuses: &std::ops::RangeInclusive<u16>) -> StatusRange {
    StatusRange {
        first: *statuses.start(),
        last: *statuses.end(),
    }
}
