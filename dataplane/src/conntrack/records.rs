//! The records of a table, each in two parts: what every packet needs, one cache line with IPv4,
//! and the rest, which only the first and the last packets look at.

use sluice_conf::Protocol;
use sluice_conf::settings::dataplane::Timeouts;

use super::connection::deadline;
use super::{Binding, Connection, Deadline, Handling, Progress, Seconds, State};
use crate::flow::{Address, Direction, Ends, FiveTuple, Key};
use crate::memory::{prefetch, reserved};
use crate::wire::Family;
use crate::wire::plain::Deltas;

/// What every packet of a connection needs.
#[derive(Debug, Clone, Copy)]
pub struct Hot<A: Address> {
    /// Of the packets of each direction; the source port is 0 when it is not in use.
    ends: [A::Ends; 2],
    protocol: Protocol,
    handling: Handling,
    /// When the last packet was seen.
    pub last_seen: Seconds,
    /// What both sides have sent, with TCP.
    pub progress: Progress,
    /// What was found out about its way.
    pub shortcut: Shortcut,
    /// How the checksums of the original direction change; means nothing without a shortcut.
    deltas: Deltas,
    _line: A::Line,
}

/// Place of what was found out about a connection's way, in a list of whoever found it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcut {
    /// When it was found out, or found to be still right; 0 for never.
    pub epoch: u32,
    /// The place.
    pub place: u32,
}

impl Shortcut {
    /// Nothing was found out.
    pub const NONE: Self = Self { epoch: 0, place: 0 };
}

/// The rest.
#[derive(Debug, Clone, Copy)]
pub struct Cold {
    version: u32,
    service: u32,
    /// When a connection of UDP was made; when another one must have ended, 0 without a limit.
    second: u32,
    /// [`Cold::GONE`] without one.
    backend: u16,
    /// Where it stands.
    pub state: State,
}

impl Cold {
    /// No place of a backend: an endpoint more than a Service can have.
    const GONE: u16 = u16::MAX;

    #[inline]
    fn of<A>(connection: &Connection<A>) -> Self {
        let state = connection.state;
        let mut cold = Self {
            version: 0,
            service: 0,
            second: if state.is_udp() {
                connection.created.0
            } else {
                0
            },
            backend: Self::GONE,
            state,
        };
        cold.bind(connection.binding);
        cold
    }

    #[inline]
    fn bind(&mut self, binding: Binding) {
        self.version = binding.version;
        self.service = binding.service;
        self.backend = binding.backend.unwrap_or(Self::GONE);
        if !self.state.is_udp() {
            self.second = binding.until.map_or(0, |until| until.seconds().0);
        }
    }

    fn created(&self) -> Seconds {
        Seconds(if self.state.is_udp() { self.second } else { 0 })
    }

    fn until(&self) -> Option<Deadline> {
        let until = Seconds(self.second);
        (!self.state.is_udp() && until.0 != 0).then(|| Deadline::at(until))
    }

    fn binding(&self) -> Binding {
        Binding {
            version: self.version,
            service: self.service,
            backend: (self.backend != Self::GONE).then_some(self.backend),
            until: self.until(),
        }
    }
}

impl<A: Address> Hot<A> {
    /// Whether packets in `direction` arrive with this key.
    #[inline]
    pub fn has(&self, direction: Direction, key: &Key<A>) -> bool {
        self.ends[direction as usize] == key.ends && self.protocol == key.protocol
    }

    /// What packets in `direction` arrive with.
    #[inline]
    pub fn key(&self, direction: Direction) -> Key<A> {
        Key {
            ends: self.ends[direction as usize],
            protocol: self.protocol,
        }
    }

    /// What packets in `direction` leave with, as [`Connection::translated`].
    #[inline]
    pub fn translated(&self, direction: Direction) -> A::Ends {
        match self.handling {
            Handling::Translated | Handling::Passing => {
                self.ends[direction.reverse() as usize].swapped()
            }
            Handling::Direct => self.ends[direction as usize],
        }
    }

    /// How the checksums of packets of the original direction change.
    #[inline]
    pub fn deltas(&self) -> Deltas {
        self.deltas
    }

    #[inline]
    fn of(connection: &Connection<A>) -> Self {
        let ends = |tuple: &FiveTuple<A>| A::Ends::of(tuple.source, tuple.destination);
        Self {
            ends: [ends(&connection.original), ends(&connection.reply)],
            protocol: connection.original.protocol,
            handling: connection.handling,
            last_seen: connection.last_seen,
            progress: connection.progress,
            shortcut: Shortcut::NONE,
            deltas: Deltas::NONE,
            _line: A::Line::default(),
        }
    }

    fn is_in_use(&self) -> bool {
        self.ends[0].source().port != 0
    }
}

/// All of them, in use or not.
#[derive(Debug)]
pub struct Records<A: Family> {
    hot: Box<[Hot<A>]>,
    cold: Box<[Cold]>,
}

