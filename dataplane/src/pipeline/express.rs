//! The short way of a plain packet of a connection that has settled.
//!
//! The first packets of a connection go the whole way, which finds out where its packets leave and
//! writes that into the record. From then on a [`Plain`] packet needs nothing but the record and
//! one [`Exit`]. Whatever does not fit goes the whole way again: another network, another backend, a
//! packet that is too long. Both ways do the same to a packet.

use std::sync::Arc;

use super::known::{carried, way_of};
use super::{Engine, Found, Moment, Tracked, Way};
use crate::conntrack::records::Hot;
use crate::conntrack::{Binding, ConnId, ConnTable, Connection, Entry, Shortcut};
use crate::flow::Direction;
use crate::io::InterfaceId;
use crate::neighbour::{Link, Network, Tags};
use crate::stats::{BackendCounters, PerWorker};
use crate::wire::parse::Packet;
use crate::wire::plain::{Change, Head, Plain};
use foldhash::{HashMap as FastMap, HashMapExt};
use sluice_conf::Protocol;

/// Most ways that an engine knows at once: two directions to each of many backends. When there are
/// more, it forgets them all and finds out again.
const MOST_WAYS: usize = 1 << 17;

/// How frames without tags leave to one neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Exit {
    interface: InterfaceId,
    /// The Ethernet addresses that a frame begins with.
    start: [u8; 12],
    mtu: u32,
}

impl Exit {
    /// Not found out yet: nothing is short enough for it.
    const UNKNOWN: Self = Self {
        interface: InterfaceId::UNSERVED,
        start: [0; 12],
        mtu: 0,
    };
}

/// What connections to a backend have in common that the short way needs.
#[derive(Debug, Clone)]
struct Common {
    /// By direction.
    exits: [Exit; 2],
    /// The backend's; `None` when nobody's is served.
    counters: Option<Arc<PerWorker<BackendCounters>>>,
}

impl Common {
    /// What tells it apart. A backend keeps its counters as long as it stays.
    fn key(&self) -> ([Exit; 2], usize) {
        let counters = self.counters.as_ref();
        (
            self.exits,
            counters.map_or(0, |arc| Arc::as_ptr(arc).addr()),
        )
    }
}

/// What is sent to an interface's own address, without tags, begins with these six bytes.
type Door = u64;

/// No frame begins like this.
const CLOSED: Door = Door::MAX;

/// What the short way rests on beside the records.
#[derive(Debug)]
pub(super) struct Express {
    /// Counts the versions of Services and network together, from 1.
    epoch: u32,
    /// Ways that were found out before this epoch are of another network.
    since: u32,
    /// The versions of Services and network of this epoch.
    versions: Option<(u32, u32)>,
    /// By interface; closed where frames carry tags.
    doors: Vec<Door>,
    ways: Vec<Common>,
    places: FastMap<([Exit; 2], usize), u32>,
}

impl Express {
    pub(super) fn new() -> Self {
        Self {
            epoch: 0,
            since: 0,
            versions: None,
            doors: Vec::new(),
            ways: Vec::with_capacity(MOST_WAYS),
            places: FastMap::with_capacity(MOST_WAYS),
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
        self.versions = Some(versions);
        self.epoch += 1;
        if !is_same_network {
            self.forget();
            self.doors.clear();
            self.doors
                .extend(network.links().map(|(_, link)| door(link)));
        }
    }

    /// Forgets all ways.
    fn forget(&mut self) {
        self.since = self.epoch;
        self.ways.clear();
        self.places.clear();
    }

    /// Whether a frame that begins like this was sent to the interface's own address and carries no
    /// tags, for all that is known of the interface.
    #[inline]
    pub(super) fn admits(&self, start: [u8; 8], interface: InterfaceId) -> bool {
        const ADDRESS: Door = Door::from_ne_bytes([255, 255, 255, 255, 255, 255, 0, 0]);
        let door = self.doors.get(usize::from(interface.0));
        door == Some(&(Door::from_ne_bytes(start) & ADDRESS))
    }

    /// Takes a connection of an unchanged Service over from an epoch with the same network.
    #[cold]
    fn renew<'a, A: Tracked>(
        &self,
        table: &'a mut ConnTable<A>,
        id: ConnId,
        moment: &Moment<'_>,
    ) -> Option<&'a mut Hot<A>> {
        let shortcut = table.shortcut(id);
        if shortcut.epoch < self.since {
            return None;
        }
        let binding = carried(&table.binding(id), moment.services)?;
        table.rebind(id, binding);
        let hot = table.hot_mut(id);
        hot.shortcut.epoch = self.epoch;
        Some(hot)
    }

    /// The place of a way; new ones are added.
    fn place(&mut self, way: Common) -> u32 {
        let key = way.key();
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        if self.ways.len() >= MOST_WAYS {
            self.epoch += 1;
            self.forget();
        }
        let place = self.ways.len() as u32;
        self.ways.push(way);
        self.places.insert(key, place);
        place
    }

    /// What is known of both exits of a connection in this epoch.
    fn exits(&self, shortcut: Shortcut) -> [Exit; 2] {
        let way = self.ways.get(shortcut.place as usize);
        let known = way.filter(|_| shortcut.epoch == self.epoch);
        known.map_or([Exit::UNKNOWN; 2], |way| way.exits)
    }

    /// Whether this is the epoch of these versions of Services and network.
    #[cfg(test)]
    pub(super) fn is_of(&self, versions: (u32, u32)) -> bool {
        self.versions == Some(versions)
    }

    /// Whether packets of a connection could go the short way in this direction.
    pub(super) fn knows(&self, shortcut: Shortcut, direction: Direction) -> bool {
        self.exits(shortcut)[direction as usize] != Exit::UNKNOWN
    }
}

