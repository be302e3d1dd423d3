//! What happened lately, for `sluicectl events` and `sluicectl describe`.
//!
//! Guarantees: at most [`MAX_KEPT`] events are kept, the latest; what happens again soon after is
//! counted in place of a second line. Nothing here outlives the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_conf::message::controlplane::{DataplaneLink, EventRow};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::object::{Kind, NamespacedName, ObjectId};
use crate::readiness::drains::{Drains, Stage, Target};

/// Most events that are kept.
pub const MAX_KEPT: usize = 1000;
/// Among how many of the latest events a new one is looked for.
const LOOK_BACK: usize = 32;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Namespace of what it happened to, if that has one.
    pub namespace: Option<String>,
    /// Kind, namespace and name of what it happened to.
    pub object: String,
    /// Whether something is wrong.
    pub warning: bool,
    /// One word for machines, for example `Unhealthy`.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Event {
    /// Something that happened to a Service.
    pub fn of_service(service: &NamespacedName, reason: &'static str, message: String) -> Self {
        Self {
            namespace: Some(service.namespace.clone()),
            object: ObjectId::of(Kind::Service, service).to_string(),
            warning: false,
            reason,
            message,
        }
    }

    /// The same as something that is wrong.
    #[must_use]
    pub fn warning(self) -> Self {
        Self {
            warning: true,
            ..self
        }
    }
}

/// The latest events. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<VecDeque<Kept>>>);

#[derive(Debug)]
struct Kept {
    event: Event,
    at: Duration,
    count: u32,
}

impl Events {
    /// Takes note of an event.
    pub fn note(&self, event: Event, now: Duration) {
        let mut kept = self.lock();
        let before = kept.len().saturating_sub(LOOK_BACK);
        let again = kept.iter().skip(before).position(|k| k.event == event);
        let again = again.and_then(|place| kept.remove(before + place));
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(Kept {
            event,
            at: now,
            count: again.map_or(1, |again| again.count.saturating_add(1)),
        });
    }

    /// Events of `namespace` and of what has none, or all, oldest first.
    pub fn rows(&self, namespace: Option<&str>, now: Duration) -> Vec<EventRow> {
        let is_wanted = |kept: &&Kept| match (&kept.event.namespace, namespace) {
            (Some(own), Some(only)) => own == only,
            _ => true,
        };
        let kept = self.lock();
        let wanted = kept.iter().filter(is_wanted);
        wanted.map(|kept| kept.row(now)).collect()
    }

    /// Events of one object, oldest first.
    pub fn of(&self, object: &ObjectId, now: Duration) -> Vec<EventRow> {
        let object = object.to_string();
        let kept = self.lock();
        let own = kept.iter().filter(|kept| kept.event.object == object);
        own.map(|kept| kept.row(now)).collect()
    }

