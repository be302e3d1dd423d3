//! The two settings files. A file is parsed whole; what is unknown, of the wrong type or impossible
//! is refused with file, line and key.

pub mod controlplane;
pub mod dataplane;
mod load;

use serde::{Deserialize, Serialize};

pub use controlplane::Controlplane;
pub use dataplane::Dataplane;
pub use load::{Impossible, SettingsError};

/// How much the daemon logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what stops the daemon or breaks a promise.
    Error,
    /// Also what an operator should look at.
    Warn,
    /// Also each change of state.
    #[default]
    Info,
    /// Also each decision outside the packet path.
    Debug,
}

impl LogLevel {
    /// The word used in settings files and by the logging library.
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        }
    }
}

/// `[log]` of both files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How much is logged.
    pub level: LogLevel,
}

/// `[metrics]` of both files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address that serves Prometheus text at `/metrics`; absent: no metrics are served.
    pub listen: Option<std::net::SocketAddr>,
}
