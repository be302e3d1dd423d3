//! Two tables compared for people: by Service port, frontend, backend and policy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use sluice_conf::message::controlplane::plan::{
    Alteration, BackendChange, Change, Fate, FrontendChange, ServiceChange,
};
use sluice_conf::{
    Access, Backend, BackendGone, BackendState, Frontend, Protocol, Service, ServiceName,
    ServiceTable,
};

use super::heirs::{Heirs, inherited};

/// What makes `after` of `before`, sorted by Service port. What becomes of connections is told by
/// the policies of `after`, as the dataplane judges by them.
pub fn compare(before: &ServiceTable, after: &ServiceTable) -> Vec<ServiceChange> {
    let change = after.since(before);
    let mut pairs: BTreeMap<&ServiceName, (Option<&Service>, Option<&Service>)> = BTreeMap::new();
    for edit in &change.edits {
        for service in before.services.iter().skip(edit.place).take(edit.removed) {
            pairs.entry(&service.name).or_default().0 = Some(service);
        }
        for service in &edit.added {
            pairs.entry(&service.name).or_default().1 = Some(service);
        }
    }
    let heirs = Heirs::of(after);
    let changes = pairs.into_iter();
    changes
        .filter_map(|(name, (old, new))| service(name, old, new, &heirs))
        .collect()
}

fn service(
    name: &ServiceName,
    old: Option<&Service>,
    new: Option<&Service>,
    heirs: &Heirs<'_>,
) -> Option<ServiceChange> {
    let change = kind(old.is_some(), new.is_some())?;
    let nothing = Service::new(name.clone());
    let (before, after) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
    Some(ServiceChange {
        name: name.clone(),
        change,
        frontends: frontends(before, after, heirs),
        backends: backends(before, after),
        policies: match change {
            Change::Altered => policies(before, after),
            Change::Added | Change::Removed => Vec::new(),
        },
    })
}

const fn kind(before: bool, after: bool) -> Option<Change> {
    match (before, after) {
        (false, false) => None,
        (false, true) => Some(Change::Added),
        (true, false) => Some(Change::Removed),
        (true, true) => Some(Change::Altered),
    }
}

/// Pairs of what has one key, in the order of keys.
fn pairs<'a, T, K: Ord>(
    before: &'a [T],
    after: &'a [T],
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = (Option<&'a T>, Option<&'a T>)> {
    let mut pairs: BTreeMap<K, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for each in before {
        pairs.entry(key(each)).or_default().0 = Some(each);
    }
    for each in after {
        pairs.entry(key(each)).or_default().1 = Some(each);
    }
    pairs.into_values()
}

fn frontends(before: &Service, after: &Service, heirs: &Heirs<'_>) -> Vec<FrontendChange> {
    let key = |frontend: &Frontend| (frontend.address, frontend.port, frontend.last_port);
    let pairs = pairs(&before.frontends, &after.frontends, key);
    let changes = pairs.filter_map(|(old, new)| {
        let one = new.or(old)?;
        let change = kind(old.is_some(), new.is_some())?;
        let both = old.zip(new);
        let altered = both.map(|(old, new)| alterations_of_frontend(old, new));
        let altered = altered.unwrap_or_default();
        let heir = match change {
            Change::Removed => heirs.heir(one, before.name.protocol),
            Change::Added | Change::Altered => None,
        };
        let differs = change != Change::Altered || !altered.is_empty();
        differs.then(|| FrontendChange {
            address: one.address,
            port: one.port,
            last_port: one.last_port,
            kind: one.kind,
            change,
            altered,
            heir: heir.map(|heir| heir.name.clone()),
            inherited: heir.map_or_else(Vec::new, |heir| inherited(before, heir)),
            fate: match change {
                Change::Removed => Some(heir.map_or(Fate::End, fate)),
                Change::Added | Change::Altered => None,
            },
            connections: None,
        })
    });
    changes.collect()
}

fn alterations_of_frontend(old: &Frontend, new: &Frontend) -> Vec<Alteration> {
    let mut all = Alterations::default();
    all.note("kind", &old.kind, &new.kind, word);
    all.note("for pods", &old.pods, &new.pods, access);
    all.note("for nodes", &old.nodes, &new.nodes, access);
    all.note("for others", &old.others, &new.others, access);
    all.note("guarded", &old.guarded, &new.guarded, word);
    all.0
}

