//! The only place of this crate that reads a clock. Everything else is handed the time, so that
//! it can be tested without waiting.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Measures the time since the process started.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock of the control plane; all else is handed the time"
    )]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Time since [`Clock::start`]; never goes backwards.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The time of day, to be shown to people; it may jump.
    pub fn time(&self) -> Timestamp {
        Timestamp::now()
    }
}
