//! One Service, ready for new connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use foldhash::HashMap as FastMap;
use sluice_conf::{Backend, BackendState, Ping, Pool, Service};

use crate::affinity;
use crate::flow::{Address, End};
use crate::maglev::{Candidate, Maglev};
use crate::stats::{BackendCounters, PerWorker, Totals};

/// A backend of a compiled Service.
#[derive(Debug)]
pub struct CompiledBackend {
    /// As the table has it.
    pub entry: Backend,
    /// What the workers count of it.
    pub counters: Arc<PerWorker<BackendCounters>>,
}

impl CompiledBackend {
    /// As the table lists it; port 0 stands for the one that a client uses.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.entry.address, self.entry.port)
    }

    /// Where it is, for a client that used port `port`.
    pub fn end<A: Address>(&self, port: u16) -> Option<End<A>> {
        let own = match self.entry.port {
            0 => port,
            own => own,
        };
        Some(End::new(A::of(self.entry.address)?, own))
    }

    /// What session affinity remembers it by.
    pub fn fingerprint(&self) -> u32 {
        affinity::fingerprint(address_bits(self.entry.address), self.entry.port)
    }

    /// Whether new connections of a pool may go to it.
    pub const fn serves(&self, pool: Pool) -> bool {
        match pool {
            Pool::Cluster => matches!(self.entry.state, BackendState::Active),
            Pool::Local => self.entry.local,
        }
    }
}

fn address_bits(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => v4.bits(),
        IpAddr::V6(v6) => v6.bits(),
    }
}

/// Why a new connection gets a backend, or none.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// This one, by this row of the pool's Maglev table.
    Row(u16, &'a CompiledBackend, usize),
    /// This one, because the client was there before.
    Affinity(u16, &'a CompiledBackend),
    /// Others could serve, but not by the policy that counts for this client.
    NotByPolicy,
    /// Nobody can serve.
    Nobody,
}

/// Maglev tables of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pools {
    cluster: Option<Arc<Maglev>>,
    local: Option<Arc<Maglev>>,
}

impl Pools {
    fn is_ready(&self) -> bool {
        self.cluster.is_some() || self.local.is_some()
    }
}

/// A Service, ready for new connections.
#[derive(Debug)]
pub struct CompiledService {
    /// As the table has it.
    pub entry: Service,
    /// In the order of the table; a place in it is what a binding and a Maglev row hold.
    pub backends: Vec<CompiledBackend>,
    /// What session affinity knows the Service by; equal on every gateway.
    pub key: u64,
    places: FastMap<(IpAddr, u16), u16>,
    fingerprints: FastMap<u32, u16>,
    v4: Pools,
    v6: Pools,
    /// What was counted of backends that have left since.
    departed: Totals,
}

impl CompiledService {
    pub(super) fn new(entry: Service, old: Option<&CompiledService>, workers: u16) -> Self {
        let backends: Vec<CompiledBackend> = entry
            .backends
            .iter()
            .map(|backend| CompiledBackend {
                entry: *backend,
                counters: counters(backend, old, workers),
            })
            .collect();
        let places = backends
            .iter()
            .zip(0..)
            .map(|(backend, place)| ((backend.entry.address, backend.entry.port), place))
            .collect();
        let with_affinity = backends
            .iter()
            .zip(0..)
            .filter(|_| entry.affinity_seconds.is_some());
        let fingerprints = with_affinity
            .map(|(backend, place)| (backend.fingerprint(), place))
            .collect();
        let mut service = Self {
            key: key(&entry),
            entry,
            places,
            fingerprints,
            v4: Pools::default(),
            v6: Pools::default(),
            departed: Totals::default(),
            backends,
        };
        service.v4 = service.pools(old, IpAddr::is_ipv4);
        service.v6 = service.pools(old, IpAddr::is_ipv6);
        service.departed = old.map_or_else(Totals::default, |old| departed(old, &service));
        service
    }

    fn pools(&self, old: Option<&CompiledService>, is_family: fn(&IpAddr) -> bool) -> Pools {
        let table = |pool, wanted: &[Candidate]| {
            let first = wanted.first()?;
            let same = old.filter(|old| old.candidates(pool, is_family) == wanted);
            match same.and_then(|old| old.table(pool, first.address)) {
                Some(same) => Some(Arc::clone(same)),
                None => Maglev::build(wanted).map(Arc::new),
            }
        };
        let [all, near] = [Pool::Cluster, Pool::Local].map(|pool| self.candidates(pool, is_family));
        let cluster = table(Pool::Cluster, &all);
        let local = match near == all {
            true => cluster.clone(),
            false => table(Pool::Local, &near),
        };
        Pools { cluster, local }
    }

