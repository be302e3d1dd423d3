use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

const PORTS: (u16, u16) = (40_000, 80);

fn key(identification: u32) -> Key<Ipv4Addr> {
    Key {
        source: Ipv4Addr::new(10, 0, 1, 10),
        destination: Ipv4Addr::new(203, 0, 113, 10),
        protocol: 17,
        identification,
    }
}

fn first(len: u16) -> Piece {
    Piece {
        offset: 0,
        len,
        more: true,
        ports: Some(PORTS),
    }
}

fn middle(offset: u16, len: u16) -> Piece {
    Piece {
        offset,
        len,
        more: true,
        ports: None,
    }
}

fn last(offset: u16, len: u16) -> Piece {
    Piece {
        more: false,
        ..middle(offset, len)
    }
}

/// Shows the pieces to a fresh table; the last answer counts, and nothing may have completed before.
fn after(pieces: &[Piece]) -> (Seen, bool) {
    let mut table = FragmentTable::new(10, 60);
    let mut answer = (Seen::Unknown, false);
    for piece in pieces {
        assert!(!answer.1, "complete too early");
        let sighting = table.see(key(1), *piece, 0);
        assert!(!sighting.evicted);
        answer = (sighting.seen, sighting.complete);
    }
    assert_eq!(table.is_empty(), answer.1);
    answer
}

#[test]
fn later_fragments_learn_the_ports_of_the_first() {
    assert_eq!(after(&[first(1480)]), (Seen::First, false));
    assert_eq!(
        after(&[first(1480), middle(1480, 1480)]),
        (Seen::Known(PORTS), false)
    );
    assert_eq!(
        after(&[first(1480), last(1480, 100)]),
        (Seen::Known(PORTS), true)
    );
}

#[test]
fn fragments_before_the_first_wait_for_it() {
    assert_eq!(after(&[last(1480, 100)]), (Seen::Unknown, false));
    assert_eq!(after(&[last(1480, 100), first(1480)]), (Seen::First, true));
}

#[test]
fn a_complete_packet_frees_its_identification() {
    let mut table = FragmentTable::new(10, 60);
    for _ in 0..3 {
        assert_eq!(table.see(key(1), first(8), 0).seen, Seen::First);
        assert!(table.see(key(1), last(8, 1), 0).complete);
        assert!(table.is_empty());
    }
}

#[test]
fn a_packet_in_one_piece_has_no_business_with_others() {
    let mut table = FragmentTable::new(10, 60);
    table.see(key(1), first(16), 0);
    let whole = Piece {
        more: false,
        ..first(3)
    };
    let sighting = table.see(key(1), whole, 0);
    assert_eq!((sighting.seen, sighting.complete), (Seen::First, true));
    assert_eq!(table.len(), 1);
    assert_eq!(table.see(key(1), last(16, 3), 0).seen, Seen::Known(PORTS));
}

#[test]
fn packets_of_other_keys_are_others() {
    let mut table = FragmentTable::new(10, 60);
    table.see(key(1), first(8), 0);
    let base = key(1);
    let others = [
        Key {
            source: base.destination,
            ..base
        },
        Key {
            destination: base.source,
            ..base
        },
        Key {
            protocol: 6,
            ..base
        },
        key(2),
    ];
    for other in others {
        assert_eq!(table.see(other, last(8, 8), 0).seen, Seen::Unknown);
    }
    assert_eq!(table.len(), 5);
}

#[test]
fn both_families_are_followed() {
    let mut table = FragmentTable::new(10, 60);
    let key = Key {
        source: "2001:db8::1".parse::<Ipv6Addr>().unwrap(),
        destination: "2001:db8::2".parse().unwrap(),
        protocol: 44,
        identification: u32::MAX,
    };
    assert_eq!(table.see(key, last(8, 8), 0).seen, Seen::Unknown);
    assert_eq!(table.see(key, first(8), 0).seen, Seen::First);
}

#[test]
fn an_exact_duplicate_alone_is_refused() {
    let pieces = [first(16), middle(16, 16), first(16)];
    assert_eq!(after(&pieces).0, Seen::Duplicate);
    let pieces = [first(16), last(32, 5), last(32, 5)];
    assert_eq!(after(&pieces).0, Seen::Duplicate);
    let pieces = [first(16), middle(16, 16), middle(16, 16), last(32, 5)];
    assert_eq!(after(&pieces), (Seen::Known(PORTS), true));
}

#[test]
fn overlapping_fragments_condemn_their_packet() {
    for overlapping in [
        middle(8, 16),
        middle(40, 16),
        middle(24, 8),
        middle(16, 16),
        middle(8, 64),
        first(24),
        first(8),
        last(24, 1),
    ] {
        let mut pieces = vec![first(16), middle(16, 32), overlapping];
        assert_eq!(after(&pieces).0, Seen::Overlap, "{overlapping:?}");
        pieces.push(middle(48, 16));
        assert_eq!(after(&pieces).0, Seen::Overlap, "{overlapping:?}");
        pieces.push(first(16));
        assert_eq!(after(&pieces).0, Seen::Overlap, "{overlapping:?}");
    }
}

