//! One Service, its Pods and its slices of before: the slices of now and what has to be written
//! (kubernetes/endpointslice reconciler.go).
//!
//! Guarantees: a pass over the Pods and the slices, nothing else; what did not change is handed
//! back as it came.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

use super::fill::{Wanted, fill};
use super::node::Nodes;
use super::pod::Pod;
use super::service::{self, HintMode};
use super::slice::{AddressType, Conditions, Endpoint, Hints, Port, Slice, SliceLabels, Target};
use super::{Settings, hints};

/// What becomes of slices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes {
    /// New ones.
    pub create: Vec<Slice>,
    /// Changed ones.
    pub update: Vec<Slice>,
    /// Those that go.
    pub delete: Vec<Arc<Slice>>,
    /// Those that stay as they are.
    pub unchanged: Vec<Arc<Slice>>,
}

/// What a round found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Slices.
    pub writes: Writes,
    /// Endpoints that came.
    pub added: usize,
    /// Endpoints that went from slices whose ports are still wanted.
    pub removed: usize,
    /// Endpoints that there should be.
    pub endpoints: usize,
    /// Slices that would hold them if they were packed; one of each family at least.
    pub fewest_slices: usize,
    /// Pods that were left out because nobody knows their Node. They come in with it.
    pub left_out: Vec<Arc<str>>,
}

impl Writes {
    /// Has the unchanged slices that `must` be written.
    pub(super) fn rewrite(&mut self, must: impl FnMut(&Slice) -> bool) {
        let mut must = must;
        let unchanged = std::mem::take(&mut self.unchanged);
        let (changed, same): (Vec<_>, Vec<_>) = unchanged.into_iter().partition(|s| must(s));
        self.unchanged = same;
        self.update
            .extend(changed.into_iter().map(Arc::unwrap_or_clone));
    }

    /// Turns creations into updates of slices that would go, where they have the same owner and
    /// address type; a Service that is `leaving` gets no new slices (finalize).
    pub fn settle(&mut self, owner: Option<&Arc<str>>, leaving: bool) {
        for gone in std::mem::take(&mut self.delete) {
            let fits =
                |new: &Slice| new.address_type == gone.address_type && gone.owner.as_ref() == owner;
            match self.create.pop_if(|new| fits(new)) {
                Some(new) => self.update.push(Slice {
                    name: gone.name.clone(),
                    ..new
                }),
                None => self.delete.push(gone),
            }
        }
        if leaving {
            self.create.clear();
        }
    }

    /// Slices as they are after the writes, sorted by name.
    pub fn slices(self) -> Vec<Arc<Slice>> {
        let written = self.create.into_iter().chain(self.update).map(Arc::new);
        let mut slices: Vec<Arc<Slice>> = self.unchanged.into_iter().chain(written).collect();
        slices.sort_by(|a, b| a.name.cmp(&b.name));
        slices
    }

    fn append(&mut self, mut other: Writes) {
        self.create.append(&mut other.create);
        self.update.append(&mut other.update);
        self.delete.append(&mut other.delete);
        self.unchanged.append(&mut other.unchanged);
    }
}

/// The slices of `service`, which selects `pods`. Where Pods come in another order new endpoints
/// may land in other slices.
pub fn reconcile(
    service: &Service,
    pods: &[Arc<Pod>],
    nodes: &Nodes,
    existing: &[Arc<Slice>],
    settings: &Settings,
) -> Outcome {
    let round = Round {
        service,
        nodes,
        settings,
        owner: service.metadata.uid.as_deref().map(Arc::from),
        labels: Arc::new(service::slice_labels(service, &settings.manager)),
    };
    let types = service::address_types(service);
    let mut outcome = Outcome::default();
    for address_type in &types {
        let of_type = |slice: &&Arc<Slice>| slice.address_type == *address_type;
        let existing = existing.iter().filter(of_type).cloned().collect();
        round.family(*address_type, pods, existing, &mut outcome);
    }
    let strange = |slice: &&Arc<Slice>| !types.contains(&slice.address_type);
    let strange = existing.iter().filter(strange).cloned();
    outcome.writes.delete.extend(strange);
    outcome.left_out.sort_unstable();
    outcome.left_out.dedup();
    name(service, &mut outcome.writes);
    outcome
}

/// The endpoint of a Pod, without hints; none when the Pod has no address of that type
/// (podToEndpoint).
pub fn endpoint(
    service: &Service,
    pod: &Pod,
    nodes: &Nodes,
    address_type: AddressType,
) -> Option<Endpoint> {
    let mut addresses = pod.addresses.iter().copied();
    let address = addresses.find(|address| address_type.holds(*address))?;
    // Until its probes say otherwise a Pod that the gateway probes is ready.
    let ready = pod.ready || pod.is_probed();
    let serves = ready && !pod.terminating;
    let node = pod.node.as_deref().and_then(|name| nodes.get(name));
    let hostname = pod.hostname.clone();
    Some(Endpoint {
        address,
        conditions: Conditions {
            ready: Some(serves || service::publishes_unready(service)),
            serving: Some(ready),
            terminating: Some(pod.terminating),
        },
        hostname: hostname.filter(|_| service::shows_hostname(service, pod)),
        node: pod.node.clone(),
        zone: node.and_then(|node| node.zone.clone()),
        target: Some(Target {
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
            uid: pod.uid.clone(),
        }),
        hints: Hints::default(),
    })
}

