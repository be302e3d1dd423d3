//! The short way of a plain packet of a connection that has settled.
//!
//! The first packets of a connection go the whole way, which finds out where its packets leave and
//! writes that into the record. From then on a [`Plain`] packet needs nothing but the record and
//! one [`Exit`]. Whatever does not fit goes the whole way again: another table, another network, a
//! packet that is too long. Both ways do the same to a packet.

use super::known::carried;
use super::{Engine, Found, Moment, Tracked, Way};
use crate::conntrack::Connection;
use crate::flow::Direction;
use crate::io::{InterfaceId, PacketIo};
use crate::neighbour::Tags;
use crate::verdict::Verdict;
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

/// The exits that connections use, under one version of the network.
#[derive(Debug)]
pub(super) struct Exits {
    version: u32,
    exits: Vec<Exit>,
    places: FastMap<Exit, u16>,
}

impl Exits {
    pub(super) fn new() -> Self {
        Self {
            version: 0,
            exits: Vec::with_capacity(MOST_EXITS),
            places: FastMap::with_capacity(MOST_EXITS),
        }
    }

    /// Forgets all of them when the network is another one.
    pub(super) fn follow(&mut self, version: u32) {
        if self.version != version {
            self.version = version;
            self.exits.clear();
            self.places.clear();
        }
    }

    fn get<A: Tracked>(&self, connection: &Connection<A>, direction: Direction) -> Option<&Exit> {
        let place = connection.ways.exit(direction, self.version)?;
        self.exits.get(usize::from(place))
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
}

impl Engine {
    /// Forwards a plain packet the short way; `None`, and nothing changed, when it has to go the
    /// whole way. `hash` is that of its tuple.
    pub(super) fn express<A: Tracked + PlainFamily, Io: PacketIo>(
        &mut self,
        io: &mut Io,
        frame: &mut Io::Frame,
        plain: &Plain<A>,
        hash: u64,
        moment: Moment<'_>,
    ) -> Option<Verdict> {
        let table = &A::lane(self).table;
        let (id, direction) = table.lookup(hash, &plain.tuple)?;
        let connection = table.get(id);
        let exit = *self.exits.get(connection, direction)?;
        let binding = carried(&connection.binding, moment.services)?;
        let fits = u32::from(plain.len) <= exit.mtu;
        if !fits || !connection.is_settled() {
            return None;
        }
        let is_rebound = binding.version != connection.binding.version;
        let to = connection.translated(direction);
        let deltas = match direction {
            Direction::Original => connection.deltas,
            Direction::Reply => connection.deltas.reverse(),
        };
        let frame = io.bytes_mut(frame);
        if !plain::translate(frame, &to, deltas, exit.ethernet) {
            return None;
        }
        let bytes = frame.len();
        let segment = (plain.tuple.protocol == Protocol::Tcp).then_some(&plain.segment);
        let table = &mut A::lane_mut(self).table;
        table.note(id, direction, segment, moment.seconds);
        if is_rebound {
            table.rebind(id, binding);
        }
        self.count_traffic(binding, direction, bytes, moment);
        Some(Verdict::Forward(exit.interface))
    }

    /// Notes where a connection's packets leave, so that the next one can go the short way.
    pub(super) fn learn<A: Tracked>(&mut self, found: Found, way: &Way<'_, A>) {
        let connection = A::lane(self).table.get(found.id);
        let is_new = self.exits.get(connection, found.direction).is_none();
        let is_tagged = way.link.tags != Tags::default();
        if is_tagged || !is_new || !connection.is_settled() {
            return;
        }
        let exit = Exit {
            interface: way.hop.interface,
            ethernet: way.ethernet,
            mtu: way.link.mtu,
        };
        let version = self.exits.version;
        if let Some(place) = self.exits.place(exit) {
            let table = &mut A::lane_mut(self).table;
            table.set_exit(found.id, found.direction, version, place);
        }
    }
}
