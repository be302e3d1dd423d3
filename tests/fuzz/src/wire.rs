//! The parsers of headers one by one: what they return lies within what they were given.

use std::net::Ipv6Addr;

use sluice_dataplane::neighbour::Tags;
use sluice_dataplane::wire::parse::{Datagram, Parsed, Place, parse};
use sluice_dataplane::wire::{checksum, extension, mss, ndp};

const TAGS: [Tags; 3] = [Tags([0, 0]), Tags([7, 0]), Tags([7, 9])];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Takes the bytes for a frame, and for every header that can stand in one.
pub fn run(data: &[u8]) {
    for tags in TAGS {
        frame(data, tags);
    }
    if let Ok(transport) = extension::walk(data) {
        assert!(transport.offset <= data.len(), "{transport:?}");
    }
    segment(data);
    solicitation(data);
}

fn frame(data: &[u8], tags: Tags) {
    let place = match parse(data, tags) {
        Ok(Parsed::V4(Datagram::Packet(packet))) => packet.place,
        Ok(Parsed::V6(Datagram::Packet(packet))) => packet.place,
        Ok(Parsed::V4(Datagram::Complaint(complaint))) => complaint.place,
        Ok(Parsed::V6(Datagram::Complaint(complaint))) => complaint.place,
        Ok(Parsed::V4(Datagram::Echo(echo))) => echo.place,
        Ok(Parsed::V6(Datagram::Echo(echo))) => echo.place,
        Ok(Parsed::V4(Datagram::Fragment(fragment))) => fragment.place,
        Ok(Parsed::V6(Datagram::Fragment(fragment))) => fragment.place,
        Ok(Parsed::Arp(_) | Parsed::Question(_)) | Err(_) => return,
    };
    ensure_within(&place, data.len());
}

fn ensure_within(place: &Place, len: usize) {
    assert!(place.network <= place.transport, "{place:?}");
    assert!(place.transport <= place.end, "{place:?}");
    assert!(usize::from(place.end) <= len, "{place:?} in {len} bytes");
}

/// Clamping changes nothing but the value and the checksum, and keeps the sum right.
fn segment(data: &[u8]) {
    let mut segment = data.to_vec();
    let Some((old, new)) = mss::clamp(&mut segment, 1000) else {
        assert_eq!(segment, data);
        return;
    };
    assert!(new < old && new == 1000, "{old} became {new}");
    assert_eq!(segment.len(), data.len());
    let changed = segment.iter().zip(data).filter(|(a, b)| a != b).count();
    assert!(changed <= 4, "{changed} bytes have changed");
    if segment.len().is_multiple_of(2) {
        let (before, after) = (checksum::of(data), checksum::of(&segment));
        let is_same = before == after
            || before.wrapping_sub(after) == 0xffff
            || after.wrapping_sub(before) == 0xffff;
        assert!(is_same, "the sum went from {before:#06x} to {after:#06x}");
    }
}

fn solicitation(data: &[u8]) {
    let target: [u8; 16] = data
        .get(8..24)
        .and_then(|t| t.first_chunk())
        .copied()
        .unwrap_or([0; 16]);
    let ends = [
        (Ipv6Addr::UNSPECIFIED, ndp::solicited_node(target.into())),
        (
            "fe80::1".parse().unwrap_or(Ipv6Addr::LOCALHOST),
            target.into(),
        ),
    ];
    for (source, destination) in ends {
        let Some(asked) = ndp::parse(data, source, destination, 255) else {
            continue;
        };
        assert!(!asked.target.is_multicast(), "{asked:?}");
        let mut answer = data.to_vec();
        answer.resize(14 + 200, 0);
        let len = ndp::answer(&mut answer, 14, &asked, MAC);
        assert!(len.is_some_and(|len| len <= answer.len()), "{asked:?}");
    }
}
