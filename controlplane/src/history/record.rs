//! A past table as bytes: two messages of the contract behind each other, a header and the table,
//! so that the header can be read alone, and bytes of another release are known as such.

use serde::{Deserialize, Serialize};
use sluice_conf::codec::{self, CodecError, HEADER_LEN, MAX_BODY};
use sluice_conf::table::TableError;
use sluice_conf::{Generation, ServiceTable};

/// Largest table that is recorded, in bytes: ten times one of 10,000 Services with 100,000
/// endpoints.
const MAX_TABLE: usize = 16 << 20;

/// What is told of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// When it was recorded, in seconds since 1970.
    pub(super) unix_seconds: u64,
    /// In what it differs from the one recorded before.
    pub(super) summary: String,
    /// The generation of which it is a pinned copy, if it is.
    pub(super) pinned: Option<Generation>,
}

/// Why a table cannot be recorded or read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are none of this release.
    #[error("it cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// They end too early.
    #[error("it cannot be read: it is cut off")]
    Short,
    /// The table is over the limit.
    #[error("a table of {0} bytes is over the limit of {MAX_TABLE} bytes for the history")]
    TooLong(usize),
    /// The dataplane would not take it.
    #[error("it is not valid: {0}")]
    Invalid(#[from] TableError),
}

pub(super) fn write(header: &Header, table: &ServiceTable) -> Result<Vec<u8>, RecordError> {
    let mut bytes = codec::encode(header)?;
    let table = codec::encode(table)?;
    if table.len() > MAX_TABLE {
        return Err(RecordError::TooLong(table.len()));
    }
    bytes.extend(table);
    Ok(bytes)
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, RecordError> {
    let (header, _) = split(bytes)?;
    Ok(codec::decode(header)?)
}

/// The table; it is valid.
pub(super) fn table(bytes: &[u8]) -> Result<ServiceTable, RecordError> {
    let (_, rest) = split(bytes)?;
    let (table, _) = split(rest)?;
    let table: ServiceTable = codec::decode(table)?;
    table.validate()?;
    Ok(table)
}

/// Body of the first message, and what is behind it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), RecordError> {
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(RecordError::Short)?;
    let length = codec::body_len(header, MAX_BODY)?;
    rest.split_at_checked(length).ok_or(RecordError::Short)
}