fn backends(before: &Service, after: &Service) -> Vec<BackendChange> {
    let key = |backend: &Backend| -> (IpAddr, u16) { (backend.address, backend.port) };
    let pairs = pairs(&before.backends, &after.backends, key);
    let changes = pairs.filter_map(|(old, new)| {
        let one = new.or(old)?;
        let change = kind(old.is_some(), new.is_some())?;
        let both = old.zip(new);
        let altered = both.map(|(old, new)| alterations_of_backend(old, new));
        let altered = altered.unwrap_or_default();
        let differs = change != Change::Altered || !altered.is_empty();
        differs.then_some(BackendChange {
            address: one.address,
            port: one.port,
            change,
            altered,
            fate: match both {
                Some((old, new)) => drains(old, new).then_some(Fate::Stay),
                None => old.map(|_| fate(after)),
            },
            connections: None,
        })
    });
    changes.collect()
}

/// Whether a backend that stays gets no new connections any more.
fn drains(old: &Backend, new: &Backend) -> bool {
    old.state == BackendState::Active && new.state == BackendState::Draining
}

/// What becomes of the connections of a backend that leaves this Service.
fn fate(service: &Service) -> Fate {
    match (service.name.protocol, service.backend_gone) {
        // There is no end of UDP to wait for.
        (Protocol::Udp, _) | (_, BackendGone::Reset) => Fate::End,
        (_, BackendGone::Keep) => Fate::Stay,
        (_, BackendGone::Drain { seconds }) => Fate::Drain { seconds },
    }
}

// Both take the newer one apart, so that nothing can be added to it and forgotten here.

fn alterations_of_backend(old: &Backend, new: &Backend) -> Vec<Alteration> {
    let Backend {
        address: _,
        port: _,
        weight,
        state,
        local,
    } = new;
    let mut all = Alterations::default();
    all.note("state", &old.state, state, word);
    all.note("weight", &old.weight, weight, word);
    all.note("local", &old.local, local, word);
    all.0
}

fn policies(old: &Service, new: &Service) -> Vec<Alteration> {
    let Service {
        name: _,
        frontends: _,
        backends: _,
        affinity_seconds,
        source_ranges,
        backend_gone,
        refusal,
        ping,
        mss_clamp,
        forwarding,
    } = new;
    let affinity = &old.affinity_seconds;
    let mut all = Alterations::default();
    all.note("session affinity", affinity, affinity_seconds, |seconds| {
        seconds.map_or_else(none, |seconds| format!("{seconds} s"))
    });
    all.note("source ranges", &old.source_ranges, source_ranges, |all| {
        ranges(all)
    });
    all.note(
        "backend gone",
        &old.backend_gone,
        backend_gone,
        ToString::to_string,
    );
    all.note("refusal", &old.refusal, refusal, word);
    all.note("ping", &old.ping, ping, word);
    all.note("mss clamp", &old.mss_clamp, mss_clamp, |bytes| {
        bytes.map_or_else(none, |bytes| format!("{bytes} bytes"))
    });
    all.note("forwarding", &old.forwarding, forwarding, word);
    all.0
}

fn none() -> String {
    "none".to_owned()
}

fn ranges(ranges: &[IpNet]) -> String {
    let ranges: BTreeSet<String> = ranges.iter().map(ToString::to_string).collect();
    match ranges.is_empty() {
        true => none(),
        false => ranges.into_iter().collect::<Vec<_>>().join(" "),
    }
}

#[derive(Default)]
struct Alterations(Vec<Alteration>);

impl Alterations {
    fn note<T: PartialEq>(
        &mut self,
        what: &str,
        before: &T,
        after: &T,
        tell: impl Fn(&T) -> String,
    ) {
        if before != after {
            self.0.push(Alteration {
                what: what.to_owned(),
                before: tell(before),
                after: tell(after),
            });
        }
    }
}

fn access(access: &Access) -> String {
    format!("{} {}", word(&access.pool), word(&access.source_nat))
}

/// A plain value as settings and JSON write it.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word.to_lowercase(),
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}
