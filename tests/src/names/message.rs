//! Questions and answers of DNS as bytes, as far as counting clients need them: written and read by
//! another hand than the server's (RFC 1035 section 4).

use std::net::Ipv4Addr;

/// Type A.
pub const A: u16 = 1;

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The number of the question.
    pub id: u16,
    /// Response code; 0 is good.
    pub rcode: u8,
    /// Whether it is cut short.
    pub truncated: bool,
    /// Addresses of its A records, sorted.
    pub addresses: Vec<Ipv4Addr>,
}

/// A question for the records of a type. Labels are what stands between dots.
pub fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 18);
    bytes.extend(id.to_be_bytes());
    // Recursion is wanted; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// Reads an answer; `None` when it is none.
pub fn answer(bytes: &[u8]) -> Option<Answer> {
    let flags = number(bytes, 2)?;
    // An answer, not a question.
    if flags & 0x8000 == 0 {
        return None;
    }
    let (questions, answers) = (number(bytes, 4)?, number(bytes, 6)?);
    let mut place = 12;
    for _ in 0..questions {
        place = behind_name(bytes, place)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        place = behind_name(bytes, place)?;
        let (kind, length) = (number(bytes, place)?, number(bytes, place + 8)?);
        let data = bytes.get(place + 10..place + 10 + usize::from(length))?;
        if kind == A {
            addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        place += 10 + usize::from(length);
    }
    addresses.sort_unstable();
    Some(Answer {
        id: number(bytes, 0)?,
        rcode: bytes.get(3)? & 0xf,
        truncated: flags & 0x0200 != 0,
        addresses,
    })
}

fn number(bytes: &[u8], place: usize) -> Option<u16> {
    let two = bytes.get(place..place + 2)?;
    Some(u16::from_be_bytes(two.try_into().ok()?))
}

/// Where a name ends; a pointer is its end (RFC 1035 section 4.1.4).
fn behind_name(bytes: &[u8], mut place: usize) -> Option<usize> {
    loop {
        match *bytes.get(place)? {
            0 => return Some(place + 1),
            pointer if pointer >= 0xc0 => return Some(place + 2),
            length => place += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_the_rfc_has_it() {
        let bytes = question(0x1234, "web.local.", A);
        let wanted =
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x05local\x00\x00\x01\x00\x01";
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn an_answer_with_pointers_and_other_records_is_read() {
        let mut bytes = question(7, "web.local", A);
        bytes[2..8].copy_from_slice(&[0x84, 0, 0, 1, 0, 3]);
        bytes.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x05\x00\x02\xc0\x10");
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x02");
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x01");
        let read = answer(&bytes).unwrap();
        assert_eq!((read.id, read.rcode, read.truncated), (7, 0, false));
        assert_eq!(
            read.addresses,
            [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
        );
        for end in 0..bytes.len() {
            assert_eq!(answer(&bytes[..end]), None, "{end}");
        }
        assert_eq!(answer(&question(7, "web.local", A)), None);
    }
}
