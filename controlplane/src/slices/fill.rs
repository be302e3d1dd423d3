//! Endpoints of one port mapping, put into slices (reconcileByPortMapping).
//!
//! Guarantees: an endpoint stays where it is; new ones go into slices that are written anyway, the
//! fullest first, then into one slice that can hold all the rest, then into new slices.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::service::labels_differ;
use super::slice::{Endpoint, Slice, SliceLabels};

/// What makes an endpoint the same one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    address: IpAddr,
    hostname: Option<Arc<str>>,
    target: Option<(Arc<str>, Arc<str>)>,
}

impl Identity {
    fn of(endpoint: &Endpoint) -> Self {
        let target = endpoint.target.as_ref();
        Self {
            address: endpoint.address,
            hostname: endpoint.hostname.clone(),
            target: target.map(|t| (Arc::clone(&t.namespace), Arc::clone(&t.name))),
        }
    }
}

/// Endpoints that should be, each once, in the order of their Pods.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    places: HashMap<Identity, usize>,
    endpoints: Vec<Option<Endpoint>>,
}

impl Wanted {
    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        let places = self.endpoints.len();
        let place = *self.places.entry(Identity::of(&endpoint)).or_insert(places);
        match self.endpoints.get_mut(place) {
            Some(same) => *same = Some(endpoint),
            None => self.endpoints.push(Some(endpoint)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn take(&mut self, like: &Endpoint) -> Option<Endpoint> {
        let place = self.places.remove(&Identity::of(like))?;
        self.endpoints[place].take()
    }
}

/// Slices of one port mapping after a round.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) create: Vec<Slice>,
    pub(super) update: Vec<Slice>,
    pub(super) delete: Vec<Arc<Slice>>,
    pub(super) unchanged: Vec<Arc<Slice>>,
    pub(super) added: usize,
    pub(super) removed: usize,
}

/// Puts `wanted` into `existing` slices, and into new ones like `template`, of at most `limit`.
pub(super) fn fill(
    existing: &[Arc<Slice>],
    mut wanted: Wanted,
    template: &Slice,
    limit: usize,
) -> Filled {
    let mut filled = Filled::default();
    for slice in existing {
        filled.keep(slice, &mut wanted, &template.labels);
    }
    let rest: Vec<Endpoint> = wanted.endpoints.into_iter().flatten().collect();
    filled.added = rest.len();
    let mut rest = rest.into_iter();
    // The fullest first; the order among equals is that of the names.
    filled.update.sort_by(|a, b| {
        let key = |slice: &Slice| Reverse(slice.endpoints.len());
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    for slice in &mut filled.update {
        top_up(slice, &mut rest, limit);
    }
    while rest.len() > 0 {
        let fitting = filled.fitting(rest.len(), limit);
        match fitting.map(|index| filled.unchanged.remove(index)) {
            Some(slice) => {
                let mut slice = Arc::unwrap_or_clone(slice);
                top_up(&mut slice, &mut rest, limit);
                filled.update.push(slice);
            }
            None => {
                let mut slice = template.clone();
                top_up(&mut slice, &mut rest, limit);
                filled.create.push(slice);
            }
        }
    }
    filled
}

fn top_up(slice: &mut Slice, rest: &mut impl Iterator<Item = Endpoint>, limit: usize) {
    let room = limit.saturating_sub(slice.endpoints.len());
    slice.endpoints.extend(rest.take(room));
}

impl Filled {
    /// Sorts an existing slice by what becomes of it.
    fn keep(&mut self, slice: &Arc<Slice>, wanted: &mut Wanted, labels: &Arc<SliceLabels>) {
        let mut changed = false;
        let mut kept = Vec::with_capacity(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            if let Some(now) = wanted.take(endpoint) {
                changed |= !now.same(endpoint);
                kept.push(now);
            }
        }
        let gone = slice.endpoints.len() - kept.len();
        self.removed += gone;
        if !changed && gone == 0 && !labels_differ(&slice.labels, labels) {
            self.unchanged.push(Arc::clone(slice));
        } else if kept.is_empty() && gone > 0 {
            self.delete.push(Arc::clone(slice));
        } else {
            self.update.push(Slice {
                endpoints: kept,
                labels: Arc::clone(labels),
                ..emptied(slice)
            });
        }
    }

    /// The unchanged slice that is fullest once it has taken in `count` more.
    fn fitting(&self, count: usize, limit: usize) -> Option<usize> {
        let slices = self.unchanged.iter().enumerate();
        let fitting =
            slices.filter(|(_, slice)| count < limit && slice.endpoints.len() + count <= limit);
        let fullest = fitting.min_by_key(|(_, slice)| Reverse(slice.endpoints.len()));
        fullest.map(|(index, _)| index)
    }
}

/// `slice` without its endpoints.
fn emptied(slice: &Slice) -> Slice {
    Slice {
        name: slice.name.clone(),
        address_type: slice.address_type,
        owner: slice.owner.clone(),
        labels: Arc::clone(&slice.labels),
        ports: Arc::clone(&slice.ports),
        endpoints: Vec::new(),
    }
}
