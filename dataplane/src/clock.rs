//! Time as the engine sees it: an argument, counted from the start of the process.

use std::time::{Duration, SystemTime};

use crate::conntrack::Seconds;

/// Nanoseconds since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Time {
    /// Whole seconds.
    pub const fn seconds(self) -> Seconds {
        Seconds((self.0 / 1_000_000_000) as u32)
    }

    /// This moment and a while later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

/// Reads the monotonic clock; only the loops around the engine hold one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: std::time::Instant,
    /// The start in nanoseconds since the start of 1970, UTC.
    since_1970: u64,
}

impl Clock {
    /// A clock that starts now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started: std::time::Instant::now(),
            since_1970: since_1970.map_or(0, |passed| passed.as_nanos() as u64),
        }
    }

    /// Time since the start.
    pub fn now(&self) -> Time {
        Time(self.started.elapsed().as_nanos() as u64)
    }

    /// The time in nanoseconds since the start of 1970, UTC; does not follow what is done to the
    /// host's date later.
    pub const fn since_1970(&self, time: Time) -> u64 {
        self.since_1970.saturating_add(time.0)
    }
}
