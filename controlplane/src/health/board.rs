//! What is known of each target and what is to be asked next. Pure: time is an argument.
//!
//! Guarantees: a target is probed once however many Services want it, and has at most one probe
//! in flight; at most so many probes are in flight in all; a target that is late is asked once,
//! not once for every period that was missed; what is kept grows with the number of targets only.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::failure::Outcome;
use super::pace::Pace;
use super::passive::{Ejection, Evidence};
use super::verdict::{Initial, Reason, Tally, Verdict};
use super::{By, Judged, Settings, Target};
use crate::health::probe::Probe;
use crate::object::NamespacedName;

/// From when on a probe counts as late.
const LATE: Duration = Duration::from_millis(100);

/// Tells one life of a target from another: never used twice.
pub(super) type Id = u64;

/// A probe that is to be sent now.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: Id,
    pub(super) target: Arc<Target>,
    pub(super) probe: Arc<Probe>,
    pub(super) late: bool,
}

#[derive(Debug)]
struct Watched {
    target: Arc<Target>,
    /// Services that want it.
    users: usize,
    verdict: Verdict,
    tally: Tally,
    ejection: Ejection,
    /// Probes sent so far.
    round: u64,
    /// When the last probe started.
    started: Option<Duration>,
    /// When the next one is due; none while one is in flight.
    due: Option<Duration>,
}

/// All targets.
#[derive(Debug)]
pub(super) struct Board {
    settings: Settings,
    pace: Pace,
    ids: HashMap<Arc<Target>, Id>,
    watched: HashMap<Id, Watched>,
    services: HashMap<NamespacedName, Vec<Id>>,
    due: BTreeSet<(Duration, Id)>,
    returns: BTreeSet<(Duration, Id)>,
    changed: BTreeSet<Id>,
    in_flight: usize,
    next: Id,
}

impl Board {
    pub(super) fn new(settings: Settings, seed: u64, now: Duration) -> Self {
        let pace = Pace::new(seed, now);
        Self {
            settings,
            pace,
            ids: HashMap::new(),
            watched: HashMap::new(),
            services: HashMap::new(),
            due: BTreeSet::new(),
            returns: BTreeSet::new(),
            changed: BTreeSet::new(),
            in_flight: 0,
            next: 0,
        }
    }

    /// Makes `targets` all that `service` wants. What is known of those that stay is kept.
    pub(super) fn set(&mut self, service: &NamespacedName, targets: Vec<Target>, now: Duration) {
        let old = self.services.remove(service).unwrap_or_default();
        let targets: BTreeSet<Target> = targets.into_iter().collect();
        let new = targets
            .iter()
            .filter(|target| !self.ids.contains_key(*target));
        let new = new.count();
        let known = match new {
            0 => HashMap::new(),
            _ => self.known(&old),
        };
        let mut ids = Vec::with_capacity(targets.len());
        for target in targets {
            let id = match self.ids.get(&target) {
                Some(id) => *id,
                None => self.add(target, &known, new, now),
            };
            if let Some(watched) = self.watched.get_mut(&id) {
                watched.users += 1;
            }
            ids.push(id);
        }
        for id in old {
            self.release_from_service(id);
        }
        if !ids.is_empty() {
            self.services.insert(service.clone(), ids);
        }
    }

    /// What is known of the addresses of these targets.
    fn known(&self, ids: &[Id]) -> HashMap<SocketAddr, Verdict> {
        let mut known = HashMap::new();
        for watched in ids.iter().filter_map(|id| self.watched.get(id)) {
            if !watched.verdict.reason.is_open() {
                let first = known.entry(watched.target.address);
                first.or_insert_with(|| watched.verdict.clone());
            }
        }
        known
    }

    /// Takes in one of `new` targets that come at once.
    fn add(
        &mut self,
        target: Target,
        known: &HashMap<SocketAddr, Verdict>,
        new: usize,
        now: Duration,
    ) -> Id {
        let (id, target) = (self.next, Arc::new(target));
        self.next += 1;
        let due = target.probe().map(|probe| {
            let wait = self.pace.first(id, probe.timing.period, new, now);
            now.saturating_add(wait)
        });
        if let Some(due) = due {
            self.due.insert((due, id));
        }
        let watched = Watched {
            users: 0,
            verdict: self.first_verdict(&target, known, now),
            tally: Tally::default(),
            ejection: Ejection::default(),
            round: 0,
            started: None,
            due,
            target: target.clone(),
        };
        self.ids.insert(target, id);
        self.watched.insert(id, watched);
        id
    }

    /// A target whose probe was altered is what it was before, until the new probe says otherwise.
    fn first_verdict(
        &self,
        target: &Target,
        known: &HashMap<SocketAddr, Verdict>,
        now: Duration,
    ) -> Verdict {
        if target.probe().is_none() {
            return Initial::Trusted.verdict(now);
        }
        let known = known.get(&target.address).cloned();
        known.unwrap_or_else(|| self.settings.initial.verdict(now))
    }

