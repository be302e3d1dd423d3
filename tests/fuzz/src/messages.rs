//! Messages of both control sockets. What a message takes in memory is in proportion to the bytes
//! that arrived: written again, it is no longer than it was.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_conf::codec::{HEADER_LEN, MAX_BODY, body_len, decode, encode};
use sluice_conf::message::{controlplane, dataplane};

/// Takes the bytes for a message of every kind.
pub fn run(data: &[u8]) {
    if let Some(header) = data.first_chunk::<HEADER_LEN>()
        && let Ok(len) = body_len(header, MAX_BODY)
    {
        assert!(len <= MAX_BODY, "{len} bytes would be read");
    }
    survives::<dataplane::Request>(data);
    survives::<dataplane::Reply>(data);
    survives::<controlplane::Request>(data);
    survives::<controlplane::Reply>(data);
}

fn survives<T: DeserializeOwned + Serialize + PartialEq + Debug>(body: &[u8]) {
    let Ok(message) = decode::<T>(body) else {
        return;
    };
    let written = match encode(&message) {
        Ok(written) => written,
        Err(error) => unreachable!("{message:?} was read and cannot be written: {error}"),
    };
    assert!(written.len() <= body.len() + HEADER_LEN, "{message:?} grew");
    assert_eq!(decode::<T>(&written[HEADER_LEN..]), Ok(message));
}
