//! Answers that were sent, as bytes, to be sent again to who asks the same.
//!
//! Guarantees: what is found here is what would be made anew: it was made of the same version of the
//! zone for the same bytes, but for the id. Memory is bounded: each question has one place, which the
//! next that falls there takes; nobody can choose places, for their key is random.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::respond::Ready;

/// Questions that have a place.
const PLACES: usize = 1 << 15;
/// Longest question and answer that are kept, in bytes together. Usual ones are some 150.
const LONGEST: usize = 512;
/// Length of the id, with which questions and answers begin (RFC 1035, section 4.1.1).
const ID: usize = 2;

/// Answers of one server, by datagram.
#[derive(Debug)]
pub(super) struct Kept {
    key: RandomState,
    places: Vec<Option<Box<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    kind: Option<RecordType>,
    code: ResponseCode,
    /// Question and answer without their ids, and where the second begins.
    bytes: Box<[u8]>,
    answer: usize,
}

impl Kept {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            key: RandomState::new(),
            places: std::iter::repeat_with(|| None).take(PLACES).collect(),
        }
    }

    fn place(&self, question: &[u8]) -> usize {
        self.key.hash_one(question) as usize % PLACES
    }

    /// The answer to a question, of this version of the zone.
    pub(super) fn find(&self, question: &[u8], version: u64) -> Option<Ready> {
        let (id, question) = question.split_at_checked(ID)?;
        let entry = self.places.get(self.place(question))?.as_deref()?;
        let (asked, answer) = entry.bytes.split_at_checked(entry.answer)?;
        (entry.version == version && asked == question).then(|| Ready {
            bytes: [id, answer].concat(),
            kind: entry.kind,
            code: entry.code,
            lasts: true,
        })
    }

    /// Keeps the answer to a question, if it lasts and is not too long.
    pub(super) fn keep(&mut self, question: &[u8], version: u64, ready: &Ready) {
        let Some((question, answer)) = question.get(ID..).zip(ready.bytes.get(ID..)) else {
            return;
        };
        if !ready.lasts || question.len() + answer.len() > LONGEST {
            return;
        }
        let place = self.place(question);
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(Box::new(Entry {
                version,
                kind: ready.kind,
                code: ready.code,
                bytes: [question, answer].concat().into(),
                answer: question.len(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasting(bytes: &[u8]) -> Ready {
        Ready {
            bytes: bytes.to_vec(),
            kind: Some(RecordType::A),
            code: ResponseCode::NoError,
            lasts: true,
        }
    }

    #[test]
    fn an_answer_is_found_under_another_id_until_the_zone_changes() {
        let mut kept = Kept::new();
        kept.keep(b"\x01\x02question", 7, &lasting(b"\x01\x02answer"));
        let found = |question: &[u8], version| kept.find(question, version);
        let wanted = Some(lasting(b"\x03\x04answer"));
        assert_eq!(found(b"\x03\x04question", 7), wanted);
        assert_eq!(found(b"\x03\x04question", 8), None);
        assert_eq!(found(b"\x03\x04questions", 7), None);
        assert_eq!(found(b"\x03\x04", 7), None);
        assert_eq!(found(b"\x03", 7), None);
    }

    #[test]
    fn what_does_not_last_is_not_kept() {
        let mut kept = Kept::new();
        let ready = Ready {
            lasts: false,
            ..lasting(b"\x01\x02answer")
        };
        kept.keep(b"\x01\x02question", 7, &ready);
        assert_eq!(kept.find(b"\x01\x02question", 7), None);
    }

    #[test]
    fn what_is_long_is_not_kept_and_places_do_not_grow() {
        let mut kept = Kept::new();
        let long = [0; LONGEST];
        kept.keep(b"\x01\x02question", 7, &lasting(&long));
        assert_eq!(kept.find(b"\x01\x02question", 7), None);
        for number in 0..PLACES as u32 * 2 {
            let question = [&[1, 2], &number.to_be_bytes()[..]].concat();
            kept.keep(&question, 7, &lasting(b"\x01\x02answer"));
            assert!(kept.find(&question, 7).is_some());
        }
        assert_eq!(kept.places.len(), PLACES);
    }
}
