//! What the engine keeps of each address family.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Engine;
use super::opening::Prospect;
use super::ways::Ways;
use crate::conntrack::{ConnTable, Connection};
use crate::flow::Direction;
use crate::fragments::FragmentTable;
use crate::neighbour::Routed;
use crate::wire::Family;
use crate::wire::plain::PlainFamily;

/// Connections and fragments of one family.
#[derive(Debug)]
pub struct Lane<A: Family> {
    pub(super) table: ConnTable<A>,
    pub(super) fragments: FragmentTable<A>,
    /// Source of masqueraded connections, when the settings name one.
    pub(super) source: Option<A>,
    /// Ways to backends.
    pub(super) ways: Ways<A>,
    /// What first packets of the burst at hand lead to.
    pub(super) prospects: Vec<Prospect<A>>,
    /// Connections that have ended here and whose ends have not been told yet.
    pub(super) ended: Vec<Ended<A>>,
}

impl<A: Family> Lane<A> {
    /// Has the processor fetch what the connections that will be made need of the index beside their
    /// buckets.
    pub(super) fn prefetch_room(&self) {
        for prospect in &self.prospects {
            prospect
                .hashes
                .iter()
                .for_each(|hash| self.table.prefetch_room(*hash));
        }
    }
}

/// A connection that has ended, and the directions in which its ends are to be told.
#[derive(Debug, Clone, Copy)]
pub struct Ended<A> {
    pub(super) connection: Connection<A>,
    pub(super) tell: &'static [Direction],
}

impl<A: Family> Ended<A> {
    /// Both ends are to be told.
    pub(super) const fn both(connection: Connection<A>) -> Self {
        Self {
            connection,
            tell: &[Direction::Original, Direction::Reply],
        }
    }

    /// Only the end that packets in `direction` go to: the other one is answered.
    pub(super) const fn one(connection: Connection<A>, direction: Direction) -> Self {
        let tell: &[Direction] = match direction {
            Direction::Original => &[Direction::Original],
            Direction::Reply => &[Direction::Reply],
        };
        Self { connection, tell }
    }
}

/// A family that the engine tracks.
pub trait Tracked: PlainFamily + Routed {
    /// The engine's part of it.
    fn lane(engine: &Engine) -> &Lane<Self>;

    /// The same, to change it.
    fn lane_mut(engine: &mut Engine) -> &mut Lane<Self>;
}

impl Tracked for Ipv4Addr {
    fn lane(engine: &Engine) -> &Lane<Self> {
        &engine.v4
    }

    fn lane_mut(engine: &mut Engine) -> &mut Lane<Self> {
        &mut engine.v4
    }
}

impl Tracked for Ipv6Addr {
    fn lane(engine: &Engine) -> &Lane<Self> {
        &engine.v6
    }

    fn lane_mut(engine: &mut Engine) -> &mut Lane<Self> {
        &mut engine.v6
    }
}
