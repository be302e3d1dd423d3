//! One question at a time to a daemon, for sluicectl. Blocks, with a limit.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_conf::codec::{self, CodecError, HEADER_LEN, MAX_BODY};
use sluice_conf::message::Hello;

use crate::words;

/// How long a daemon may be silent.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the {daemon} is not reachable at {}: {}", socket.display(), words::unreachable(source))]
    Unreachable {
        /// `dataplane` or `control plane`.
        daemon: &'static str,
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is connected and says nothing.
    #[error("the {0} does not answer within {limit} s; is it stopped?", limit = LIMIT.as_secs())]
    Silent(&'static str),
    /// The conversation broke.
    #[error("the {daemon} does not answer: {}", words::plain(source))]
    Broken {
        /// `dataplane` or `control plane`.
        daemon: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The answer is not a message.
    #[error(
        "the answer is not understood ({source}); is this the socket of the {daemon}, and of the \
         same release?"
    )]
    Codec {
        /// `dataplane` or `control plane`.
        daemon: &'static str,
        /// What is wrong.
        source: CodecError,
    },
    /// The daemon said no.
    #[error("the {daemon} refused: {reason}")]
    Refused {
        /// `dataplane` or `control plane`.
        daemon: &'static str,
        /// Its words.
        reason: String,
    },
    /// The answer belongs to another question.
    #[error("the {0} gave an answer that belongs to another question")]
    Unexpected(&'static str),
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    daemon: &'static str,
    stream: UnixStream,
}

impl Client {
    /// Connects to the `daemon` that listens on `socket`.
    ///
    /// # Errors
    /// Nobody listens there, or not for this user.
    pub fn connect(daemon: &'static str, socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .and_then(|stream| {
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                Ok(stream)
            })
            .map_err(|source| ClientError::Unreachable {
                daemon,
                socket: socket.to_owned(),
                source,
            })?;
        Ok(Self { daemon, stream })
    }

    /// What sluicectl introduces itself with.
    pub fn hello() -> Hello {
        Hello {
            program: "sluicectl".to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Sends `request` and reads the reply.
    ///
    /// # Errors
    /// The connection breaks, the daemon is silent for too long, or it answers with garbage.
    pub fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
    ) -> Result<A, ClientError> {
        let daemon = self.daemon;
        let bytes =
            codec::encode(request).map_err(|source| ClientError::Codec { daemon, source })?;
        let sent = self.stream.write_all(&bytes);
        // Who refuses may close before it was asked; its reason can still be read.
        self.receive().map_err(|error| match (error, sent) {
            (ClientError::Broken { .. }, Err(source)) => self.broken(source),
            (error, _) => error,
        })
    }

    /// Reads a further reply to the last request.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn receive<A: DeserializeOwned>(&mut self) -> Result<A, ClientError> {
        let daemon = self.daemon;
        let codec = |source| ClientError::Codec { daemon, source };
        let mut header = [0; HEADER_LEN];
        let read = self.stream.read_exact(&mut header);
        read.map_err(|error| self.broken(error))?;
        let length = codec::body_len(&header, MAX_BODY).map_err(codec)?;
        let mut body = Vec::new();
        let stream = &mut self.stream;
        let read = stream.take(length as u64).read_to_end(&mut body);
        read.map_err(|error| self.broken(error))?;
        codec::decode(&body).map_err(codec)
    }

    fn broken(&self, source: io::Error) -> ClientError {
        let daemon = self.daemon;
        match source.kind() {
            // What a socket with a time limit answers when the limit is reached.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent(daemon),
            _ => ClientError::Broken { daemon, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_conf::message::controlplane::{Reply, Request};

    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (stream, peer) = UnixStream::pair().unwrap();
        let daemon = "control plane";
        (Client { daemon, stream }, peer)
    }

    #[test]
    fn a_daemon_that_is_silent_is_told_from_one_that_is_gone() {
        let (mut client, peer) = pair();
        let short = Some(Duration::from_millis(10));
        client.stream.set_read_timeout(short).unwrap();
        let silent = client.ask::<_, Reply>(&Request::Status).unwrap_err();
        assert_eq!(
            silent.to_string(),
            "the control plane does not answer within 10 s; is it stopped?"
        );
        drop(peer);
        let gone = client.ask::<_, Reply>(&Request::Status).unwrap_err();
        assert!(matches!(gone, ClientError::Broken { .. }), "{gone}");
    }

    #[test]
    fn a_refusal_that_came_before_the_question_is_read() {
        let (mut client, mut peer) = pair();
        let refusal = Reply::Refused("only root may".into());
        peer.write_all(&codec::encode(&refusal).unwrap()).unwrap();
        drop(peer);
        assert_eq!(client.ask::<_, Reply>(&Request::Status).unwrap(), refusal);
    }
}
