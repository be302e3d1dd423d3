//! Ways to backends that were found lately: new connections to one need no other route lookup as
//! long as the network stays the same.

use super::forward::Way;
use super::{Engine, Moment, Tracked};
use crate::flow::{Address, scale};
use crate::neighbour::NextHop;
use crate::verdict::Verdict;
use crate::wire::rewrite::EthernetPair;
use sluice_conf::Forwarding;

/// Ways that are kept; a new one takes the place of another when theirs is the same.
const KEPT: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Kept<A> {
    /// Version of the network that it is of.
    version: u32,
    to: A,
    hop: NextHop<A>,
    ethernet: EthernetPair,
}

/// The ways of one family.
#[derive(Debug)]
pub(super) struct Ways<A>(Box<[Option<Kept<A>>]>);

impl<A: Address> Ways<A> {
    pub(super) fn new() -> Self {
        Self(vec![None; KEPT].into())
    }

    fn place(&mut self, to: A) -> &mut Option<Kept<A>> {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        &mut self.0[scale(to.bits().wrapping_mul(SPREAD), KEPT)]
    }
}

impl Engine {
    /// As [`Moment::way_to_backend`].
    pub(super) fn way_to_backend<'a, A: Tracked>(
        &mut self,
        backend: A,
        forwarding: Forwarding,
        moment: Moment<'a>,
    ) -> Result<Way<'a, A>, Verdict> {
        let version = moment.network_version;
        let place = A::lane_mut(self).ways.place(backend);
        let kept = place.filter(|kept| kept.version == version && kept.to == backend);
        let link = kept.and_then(|kept| moment.network.link(kept.hop.interface));
        let way = match kept.zip(link) {
            Some((kept, link)) => Way {
                hop: kept.hop,
                link,
                ethernet: kept.ethernet,
            },
            None => {
                let way = moment.way(backend)?;
                *place = Some(Kept {
                    version,
                    to: backend,
                    hop: way.hop,
                    ethernet: way.ethernet,
                });
                way
            }
        };
        way.if_to_backend(backend, forwarding)
    }
}
