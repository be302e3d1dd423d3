//! Messages of the contract over an asynchronous stream. Adds no meaning to them.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_conf::codec::{self, CodecError, HEADER_LEN};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::words;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke.
    #[error("{}", words::plain(.0))]
    Io(#[from] io::Error),
    /// The bytes are not a message.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// The other side closed the connection.
    #[error("the other side closed the connection")]
    Closed,
}

/// Reads one message with a body of at most `limit` bytes; memory grows with what arrives.
///
/// # Errors
/// The stream ends or breaks, or the bytes are not a message.
pub async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<T, FrameError> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await.map_err(closed)?;
    let length = codec::body_len(&header, limit)?;
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(FrameError::Closed);
    }
    Ok(codec::decode(&body)?)
}

/// Writes one message.
///
/// # Errors
/// The stream breaks, or the message is longer than messages may be.
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), FrameError> {
    let bytes = codec::encode(message)?;
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

fn closed(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Closed,
        _ => FrameError::Io(error),
    }
}
