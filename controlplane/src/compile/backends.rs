//! The backends of a port, and what is wrong with them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluice_conf::{Backend, Forwarding, Protocol, ServiceTable};

use super::job::{Job, Listing};
use crate::catalog::Owner as Holder;
use crate::endpoints::choice::{self, Wanted};
use crate::endpoints::{Slice, SlicePort};
use crate::object;

impl Job<'_> {
    pub(super) fn backends(&mut self, listing: &Listing<'_>) -> Vec<Backend> {
        let direct = self.owner.forwarding == Forwarding::DirectReturn;
        let wanted = match listing.range {
            true => Wanted::Every(listing.protocol),
            false => {
                self.mismatches(listing, direct);
                Wanted::Named {
                    name: &listing.name,
                    protocol: listing.protocol,
                    port: direct.then_some(listing.first),
                }
            }
        };
        let slices: Vec<&Slice> = self.owner.slices.iter().map(AsRef::as_ref).collect();
        let minimum = self.owner.spec.policies.tier_minimum.unwrap_or(1);
        let mut backends = choice::backends(&slices, wanted, self.rules.here(), minimum);
        let looping: BTreeSet<IpAddr> = backends
            .iter()
            .map(|backend| backend.address)
            .filter(|address| self.catalog.owner(*address) == Holder::Vip)
            .collect();
        if !looping.is_empty() {
            backends.retain(|backend| !looping.contains(&backend.address));
            for address in looping.into_iter().take(object::MAX_ISSUES) {
                let message =
                    format!("endpoint {address} is an address of a Service and is left out");
                self.problem(listing.place, message);
            }
        }
        let limit = ServiceTable::MAX_BACKENDS;
        if backends.len() > limit {
            let message = format!(
                "has {} endpoints; only the first {limit} are used",
                backends.len()
            );
            self.problem(listing.place, message);
            backends.truncate(limit);
        }
        backends
    }

    /// Names a port that no slice has although there are endpoints: most likely the names differ;
    /// and ports that direct return cannot reach.
    fn mismatches(&mut self, listing: &Listing<'_>, direct: bool) {
        let slices = self.owner.slices.clone();
        let filled: Vec<_> = slices
            .iter()
            .filter(|slice| !slice.endpoints.is_empty())
            .collect();
        let ports = || filled.iter().flat_map(|slice| &slice.ports);
        let matching = |p: &&SlicePort| p.name == listing.name && p.protocol == listing.protocol;
        if filled.is_empty() {
            return;
        }
        let other = |p: &&SlicePort| direct && p.port != listing.first;
        if let Some(found) = ports().filter(matching).find(other) {
            let message = format!(
                "direct return keeps the port {} that clients use: endpoints get it there, not at \
                 {} (targetPort)",
                listing.first, found.port
            );
            self.problem(listing.place, message);
        }
        if ports().any(|port| matching(&port)) {
            return;
        }
        let quoted = |name: &str, protocol: Protocol| match name {
            "" => format!("without a name, {protocol}"),
            name => format!("{name:?}, {protocol}"),
        };
        let have: BTreeSet<String> = ports().map(|p| quoted(&p.name, p.protocol)).collect();
        let have = match have.is_empty() {
            true => "no port".to_owned(),
            false => have.into_iter().collect::<Vec<_>>().join("; "),
        };
        let wanted = quoted(&listing.name, listing.protocol);
        let message = format!(
            "no EndpointSlice of this Service has this port ({wanted}), so clients are refused; \
             they have: {have}"
        );
        self.problem(listing.place, message);
    }
}