    /// Takes note of what becomes of the link to the dataplane, for ever.
    pub async fn follow(self, mut link: watch::Receiver<DataplaneLink>, clock: Clock) {
        let mut refused = None;
        loop {
            let now_refused = match &*link.borrow_and_update() {
                DataplaneLink::Connected { rejected, .. } => rejected.clone(),
                // What it thought of the last table is told again by the next connection.
                DataplaneLink::Disconnected { .. } => refused.clone(),
            };
            if now_refused != refused {
                self.note(of_table(now_refused.as_deref()), clock.now());
                refused = now_refused;
            }
            if link.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What a panic left of the events is still better than none.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn row(&self, now: Duration) -> EventRow {
        let event = &self.event;
        EventRow {
            age_seconds: now.saturating_sub(self.at).as_secs(),
            count: self.count,
            warning: event.warning,
            reason: event.reason.to_owned(),
            object: event.object.clone(),
            message: event.message.clone(),
        }
    }
}

/// What the dataplane thinks of the newest table.
fn of_table(refused: Option<&str>) -> Event {
    let event = |reason, message| Event {
        namespace: None,
        object: "ServiceTable".to_owned(),
        warning: false,
        reason,
        message,
    };
    match refused {
        Some(why) => event(
            "TableRefused",
            format!("the dataplane refused the newest table and keeps the one before: {why}"),
        )
        .warning(),
        None => event(
            "TableAccepted",
            "the dataplane takes tables again".to_owned(),
        ),
    }
}

/// How far each drain was when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Steps(BTreeMap<Target, Stage>);

impl Steps {
    /// The drains that have come to another stage than the first since the last look.
    pub(super) fn update(&mut self, drains: &Drains, now: u64) -> Vec<(Target, Stage)> {
        let stages = drains.iter();
        let stages: BTreeMap<Target, Stage> = stages
            .map(|(target, drain)| (target.clone(), drains.stage_of(drain, now)))
            .collect();
        let before = std::mem::replace(&mut self.0, stages);
        let news = self.0.iter().filter(|(target, stage)| {
            **stage != Stage::Noticed && before.get(*target) != Some(*stage)
        });
        news.map(|(target, stage)| (target.clone(), *stage))
            .collect()
    }
}

/// Why Services of type LoadBalancer wait for an address, as it was last told.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<NamespacedName, String>);

impl Waiting {
    /// What is new about the addresses of a Service that had `before` and has `after`.
    pub(super) fn update(
        &mut self,
        service: &NamespacedName,
        (before, after): (&[IpAddr], &[IpAddr]),
        pending: Option<&str>,
    ) -> Vec<Event> {
        let told = match pending {
            Some(why) => self.0.insert(service.clone(), why.to_owned()),
            None => self.0.remove(service),
        };
        let mut events = Vec::new();
        if !after.is_empty() && before != after {
            let addresses: Vec<String> = after.iter().map(IpAddr::to_string).collect();
            let message = format!("has {}", addresses.join(" and "));
            events.push(Event::of_service(service, "IPAllocated", message));
        }
        if let Some(why) = pending.filter(|why| told.as_deref() != Some(why)) {
            let event = Event::of_service(service, "AllocationFailed", why.to_owned());
            events.push(event.warning());
        }
        events
    }

    /// The Service is gone.
    pub(super) fn forget(&mut self, service: &NamespacedName) {
        self.0.remove(service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(service: &str, reason: &'static str) -> Event {
        let name = NamespacedName::new("shop", service);
        Event::of_service(&name, reason, "10.0.2.1:80".to_owned())
    }

    fn told(events: &Events, namespace: Option<&str>) -> Vec<(String, &'static str, u32, u64)> {
        let reasons = ["Healthy", "Unhealthy"];
        let reason = |row: &EventRow| reasons.into_iter().find(|r| *r == row.reason).unwrap();
        let rows = events.rows(namespace, Duration::from_secs(10));
        let rows = rows.iter();
        rows.map(|row| (row.object.clone(), reason(row), row.count, row.age_seconds))
            .collect()
    }

    #[test]
    fn what_happens_again_is_counted_and_is_the_latest() {
        let events = Events::default();
        events.note(event("web", "Unhealthy"), Duration::from_secs(1));
        events.note(event("web", "Healthy"), Duration::from_secs(2));
        events.note(event("web", "Unhealthy"), Duration::from_secs(4));
        let web = || "Service shop/web".to_owned();
        assert_eq!(
            told(&events, None),
            [(web(), "Healthy", 1, 8), (web(), "Unhealthy", 2, 6)]
        );
    }

    #[test]
    fn events_of_other_namespaces_are_left_out_and_those_of_none_are_not() {
        let events = Events::default();
        events.note(event("web", "Healthy"), Duration::ZERO);
        let node = Event {
            namespace: None,
            object: "Node n1".to_owned(),
            ..event("", "Healthy")
        };
        events.note(node, Duration::ZERO);
        assert_eq!(told(&events, Some("shop")).len(), 2);
        assert_eq!(
            told(&events, Some("default")),
            [("Node n1".into(), "Healthy", 1, 10)]
        );
        let id = ObjectId::of(Kind::Service, &NamespacedName::new("shop", "web"));
        assert_eq!(events.of(&id, Duration::ZERO).len(), 1);
    }

    #[test]
    fn only_the_latest_are_kept() {
        let events = Events::default();
        for number in 0..MAX_KEPT + 5 {
            events.note(event(&format!("s{number}"), "Healthy"), Duration::ZERO);
        }
        let rows = events.rows(None, Duration::ZERO);
        assert_eq!(rows.len(), MAX_KEPT);
        assert_eq!(rows[0].object, "Service shop/s5");
    }

    #[test]
    fn what_a_service_waits_for_is_told_once() {
        let web = NamespacedName::new("shop", "web");
        let address: IpAddr = "203.0.113.10".parse().unwrap();
        let mut waiting = Waiting::default();
        let mut told = |before: &[IpAddr], after: &[IpAddr], pending| {
            let events = waiting.update(&web, (before, after), pending).into_iter();
            events.map(|e| (e.reason, e.message)).collect::<Vec<_>>()
        };
        let none = "no pool";
        let failed = [("AllocationFailed", none.to_owned())];
        assert_eq!(told(&[], &[], Some(none)), failed);
        assert_eq!(told(&[], &[], Some(none)), []);
        let given = [("IPAllocated", "has 203.0.113.10".to_owned())];
        assert_eq!(told(&[], &[address], None), given);
        assert_eq!(told(&[address], &[address], None), []);
        assert_eq!(told(&[address], &[], Some(none)), failed, "it waits again");
    }

    #[test]
    fn a_drain_is_told_at_each_step_after_the_first() {
        let target: Target = "n1".parse().unwrap();
        let mut drains = Drains::new(BTreeMap::new(), Duration::from_secs(5));
        drains.begin(target.clone(), Some(10), 100);
        let mut steps = Steps::default();
        let mut at = |now| steps.update(&drains, now);
        assert_eq!(at(100), []);
        assert_eq!(at(105), [(target.clone(), Stage::Draining)]);
        assert_eq!(at(110), []);
        assert_eq!(at(115), [(target, Stage::Gone)]);
    }

    #[tokio::test]
    async fn a_refused_table_is_told_once_and_when_it_is_over() {
        let connected = |rejected: Option<&str>| DataplaneLink::Connected {
            applied: None,
            rejected: rejected.map(str::to_owned),
        };
        let (link, receiver) = watch::channel(connected(None));
        let events = Events::default();
        let following = events.clone().follow(receiver, Clock::start());
        let changing = async {
            for rejected in [Some("too long"), Some("too long"), None] {
                link.send_replace(connected(rejected));
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = following => {}
            () = async { changing.await; tokio::task::yield_now().await } => {}
        }
        let rows = events.rows(None, Duration::ZERO);
        let reasons: Vec<(&str, u32)> = rows.iter().map(|r| (&*r.reason, r.count)).collect();
        assert_eq!(reasons, [("TableRefused", 1), ("TableAccepted", 1)]);
        assert!(rows[0].warning && rows[0].message.ends_with("before: too long"));
    }
}