struct Round<'a> {
    service: &'a Service,
    nodes: &'a Nodes,
    settings: &'a Settings,
    owner: Option<Arc<str>>,
    labels: Arc<SliceLabels>,
}

/// Endpoints that share their ports.
struct Group {
    ports: Arc<[Port]>,
    wanted: Wanted,
}

impl Round<'_> {
    fn family(
        &self,
        address_type: AddressType,
        pods: &[Arc<Pod>],
        existing: Vec<Arc<Slice>>,
        outcome: &mut Outcome,
    ) {
        let groups = self.groups(address_type, pods, &mut outcome.left_out);
        let mut writes = Writes::default();
        let mut by_ports: HashMap<Arc<[Port]>, Vec<Arc<Slice>>> = HashMap::new();
        let there = existing.len();
        for slice in existing {
            match slice.owner == self.owner {
                true => by_ports
                    .entry(Arc::clone(&slice.ports))
                    .or_default()
                    .push(slice),
                false => writes.delete.push(slice),
            }
        }
        let limit = self.settings.limit();
        let mut fewest_slices = 0;
        for Group { ports, wanted } in groups {
            outcome.endpoints += wanted.len();
            fewest_slices += wanted.len().div_ceil(limit);
            let existing = by_ports.remove(&ports).unwrap_or_default();
            let filled = fill(&existing, wanted, &self.empty(address_type, ports), limit);
            outcome.added += filled.added;
            outcome.removed += filled.removed;
            writes.append(Writes {
                create: filled.create,
                update: filled.update,
                delete: filled.delete,
                unchanged: filled.unchanged,
            });
        }
        outcome.fewest_slices += fewest_slices.max(1);
        let mut unwanted: Vec<_> = by_ports.into_values().flatten().collect();
        unwanted.sort_by(|a, b| a.name.cmp(&b.name));
        writes.delete.extend(unwanted);
        if writes.delete.len() == there && writes.create.is_empty() {
            self.placeholder(address_type, &mut writes);
        }
        self.hint(&mut writes);
        let leaving = self.service.metadata.deletion_timestamp.is_some();
        writes.settle(self.owner.as_ref(), leaving);
        outcome.writes.append(writes);
    }

    fn groups(
        &self,
        address_type: AddressType,
        pods: &[Arc<Pod>],
        left_out: &mut Vec<Arc<str>>,
    ) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_numbers: HashMap<Vec<Option<u16>>, usize> = HashMap::new();
        for pod in pods.iter().filter(|pod| pod.can_serve(true)) {
            let numbers = service::numbers(self.service, pod);
            let index = *by_numbers.entry(numbers).or_insert_with_key(|numbers| {
                groups.push(Group {
                    ports: service::slice_ports(self.service, numbers).into(),
                    wanted: Wanted::default(),
                });
                groups.len() - 1
            });
            if self.is_nowhere(pod) {
                left_out.push(Arc::clone(&pod.name));
            } else if let Some(endpoint) = endpoint(self.service, pod, self.nodes, address_type) {
                groups[index].wanted.insert(endpoint);
            }
        }
        groups
    }

    /// Whether the Pod's Node is missing: the Pod may be what is left of a Node that is gone.
    fn is_nowhere(&self, pod: &Pod) -> bool {
        let missing = |name: &str| self.nodes.get(name).is_none();
        self.settings.needs_node
            && !service::publishes_unready(self.service)
            && pod.node.as_deref().is_some_and(missing)
    }

    /// A Service without endpoints has one empty slice, by which one sees that it was looked at.
    fn placeholder(&self, address_type: AddressType, writes: &mut Writes) {
        let placeholder = self.empty(address_type, [].into());
        let same = |slice: &Arc<Slice>| {
            slice.ports.is_empty()
                && slice.endpoints.is_empty()
                && slice.labels == placeholder.labels
                && slice.owner == placeholder.owner
        };
        match writes.delete.as_slice() {
            [slice] if same(slice) => writes.unchanged.append(&mut writes.delete),
            _ => writes.create.push(placeholder),
        }
    }

    fn hint(&self, writes: &mut Writes) {
        match service::hint_mode(self.service) {
            HintMode::Proportional if !self.settings.zone_hints => hints::clear(writes),
            mode => hints::set(mode, self.nodes, writes),
        }
    }

    fn empty(&self, address_type: AddressType, ports: Arc<[Port]>) -> Slice {
        Slice {
            name: String::new(),
            address_type,
            owner: self.owner.clone(),
            labels: Arc::clone(&self.labels),
            ports,
            endpoints: Vec::new(),
        }
    }
}

/// Names new slices by the first numbers that are free.
fn name(service: &Service, writes: &mut Writes) {
    let base = service.metadata.name.as_deref().unwrap_or_default();
    let kept = writes.unchanged.iter().map(|slice| slice.name.clone());
    let written = writes.update.iter().map(|slice| slice.name.clone());
    let gone = writes.delete.iter().map(|slice| slice.name.clone());
    let taken: std::collections::HashSet<String> = kept.chain(written).chain(gone).collect();
    let names = (1..).map(|number: u64| format!("{base}-{number}"));
    let free = names.filter(|name| !taken.contains(name));
    for (slice, name) in writes.create.iter_mut().zip(free) {
        slice.name = name;
    }
}
