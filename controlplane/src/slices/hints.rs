//! Hints by `trafficDistribution` (kubernetes/endpointslice trafficdist).
//!
//! Guarantees: endpoints that are not ready never have a slice written; those of written slices
//! have hints only when they are ready.

use std::sync::Arc;

use super::node::Nodes;
use super::reconcile::Writes;
use super::service::HintMode;
use super::slice::{Endpoint, Hints, Slice};
use super::zones;

/// Gives the endpoints of all written slices their hints, and has those slices written that only
/// differ in theirs.
pub(super) fn set(mode: HintMode, nodes: &Nodes, writes: &mut Writes) {
    match mode {
        HintMode::Proportional => zones::set(nodes, writes),
        mode => each(writes, |endpoint| wanted(mode, endpoint)),
    }
}

/// Takes all hints away.
pub(super) fn clear(writes: &mut Writes) {
    each(writes, |_| Hints::default());
}

fn each(writes: &mut Writes, wanted: impl Fn(&Endpoint) -> Hints) {
    let wrong = |endpoint: &Endpoint| endpoint.is_ready() && endpoint.hints != wanted(endpoint);
    writes.rewrite(|slice: &Slice| slice.endpoints.iter().any(wrong));
    let written = writes.create.iter_mut().chain(&mut writes.update);
    for endpoint in written.flat_map(|slice| &mut slice.endpoints) {
        endpoint.hints = match endpoint.is_ready() {
            true => wanted(endpoint),
            false => Hints::default(),
        };
    }
}

fn wanted(mode: HintMode, endpoint: &Endpoint) -> Hints {
    let list = |value: &Option<Arc<str>>| value.iter().cloned().collect();
    match mode {
        HintMode::None | HintMode::Proportional => Hints::default(),
        HintMode::SameZone => Hints {
            zones: list(&endpoint.zone),
            nodes: Vec::new(),
        },
        HintMode::SameNode => Hints {
            zones: list(&endpoint.zone),
            nodes: list(&endpoint.node),
        },
    }
}
