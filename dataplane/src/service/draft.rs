//! A table held against the map before: what stays, and what has to be compiled.

use std::cell::OnceCell;
use std::ops::Range;

use foldhash::HashMap as FastMap;
use sluice_conf::{Generation, Networks, Service, ServiceName, ServiceTable};

use super::{CompiledService, ServiceMap};

/// Where the next Services of a table come from.
#[derive(Debug)]
pub(super) enum Step {
    /// From these places of the map before.
    Keep(Range<usize>),
    /// From the table. The place is that of the Service of this name in the map before.
    New(Box<Service>, Option<usize>),
}

/// A table that is not compiled yet; only good beside the map that it was held against.
#[derive(Debug)]
pub struct Draft {
    pub(super) generation: Generation,
    pub(super) networks: Networks,
    pub(super) steps: Vec<Step>,
}

impl Draft {
    /// A table whose Services are there.
    pub(super) fn of(table: ServiceTable, previous: &ServiceMap) -> Self {
        let mut drafting = Drafting::beside(previous);
        for service in table.services {
            drafting.take(service);
        }
        drafting.finish(table.generation, table.networks)
    }

    /// Services in the table.
    pub fn len(&self) -> usize {
        let count = |step: &Step| match step {
            Step::Keep(places) => places.len(),
            Step::New(..) => 1,
        };
        self.steps.iter().map(count).sum()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every Service is where it was and clients use it as before.
    pub(super) fn only_changes_backends(&self, previous: &ServiceMap) -> bool {
        let mut next = 0;
        let stays = |step: &Step| match step {
            Step::Keep(places) => {
                let start = std::mem::replace(&mut next, places.end);
                places.start == start
            }
            Step::New(entry, Some(place)) => {
                next += 1;
                let old = previous.services.get(*place);
                *place == next - 1 && old.is_some_and(|old| old.entry.frontends == entry.frontends)
            }
            Step::New(_, None) => false,
        };
        self.steps.iter().all(stays) && next == previous.services.len()
    }
}

/// Draws up a draft, Service by Service.
pub(super) struct Drafting<'a> {
    previous: &'a ServiceMap,
    names: OnceCell<FastMap<&'a ServiceName, usize>>,
    /// Where the next Service was, if nothing came or went.
    next: usize,
    steps: Vec<Step>,
}

impl<'a> Drafting<'a> {
    pub fn beside(previous: &'a ServiceMap) -> Self {
        Self {
            previous,
            names: OnceCell::new(),
            next: 0,
            steps: Vec::new(),
        }
    }

    /// Where the next Service was, if nothing came or went.
    pub fn next(&self) -> usize {
        self.next
    }

    /// The next Services are those of these places.
    pub fn keep(&mut self, places: Range<usize>) {
        self.next = places.end;
        match self.steps.last_mut() {
            Some(Step::Keep(last)) if last.end == places.start => last.end = places.end,
            _ if places.is_empty() => {}
            _ => self.steps.push(Step::Keep(places)),
        }
    }

    /// The next Service is this one.
    pub fn take(&mut self, service: Service) {
        let Some((place, old)) = self.find(&service.name) else {
            self.steps.push(Step::New(Box::new(service), None));
            return;
        };
        if old.entry == service {
            return self.keep(place..place + 1);
        }
        self.next = place + 1;
        self.steps.push(Step::New(Box::new(service), Some(place)));
    }

    fn find(&self, name: &ServiceName) -> Option<(usize, &'a CompiledService)> {
        let services = &self.previous.services;
        let old = services.get(self.next);
        if let Some(old) = old.filter(|old| old.entry.name == *name) {
            return Some((self.next, old));
        }
        let index = || {
            services
                .iter()
                .zip(0..)
                .map(|(s, place)| (&s.entry.name, place))
        };
        let names = self.names.get_or_init(|| index().collect());
        let place = *names.get(name)?;
        Some((place, services.get(place)?))
    }

    pub fn finish(self, generation: Generation, networks: Networks) -> Draft {
        Draft {
            generation,
            networks,
            steps: self.steps,
        }
    }
}
