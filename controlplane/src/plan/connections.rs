//! Connections of the present, put beside the changes that touch them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sluice_conf::ServiceName;
use sluice_conf::message::controlplane::plan::{
    BackendChange, Change, Fate, FrontendChange, Plan, ServiceChange,
};
use sluice_conf::message::dataplane::{Count, Counts};

/// Connections that a plan touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Touched {
    /// Those that end at once.
    pub ended: u64,
    /// Those that end after a time, if they have not before.
    pub drained: u64,
    /// Those that go on at a backend that is gone or drains.
    pub kept: u64,
}

/// Service ports that have connections now.
pub fn concerned(plan: &Plan) -> Vec<ServiceName> {
    let there = plan.services.iter().filter(|s| s.change != Change::Added);
    there.map(|service| service.name.clone()).collect()
}

/// Notes in `plan` how many connections each frontend and backend has. Returns how many are
/// touched, each counted once.
pub fn note(plan: &mut Plan, counts: &Counts) -> Touched {
    let mut by_service: BTreeMap<&ServiceName, Vec<&Count>> = BTreeMap::new();
    for count in &counts.counts {
        by_service.entry(&count.service).or_default().push(count);
    }
    let mut touched = Touched::default();
    for service in &mut plan.services {
        let counts = by_service.get(&service.name).map(Vec::as_slice);
        note_service(service, counts.unwrap_or_default(), &mut touched);
    }
    touched
}

fn note_service(service: &mut ServiceChange, counts: &[&Count], touched: &mut Touched) {
    for count in counts {
        match fate(service, count) {
            Some(Fate::End) => touched.ended += count.connections,
            Some(Fate::Drain { .. }) => touched.drained += count.connections,
            Some(Fate::Stay) => touched.kept += count.connections,
            None => {}
        }
    }
    let sum = |is_meant: &dyn Fn(&Count) -> bool| {
        let meant = counts.iter().filter(|count| is_meant(count));
        Some(meant.map(|count| count.connections).sum())
    };
    for frontend in &mut service.frontends {
        let is_meant = |count: &Count| is_at(frontend, count) && !is_inherited(frontend, count);
        frontend.connections = sum(&is_meant);
    }
    let frontends = &service.frontends;
    for backend in &mut service.backends {
        let goes = |frontend: &FrontendChange, count: &Count| {
            frontend.heir.is_some() && is_at(frontend, count)
        };
        let is_meant = |count: &Count| {
            is_to(&end(backend), count) && !frontends.iter().any(|f| goes(f, count))
        };
        backend.connections = sum(&is_meant);
    }
}

/// What happens to these connections; `None` when nothing does. If their frontend goes, that alone
/// decides.
fn fate(service: &ServiceChange, count: &Count) -> Option<Fate> {
    let mut frontends = service.frontends.iter();
    let goes = |frontend: &&FrontendChange| frontend.fate.is_some() && is_at(frontend, count);
    if let Some(frontend) = frontends.find(goes) {
        return frontend.fate.filter(|_| !is_inherited(frontend, count));
    }
    let mut backends = service.backends.iter();
    let backend = backends.find(|backend| is_to(&end(backend), count));
    backend.and_then(|backend| backend.fate)
}

/// Whether these connections go on with another Service port.
fn is_inherited(frontend: &FrontendChange, count: &Count) -> bool {
    let mut inherited = frontend.inherited.iter();
    inherited.any(|end| is_to(end, count))
}

fn is_at(frontend: &FrontendChange, count: &Count) -> bool {
    let ports = frontend.port..=frontend.last_port;
    frontend.address == count.frontend.ip() && ports.contains(&count.frontend.port())
}

const fn end(backend: &BackendChange) -> SocketAddr {
    SocketAddr::new(backend.address, backend.port)
}

/// Whether this is their backend; port 0 stands for all ports.
fn is_to(backend: &SocketAddr, count: &Count) -> bool {
    let port = count.backend.port();
    backend.ip() == count.backend.ip() && [0, port].contains(&backend.port())
}
