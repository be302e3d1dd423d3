//! The changes of a plan, one line each.

use std::net::SocketAddr;

use sluice_conf::message::controlplane::plan::{
    Allocation, Alteration, BackendChange, Change, Fate, FrontendChange, ObjectChange,
    ServiceChange,
};
use sluice_controlplane::words;

use crate::explain::kind;

/// Backends of one Service port that come, or that go, and are told one by one.
const MAX_BACKENDS: usize = 20;

pub fn objects(objects: &[ObjectChange]) -> Vec<String> {
    let line = |object: &ObjectChange| format!("{} {}", sign(object.change), object.object);
    objects.iter().map(line).collect()
}

pub fn services(services: &[ServiceChange]) -> Vec<String> {
    let mut lines = Vec::new();
    for service in services {
        lines.push(format!("{} {}", sign(service.change), service.name));
        let frontends = service.frontends.iter().map(frontend);
        let policies = service.policies.iter();
        let policies = policies.map(|policy| format!("~ {}", alteration(policy)));
        let parts = frontends.chain(backends(&service.backends)).chain(policies);
        lines.extend(parts.map(|part| format!("  {part}")));
    }
    lines
}

pub fn allocations(allocations: &[Allocation]) -> Vec<String> {
    let line = |held: &Allocation| {
        let sign = if held.taken { '+' } else { '-' };
        let Allocation {
            service,
            field,
            value,
            ..
        } = held;
        format!("{sign} {service} {field} {value}")
    };
    allocations.iter().map(line).collect()
}

const fn sign(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Altered => '~',
    }
}

fn frontend(frontend: &FrontendChange) -> String {
    let address = SocketAddr::new(frontend.address, frontend.port);
    let last = match frontend.last_port == frontend.port {
        true => String::new(),
        false => format!("-{}", frontend.last_port),
    };
    let (change, kind) = (sign(frontend.change), kind(frontend.kind));
    let heir = frontend.heir.as_ref();
    let altered = match heir {
        Some(heir) => format!("  taken over by {heir}"),
        None => alterations(&frontend.altered),
    };
    let told = match (frontend.change, heir, frontend.connections) {
        (Change::Added, ..) | (_, Some(_), None | Some(0)) => String::new(),
        _ => connections(frontend.fate, frontend.connections),
    };
    format!("{change} frontend {address}{last}, {kind}{altered}{told}")
}

/// Backends one by one; many that come or go together are one line.
fn backends(backends: &[BackendChange]) -> Vec<String> {
    let mut lines = Vec::new();
    for change in [Change::Altered, Change::Removed, Change::Added] {
        let these: Vec<_> = backends.iter().filter(|b| b.change == change).collect();
        match these.first() {
            Some(first) if change != Change::Altered && these.len() > MAX_BACKENDS => {
                let counted: Option<u64> = these.iter().map(|b| b.connections).sum();
                let told = connections(first.fate, counted.filter(|_| first.fate.is_some()));
                let count = words::count(these.len(), "backend");
                lines.push(format!("{} {count}{told}", sign(change)));
            }
            _ => lines.extend(these.into_iter().map(backend)),
        }
    }
    lines
}

fn backend(backend: &BackendChange) -> String {
    let address = match backend.port {
        0 => backend.address.to_string(),
        port => SocketAddr::new(backend.address, port).to_string(),
    };
    let change = sign(backend.change);
    let altered = alterations(&backend.altered);
    let told = match backend.change {
        Change::Added => String::new(),
        Change::Removed | Change::Altered => connections(backend.fate, backend.connections),
    };
    format!("{change} backend {address}{altered}{told}")
}

fn alteration(altered: &Alteration) -> String {
    format!("{}: {} -> {}", altered.what, altered.before, altered.after)
}

fn alterations(altered: &[Alteration]) -> String {
    let parts: Vec<String> = altered.iter().map(alteration).collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("  {}", parts.join(", ")),
    }
}

/// The connections that are concerned, and what becomes of them.
fn connections(fate: Option<Fate>, connections: Option<u64>) -> String {
    let count = connections.map(|count| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        words::count(count, "connection")
    });
    let fate = fate.map(|fate| match fate {
        Fate::Stay => "will stay".to_owned(),
        Fate::Drain { seconds } => format!("will drain for {seconds} s"),
        Fate::End => "will end".to_owned(),
    });
    match (connections, count, fate) {
        (Some(0), ..) => "  (no connections)".to_owned(),
        (_, Some(count), Some(fate)) => format!("  ({count} {fate})"),
        (_, None, Some(fate)) => format!("  (connections {fate})"),
        (_, Some(count), None) => format!("  ({count})"),
        (_, None, None) => String::new(),
    }
}