#[test]
fn fragments_that_contradict_each_other_condemn_their_packet() {
    let other_ports = Piece {
        ports: Some((1, 2)),
        ..first(16)
    };
    for pieces in [
        [first(16), last(32, 8), last(40, 8)],
        [first(16), last(32, 8), middle(40, 8)],
        [first(16), middle(32, 8), last(16, 8)],
        [first(16), last(32, 8), middle(32, 8)],
        [first(16), middle(32, 8), last(32, 8)],
        [first(16), middle(32, 8), other_ports],
    ] {
        assert_eq!(after(&pieces).0, Seen::Overlap, "{pieces:?}");
    }
}

#[test]
fn what_no_fragment_can_be_condemns_its_packet() {
    let no_ports = Piece {
        ports: None,
        ..first(16)
    };
    for malformed in [
        middle(16, 0),
        last(16, 0),
        middle(16, 12),
        middle(20, 8),
        no_ports,
        Piece {
            more: false,
            ..no_ports
        },
    ] {
        assert_eq!(after(&[malformed]).0, Seen::Malformed, "{malformed:?}");
        assert_eq!(after(&[malformed, first(16)]).0, Seen::Malformed);
    }
}

#[test]
fn a_packet_of_more_than_65535_bytes_is_refused() {
    assert_eq!(after(&[last(65_528, 7)]).0, Seen::Unknown);
    assert_eq!(after(&[last(65_528, 8)]).0, Seen::TooLong);
    assert_eq!(after(&[middle(65_528, 8), first(16)]).0, Seen::TooLong);
}

#[test]
fn a_packet_of_64_pieces_passes_and_one_of_65_does_not() {
    let mut pieces = vec![first(8)];
    pieces.extend((1..63).map(|n| middle(n * 8, 8)));
    pieces.push(last(63 * 8, 8));
    assert_eq!(after(&pieces), (Seen::Known(PORTS), true));

    pieces.pop();
    pieces.push(middle(63 * 8, 8));
    assert_eq!(after(&pieces), (Seen::Known(PORTS), false));
    pieces.push(last(64 * 8, 8));
    assert_eq!(after(&pieces), (Seen::TooMany, false));
    pieces.push(last(64 * 8, 8));
    assert_eq!(after(&pieces), (Seen::TooMany, false));
}

#[test]
fn a_packet_is_followed_from_its_first_arrival_until_the_timeout() {
    let mut table = FragmentTable::new(10, 60);
    table.see(key(1), first(8), 100);
    assert_eq!(
        table.see(key(1), middle(8, 8), 159).seen,
        Seen::Known(PORTS)
    );
    assert_eq!(table.see(key(1), middle(16, 8), 160).seen, Seen::Unknown);
    assert_eq!(table.len(), 1);
}

#[test]
fn expiry_goes_round_in_bounded_steps() {
    let mut table = FragmentTable::new(8, 60);
    table.see(key(1), first(8), 0);
    table.see(key(2), first(8), 30);
    assert_eq!(table.expire(59, 1000), 0);
    let expired: usize = (0..4).map(|_| table.expire(60, 4)).sum();
    assert_eq!((expired, table.len()), (1, 1));
    assert_eq!(table.see(key(2), middle(8, 8), 60).seen, Seen::Known(PORTS));
    assert_eq!(table.expire(90, 16), 1);
    assert!(table.is_empty());
}

#[test]
fn in_a_full_table_the_oldest_gives_way_and_is_counted() {
    let mut table = FragmentTable::new(4, 60);
    for n in 0..8 {
        assert!(!table.see(key(n), first(8), n).evicted);
    }
    assert_eq!(table.len(), 8);
    assert!(table.see(key(100), first(8), 10).evicted);
    assert_eq!(table.len(), 8);
    assert_eq!(table.see(key(1), last(16, 8), 10).seen, Seen::Known(PORTS));
    assert_eq!(table.see(key(0), last(8, 8), 11).seen, Seen::Unknown);
    assert!(!table.see(key(200), first(8), 65).evicted, "out of time");
}

#[test]
fn the_promised_number_of_packets_hardly_evicts() {
    let mut table = FragmentTable::new(1000, 60);
    let evicted = (0..1000).filter(|n| table.see(key(*n), first(8), 0).evicted);
    assert!(evicted.count() < 5);
}

/// A packet as the set of its bytes.
#[derive(Clone)]
struct Model {
    since: u32,
    seen: Vec<Piece>,
    bytes: Vec<bool>,
    refused: Option<Seen>,
}

