//! What happens because time passes: stages of drains, ramps, and what could not be stored.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Engine;
use crate::endpoints::Slice;
use crate::index::Known;
use crate::object::NamespacedName;
use crate::readiness::Moment;

/// How long to wait before what could not be stored is stored again.
const RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// How long nothing changes by itself.
    pub(super) fn next_step(&self, moment: Moment) -> Option<Duration> {
        if !self.awaited.is_empty() {
            return None;
        }
        let (_, due) = self.compiler.due(moment.now);
        let due = due.map(|due| due.saturating_sub(moment.now));
        let drain = self.readiness.drains().next_step(moment.unix);
        let drain = drain.map(|step| Duration::from_secs(step.saturating_sub(moment.unix)));
        let retry = self.admission.trouble().map(|_| RETRY);
        [due, drain, retry].into_iter().flatten().min()
    }

    /// Does what is due now.
    pub(super) fn step(&mut self, moment: Moment) {
        for decision in self.admission.retry() {
            self.follow(decision, moment);
        }
        self.look_at_drained(moment);
    }

    /// Services with endpoints that are drained.
    pub(super) fn drained(&self, moment: Moment) -> BTreeSet<NamespacedName> {
        let drains = self.readiness.drains();
        if drains.is_empty() {
            return BTreeSet::new();
        }
        let is_drained = |slice: &&Known<Slice>| {
            let slice = &slice.object;
            let mut endpoints = slice.endpoints.iter();
            endpoints.any(|e| drains.stage(&slice.namespace, e, moment.unix).is_some())
        };
        let slices = self.catalog.slices().filter(is_drained);
        let services = slices.filter_map(|slice| {
            let service = slice.object.service.as_deref()?;
            Some(NamespacedName::new(&slice.object.namespace, service))
        });
        services.collect()
    }
}
