//! How a message travels on a Unix socket: an 8-byte header, then the message in postcard.
//!
//! ```text
//!   0        1        2        3        4                            8
//!   | 'S'    | 'l'    | version| 0      | body length, u32 LE        | body ...
//! ```
//!
//! The header is checked before a byte of the body is read, so garbage never makes the reader
//! allocate. Decoding never panics; a body with bytes left over is an error.

use serde::{Deserialize, Serialize};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// Version of header and messages; both sides must speak the same one.
pub const VERSION: u8 = 5;

/// Largest body of a request or an answer, in bytes. A table of 10,000 Services with 100,000
/// endpoints encodes to about 1.5 MB; the limit leaves room for forty times that.
pub const MAX_BODY: usize = 64 << 20;

const MAGIC: [u8; 2] = *b"Sl";

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The first two bytes are not Sluice's.
    #[error("not a Sluice message: it starts with bytes {0:#04x} {1:#04x}")]
    Magic(u8, u8),
    /// The other side speaks another version.
    #[error(
        "message version {0} is not spoken here, only version {VERSION}; run one release of all parts"
    )]
    Version(u8),
    /// The body is longer than the limit.
    #[error("message of {0} bytes is over the limit of {1} bytes")]
    TooLong(usize, usize),
    /// The body is not the message it should be.
    #[error("malformed message: {0}")]
    Malformed(String),
}

/// Header and body of a message.
///
/// # Errors
/// [`CodecError::TooLong`] when the body exceeds [`MAX_BODY`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let header = vec![MAGIC[0], MAGIC[1], VERSION, 0, 0, 0, 0, 0];
    let mut bytes = append(message, header)?;
    let body = bytes.len() - HEADER_LEN;
    let length = u32::try_from(body).ok().filter(|_| body <= MAX_BODY);
    let Some(length) = length else {
        return Err(CodecError::TooLong(body, MAX_BODY));
    };
    bytes[4..HEADER_LEN].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// `bytes` with a message behind them.
fn append<T: Serialize>(message: &T, bytes: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(message, bytes).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Length of the body that follows a header, in bytes, at most `limit`.
///
/// # Errors
/// Wrong magic, another version, or a body over `limit`.
pub fn body_len(header: &[u8; HEADER_LEN], limit: usize) -> Result<usize, CodecError> {
    let [m0, m1, version, _, length @ ..] = *header;
    if [m0, m1] != MAGIC {
        return Err(CodecError::Magic(m0, m1));
    }
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(CodecError::TooLong(length, limit));
    }
    Ok(length)
}

/// The message in a body; it may borrow from it.
///
/// # Errors
/// [`CodecError::Malformed`] for a body that is too short, too long or of another type.
pub fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, CodecError> {
    let malformed = |error: postcard::Error| CodecError::Malformed(error.to_string());
    let (message, rest) = postcard::take_from_bytes(body).map_err(malformed)?;
    if !rest.is_empty() {
        return Err(CodecError::Malformed(format!(
            "{} bytes left over",
            rest.len()
        )));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::dataplane::{Reply, Request};
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_the_round_trip() {
        let message = Request::Push(crate::ServiceTable::default());
        let bytes = encode(&message).unwrap();
        let header: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
        assert_eq!(body_len(&header, MAX_BODY), Ok(bytes.len() - HEADER_LEN));
        assert_eq!(decode::<Request>(&bytes[HEADER_LEN..]), Ok(message));
    }

    fn survives(reply: &Reply) {
        let bytes = encode(reply).unwrap();
        assert_eq!(decode::<Reply>(&bytes[HEADER_LEN..]).as_ref(), Ok(reply));
    }

    #[test]
    fn explanations_and_tapped_packets_survive_the_round_trip() {
        use crate::message::dataplane::explain::*;
        use crate::message::dataplane::tap::*;
        let packet = Question {
            protocol: crate::Protocol::Udp,
            source: "[2001:db8::1]:5".parse().unwrap(),
            destination: "[2001:db8::2]:53".parse().unwrap(),
        };
        let masquerade = Source::Masquerade {
            address: packet.source.ip(),
            first: 1,
            last: 9,
        };
        let reason = Reason {
            name: "ttl".into(),
            sentence: "It ran out.".into(),
            remedy: "Look.".into(),
        };
        survives(&Reply::Explained(Box::new(Explanation {
            packet,
            steered: Some(false),
            generation: None,
            worker: 3,
            known: None,
            rule: None,
            affinity: Some(Affinity {
                seconds: 60,
                backend: Some(packet.destination),
                left: Some(7),
            }),
            row: Some(Row { row: 1, rows: 251 }),
            translation: Some(Translation {
                source: masquerade,
                destination: packet.destination,
            }),
            way: None,
            outcome: Outcome::Drop(reason.clone()),
        })));
        let before = Side {
            interface: "eth0".into(),
            headers: Some(Headers {
                protocol: 6,
                source: packet.source.ip(),
                destination: packet.destination.ip(),
                ports: Some((5, 53)),
                flags: Some(2),
            }),
            len: 60,
            bytes: vec![1, 2, 3],
        };
        survives(&Reply::Tapped(TapBatch {
            packets: vec![TappedPacket {
                nanoseconds: u64::MAX,
                worker: 1,
                service: None,
                backend: None,
                before: Some(before),
                after: None,
                fate: Fate::Drop(reason),
            }],
            lost: 5,
        }));
    }

    #[test]
    fn a_header_of_something_else_is_refused() {
        assert_eq!(
            body_len(b"GET / HT", 10),
            Err(CodecError::Magic(b'G', b'E'))
        );
        assert_eq!(
            body_len(b"Sl\x01\0\0\0\0\0", 10),
            Err(CodecError::Version(1))
        );
        assert_eq!(
            body_len(b"Sl\x05\0\x0b\0\0\0", 10),
            Err(CodecError::TooLong(11, 10))
        );
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&Request::Status).unwrap();
        bytes.push(0);
        assert!(decode::<Request>(&bytes[HEADER_LEN..]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
            if let Ok(header) = <[u8; HEADER_LEN]>::try_from(bytes.as_slice()) {
                let _ = body_len(&header, MAX_BODY);
            }
        }
    }
}
