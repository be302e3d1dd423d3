//! What of the endpoints of a Service is to be judged: by its policy, and where that has no probe, by
//! the readiness probes of Pods that no kubelet judges.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::is_tcp;
use crate::endpoints::{Endpoint, Slice};
use crate::health::passive::Passive;
use crate::health::probe::{Accept, Action, Http, Probe, StatusRange, Timing};
use crate::health::{By, Target};
use crate::kinds::policy::PassiveSpec;
use crate::kinds::probe::{self, ProbePort, Question};
use crate::object::NamespacedName;
use crate::service::ServiceSpec;
use crate::slices::deriver::Deriver;

/// The targets, sorted, each once; only endpoints that are ready by their slices.
pub(super) fn of(spec: &ServiceSpec, slices: &[&Slice], pods: &Deriver) -> Vec<Target> {
    let policy = spec.policy.as_deref();
    let probe = policy.and_then(|policy| policy.probe.as_ref());
    let passive = policy.and_then(|policy| policy.passive.as_ref());
    let passive = passive.filter(|passive| passive.enabled).map(connections);
    let by = probe.map(|probe| By::Probe(Arc::new(sent(probe))));
    let port = probe.map_or(&ProbePort::Served, |probe| &probe.port);
    let by_policy = by.or(passive.map(By::Connections));
    let mut targets = BTreeSet::new();
    for slice in slices {
        let ready = slice.endpoints.iter().filter(|e| e.conditions.ready);
        for endpoint in ready {
            if let Some(by) = &by_policy {
                targets.extend(ports(port, slice).map(|port| Target {
                    address: SocketAddr::new(endpoint.address, port),
                    by: by.clone(),
                }));
            }
            if probe.is_none() && !spec.publish_not_ready_addresses {
                targets.extend(of_pod(&slice.namespace, endpoint, pods));
            }
        }
    }
    targets.into_iter().collect()
}

/// The probes of an endpoint's Pod, if the gateway is to carry them out.
fn of_pod(namespace: &str, endpoint: &Endpoint, pods: &Deriver) -> Vec<Target> {
    let pod = endpoint.pod.as_deref();
    let pod = pod.and_then(|name| pods.pod(&NamespacedName::new(namespace, name)));
    let Some(pod) = pod.filter(|pod| pod.is_probed()) else {
        return Vec::new();
    };
    let targets = pod.probes().map(|readiness| Target {
        address: SocketAddr::new(endpoint.address, readiness.port),
        by: By::Probe(Arc::new(readiness.probe.clone())),
    });
    targets.collect()
}

fn connections(passive: &PassiveSpec) -> Passive {
    Passive {
        failures: passive.failures,
        pause: Duration::from_secs(passive.seconds.into()),
        ..Passive::default()
    }
}

fn ports<'a>(port: &'a ProbePort, slice: &'a Slice) -> impl Iterator<Item = u16> + 'a {
    let tcp = slice.ports.iter().filter(|port| is_tcp(port.protocol));
    let of_slice = tcp.filter(move |served| match port {
        ProbePort::Served => true,
        ProbePort::Name(name) => served.name == *name,
        ProbePort::Number(_) => false,
    });
    let number = match port {
        ProbePort::Number(number) => Some(*number),
        ProbePort::Served | ProbePort::Name(_) => None,
    };
    of_slice.map(|port| port.port).chain(number)
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
            jitter_percent: (probe.jitter_percent)
                .map(|percent| u8::try_from(percent).unwrap_or(u8::MAX)),
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