impl Model {
    fn new(since: u32) -> Self {
        Self {
            since,
            seen: Vec::new(),
            bytes: vec![false; 65_536],
            refused: None,
        }
    }

    fn ports(&self) -> Option<(u16, u16)> {
        self.seen.iter().find(|p| p.offset == 0)?.ports
    }

    fn judge(&mut self, piece: Piece) -> Seen {
        if let Some(refused) = self.refused {
            return refused;
        }
        let (start, end) = (usize::from(piece.offset), piece.end() as usize);
        let refused = if piece.len == 0
            || start % 8 != 0
            || piece.more && !piece.len.is_multiple_of(8)
            || start == 0 && piece.ports.is_none()
        {
            Seen::Malformed
        } else if end > 65_535 {
            Seen::TooLong
        } else if self.seen.contains(&piece) {
            return Seen::Duplicate;
        } else if self.bytes[start..end].contains(&true) || self.breaks_the_end(piece) {
            Seen::Overlap
        } else if self.seen.len() == 64 {
            Seen::TooMany
        } else {
            self.bytes[start..end].fill(true);
            self.seen.push(piece);
            return match self.ports() {
                Some(_) if start == 0 => Seen::First,
                Some(ports) => Seen::Known(ports),
                None => Seen::Unknown,
            };
        };
        self.refused = Some(refused);
        refused
    }

    /// Whether, with the piece, a byte would lie behind a last piece.
    fn breaks_the_end(&self, piece: Piece) -> bool {
        let all = || self.seen.iter().chain([&piece]);
        all().any(|last| !last.more && all().any(|other| other.end() > last.end()))
    }

    fn is_complete(&self) -> bool {
        let last = self.seen.iter().find(|p| !p.more);
        let is_whole = |last: &Piece| self.bytes[..last.end() as usize].iter().all(|b| *b);
        self.refused.is_none() && last.is_some_and(is_whole)
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let offset = prop_oneof![8 => (0..8u16).prop_map(|n| n * 8), 1 => any::<u16>()];
    let len = prop_oneof![12 => (1..4u16).prop_map(|n| n * 8), 2 => 0..20u16, 1 => any::<u16>()];
    let ports = prop::sample::select(vec![PORTS, PORTS, PORTS, (1, 2)]);
    let more = prop::bool::weighted(0.8);
    (offset, len, more, ports, prop::bool::weighted(0.95)).prop_map(
        |(offset, len, more, ports, has_ports)| Piece {
            offset,
            len,
            more,
            ports: (offset == 0 && has_ports).then_some(ports),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..Default::default() })]

    #[test]
    fn the_table_agrees_with_a_map_of_bytes(
        steps in proptest::collection::vec((0..4u32, piece(), 0..5u32), 0..60),
    ) {
        let mut table = FragmentTable::new(100, 30);
        let mut models = HashMap::<u32, Model>::new();
        let mut now = 0;
        for (identification, piece, passed) in steps {
            now += passed;
            models.retain(|_, model| now - model.since < 30);
            let sighting = table.see(key(identification), piece, now);
            prop_assert!(!sighting.evicted);
            if piece.offset == 0 && !piece.more && piece.len > 0 && piece.ports.is_some() {
                prop_assert_eq!((sighting.seen, sighting.complete), (Seen::First, true));
                continue;
            }
            let model = models.entry(identification).or_insert_with(|| Model::new(now));
            prop_assert_eq!(sighting.seen, model.judge(piece));
            let complete = model.is_complete();
            prop_assert_eq!(sighting.complete, complete);
            if complete {
                models.remove(&identification);
            }
            table.expire(now, usize::MAX);
            prop_assert_eq!(table.len(), models.len());
        }
    }

    #[test]
    fn a_packet_in_any_order_is_complete_with_its_last_arrival(
        lens in proptest::collection::vec(1..=100u16, 2..=64),
        order in any::<u64>(),
    ) {
        let mut offset = 0;
        let mut pieces = Vec::new();
        for len in &lens {
            pieces.push(if offset == 0 { first(len * 8) } else { middle(offset, len * 8) });
            offset += len * 8;
        }
        let end = pieces.last_mut().unwrap();
        end.more = false;
        end.len -= 3;
        pieces.sort_by_key(|piece| mix(order, u64::from(piece.offset) + 1));

        let mut table = FragmentTable::new(10, 60);
        let mut is_known = false;
        for (n, piece) in pieces.iter().enumerate() {
            let sighting = table.see(key(1), *piece, 0);
            is_known |= piece.offset == 0;
            let expected = match (piece.offset, is_known) {
                (0, _) => Seen::First,
                (_, true) => Seen::Known(PORTS),
                (_, false) => Seen::Unknown,
            };
            prop_assert_eq!(sighting.seen, expected);
            prop_assert_eq!(sighting.complete, n + 1 == pieces.len());
        }
        prop_assert!(table.is_empty());
    }
}