fn door(link: &Link) -> Door {
    let [a, b, c, d, e, f] = link.mac.0;
    match link.tags == Tags::default() {
        true => Door::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
        false => CLOSED,
    }
}

/// A plain packet with the hash of its tuple.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passenger<A: Tracked> {
    hash: u64,
    likely: Entry,
    plain: Plain<A>,
}

impl<A: Tracked> Passenger<A> {
    /// Reads a frame, has its bucket fetched, and tells whether it does more to its connection than to
    /// acknowledge; `None` when it is not plain.
    #[inline(always)]
    pub(super) fn read(frame: &[u8], table: &ConnTable<A>) -> Option<(Self, bool)> {
        let (plain, decides) = Plain::read(frame)?;
        let hash = table.hash_of(&plain.key);
        table.prefetch_bucket(hash);
        let likely = Entry::NONE;
        let passenger = Self {
            hash,
            likely,
            plain,
        };
        Some((passenger, decides))
    }

    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// As the whole way needs it.
    #[inline]
    pub(super) fn packet(&self, frame: &[u8]) -> Option<Packet<A>> {
        self.plain.packet(frame)
    }

    /// Whether it belongs to a connection after all, that is less likely.
    #[cold]
    pub(super) fn look_again(&mut self, table: &ConnTable<A>) -> bool {
        self.likely = table.look(self.hash, &self.plain.key);
        !self.is_stranger()
    }

    /// Has its record fetched. True when its bucket says of none; then its second bucket is fetched,
    /// if need be.
    #[inline]
    pub(super) fn fetch(&mut self, table: &ConnTable<A>) -> bool {
        self.likely = table.prefetch_record(self.hash);
        self.is_stranger()
    }

    /// Has its record fetched if only its second bucket tells of that.
    #[inline]
    pub(super) fn fetch_second(&mut self, table: &ConnTable<A>) {
        if self.is_stranger() {
            self.likely = table.prefetch_second_record(self.hash);
        }
    }

    /// Whether it seems to belong to no connection.
    #[inline]
    pub(super) fn is_stranger(&self) -> bool {
        self.likely == Entry::NONE
    }

    /// Has the packet leave the short way, by this interface; `None`, and nothing changed, when it
    /// has to go the whole way.
    #[inline(always)]
    pub(super) fn pass(
        &self,
        frame: &mut [u8],
        table: &mut ConnTable<A>,
        express: &Express,
        worker: u16,
        moment: &Moment<'_>,
    ) -> Option<InterfaceId> {
        let Self { hash, plain, .. } = self;
        let (key, bytes) = (&plain.key, frame.len());
        let head = A::Head::of_mut(frame)?;
        let mut likely = self.likely;
        let (mut hot, direction) = match table.likely(likely, key) {
            Some(found) => found,
            None => {
                likely = table.look(*hash, key);
                table.likely(likely, key)?
            }
        };
        if hot.shortcut.epoch != express.epoch {
            hot = express.renew(table, likely.into(), moment)?;
        }
        let common = express.ways.get(hot.shortcut.place as usize)?;
        let exit = &common.exits[direction as usize];
        if u32::from(plain.len) > exit.mtu {
            return None;
        }
        hot.last_seen = moment.seconds;
        if key.protocol == Protocol::Tcp {
            hot.progress.advance(direction, plain.said(head));
        }
        if let Some(counters) = common.counters.as_ref().and_then(|all| all.of(worker)) {
            counters.traffic(direction).add(bytes);
        }
        let change = Change::<A> {
            ends: hot.translated(direction),
            deltas: hot.deltas(),
            direction,
            protocol: key.protocol,
        };
        change.apply(head);
        head.as_mut()[..12].copy_from_slice(&exit.start);
        Some(exit.interface)
    }
}

impl Engine {
    /// Notes where the packets of a connection that has settled leave in both directions, so that
    /// the next ones can go the short way. `way` is that of the packet at hand.
    pub(super) fn learn<A: Tracked>(
        &mut self,
        found: Found,
        connection: &Connection<A>,
        way: &Way<'_, A>,
        moment: Moment<'_>,
    ) {
        let shortcut = A::lane(self).table.shortcut(found.id);
        let exit_here = exit(way);
        if exit_here == Exit::UNKNOWN || self.express.knows(shortcut, found.direction) {
            return;
        }
        let mut exits = self.express.exits(shortcut);
        let back = found.direction.reverse();
        if exits[back as usize] == Exit::UNKNOWN {
            let way = moment.way(way_of(connection, back));
            exits[back as usize] = way.map_or(Exit::UNKNOWN, |way| exit(&way));
        }
        exits[found.direction as usize] = exit_here;
        let place = self.express.place(Common {
            exits,
            counters: counters(connection.binding, moment).cloned(),
        });
        let epoch = self.express.epoch;
        let table = &mut A::lane_mut(self).table;
        table.set_shortcut(found.id, Shortcut { epoch, place });
    }
}

/// The exit of a way; unknown when frames carry tags there.
fn exit<A>(way: &Way<'_, A>) -> Exit {
    let exit = Exit {
        interface: way.hop.interface,
        start: way.ethernet.bytes(),
        mtu: way.link.mtu,
    };
    match way.link.tags == Tags::default() {
        true => exit,
        false => Exit::UNKNOWN,
    }
}

/// What is counted of the backend that a connection was given to.
pub(super) fn counters<'a>(
    binding: Binding,
    moment: Moment<'a>,
) -> Option<&'a Arc<PerWorker<BackendCounters>>> {
    let service = moment.services.service(binding.service)?;
    let backend = service.backends.get(usize::from(binding.backend?))?;
    Some(&backend.counters)
}
