//! The short way of a plain packet of a connection that has settled.
//!
//! The first packets of a connection go the whole way, which finds out where its packets leave and
//! writes that into the record. From then on a [`Plain`] packet needs nothing but the record and
//! one [`Exit`]. Whatever does not fit goes the whole way again: another network, another backend, a
//! packet that is too long. Both ways do the same to a packet.

use super::forward::count_traffic;
use super::known::carried;
use super::{Engine, Found, Moment, Tracked, Way};
use crate::conntrack::table::Likely;
use crate::conntrack::{ConnTable, Connection};
use crate::flow::Direction;
use crate::io::InterfaceId;
use crate::neighbour::{Link, Network, Tags};
use crate::verdict::{DropReason, Verdict};
use crate::wire::plain::{self, Plain, PlainFamily};
use crate::wire::rewrite::EthernetPair;
use foldhash::{HashMap as FastMap, HashMapExt};
use sluice_conf::Protocol;

/// Most exits that an engine knows at once; connections to more neighbours go the whole way.
const MOST_EXITS: usize = 4096;

/// How frames without tags leave to one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Exit {
    interface: InterfaceId,
    ethernet: EthernetPair,
    mtu: u32,
}

/// What is sent to an interface's own address, without tags, begins with these bytes.
type Door = [u8; 6];

/// What the short way rests on beside the records.
#[derive(Debug)]
pub(super) struct Express {
    /// Counts the versions of Services and network together, from 1.
    epoch: u32,
    /// The first epoch with the network of this moment.
    network_since: u32,
    /// The versions of this epoch.
    versions: Option<(u32, u32)>,
    /// By interface; `None` where frames carry tags.
    doors: Vec<Option<Door>>,
    exits: Vec<Exit>,
    places: FastMap<Exit, u16>,
}

impl Express {
    pub(super) fn new() -> Self {
        Self {
            epoch: 0,
            network_since: 0,
            versions: None,
            doors: Vec::new(),
            exits: Vec::with_capacity(MOST_EXITS),
            places: FastMap::with_capacity(MOST_EXITS),
        }
    }

    /// Begins another epoch when Services or network are others.
    #[inline]
    pub(super) fn follow(&mut self, moment: &Moment<'_>) {
        let versions = (moment.services.version(), moment.network_version);
        if self.versions != Some(versions) {
            self.begin(versions, moment.network);
        }
    }

    #[cold]
    fn begin(&mut self, versions: (u32, u32), network: &Network) {
        let is_same_network = self.versions.is_some_and(|before| before.1 == versions.1);
        self.epoch = self.epoch.wrapping_add(1);
        self.versions = Some(versions);
        if !is_same_network {
            self.network_since = self.epoch;
            self.exits.clear();
            self.places.clear();
            self.doors.clear();
            self.doors.extend(network.links().map(|(_, link)| door(link)));
        }
    }

    /// Whether a frame was sent to this interface's own address and carries no tags, for all that
    /// is known of the interface.
    #[inline]
    pub(super) fn admits(&self, frame: &[u8], interface: InterfaceId) -> bool {
        let door = self.doors.get(usize::from(interface.0));
        door.is_some_and(|door| door.is_some() && frame.first_chunk() == door.as_ref())
    }

    /// Where the packets of a connection leave in a direction; `None` when that is to be found out.
    #[inline]
    fn exit<A: Tracked>(
        &self,
        connection: &mut Connection<A>,
        direction: Direction,
        moment: &Moment<'_>,
    ) -> Option<&Exit> {
        if connection.ways.epoch() != self.epoch {
            self.renew(connection, moment)?;
        }
        self.exits.get(usize::from(connection.ways.exit(direction)))
    }

    /// Takes a connection of an unchanged Service over from an epoch with the same network.
    #[cold]
    fn renew<A: Tracked>(
        &self,
        connection: &mut Connection<A>,
        moment: &Moment<'_>,
    ) -> Option<()> {
        if connection.ways.epoch() < self.network_since {
            return None;
        }
        connection.binding = carried(&connection.binding, moment.services)?;
        connection.ways.renew(self.epoch);
        Some(())
    }