    fn release_from_service(&mut self, id: Id) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        watched.users -= 1;
        if watched.users > 0 {
            return;
        }
        if let Some(watched) = self.watched.remove(&id) {
            self.ids.remove(&watched.target);
            self.changed.remove(&id);
            if let Some(due) = watched.due {
                self.due.remove(&(due, id));
            }
            if let Some(until) = watched.ejection.until() {
                self.returns.remove(&(until, id));
            }
        }
    }

    /// What the dataplane saw of a target's connections. Failures of one that is probed bring its
    /// next probe forward, but never closer to the last than its timeout.
    pub(super) fn evidence(&mut self, target: &Target, evidence: Evidence, now: Duration) {
        let Some(id) = self.ids.get(target).copied() else {
            return;
        };
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let passive = match &watched.target.by {
            By::Connections(passive) => passive,
            By::Probe(probe) => {
                let earliest = watched
                    .started
                    .map_or(now, |at| at.saturating_add(probe.timing.timeout));
                let soon = earliest.max(now);
                if evidence.failures() > 0
                    && let Some(due) = watched.due.filter(|due| *due > soon)
                {
                    watched.due = Some(soon);
                    self.due.remove(&(due, id));
                    self.due.insert((soon, id));
                }
                return;
            }
        };
        if let Some(ejected) = watched.ejection.observe(evidence, passive, now) {
            watched.verdict = Verdict {
                healthy: false,
                reason: Reason::Ejected {
                    failures: ejected.failures,
                    pause: ejected.pause,
                },
                since: now,
            };
            self.returns.insert((now.saturating_add(ejected.pause), id));
            self.changed.insert(id);
        }
    }

    /// Takes back into use what was out of use for long enough.
    pub(super) fn release(&mut self, now: Duration) {
        while let Some(&(until, id)) = self.returns.first()
            && until <= now
        {
            self.returns.pop_first();
            if let Some(watched) = self.watched.get_mut(&id) {
                watched.ejection.release(now);
                watched.verdict = Verdict {
                    healthy: true,
                    reason: Reason::Returned,
                    since: now,
                };
                self.changed.insert(id);
            }
        }
    }

    /// The next probe that is due, as long as there is a slot for it.
    pub(super) fn start(&mut self, now: Duration) -> Option<Job> {
        let (due, id) = self.waiting().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, id));
        let watched = self.watched.get_mut(&id)?;
        let probe = watched.target.probe()?.clone();
        watched.due = None;
        watched.started = Some(now);
        watched.round += 1;
        self.in_flight += 1;
        Some(Job {
            id,
            target: watched.target.clone(),
            probe,
            late: now.saturating_sub(due) > LATE,
        })
    }

    fn waiting(&self) -> Option<(Duration, Id)> {
        let free = self.in_flight < self.settings.max_in_flight.max(1);
        self.due.first().copied().filter(|_| free)
    }

    /// Takes in how a probe ended. That of a target that is gone only frees its slot.
    pub(super) fn finish(&mut self, id: Id, probe: &Probe, outcome: Outcome, now: Duration) {
        self.in_flight -= 1;
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let (tally, verdict) = (&mut watched.tally, &mut watched.verdict);
        if tally.record(verdict, outcome, &probe.timing, now) {
            self.changed.insert(id);
        }
        let started = watched.started.unwrap_or(now);
        let timing = &probe.timing;
        let jitter = timing.jitter_percent;
        let jitter = jitter.unwrap_or(self.settings.jitter_percent);
        let wait = self.pace.next(id, watched.round, timing.period, jitter);
        let due = started.saturating_add(wait).max(now);
        watched.due = Some(due);
        self.due.insert((due, id));
    }

    /// When something is to be done next; none while only the end of a probe is waited for.
    pub(super) fn next(&self) -> Option<Duration> {
        let due = self.waiting().map(|(due, _)| due);
        let until = self.returns.first().map(|(until, _)| *until);
        due.into_iter().chain(until).min()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Targets that became healthy or unhealthy since the last call, as they are now.
    pub(super) fn take_changes(&mut self) -> Vec<Judged> {
        let changed = std::mem::take(&mut self.changed);
        self.judged(changed.iter())
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn verdict(&self, target: &Target) -> Option<Verdict> {
        let id = self.ids.get(target)?;
        Some(self.watched.get(id)?.verdict.clone())
    }

    /// What `service` wants, sorted.
    pub(super) fn of_service(&self, service: &NamespacedName) -> Vec<Judged> {
        self.judged(self.services.get(service).into_iter().flatten())
    }

    /// All targets, sorted.
    pub(super) fn all(&self) -> Vec<Judged> {
        let mut all = self.judged(self.watched.keys());
        all.sort_by(|a, b| a.target.cmp(&b.target));
        all
    }

    fn judged<'a>(&self, ids: impl Iterator<Item = &'a Id>) -> Vec<Judged> {
        let watched = ids.filter_map(|id| self.watched.get(id));
        let judged = watched.map(|watched| Judged {
            target: watched.target.clone(),
            verdict: watched.verdict.clone(),
        });
        judged.collect()
    }
}

#[cfg(test)]
mod tests;
