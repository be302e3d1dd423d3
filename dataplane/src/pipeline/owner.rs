//! Which worker owns a flow: computed from the packet alone, the same from both directions.

use super::{Engine, Moment, Tracked};
use crate::flow::{End, FiveTuple, scale};
use crate::service::Target;

impl Engine {
    /// The worker that owns the packet's flow, if it is another one.
    ///
    /// From a client: by the client's address and port. To a client that keeps its address: the
    /// same, seen from the other side. To a masquerade port: the worker whose block holds it.
    pub(super) fn other_owner<A: Tracked>(
        &self,
        tuple: &FiveTuple<A>,
        moment: Moment<'_>,
    ) -> Option<u16> {
        if self.workers == 1 {
            return None;
        }
        let owner = self.owner(tuple, moment);
        (owner != self.worker).then_some(owner)
    }

    /// The worker that owns the packet's flow.
    pub(super) fn owner<A: Tracked>(&self, tuple: &FiveTuple<A>, moment: Moment<'_>) -> u16 {
        let services = moment.services;
        let to = tuple.destination;
        let target = Target::from_end(to, tuple.protocol);
        let is_own = moment.network.is_own(to.address) || A::lane(self).source == Some(to.address);
        if is_own {
            // An address that serves both clients and masquerade: the port tells the two apart.
            let block = self.ports.owner(to.port);
            return match block.filter(|_| services.frontend(&target).is_none()) {
                Some(worker) => worker,
                None => self.by_client(tuple.source),
            };
        }
        if services.vips().is_used(target.address) {
            return self.by_client(tuple.source);
        }
        let source = Target::from_end(tuple.source, tuple.protocol);
        match (
            services.is_preserving_backend(&target),
            services.is_preserving_backend(&source),
        ) {
            // Two backends that talk to each other: either may be the client.
            (true, true) => self.by_client(tuple.source.min(to)),
            (true, false) => self.by_client(tuple.source),
            (false, _) => self.by_client(to),
        }
    }

    fn by_client<A: Tracked>(&self, end: End<A>) -> u16 {
        scale(end.hash(), usize::from(self.workers)) as u16
    }
}