    /// The place of an exit; `None` when there are too many.
    fn place(&mut self, exit: Exit) -> Option<u16> {
        if let Some(place) = self.places.get(&exit) {
            return Some(*place);
        }
        if self.exits.len() >= MOST_EXITS {
            return None;
        }
        let place = self.exits.len() as u16;
        self.exits.push(exit);
        self.places.insert(exit, place);
        Some(place)
    }

    /// Whether this is the epoch of these versions of Services and network.
    #[cfg(test)]
    pub(super) fn is_of(&self, versions: (u32, u32)) -> bool {
        self.versions == Some(versions)
    }

    /// Whether packets of the connection could go the short way in this direction.
    pub(super) fn knows<A: Tracked>(&self, connection: &Connection<A>, direction: Direction) -> bool {
        let exit = usize::from(connection.ways.exit(direction));
        connection.ways.epoch() == self.epoch && exit < self.exits.len()
    }
}

fn door(link: &Link) -> Option<Door> {
    (link.tags == Tags::default()).then_some(link.mac.0)
}

/// A plain packet with the hash of its tuple.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passenger<A> {
    plain: Plain<A>,
    hash: u64,
    likely: Likely,
}

impl<A: Tracked + PlainFamily> Passenger<A> {
    /// Reads a frame, and has its bucket fetched; `None` when it is not plain.
    #[inline]
    pub(super) fn read(frame: &[u8], table: &ConnTable<A>) -> Option<Self> {
        let plain = Plain::read(frame)?;
        let hash = table.hash(&plain.tuple);
        table.prefetch_bucket(hash);
        Some(Self {
            plain,
            hash,
            likely: Likely::NONE,
        })
    }

    /// Has its record fetched.
    #[inline]
    pub(super) fn fetch(&mut self, table: &ConnTable<A>) {
        self.likely = table.prefetch_record(self.hash);
    }

    /// Forwards the packet the short way; `None`, and nothing changed, when it has to go the whole
    /// way.
    #[inline]
    pub(super) fn pass(
        &self,
        frame: &mut [u8],
        table: &mut ConnTable<A>,
        express: &Express,
        worker: u16,
        moment: &Moment<'_>,
    ) -> Option<Verdict> {
        let Self {
            plain,
            hash,
            likely,
        } = self;
        let (connection, direction) = table.lookup_mut(*likely, *hash, &plain.tuple)?;
        let exit = express.exit(connection, direction, moment)?;
        if u32::from(plain.len) > exit.mtu {
            return None;
        }
        connection.last_seen = moment.seconds;
        if plain.tuple.protocol == Protocol::Tcp
            && let Some(said) = plain.said(frame)
        {
            connection.progress.advance(direction, said);
        }
        count_traffic(connection.binding, direction, frame.len(), worker, moment);
        let to = connection.translated(direction);
        let deltas = match direction {
            Direction::Original => connection.deltas,
            Direction::Reply => connection.deltas.reverse(),
        };
        match plain::translate(frame, &to, deltas, exit.ethernet) {
            true => Some(Verdict::Forward(exit.interface)),
            false => Some(Verdict::Drop(DropReason::Truncated)),
        }
    }
}

impl Engine {
    /// Notes where a connection's packets leave, so that the next one can go the short way.
    pub(super) fn learn<A: Tracked>(&mut self, found: Found, way: &Way<'_, A>) {
        let connection = A::lane(self).table.get(found.id);
        let is_known = self.express.knows(connection, found.direction);
        let is_tagged = way.link.tags != Tags::default();
        if is_tagged || is_known || !connection.is_settled() {
            return;
        }
        let exit = Exit {
            interface: way.hop.interface,
            ethernet: way.ethernet,
            mtu: way.link.mtu,
        };
        let epoch = self.express.epoch;
        if let Some(place) = self.express.place(exit) {
            let table = &mut A::lane_mut(self).table;
            table.set_exit(found.id, found.direction, epoch, place);
        }
    }
}
