//! Which endpoints of a Service may serve now: one answer from the conditions of its slices, what its
//! policy says of weights and tiers, the verdicts on its backends and the operator's drains.
//!
//! ```text
//!   slices (conditions) --> drains --> weights, tiers --> health, unless too few are healthy
//!                                                            --> slow start --> slices, for the compiler
//! ```
//!
//! Guarantees: what a slice says is never made better, only worse; who asks twice at one moment gets
//! one answer; [`Look::next`] tells when the answer changes although nothing else does. Verdicts are
//! found out by [`crate::health`]; here they are only asked for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use sluice_conf::message::dataplane::Attempts;
use sluice_conf::{Backend, Protocol};

use crate::clock::Clock;
use crate::endpoints::{Endpoint, Slice};
use crate::evidence::News;
use crate::health::floor::effective;
use crate::health::passive::Evidence;
use crate::health::slow_start::SlowStart;
use crate::health::verdict::Verdict;
use crate::health::{By, Health, Judged, Target};
use crate::kinds::policy::PolicySpec;
use crate::object::NamespacedName;
use crate::service::ServiceSpec;
use crate::slices::deriver::Deriver;

pub mod drains;
mod targets;

use drains::{Drains, Stage};

/// How finely a ramp divides the weight of a backend.
const RAMP_SCALE: u16 = 10;

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// On the clock of the process.
    pub now: Duration,
    /// Seconds since 1970.
    pub unix: u64,
}

impl Moment {
    /// Now.
    pub fn of(clock: &Clock) -> Self {
        Self {
            now: clock.now(),
            unix: u64::try_from(clock.time().as_second()).unwrap_or_default(),
        }
    }
}

/// Judges endpoints.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Absent: nothing is judged.
    health: Option<Health>,
    /// Whether nothing more is to be judged than is already.
    rehearsed: bool,
    drains: Drains,
    /// The floor of Services whose policy names none, in percent.
    fail_open_percent: u8,
    /// Services of which more is to be known than their slices say.
    watched: HashMap<NamespacedName, Watched>,
    /// Who wants a target judged.
    users: BTreeMap<Target, BTreeSet<NamespacedName>>,
}

/// What is known of a Service beside its slices.
#[derive(Debug, Clone, Default)]
struct Watched {
    /// What it wants judged.
    targets: Vec<Target>,
    /// Labels of its endpoints' Pods, if it has tiers by them.
    labels: HashMap<IpAddr, Labels>,
    /// Since when its endpoints are ready, if it has a ramp.
    ready: Option<HashMap<IpAddr, Duration>>,
}

type Labels = BTreeMap<String, String>;

/// The slices of a Service as they are to be compiled.
#[derive(Debug)]
pub struct Look<'a> {
    /// Sorted as they were.
    pub slices: Vec<Cow<'a, Slice>>,
    /// Why verdicts are not followed, if they are not.
    pub ignored: Option<String>,
    /// How long it stays so.
    pub next: Option<Duration>,
}

impl Readiness {
    /// Judges by these verdicts and drains.
    pub fn new(health: Health, drains: Drains) -> Self {
        Self {
            health: Some(health),
            rehearsed: false,
            drains,
            ..Self::default()
        }
    }

    /// Ignores the health of Services whose policy says nothing of it when fewer than so many
    /// percent of their endpoints are healthy.
    #[must_use]
    pub fn with_fail_open(mut self, percent: u8) -> Self {
        self.fail_open_percent = percent;
        self
    }

    /// The same verdicts and drains for a trial: it has nothing judged that is not already.
    #[must_use]
    pub fn rehearsal(&self) -> Self {
        Self {
            rehearsed: true,
            ..self.clone()
        }
    }

    /// The drains.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// The drains, to begin and end some.
    pub fn drains_mut(&mut self) -> &mut Drains {
        &mut self.drains
    }

    /// Has the endpoints of a Service judged from now on, with what is known of their Pods; `None`
    /// when it is gone.
    pub fn watch(
        &mut self,
        service: &NamespacedName,
        spec: Option<&ServiceSpec>,
        slices: &[&Slice],
        pods: &Deriver,
        moment: Moment,
    ) {
        let before = self.watched.remove(service).unwrap_or_default();
        let targets = spec.map_or_else(Vec::new, |spec| targets::of(spec, slices, pods));
        self.want(service, &before.targets, &targets);
        let Some(spec) = spec else { return };
        let policy = spec.policy.as_deref();
        let mut watched = Watched {
            labels: match policy.is_some_and(by_labels) {
                true => labels(slices, pods),
                false => HashMap::new(),
            },
            targets,
            ready: None,
        };
        if policy.is_some_and(|policy| policy.slow_start.is_some()) {
            let (used, _) = self.used(policy, &watched);
            watched.ready = Some(ready_since(before.ready, slices, &used, moment));
        }
        if !watched.is_empty() {
            self.watched.insert(service.clone(), watched);
        }
    }

