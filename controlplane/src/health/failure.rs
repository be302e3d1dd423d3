//! Why a probe failed, in a few words for the operator.
//!
//! Nothing that a peer chose freely gets into these words: statuses are numbers, gRPC's names are
//! from its closed lists, and the rest are sentences of the libraries.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use rustix::io::Errno;

use crate::words;

/// What became of one probe: it passed, or why not.
pub type Outcome = Result<(), Failure>;

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// The connection was reset before the answer was through.
    Reset,
    /// The connection was closed before the answer was through.
    Closed,
    /// No way leads there: `host` or `network` is unreachable.
    Unreachable(&'static str),
    /// The answer was not through within this time.
    Timeout(Duration),
    /// An HTTP status that is not accepted.
    Status(u16),
    /// Redirects lead on and on.
    Redirects,
    /// The answer is not HTTP; what the parser says of it.
    NotHttp(String),
    /// There is no TLS session; what the library says of it.
    Tls(String),
    /// A gRPC code or a health status other than `SERVING`, by its name in the protocol.
    Grpc(String),
    /// Another error of the connection.
    Connection(String),
    /// The gateway could not send the probe; says nothing about the target.
    Ours(String),
}

impl Failure {
    /// Whether it says something about the target.
    pub fn judges(&self) -> bool {
        !matches!(self, Self::Ours(_))
    }

    /// The failure behind `error`: of the connection if that is among its causes, else `other`.
    pub(super) fn behind(
        error: &(dyn Error + 'static),
        other: impl FnOnce(String) -> Self,
    ) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            match error.downcast_ref::<io::Error>() {
                Some(error) if !complains(error) => return Self::from(error),
                _ => cause = error.source(),
            }
        }
        other(words::plain(&error))
    }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            ErrorKind::UnexpectedEof => Self::Closed,
            ErrorKind::HostUnreachable => Self::Unreachable("host"),
            ErrorKind::NetworkUnreachable => Self::Unreachable("network"),
            _ if is_ours(error) => Self::Ours(words::plain(error)),
            _ => Self::Connection(words::plain(error)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

/// Whether it is a library that complains of what it read, and not the connection.
fn complains(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData
    )
}

/// Errors of this machine: judged by them, every backend would be down when files run out here.
fn is_ours(error: &io::Error) -> bool {
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::PERM,
        Errno::ACCESS,
    ];
    let number = error.raw_os_error();
    ours.iter()
        .any(|errno| number == Some(errno.raw_os_error()))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Reset => f.write_str("connection reset"),
            Self::Closed => f.write_str("connection closed before the answer was through"),
            Self::Unreachable(what) => write!(f, "{what} unreachable"),
            Self::Timeout(limit) => write!(f, "timeout after {} s", limit.as_secs_f64()),
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::Redirects => f.write_str("too many HTTP redirects"),
            Self::NotHttp(why) => write!(f, "not HTTP: {why}"),
            Self::Tls(why) => write!(f, "no TLS session: {why}"),
            Self::Grpc(name) => write!(f, "gRPC {name}"),
            Self::Connection(why) => f.write_str(why),
            Self::Ours(why) => write!(f, "could not be probed from here: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_a_few_words() {
        for (failure, words) in [
            (Failure::Refused, "connection refused"),
            (Failure::Status(503), "HTTP 503"),
            (
                Failure::Timeout(Duration::from_secs(1)),
                "timeout after 1 s",
            ),
            (
                Failure::Timeout(Duration::from_millis(250)),
                "timeout after 0.25 s",
            ),
            (Failure::Grpc("NOT_SERVING".into()), "gRPC NOT_SERVING"),
            (Failure::Unreachable("host"), "host unreachable"),
        ] {
            assert_eq!(failure.to_string(), words);
        }
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_about_the_target() {
        for errno in [Errno::MFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
            let failure = Failure::from(io::Error::from(errno));
            assert!(!failure.judges(), "{failure}");
        }
        for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::CONNRESET] {
            let failure = Failure::from(io::Error::from(errno));
            assert!(failure.judges(), "{failure}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the library gave up")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_connection_that_failed_is_found_behind_other_errors() {
        let wrapped = Wrapped(io::Error::from(Errno::CONNREFUSED));
        let failure = Failure::behind(&wrapped, Failure::NotHttp);
        assert_eq!(failure, Failure::Refused);
        let parse = "x".parse::<u8>().unwrap_err();
        let failure = Failure::behind(&parse, Failure::NotHttp);
        assert_eq!(
            failure.to_string(),
            "not HTTP: invalid digit found in string"
        );
    }
}
