//! Who may have which port of which address: one Service each, the one that was known first.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use sluice_conf::{Frontend, Protocol};

use crate::object::NamespacedName;

/// Ports of an address that a Service wants for one of its own ports, or for a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    pub(super) address: IpAddr,
    pub(super) protocol: Protocol,
    pub(super) first: u16,
    pub(super) last: u16,
    /// Lower goes before: when the Service was known, and the place of the claim within it.
    pub(super) rank: (u64, usize),
}

impl Claim {
    pub(super) fn new(frontend: &Frontend, protocol: Protocol, rank: (u64, usize)) -> Self {
        Self {
            address: frontend.address,
            protocol,
            first: frontend.port,
            last: frontend.last_port,
            rank,
        }
    }

    const fn overlaps(&self, other: &Claim) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What it can collide with. A port wins over a range that holds it, so only like and like
    /// exclude each other.
    fn pitch(&self) -> Pitch {
        let port = (self.first == self.last).then_some(self.first);
        (self.address, self.protocol, port)
    }
}

/// An address and a protocol, with one port, or for ranges.
type Pitch = (IpAddr, Protocol, Option<u16>);

/// All claims.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    /// Sorted by rank.
    pitches: HashMap<Pitch, Vec<(Claim, NamespacedName)>>,
    of_service: HashMap<NamespacedName, Vec<Claim>>,
}

impl Claims {
    /// Replaces what `service` wants. Returns the others that may get more or less than before.
    pub(super) fn replace(
        &mut self,
        service: &NamespacedName,
        claims: Vec<Claim>,
    ) -> BTreeSet<NamespacedName> {
        let before = self.of_service.remove(service).unwrap_or_default();
        let mut others = BTreeSet::new();
        for claim in before.iter().filter(|claim| !claims.contains(claim)) {
            self.drop_one(claim, &mut others);
        }
        for claim in claims.iter().filter(|claim| !before.contains(claim)) {
            self.add_one(claim, service, &mut others);
        }
        if !claims.is_empty() {
            self.of_service.insert(service.clone(), claims);
        }
        others.remove(service);
        others
    }

    /// The claim that has what `claim` wants, when that is another's or another one of the same
    /// Service.
    pub(super) fn winner(&self, claim: &Claim) -> Option<(&Claim, &NamespacedName)> {
        let claims = self.pitches.get(&claim.pitch())?;
        let mut granted: Vec<&(Claim, NamespacedName)> = Vec::new();
        for entry in claims {
            let winner = granted
                .iter()
                .find(|(granted, _)| granted.overlaps(&entry.0));
            if entry.0.rank == claim.rank {
                return winner.map(|(claim, service)| (claim, service));
            }
            if winner.is_none() {
                granted.push(entry);
            }
        }
        None
    }

    fn add_one(
        &mut self,
        claim: &Claim,
        service: &NamespacedName,
        others: &mut BTreeSet<NamespacedName>,
    ) {
        let claims = self.pitches.entry(claim.pitch()).or_default();
        let place = claims.partition_point(|(other, _)| other.rank < claim.rank);
        others.extend(claims.iter().skip(place).map(|(_, name)| name.clone()));
        claims.insert(place, (claim.clone(), service.clone()));
    }

    fn drop_one(&mut self, claim: &Claim, others: &mut BTreeSet<NamespacedName>) {
        let pitch = claim.pitch();
        let Some(claims) = self.pitches.get_mut(&pitch) else {
            return;
        };
        let place = claims.partition_point(|(other, _)| other.rank < claim.rank);
        if claims.get(place).is_some_and(|(other, _)| other == claim) {
            claims.remove(place);
        }
        others.extend(claims.iter().skip(place).map(|(_, name)| name.clone()));
        if claims.is_empty() {
            self.pitches.remove(&pitch);
        }
    }
}
