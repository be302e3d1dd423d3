use super::super::bucket::Bucket;
use super::super::records::Cold;
use super::super::tags::WAYS;
use super::*;
use crate::conntrack::{Binding, Handling, State, TcpState};
use crate::flow::End;
use proptest::prelude::*;
use sluice_conf::Protocol;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

fn connection(client: u16, source: u16) -> Connection<Ipv4Addr> {
    let end = |last, port| End::new(Ipv4Addr::new(10, 0, 0, last), port);
    Connection {
        original: FiveTuple {
            source: end(1, client),
            destination: end(9, 80),
            protocol: Protocol::Tcp,
        },
        reply: FiveTuple {
            source: end(2, 8080),
            destination: end(3, source),
            protocol: Protocol::Tcp,
        },
        state: State::Tcp(TcpState::SynSent),
        created: Seconds(0),
        last_seen: Seconds(0),
        handling: Handling::Translated,
        binding: Binding::default(),
        ..Connection::UNUSED
    }
}

fn table(capacity: u32) -> ConnTable<Ipv4Addr> {
    ConnTable::new(capacity, Timeouts::default(), 42, Seconds(0))
}

fn find(table: &ConnTable<Ipv4Addr>, tuple: &FiveTuple<Ipv4Addr>) -> Option<(ConnId, Direction)> {
    table.lookup(table.hash(tuple), tuple)
}

#[test]
fn a_connection_is_found_from_both_sides_and_gone_from_both() {
    let mut table = table(1024);
    let connection = connection(40_000, 20_000);
    let id = table.insert(connection).unwrap();
    assert_eq!(
        find(&table, &connection.original),
        Some((id, Direction::Original))
    );
    assert_eq!(
        find(&table, &connection.reply),
        Some((id, Direction::Reply))
    );
    assert_eq!(find(&table, &connection.original.invert()), None);
    assert_eq!(table.remove(id), connection);
    assert_eq!(find(&table, &connection.original), None);
    assert_eq!(find(&table, &connection.reply), None);
    assert!(table.is_empty());
}

#[test]
fn a_reply_tuple_in_use_inserts_neither_direction() {
    let mut table = table(1024);
    let first = table.insert(connection(40_000, 20_000)).unwrap();
    let second = connection(40_001, 20_000);
    assert_eq!(table.insert(second), Err(InsertError::InUse(first)));
    assert_eq!(find(&table, &second.original), None);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_full_table_refuses_and_takes_again_after_a_removal() {
    let mut table = table(1024);
    let ids: Vec<_> = (0..1024)
        .map(|n| table.insert(connection(1000 + n, 30_000 + n)).unwrap())
        .collect();
    assert_eq!(table.insert(connection(9000, 9000)), Err(InsertError::Full));
    table.remove(ids[500]);
    assert!(table.insert(connection(9000, 9000)).is_ok());
}

#[test]
fn a_connection_expires_after_the_timeout_of_its_state() {
    let mut table = table(1024);
    let id = table.insert(connection(40_000, 20_000)).unwrap();
    let mut gone = 0;
    table.expire(Seconds(120), 10, |_| gone += 1);
    assert_eq!(gone, 0);
    table.touch(id, State::Tcp(TcpState::Established), Seconds(120));
    table.expire(Seconds(500), 10, |_| gone += 1);
    assert_eq!(gone, 0);
    table.touch(id, State::Tcp(TcpState::Close), Seconds(500));
    // The last packet may have come at the end of second 500.
    table.expire(Seconds(510), 10, |_| gone += 1);
    assert_eq!((gone, table.expires_in(id, Seconds(500))), (0, 10));
    table.expire(Seconds(511), 10, |_| gone += 1);
    assert_eq!((gone, table.len()), (1, 0));
}

#[test]
fn packets_put_off_the_end() {
    let mut table = table(1024);
    let id = table.insert(connection(40_000, 20_000)).unwrap();
    let mut gone = 0;
    for second in (0..1000).step_by(100) {
        table.touch(id, State::Tcp(TcpState::SynSent), Seconds(second));
        table.expire(Seconds(second), 10, |_| gone += 1);
    }
    assert_eq!(gone, 0);
    table.expire(Seconds(900 + 121), 10, |_| gone += 1);
    assert_eq!(gone, 1);
}

#[test]
fn a_page_walks_over_every_connection_once() {
    let mut table = table(2048);
    for n in 0..1500 {
        table.insert(connection(1000 + n, 30_000 + n)).unwrap();
    }
    let (mut from, mut seen) = (Some(0), 0);
    while let Some(start) = from {
        let (ids, next) = table.page(start, 100);
        seen += ids.count();
        from = next;
    }
    assert_eq!(seen, 1500);
}

proptest! {
    #[test]
    fn it_does_what_two_hash_maps_do(
        steps in proptest::collection::vec((0u16..48, 0u16..48, any::<bool>()), 1..400),
    ) {
        let mut table = table(1024);
        let mut model: HashMap<FiveTuple<Ipv4Addr>, (ConnId, Direction)> = HashMap::new();
        for (client, source, add) in steps {
            let connection = connection(1000 + client, 30_000 + source);
            let taken = [connection.original, connection.reply].iter().any(|t| model.contains_key(t));
            if add {
                let result = table.insert(connection);
                prop_assert_eq!(result.is_ok(), !taken);
                if let Ok(id) = result {
                    model.insert(connection.original, (id, Direction::Original));
                    model.insert(connection.reply, (id, Direction::Reply));
                }
            } else if let Some((id, _)) = model.get(&connection.original).copied() {
                let removed = table.remove(id);
                model.remove(&removed.original);
                model.remove(&removed.reply);
            }
            prop_assert_eq!(table.len() * 2, model.len());
            for (tuple, expected) in &model {
                prop_assert_eq!(find(&table, tuple), Some(*expected));
            }
        }
    }

    #[test]
    fn crowded_buckets_lose_nobody(seed in any::<u64>()) {
        // 1,216 connections are 2,432 entries in 256 buckets of 10: 95 of 100 places.
        let mut table: ConnTable<Ipv4Addr> = ConnTable::new(1216, Timeouts::default(), seed, Seconds(0));
        prop_assert_eq!(table.index.buckets(), 256);
        let all: Vec<_> = (0..1216).map(|n| connection(1000 + n, 30_000 + n)).collect();
        let ids: Vec<_> = all.iter().map(|c| table.insert(*c).unwrap()).collect();
        for (connection, id) in all.iter().zip(&ids).step_by(2) {
            prop_assert_eq!(table.remove(*id), *connection);
        }
        for (connection, id) in all.iter().zip(&ids).skip(1).step_by(2) {
            prop_assert_eq!(find(&table, &connection.reply), Some((*id, Direction::Reply)));
        }
    }
}

#[test]
fn a_connection_takes_no_more_memory_than_it_must() {
    // Record, two entries of the index at 19 of 20 ways, links of the wheel.
    let entries = 2.0 * 64.0 / (0.95 * WAYS as f64);
    let all_of = |hot: usize| (hot + size_of::<Cold>()) as f64 + entries + 8.0;
    assert!(all_of(size_of::<Hot<Ipv4Addr>>()) < 102.0);
    assert!(all_of(size_of::<Hot<Ipv6Addr>>()) < 150.0);
    assert_eq!(size_of::<Bucket>(), 64);
}