    fn candidates(&self, pool: Pool, is_family: fn(&IpAddr) -> bool) -> Vec<Candidate> {
        let backends = self.backends.iter().zip(0..);
        let serving = backends
            .filter(|(backend, _)| backend.serves(pool) && is_family(&backend.entry.address));
        serving
            .map(|(backend, index)| Candidate {
                index,
                address: backend.entry.address,
                port: backend.entry.port,
                weight: backend.entry.weight,
            })
            .collect()
    }

    /// The Maglev table of a pool, for the family of `address`.
    pub fn table(&self, pool: Pool, address: IpAddr) -> Option<&Arc<Maglev>> {
        let pools = self.of_family(address);
        match pool {
            Pool::Cluster => pools.cluster.as_ref(),
            Pool::Local => pools.local.as_ref(),
        }
    }

    fn of_family(&self, address: IpAddr) -> &Pools {
        match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }

    /// The backend for a new connection to `address`. `hash` is the flow's, or with session
    /// affinity the client's; `remembered` is where affinity had it before.
    pub fn choose(
        &self,
        pool: Pool,
        address: IpAddr,
        hash: u64,
        remembered: Option<u32>,
    ) -> Choice<'_> {
        let Some(table) = self.table(pool, address) else {
            return match self.is_ready(address) {
                true => Choice::NotByPolicy,
                false => Choice::Nobody,
            };
        };
        let before = remembered
            .and_then(|fingerprint| self.fingerprints.get(&fingerprint))
            .and_then(|place| Some((*place, self.backends.get(usize::from(*place))?)))
            .filter(|(_, backend)| {
                backend.serves(pool) && backend.entry.address.is_ipv4() == address.is_ipv4()
            });
        if let Some((place, backend)) = before {
            return Choice::Affinity(place, backend);
        }
        let row = table.row(hash);
        let place = table.pick(hash);
        match self.backends.get(usize::from(place)) {
            Some(backend) => Choice::Row(place, backend, row),
            None => Choice::Nobody,
        }
    }

    /// Whether a client may use guarded frontends.
    pub fn admits(&self, client: IpAddr) -> bool {
        let mut ranges = self.entry.source_ranges.iter();
        ranges.any(|range| range.contains(&client))
    }

    /// The place of a backend that is still listed.
    pub fn place_of(&self, address: IpAddr, port: u16) -> Option<u16> {
        let exact = self.places.get(&(address, port));
        exact.or_else(|| self.places.get(&(address, 0))).copied()
    }

    /// What was counted of the Service since it was first listed, whoever served it.
    pub fn totals(&self) -> Totals {
        let backends = self
            .backends
            .iter()
            .map(|backend| Totals::of(&backend.counters));
        backends.chain([self.departed]).sum()
    }

    /// All that decides whether its Vips answer pings.
    pub(super) fn pings(&self) -> (Ping, [bool; 2]) {
        let ready = [&self.v4, &self.v6].map(Pools::is_ready);
        (self.entry.ping, ready)
    }

    /// Whether new connections to an address of this family can be served, by whatever policy.
    pub fn is_ready(&self, address: IpAddr) -> bool {
        self.of_family(address).is_ready()
    }
}

/// The counters that the backend has had, or new ones.
fn counters(
    backend: &Backend,
    old: Option<&CompiledService>,
    workers: u16,
) -> Arc<PerWorker<BackendCounters>> {
    let same = old.and_then(|service| {
        let place = service.places.get(&(backend.address, backend.port))?;
        service.backends.get(usize::from(*place))
    });
    same.map_or_else(
        || PerWorker::new(workers),
        |same| Arc::clone(&same.counters),
    )
}

/// What was counted of backends of `old` that are not in `new`, and before.
fn departed(old: &CompiledService, new: &CompiledService) -> Totals {
    let gone = old.backends.iter().filter(|backend| {
        let end = (backend.entry.address, backend.entry.port);
        !new.places.contains_key(&end)
    });
    gone.map(|backend| Totals::of(&backend.counters))
        .chain([old.departed])
        .sum()
}

fn key(entry: &Service) -> u64 {
    let name = &entry.name;
    let parts = [&name.namespace, &name.name, &name.port];
    let bytes = parts
        .into_iter()
        .flat_map(|part| part.bytes().chain([0]))
        .chain([name.protocol.number()]);
    // FNV-1a (Fowler, Noll, Vo): names are no attacker's to choose, and the table seeds the rest.
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