impl<A: Family> Records<A> {
    /// So many that are not in use.
    pub fn new(count: usize) -> Self {
        Self {
            hot: reserved(Hot::of(&Connection::UNUSED), count),
            cold: reserved(Cold::of::<A>(&Connection::UNUSED), count),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.hot.len()
    }

    /// Has the processor fetch what every packet needs.
    #[inline]
    pub fn prefetch(&self, number: u32) {
        if let Some(hot) = self.hot.get(number as usize) {
            prefetch(hot);
        }
    }

    /// Has the processor fetch the rest.
    pub fn prefetch_cold(&self, number: u32) {
        if let Some(cold) = self.cold.get(number as usize) {
            prefetch(cold);
        }
    }

    /// Whether `number` is a record in use.
    pub fn is_in_use(&self, number: u32) -> bool {
        let hot = self.hot.get(number as usize);
        hot.is_some_and(Hot::is_in_use)
    }

    /// What every packet needs of a record; `None` when there is none of this number.
    #[inline]
    pub fn hot(&self, number: u32) -> Option<&Hot<A>> {
        self.hot.get(number as usize)
    }

    /// The same, to change it if there is one.
    #[inline]
    pub fn likely(&mut self, number: u32) -> Option<&mut Hot<A>> {
        self.hot.get_mut(number as usize)
    }

    /// The same of a record that there is.
    #[inline]
    pub fn hot_mut(&mut self, number: u32) -> &mut Hot<A> {
        &mut self.hot[number as usize]
    }

    /// The rest, to change it.
    pub fn cold_mut(&mut self, number: u32) -> &mut Cold {
        &mut self.cold[number as usize]
    }

    /// Who serves the connection of a record.
    pub fn binding(&self, number: u32) -> Binding {
        self.cold[number as usize].binding()
    }

    /// Has another serve it; true when it gets another end by that.
    pub fn rebind(&mut self, number: u32, binding: Binding) -> bool {
        let cold = &mut self.cold[number as usize];
        let until = cold.until();
        cold.bind(binding);
        until != cold.until()
    }

    /// As [`Connection::deadline`].
    pub fn deadline(&self, number: u32, timeouts: &Timeouts) -> Seconds {
        let (hot, cold) = (&self.hot[number as usize], &self.cold[number as usize]);
        deadline(hot.last_seen, cold.state, cold.until(), timeouts)
    }

    /// The whole record.
    pub fn get(&self, number: u32) -> Connection<A> {
        let (hot, cold) = (&self.hot[number as usize], &self.cold[number as usize]);
        Connection {
            original: hot.key(Direction::Original).tuple(),
            reply: hot.key(Direction::Reply).tuple(),
            state: cold.state,
            handling: hot.handling,
            created: cold.created(),
            last_seen: hot.last_seen,
            binding: cold.binding(),
            progress: hot.progress,
        }
    }

    /// Replaces the whole record; nothing is known about its way.
    pub fn set(&mut self, number: u32, connection: &Connection<A>) {
        self.hot[number as usize] = Hot::of(connection);
        self.cold[number as usize] = Cold::of(connection);
    }

    /// Notes what was found out about its way.
    pub fn set_shortcut(&mut self, number: u32, shortcut: Shortcut) {
        let hot = self.hot_mut(number);
        let [from, to] = [hot.ends[0], hot.translated(Direction::Original)];
        hot.deltas = Deltas::between::<A>(&from, &to);
        hot.shortcut = shortcut;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::TcpState;
    use crate::flow::End;
    use std::net::Ipv4Addr;

    #[test]
    fn every_packet_of_ipv4_needs_one_cache_line() {
        assert_eq!(
            (size_of::<Hot<Ipv4Addr>>(), align_of::<Hot<Ipv4Addr>>()),
            (64, 64)
        );
    }

    #[test]
    fn the_rest_of_four_records_needs_one_cache_line() {
        assert_eq!(size_of::<Cold>(), 16);
    }

    #[test]
    fn a_record_has_room_for_the_birth_of_udp_and_for_the_end_of_others() {
        let until = Some(Deadline::at(Seconds(90)));
        let bound = |backend, until| Binding {
            version: 3,
            service: 70_000,
            backend,
            until,
        };
        let mut records = Records::<Ipv4Addr>::new(1);
        let udp = Connection {
            state: State::UdpAnswered,
            created: Seconds(7),
            binding: bound(Some(65_534), None),
            ..Connection::UNUSED
        };
        let tcp = Connection {
            state: State::Tcp(TcpState::Established),
            binding: bound(None, until),
            ..Connection::UNUSED
        };
        for connection in [udp, tcp] {
            records.set(0, &connection);
            assert_eq!(records.get(0), connection);
            assert_eq!(records.binding(0), connection.binding);
        }
        assert!(!records.rebind(0, bound(Some(0), until)));
        assert!(records.rebind(0, bound(Some(0), None)));
        assert_eq!(records.binding(0), bound(Some(0), None));
    }

    #[test]
    fn what_was_set_is_what_one_gets() {
        let end = |last, port| End::new(Ipv4Addr::new(10, 0, 0, last), port);
        let connection = Connection {
            original: FiveTuple {
                source: end(1, 40_000),
                destination: end(9, 80),
                protocol: Protocol::Tcp,
            },
            reply: FiveTuple {
                source: end(2, 8080),
                destination: end(3, 20_000),
                protocol: Protocol::Tcp,
            },
            state: State::Tcp(TcpState::SynReceived),
            last_seen: Seconds(5),
            handling: Handling::Passing,
            ..Connection::UNUSED
        };
        let mut records = Records::new(2);
        records.set(1, &connection);
        assert_eq!(records.get(1), connection);
        assert_eq!(records.get(0), Connection::UNUSED);
        assert_eq!(
            [0, 1, 2].map(|number| records.is_in_use(number)),
            [false, true, false]
        );
        let hot = records.hot(1).unwrap();
        for direction in [Direction::Original, Direction::Reply] {
            let key = Key::from(connection.tuple(direction));
            assert!(hot.has(direction, &key));
            assert_eq!(hot.key(direction), key);
            let translated = Key::from(&connection.translated(direction));
            assert_eq!(hot.translated(direction), translated.ends);
            let other = Key {
                protocol: Protocol::Udp,
                ..key
            };
            assert!(!hot.has(direction, &other));
            assert!(!hot.has(direction.reverse(), &key));
        }
    }
}
