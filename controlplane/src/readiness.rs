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
use std::net::{IpAddr, SocketAddr};
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
use crate::health::{Health, Judged, Target};
use crate::kinds::policy::PolicySpec;
use crate::object::NamespacedName;
use crate::service::ServiceSpec;

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
#[derive(Debug, Default)]
pub struct Readiness {
    /// Absent: nothing is judged.
    health: Option<Health>,
    drains: Drains,
    /// What each Service wants judged.
    wanted: HashMap<NamespacedName, Vec<Target>>,
    /// Who wants it.
    users: BTreeMap<Target, BTreeSet<NamespacedName>>,
    /// Since when endpoints of Services with a ramp are ready.
    ready: HashMap<NamespacedName, HashMap<IpAddr, Duration>>,
}

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
            drains,
            wanted: HashMap::new(),
            users: BTreeMap::new(),
            ready: HashMap::new(),
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

    /// Has the endpoints of a Service judged from now on; `None` when it is gone.
    pub fn watch(
        &mut self,
        service: &NamespacedName,
        spec: Option<&ServiceSpec>,
        slices: &[&Slice],
        moment: Moment,
    ) {
        let policy = spec.and_then(|spec| spec.policy.as_deref());
        let targets = policy.map_or_else(Vec::new, |policy| targets::of(policy, slices));
        let before = self.wanted.get(service).map_or(&[][..], Vec::as_slice);
        if targets != before {
            for target in before {
                if let Some(users) = self.users.get_mut(target) {
                    users.remove(service);
                    if users.is_empty() {
                        self.users.remove(target);
                    }
                }
            }
            for target in &targets {
                let users = self.users.entry(target.clone()).or_default();
                users.insert(service.clone());
            }
            if let Some(health) = &self.health {
                health.set(service, targets.clone());
            }
            match targets.is_empty() {
                true => self.wanted.remove(service),
                false => self.wanted.insert(service.clone(), targets),
            };
        }
        match policy.filter(|policy| policy.slow_start.is_some()) {
            Some(policy) => self.note_ready(service, policy, slices, moment),
            None => drop(self.ready.remove(service)),
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
            let wanted = self.wanted.get(&name).into_iter().flatten();
            let of_backend = wanted.filter(|target| target.address.ip() == backend.ip());
            for target in of_backend {
                health.evidence(target, evidence(attempts));
            }
        }
    }

    /// Takes note of who became ready. Who is there when a ramp is first asked for is ready since
    /// ever: a restart of the control plane must not shift the load.
    fn note_ready(
        &mut self,
        service: &NamespacedName,
        policy: &PolicySpec,
        slices: &[&Slice],
        moment: Moment,
    ) {
        let (used, _) = self.used(policy, slices);
        let ready: BTreeSet<IpAddr> = slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .filter(|endpoint| endpoint.conditions.ready)
            .map(|endpoint| endpoint.address)
            .filter(|address| used.get(address).copied().unwrap_or(true))
            .collect();
        let known = self.ready.remove(service);
        let start = known.as_ref().map_or(Duration::ZERO, |_| moment.now);
        let known = known.unwrap_or_default();
        let since = |address: IpAddr| (address, known.get(&address).copied().unwrap_or(start));
        let ready = ready.into_iter().map(since).collect();
        self.ready.insert(service.clone(), ready);
    }

    /// The slices of a Service as they are at this moment.
    pub fn look<'a>(
        &self,
        spec: &ServiceSpec,
        slices: impl Iterator<Item = &'a Slice>,
        moment: Moment,
    ) -> Look<'a> {
        let policy = spec.policy.as_deref();
        let mut look = Look {
            slices: Vec::new(),
            ignored: None,
            next: None,
        };
        if policy.is_none() && self.drains.is_empty() {
            look.slices.extend(slices.map(Cow::Borrowed));
            return look;
        }
        let slices: Vec<&Slice> = slices.collect();
        let name = NamespacedName::new(&spec.namespace, &spec.name);
        let (used, ignored) = policy.map_or_else(Default::default, |p| self.used(p, &slices));
        look.ignored = ignored;
        let ramp = policy.and_then(|policy| self.ramp(&name, policy));
        for slice in slices {
            let mut slice = slice.clone();
            slice.endpoints.retain_mut(|endpoint| {
                let stage = self.drains.stage(&spec.namespace, endpoint, moment.unix);
                if let Some(policy) = policy {
                    apply_policy(policy, endpoint);
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

    fn ramp(
        &self,
        service: &NamespacedName,
        policy: &PolicySpec,
    ) -> Option<(SlowStart, &HashMap<IpAddr, Duration>)> {
        let ramp = policy.slow_start?;
        let ramp = SlowStart {
            from: u8::try_from(ramp.from_percent).unwrap_or(100),
            length: Duration::from_secs(ramp.seconds.into()),
        };
        Some((ramp, self.ready.get(service)?))
    }

    /// Which endpoints are used, of those that are judged, and why verdicts are not followed.
    fn used(
        &self,
        policy: &PolicySpec,
        slices: &[&Slice],
    ) -> (HashMap<IpAddr, bool>, Option<String>) {
        let mut healthy: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for target in targets::of(policy, slices) {
            let verdict = self.health.as_ref().and_then(|h| h.verdict(&target));
            let fit = verdict.is_none_or(|verdict| is_fit(policy, &verdict));
            *healthy.entry(target.address.ip()).or_insert(true) &= fit;
        }
        let floor = policy.fail_open_percent.unwrap_or_default();
        let verdicts: Vec<bool> = healthy.values().copied().collect();
        let effective = effective(&verdicts, u8::try_from(floor).unwrap_or(100));
        let used = healthy.into_keys().zip(effective.used).collect();
        (used, effective.ignored)
    }

    /// The verdict on an endpoint at a port, of a Service that has it judged.
    pub fn verdict(&self, service: &NamespacedName, address: SocketAddr) -> Option<Verdict> {
        let wanted = self.wanted.get(service)?;
        let mut of_address = wanted.iter().filter(|t| t.address.ip() == address.ip());
        let exact = wanted.iter().find(|target| target.address == address);
        let target = exact.or_else(|| of_address.next())?;
        self.health.as_ref()?.verdict(target)
    }
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
fn is_fit(policy: &PolicySpec, verdict: &Verdict) -> bool {
    let waits = policy
        .probe
        .as_ref()
        .is_some_and(|probe| !probe.initially_healthy);
    verdict.healthy && !(waits && verdict.reason.is_open())
}

fn apply_policy(policy: &PolicySpec, endpoint: &mut Endpoint) {
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
    // Labels of Pods are not known of slices that were made elsewhere.
    let rule = policy.tiers.iter().find(|rule| rule.fits(zone, node, None));
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