    /// Has other targets judged for a Service.
    fn want(&mut self, service: &NamespacedName, before: &[Target], targets: &[Target]) {
        if targets == before {
            return;
        }
        for target in before {
            if let Some(users) = self.users.get_mut(target) {
                users.remove(service);
                if users.is_empty() {
                    self.users.remove(target);
                }
            }
        }
        for target in targets {
            let users = self.users.entry(target.clone()).or_default();
            users.insert(service.clone());
        }
        if let Some(health) = self.health.as_ref().filter(|_| !self.rehearsed) {
            health.set(service, targets.to_vec());
        }
    }

    /// Services that want one of these judged.
    pub fn concerned(&self, judged: &[Judged]) -> BTreeSet<NamespacedName> {
        let users = judged.iter().filter_map(|j| self.users.get(&*j.target));
        users.flatten().cloned().collect()
    }

    /// Hands on what the dataplane saw of backends.
    pub fn evidence(&self, news: &[News]) {
        let Some(health) = &self.health else { return };
        for News {
            service,
            backend,
            attempts,
        } in news
        {
            let name = NamespacedName::new(&service.namespace, &service.name);
            let watched = self.watched.get(&name);
            let wanted = watched.into_iter().flat_map(|watched| &watched.targets);
            // What a connection to one port makes is no evidence about another, but a probe of
            // another port may still tell why.
            let of_backend = wanted.filter(|target| match target.by {
                By::Connections(_) => target.address == *backend,
                By::Probe(_) => target.address.ip() == backend.ip(),
            });
            for target in of_backend {
                health.evidence(target, evidence(attempts));
            }
        }
    }

    /// Whether more decides about the endpoints of a Service than what its slices say.
    pub fn judges(&self, spec: &ServiceSpec) -> bool {
        let name = NamespacedName::new(&spec.namespace, &spec.name);
        spec.policy.is_some() || self.watched.contains_key(&name) || !self.drains.is_empty()
    }

    /// The slices of a Service as they are at this moment.
    pub fn look<'a>(
        &self,
        spec: &ServiceSpec,
        slices: impl Iterator<Item = &'a Slice>,
        moment: Moment,
    ) -> Look<'a> {
        let policy = spec.policy.as_deref();
        let name = NamespacedName::new(&spec.namespace, &spec.name);
        let watched = self.watched.get(&name);
        let mut look = Look {
            slices: Vec::new(),
            ignored: None,
            next: None,
        };
        if !self.judges(spec) {
            look.slices.extend(slices.map(Cow::Borrowed));
            return look;
        }
        let used = watched.map(|watched| self.used(policy, watched));
        let (used, ignored) = used.unwrap_or_default();
        look.ignored = ignored;
        let ramp = policy.zip(watched).and_then(|(policy, w)| w.ramp(policy));
        for slice in slices {
            let mut slice = slice.clone();
            slice.endpoints.retain_mut(|endpoint| {
                let stage = self.drains.stage(&spec.namespace, endpoint, moment.unix);
                if let Some(policy) = policy {
                    let labels = watched.and_then(|w| w.labels.get(&endpoint.address));
                    apply_policy(policy, endpoint, labels);
                }
                if used.get(&endpoint.address) == Some(&false) {
                    (endpoint.conditions.ready, endpoint.conditions.serving) = (false, false);
                }
                if let Some((ramp, ready)) = &ramp {
                    let next = apply_ramp(*ramp, ready, endpoint, moment);
                    look.next = look.next.into_iter().chain(next).min();
                }
                if stage == Some(Stage::Draining) {
                    let conditions = &mut endpoint.conditions;
                    conditions.serving |= conditions.ready;
                    (conditions.ready, conditions.terminating) = (false, true);
                }
                stage != Some(Stage::Gone)
            });
            look.slices.push(Cow::Owned(slice));
        }
        look
    }

    /// Which endpoints are used, of those that are judged, and why verdicts are not followed.
    fn used(
        &self,
        policy: Option<&PolicySpec>,
        watched: &Watched,
    ) -> (HashMap<IpAddr, bool>, Option<String>) {
        let mut healthy: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for target in &watched.targets {
            let verdict = self.health.as_ref().and_then(|h| h.verdict(target));
            let fit = verdict.is_none_or(|verdict| is_fit(policy, &verdict));
            *healthy.entry(target.address.ip()).or_insert(true) &= fit;
        }
        let floor = policy.and_then(|policy| policy.fail_open_percent);
        let floor = floor.unwrap_or(self.fail_open_percent.into());
        let verdicts: Vec<bool> = healthy.values().copied().collect();
        let effective = effective(&verdicts, u8::try_from(floor).unwrap_or(100));
        let used = healthy.into_keys().zip(effective.used).collect();
        (used, effective.ignored)
    }

    /// The verdicts on what a Service has judged, sorted by target.
    pub fn verdicts(&self, service: &NamespacedName) -> Vec<Judged> {
        let health = self.health.as_ref();
        health.map_or_else(Vec::new, |health| health.of_service(service))
    }
}

