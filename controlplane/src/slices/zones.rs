//! Hints in proportion to the CPUs of zones, asked for by annotation (KEP-2433;
//! kubernetes/endpointslice topologycache).
//!
//! Guarantees: either every ready endpoint has one zone as its hint, and no zone is expected to
//! carry more than 20 % above its share, or none has a hint. Among zones that are equally far from
//! their share the first by name is chosen, so that the result never depends on chance.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hints;
use super::node::Nodes;
use super::reconcile::Writes;
use super::slice::{Endpoint, Hints, Slice};

/// How much more than its share a zone may be expected to carry (topologycache overloadThreshold).
const OVERLOAD: f64 = 0.2;

/// Endpoints that a zone should have.
struct Allocation {
    desired: f64,
    maximum: usize,
}

type Allocations = BTreeMap<Arc<str>, Allocation>;
type Counts = BTreeMap<Arc<str>, usize>;

/// Sets hints, or takes them away where there cannot be any.
pub(super) fn set(nodes: &Nodes, writes: &mut Writes) {
    if try_set(nodes, writes).is_none() {
        hints::clear(writes);
    }
}

fn try_set(nodes: &Nodes, writes: &mut Writes) -> Option<()> {
    let unchanged = writes.unchanged.iter().map(|slice| &**slice);
    let slices = writes.create.iter().chain(&writes.update).chain(unchanged);
    let zones: Option<Vec<&Arc<str>>> = slices.flat_map(ready).map(|e| e.zone.as_ref()).collect();
    let ready = zones?.len();
    let allocations = allocations(nodes, ready)?;
    let mut hinted = Counts::new();
    writes.rewrite(|slice| !fits(slice, &allocations, &mut hinted));
    let mut written: Vec<&mut Endpoint> = writes
        .create
        .iter_mut()
        .chain(&mut writes.update)
        .flat_map(|slice| &mut slice.endpoints)
        .collect();
    for endpoint in &mut written {
        endpoint.hints = Hints::default();
        if let Some(zone) = endpoint.zone.clone().filter(|_| endpoint.is_ready()) {
            *hinted.entry(Arc::clone(&zone)).or_default() += 1;
            endpoint.hints.zones.push(zone);
        }
    }
    redistribute(&mut written, moves(&allocations, &hinted));
    Some(())
}

fn ready(slice: &Slice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().filter(|e| e.is_ready())
}

/// How many of `ready` endpoints each zone should have; none if they cannot be shared out within
/// the bounds (getAllocations).
fn allocations(nodes: &Nodes, ready: usize) -> Option<Allocations> {
    let zones: Vec<_> = nodes.cpu_by_zone().collect();
    if zones.is_empty() || zones.len() > ready {
        return None;
    }
    let total: u64 = zones.iter().map(|(_, cpu)| cpu).sum();
    let share = |cpu: u64| cpu as f64 / total as f64 * ready as f64;
    let minimum = |cpu: u64| (share(cpu) / (1.0 + OVERLOAD)).ceil() as usize;
    let minima: usize = zones.iter().map(|(_, cpu)| minimum(*cpu)).sum();
    let spare = ready.checked_sub(minima)?;
    let allocation = |(zone, cpu): (&Arc<str>, u64)| {
        let allocation = Allocation {
            desired: share(cpu).max(1.0),
            maximum: minimum(cpu) + spare,
        };
        (Arc::clone(zone), allocation)
    };
    Some(zones.into_iter().map(allocation).collect())
}

/// Whether the hints of an unchanged slice can stay; if so, they are counted (getHintsByZone).
fn fits(slice: &Slice, allocations: &Allocations, hinted: &mut Counts) -> bool {
    let mut counts = Counts::new();
    for endpoint in ready(slice) {
        let zones = &endpoint.hints.zones;
        if zones.is_empty() || !zones.iter().all(|zone| allocations.contains_key(zone)) {
            return false;
        }
        for zone in zones {
            *counts.entry(Arc::clone(zone)).or_default() += 1;
        }
    }
    let within = |(zone, count): (&Arc<str>, &usize)| {
        let before = hinted.get(zone).copied().unwrap_or(0);
        let allocation = allocations.get(zone);
        allocation.is_some_and(|allocation| before + count <= allocation.maximum)
    };
    let fits = counts.iter().all(within);
    if fits {
        for (zone, count) in counts {
            *hinted.entry(zone).or_default() += count;
        }
    }
    fits
}

/// Endpoints that change zones: how many each gives, and how many each gets
/// (getGivingAndReceivingZones).
fn moves(allocations: &Allocations, hinted: &Counts) -> (Counts, Counts) {
    let mut giving: BTreeMap<&Arc<str>, f64> = BTreeMap::new();
    let mut receiving: BTreeMap<&Arc<str>, f64> = BTreeMap::new();
    for (zone, allocation) in allocations {
        let surplus = hinted.get(zone).copied().unwrap_or(0) as f64 - allocation.desired;
        match surplus > 0.0 {
            true => giving.insert(zone, surplus),
            false => receiving.insert(zone, -surplus),
        };
    }
    let (mut gives, mut gets) = (Counts::new(), Counts::new());
    while let (Some((from, surplus)), Some((to, need))) = (most(&giving), most(&receiving)) {
        if surplus < 1.0 && need < 1.0 {
            break;
        }
        *gives.entry(Arc::clone(from)).or_default() += 1;
        *gets.entry(Arc::clone(to)).or_default() += 1;
        giving.insert(from, surplus - 1.0);
        receiving.insert(to, need - 1.0);
    }
    (gives, gets)
}

/// The zone with the most above nothing (getMost).
fn most<'a>(zones: &BTreeMap<&'a Arc<str>, f64>) -> Option<(&'a Arc<str>, f64)> {
    let positive = zones.iter().filter(|(_, amount)| **amount > 0.0);
    let most = positive.rev().max_by(|(_, a), (_, b)| a.total_cmp(b));
    most.map(|(zone, amount)| (*zone, *amount))
}

/// Gives endpoints of zones with too many to zones with too few (redistributeHints).
fn redistribute(endpoints: &mut [&mut Endpoint], (mut gives, mut gets): (Counts, Counts)) {
    for endpoint in endpoints.iter_mut().filter(|e| e.is_ready()) {
        let Some(mut to) = gets.first_entry() else {
            return;
        };
        let from = endpoint.zone.as_ref().and_then(|zone| gives.get_mut(zone));
        let Some(left) = from.filter(|left| **left > 0) else {
            continue;
        };
        *left -= 1;
        endpoint.hints.zones = vec![Arc::clone(to.key())];
        *to.get_mut() -= 1;
        if *to.get() == 0 {
            to.remove();
        }
    }
}
