//! The table of fragmented packets. Its memory is fixed, and the pieces of one packet that it lets
//! through never overlap: no receiver can put two packets together from them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use arbitrary::{Arbitrary, Unstructured};
use sluice_dataplane::fragments::{FragmentTable, Key, Piece, Seen};

const PACKETS: u32 = 16;
const TIMEOUT: u32 = 30;
const STEPS: usize = 512;

#[derive(Debug, Arbitrary)]
struct Step {
    packet: u8,
    /// In units of 8 bytes, as on the wire.
    offset: u16,
    len: u8,
    more: bool,
    is_odd: bool,
    passes: bool,
}

impl Step {
    fn key(&self) -> Key<Ipv4Addr> {
        Key {
            source: Ipv4Addr::new(10, 0, 1, self.packet & 3),
            destination: Ipv4Addr::new(203, 0, 113, 10),
            protocol: 17,
            identification: u32::from(self.packet >> 2),
        }
    }

    fn piece(&self) -> Piece {
        let offset = (self.offset & 0x1fff) * 8;
        Piece {
            offset,
            len: u16::from(self.len) * 8 + u16::from(self.is_odd),
            more: self.more,
            ports: (offset == 0).then_some((1, 2)),
        }
    }
}

/// Takes the bytes for fragments that arrive.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let mut table = FragmentTable::new(PACKETS, TIMEOUT);
    // Ranges let through, by packet, since its record was made.
    let mut passed: HashMap<Key<Ipv4Addr>, Vec<(u32, u32)>> = HashMap::new();
    let mut now = 0;
    for _ in 0..STEPS {
        let Ok(step) = Step::arbitrary(&mut bytes) else {
            break;
        };
        if step.passes {
            now += u32::from(step.len) / 16;
            table.expire(now, 64);
            // Records may go at any time from now on.
            passed.clear();
            continue;
        }
        let (key, piece) = (step.key(), step.piece());
        let sighting = table.see(key, piece, now);
        assert!(
            table.len() <= PACKETS as usize * 2,
            "{} packets",
            table.len()
        );
        if sighting.evicted {
            passed.clear();
            continue;
        }
        let is_whole = piece.offset == 0 && !piece.more;
        if !is_whole && matches!(sighting.seen, Seen::First | Seen::Known(_) | Seen::Unknown) {
            note(passed.entry(key).or_default(), piece);
        }
        if sighting.complete && !is_whole {
            passed.remove(&key);
        }
        if let Seen::Known(ports) = sighting.seen {
            assert_eq!(ports, (1, 2));
        }
        if bytes.is_empty() {
            break;
        }
    }
}

fn note(ranges: &mut Vec<(u32, u32)>, piece: Piece) {
    let begin = u32::from(piece.offset);
    let end = begin + u32::from(piece.len);
    assert!(end <= 65_535, "{piece:?} is too long");
    for (first, last) in &*ranges {
        assert!(
            end <= *first || *last <= begin,
            "{piece:?} overlaps {first}-{last}"
        );
    }
    ranges.push((begin, end));
}