impl Watched {
    fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.labels.is_empty() && self.ready.is_none()
    }

    fn ramp(&self, policy: &PolicySpec) -> Option<(SlowStart, &HashMap<IpAddr, Duration>)> {
        let ramp = policy.slow_start?;
        let ramp = SlowStart {
            from: u8::try_from(ramp.from_percent).unwrap_or(100),
            length: Duration::from_secs(ramp.seconds.into()),
        };
        Some((ramp, self.ready.as_ref()?))
    }
}

/// Whether the policy asks for labels of Pods.
fn by_labels(policy: &PolicySpec) -> bool {
    let mut tiers = policy.tiers.iter();
    tiers.any(|rule| rule.pod_selector.is_some())
}

/// Labels of the Pods that the endpoints stand for, as far as these are known.
fn labels(slices: &[&Slice], pods: &Deriver) -> HashMap<IpAddr, Labels> {
    let mut found = HashMap::new();
    for slice in slices {
        for endpoint in &slice.endpoints {
            let pod = endpoint.pod.as_deref();
            let pod = pod.and_then(|name| pods.pod(&NamespacedName::new(&slice.namespace, name)));
            if let Some(pod) = pod {
                let labels = pod.labels.iter();
                let labels = labels.map(|(key, value)| (key.to_string(), value.to_string()));
                found.insert(endpoint.address, labels.collect());
            }
        }
    }
    found
}

/// Since when each endpoint is ready that is so now. Who is there when a ramp is first asked for is
/// ready since ever: a restart of the control plane must not shift the load.
fn ready_since(
    before: Option<HashMap<IpAddr, Duration>>,
    slices: &[&Slice],
    used: &HashMap<IpAddr, bool>,
    moment: Moment,
) -> HashMap<IpAddr, Duration> {
    let start = before.as_ref().map_or(Duration::ZERO, |_| moment.now);
    let before = before.unwrap_or_default();
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.ready);
    ready
        .map(|endpoint| endpoint.address)
        .filter(|address| used.get(address).copied().unwrap_or(true))
        .map(|address| (address, before.get(&address).copied().unwrap_or(start)))
        .collect()
}

fn evidence(attempts: &Attempts) -> Evidence {
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Evidence {
        unanswered: count(attempts.silent),
        resets: count(attempts.refused),
        answered: count(attempts.answered),
    }
}

/// Whether an endpoint of this verdict is fit to serve; before the first the policy says.
fn is_fit(policy: Option<&PolicySpec>, verdict: &Verdict) -> bool {
    let waits = policy
        .and_then(|policy| policy.probe.as_ref())
        .is_some_and(|probe| !probe.initially_healthy);
    verdict.healthy && !(waits && verdict.reason.is_open())
}

fn apply_policy(policy: &PolicySpec, endpoint: &mut Endpoint, labels: Option<&Labels>) {
    if let Some(weights) = &policy.weights {
        match weights.of(endpoint.address, endpoint.pod.as_deref()) {
            // It keeps the connections that it has.
            0 => {
                endpoint.conditions.serving |= endpoint.conditions.ready;
                endpoint.conditions.ready = false;
            }
            weight => endpoint.weight = weight,
        }
    }
    let (zone, node) = (endpoint.zone.as_deref(), endpoint.node.as_deref());
    let mut rules = policy.tiers.iter();
    let rule = rules.find(|rule| rule.fits(zone, node, labels));
    if let Some(rule) = rule {
        endpoint.tier = rule.tier;
    }
}

/// Gives the endpoint its share; returns how long it keeps that.
fn apply_ramp(
    ramp: SlowStart,
    ready: &HashMap<IpAddr, Duration>,
    endpoint: &mut Endpoint,
    moment: Moment,
) -> Option<Duration> {
    // A weight of 1 could not be divided.
    let whole = endpoint
        .weight
        .saturating_mul(RAMP_SCALE)
        .min(Backend::MAX_WEIGHT);
    let since = ready.get(&endpoint.address).copied().unwrap_or(moment.now);
    let share = match since {
        Duration::ZERO => ramp.share(Duration::MAX),
        since => ramp.share(moment.now.saturating_sub(since)),
    };
    endpoint.weight = u16::try_from(share.of(whole.into())).unwrap_or(whole);
    share.next
}

/// Protocols of which a port can be asked by a TCP connection.
const fn is_tcp(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp)
}

#[cfg(test)]
mod tests;
